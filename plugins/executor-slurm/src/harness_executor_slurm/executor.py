"""The executor `slurm`: submits trials in arrays, waits for them, ends them, and settles what a dead driver left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import Executor, Job, Outcome
from harness.errors import MeasurementError
from harness.executor import Listener
from harness.records.paths import MEASUREMENT
from harness_executor_slurm import cluster
from harness_executor_slurm.cluster import Nodes, SlurmError, shown
from harness_executor_slurm.requirements import RefusalError, request
from harness_executor_slurm.settings import SlurmOptions
from harness_executor_slurm.submission import FOLDER, job_name, submit
from harness_executor_slurm.watch import FOLLOW_S, Element, Watch

AT_ONCE: Final = 1000
"""Trials waited for at once. A waiting thread costs some 20 kB and no work; elements of arrays that are beyond run all
the same, and are looked at when their turn comes."""
GONE_S: Final = 20.0
"""How long jobs that were cancelled are waited for."""
SEEN_S: Final = 60.0
"""How long a measurement may take to show on a network file system; their caches keep names for up to a minute."""


@dataclass(slots=True)
class Batch:
    """Trials that ask for the same and become one array, when the first of them is asked for."""

    jobs: list[Job] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)
    refusal: Outcome | None = None


class SlurmExecutor(Executor):
    """Submits each array when the first of its trials is asked for, so that a long run does not fill the queue.

    Args:
        options: what the jobs ask for besides what their points require.
    """

    def __init__(self, options: SlurmOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._batches: dict[str, tuple[Batch, int]] = {}
        self._watch = Watch(options.poll, options.queue)
        self._offer: list[Nodes] | None = None
        self._unknown: set[str] = set()  # names of jobs whose submission ended in an error: some may be in the queue
        self._closed = False

    @property
    def at_once(self) -> int:
        """All trials that were told of, up to a bound."""
        return max(1, min(len(self._batches), AT_ONCE))

    def recover(self, folder: Path, listener: Listener) -> None:
        """Takes what an earlier driver left waiting off the queue, and waits for what still runs.

        What runs is worth waiting for: it writes its measurement into the run, and the trial is not run again.
        """
        if not (folder / FOLDER).is_dir():
            return
        name = job_name(folder.resolve())
        told = ""
        try:
            while True:
                cluster.cancel_named(name, waiting_only=True)
                running = cluster.queue(name, ended=False)
                if not running:
                    return
                text = f"waiting for {len(running)} trials of an earlier driver; `scancel --name={name}` ends them"
                if text != told:
                    listener({"type": "note", "text": text})
                    told = text
                time.sleep(FOLLOW_S)
        except SlurmError as error:
            raise MeasurementError(
                f"cannot tell whether trials of an earlier driver still run: {error}", where=str(folder)
            ) from None

    def begin(self, jobs: Iterable[Job]) -> None:
        """Gathers trials that ask for the same into arrays.

        Raises:
            MeasurementError: Slurm is not here, or does not answer.
        """
        accepted = "a machine from which jobs can be submitted to Slurm"
        if missing := cluster.missing():
            raise MeasurementError(f"there is no {missing} on this machine", accepted=accepted)
        try:
            self._offer = cluster.offer()
        except SlurmError as error:
            raise MeasurementError(f"Slurm does not answer: {error}", accepted=accepted) from None
        longest = cluster.longest_array()
        open_batches: dict[str, Batch] = {}
        for job in jobs:
            like = repr((job.measured, sorted(job.requires.items(), key=str)))
            batch = open_batches.get(like)
            if batch is None or len(batch.jobs) >= longest:
                batch = open_batches[like] = Batch()
            self._batches[_key(job)] = (batch, len(batch.jobs))
            batch.jobs.append(job)

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Waits for one trial's job, which is submitted alone where `begin` was not told of it."""
        element = self._element(job)
        if isinstance(element, Outcome):
            return element
        try:
            outcome = element.wait(listener)
        except BaseException:
            with contextlib.suppress(SlurmError):
                cluster.cancel(element.id)
            raise
        if outcome.ok and not _seen(job.folder):
            where = f"the node wrote a measurement that this machine does not see in {job.folder}"
            return Outcome(ok=False, reason=f"{where}: the store must lie on a file system that the nodes share")
        return outcome

    def _element(self, job: Job) -> Element | Outcome:
        """The job of a trial, submitted if it is not yet; or why there is none."""
        with self._lock:
            batch, index = self._batches.pop(_key(job), (Batch([job]), 0))
            if batch.refusal is None and not batch.elements:
                try:
                    batch.elements = self._submitted(batch.jobs)
                except RefusalError as refusal:
                    batch.refusal = Outcome(ok=False, reason=refusal.reason, skipped=refusal.skipped)
                except Exception as error:  # noqa: BLE001 - not to be submitted again by each trial of the array
                    said = str(error) if isinstance(error, SlurmError) else repr(error)
                    batch.refusal = Outcome(ok=False, reason=f"the job was not submitted: {said}")
            return batch.refusal or batch.elements[index]

    def _submitted(self, jobs: Sequence[Job]) -> list[Element]:
        if self._closed:
            raise RefusalError("the executor was closed", skipped=False)
        if self._offer is None:
            self._offer = cluster.offer()
        run = jobs[0].folder.parent.resolve()
        asked = request(jobs[0].requires, self._offer, self._options.licenses)
        self._unknown.add(job_name(run))
        try:
            ids = submit(run, jobs, asked, self._options)
        except RefusalError as refusal:
            said = f"{refusal.reason}; the cluster offers {shown(self._offer)}"
            raise RefusalError(said, skipped=refusal.skipped) from None
        self._unknown.discard(job_name(run))
        offered = shown(self._offer)
        elements = [Element(id_, job, offered) for id_, job in zip(ids, jobs, strict=True)]
        self._watch.add(job_name(run), elements)
        return elements

    def close(self) -> None:
        """Cancels what was submitted and has not ended, and waits a while until it is gone."""
        with self._lock:  # a submission that is under way has its id afterwards
            self._closed = True
            left = {*self._watch.under_way(), *self._unknown}
        try:
            for name in left:
                cluster.cancel_named(name)
            deadline = time.monotonic() + GONE_S
            while any(cluster.queue(name, ended=False) for name in left) and time.monotonic() < deadline:
                time.sleep(FOLLOW_S / 4)
        except SlurmError:
            pass  # Slurm is out of reach: what runs there runs on, and a resumed run settles it
        self._watch.close("the executor was closed")


def _key(job: Job) -> str:
    return str(job.folder.resolve())


def _seen(folder: Path) -> bool:
    deadline = time.monotonic() + SEEN_S
    while not (folder / MEASUREMENT).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(FOLLOW_S / 4)
    return True
