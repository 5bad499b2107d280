"""Follows the trials that were submitted: one thread, one `squeue` at a time, and the journals of those that run.

A trial ends when its node says so in the journal, or when Slurm says that the job is over and the journal keeps silent.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness import Job, Outcome
from harness.builtin.local_executor import tail
from harness.executor import Listener
from harness.records.paths import MEASUREMENT
from harness_executor_slurm import cluster, journal
from harness_executor_slurm.cluster import Row, SlurmError
from harness_executor_slurm.node import SUPERSEDED, TIME_LIMIT, UNSEEN

FOLLOW_S: Final = 1.0
"""How often journals are read."""
READ_AT_ONCE: Final = 200
"""Journals read each time, those first that were not read for longest: a shared file system is others' as well."""
SETTLE_S: Final = 5.0
"""How long a job must be over, and its journal silent, before that is taken for the end."""
LOST_S: Final = 3600.0
"""How long Slurm may be out of reach before the trials fail; a controller that restarts takes minutes."""
_FINAL: Final = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
        "REVOKED", "TIMEOUT", "",
    }
)  # fmt: skip
"""States that a job does not leave, unless it is requeued; the empty one: it is not in the queue."""
_ON_NODE: Final = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING"})
_UNMET: Final = frozenset({"BadConstraints", "PartitionConfig", "PartitionNodeLimit"})
_STUCK: Final = _UNMET | {"PartitionTimeLimit", "InvalidAccount", "InvalidQOS"}
"""Why a job waits that Slurm took and will not start unless somebody changes the cluster."""
_BY_STATE: Final = {
    "BOOT_FAIL": "node {node} did not boot",
    "CANCELLED": "the Slurm job was cancelled",
    "DEADLINE": "the Slurm job reached its deadline",
    "NODE_FAIL": "node {node} failed while the trial ran",
    "OUT_OF_MEMORY": "the Slurm job needed more memory than it had asked for",
    "PREEMPTED": "the Slurm job gave way to a more important one and was not requeued",
    "TIMEOUT": TIME_LIMIT,
}
"""What a final state says by itself."""
_CANNOT_WRITE: Final = "0:53"
"""Exit code of a job whose log could not be opened on its node (observed with Slurm 22.05)."""


class Element:
    """A trial, as a job or as an element of an array.

    Args:
        id: `12` or `12_3`.
        job: the trial.
        offered: what the cluster offers, for a message.
    """

    def __init__(self, id: str, job: Job, offered: str = "") -> None:  # noqa: A002 - Slurm's word
        self.id = id
        self.job = job
        self.offered = offered
        self.row = Row("PENDING", "", "")
        self.outcome: Outcome | None = None
        self.follower = journal.Follower(job.folder)
        self.submitted = time.monotonic()
        self.read = 0.0
        self.over: float | None = None
        self.stuck = 0
        self._changed = threading.Condition()
        self._messages: deque[Mapping[str, object]] = deque(maxlen=200)

    def tell(self, message: Mapping[str, object]) -> None:
        """Keeps a message for the thread that waits; the oldest gives way."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def say(self, phase: str, text: str) -> None:
        """Tells how the job goes."""
        self.tell({"type": "progress", "phase": phase, "text": text, "done": None})

    def end(self, outcome: Outcome) -> None:
        """The end, once."""
        with self._changed:
            self.outcome = self.outcome or outcome
            self._changed.notify_all()

    def wait(self, listener: Listener) -> Outcome:
        """Passes messages on until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self.outcome is not None)
                messages, outcome = list(self._messages), self.outcome
                self._messages.clear()
            for message in messages:
                listener(message)
            if outcome is not None:
                return outcome


class Watch:
    """The one thread that looks.

    Args:
        poll_s: the longest time between two looks at the queue; soon after something happened it is less.
        queue_s: how long an element may wait; None for ever.
    """

    def __init__(self, poll_s: float, queue_s: float | None) -> None:
        self._poll_s = poll_s
        self._queue_s = queue_s
        self._lock = threading.Lock()
        self._elements: dict[str, dict[str, Element]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._asked = self._answered = self._event = time.monotonic()
        self._complaint = ""

    def add(self, name: str, elements: Iterable[Element]) -> None:
        """Follows elements of jobs of a name."""
        with self._lock:
            self._elements.setdefault(name, {}).update({element.id: element for element in elements})
            self._event = time.monotonic()
            if self._thread is None:
                self._answered = self._event
                self._thread = threading.Thread(target=self._look, name="harness-slurm-watch", daemon=True)
                self._thread.start()

    def under_way(self) -> dict[str, list[Element]]:
        """Elements that have not ended, by the name of their jobs."""
        with self._lock:
            return {name: list(each.values()) for name, each in self._elements.items() if each}

    def close(self, reason: str) -> None:
        """Follows nothing any more; what has not ended ends with a reason."""
        self._stop.set()
        for elements in self.under_way().values():
            for element in elements:
                element.end(Outcome(ok=False, reason=reason))
        if self._thread is not None:
            self._thread.join(2 * FOLLOW_S)

    def _look(self) -> None:
        while not self._stop.wait(FOLLOW_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - no trial may wait for a thread that is gone
                self._end_all(f"following the jobs failed: {error!r}")

    def look(self) -> None:
        """Asks Slurm if it is time to, and reads what the nodes wrote."""
        under_way = self.under_way()
        now = time.monotonic()
        if now - self._asked >= min(self._poll_s, max(FOLLOW_S, (now - self._event) / 4)):
            self._asked = now
            for name, elements in under_way.items():
                self._ask(name, elements)
        self._read_some([each for elements in under_way.values() for each in elements])
        for name, elements in under_way.items():
            for element in elements:
                if element.over is not None and time.monotonic() - element.over >= SETTLE_S:
                    element.end(conclusion(element))
                if element.outcome is not None:
                    with self._lock:
                        del self._elements[name][element.id]

    def _ask(self, name: str, elements: list[Element]) -> None:
        try:
            rows = cluster.queue(name, ended=True)
        except SlurmError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                elements[0].tell({"type": "note", "text": f"Slurm does not answer, trials go on: {error}"})
            if time.monotonic() - self._answered > LOST_S:
                self._end_all(f"Slurm did not answer for {LOST_S / 60:g} min: {error}")
            return
        self._answered, self._complaint = time.monotonic(), ""
        for element in elements:
            self._take(element, rows.get(element.id, Row("", "", element.row.node)))
        self._give_up({each: outcome for each in elements if (outcome := self._too_long(each)) is not None})

    def _take(self, element: Element, row: Row) -> None:
        """Notes what the queue says of an element."""
        now = time.monotonic()
        changed = row != element.row
        element.row = row
        if row.state in _FINAL:
            element.over = element.over or now
        else:
            element.over = None
        if changed or element.over is not None:
            self._event = now
        if row.state == "PENDING":
            element.stuck = element.stuck + 1 if row.reason in _STUCK else 0
            if changed:
                element.say("queued", f"job {element.id}: {row.reason}")
        elif changed and row.state:
            element.say("slurm", f"job {element.id}: {row.state.lower()} on {row.node}")

    def _too_long(self, element: Element) -> Outcome | None:
        """How an element ends that never starts, or not in time."""
        row = element.row
        if row.state != "PENDING":
            return None
        if element.stuck > 1:
            reason = f"Slurm took the job and cannot start it ({row.reason}); the cluster offers {element.offered}"
            asked = any(element.job.requires.values())
            return Outcome(ok=False, reason=reason, skipped=asked and row.reason in _UNMET)
        if self._queue_s is not None and time.monotonic() - element.submitted > self._queue_s:
            said = f"the job waited longer than {self._queue_s:g} s in the queue ({row.reason})"
            return Outcome(ok=False, reason=f"{said}; the cluster offers {element.offered}")
        return None

    def _give_up(self, ended: Mapping[Element, Outcome]) -> None:
        """Takes elements off the queue that are not waited for any more."""
        try:
            if ended:
                cluster.cancel("--state=PENDING", *(element.id for element in ended))
        except SlurmError:
            return  # tried again at the next look
        for element, outcome in ended.items():
            element.end(outcome)

    def _read_some(self, elements: Sequence[Element]) -> None:
        """Reads the journals of those that are over, and of some that run."""
        over = [each for each in elements if each.over is not None]
        running = [each for each in elements if each.over is None and each.row.state in _ON_NODE]
        for element in [*over, *heapq.nsmallest(READ_AT_ONCE, running, key=lambda each: each.read)]:
            element.read = time.monotonic()
            self._read(element)

    def _read(self, element: Element) -> None:
        for entry in element.follower.read():
            message = entry.get("message")
            if isinstance(message, Mapping):
                element.tell(message)
            elif entry.get("event") == "ended":
                element.end(said_by_node(entry))
                self._event = time.monotonic()

    def _end_all(self, reason: str) -> None:
        for elements in self.under_way().values():
            for element in elements:
                element.end(Outcome(ok=False, reason=reason))


def said_by_node(entry: Mapping[str, Any]) -> Outcome:
    """The outcome that a node wrote into the journal."""
    lines = tuple(map(str, entry.get("log_tail") or ()))
    return Outcome(ok=bool(entry.get("ok")), reason=str(entry.get("reason") or ""), log_tail=lines)


def conclusion(element: Element) -> Outcome:
    """How a trial ended whose node did not say so."""
    run = element.job.folder.parent
    if (element.job.folder / MEASUREMENT).exists():
        return Outcome(ok=True)
    row = element.row
    reason = _BY_STATE.get(row.state, "").format(node=row.node) or why(row, cluster.described(element.id), run)
    return Outcome(ok=False, reason=reason, log_tail=tail(run / "slurm" / f"{element.id}.log"))


def why(row: Row, said: Mapping[str, str], run: Path) -> str:
    """Why a job ended whose state does not say it, from what `scontrol` still knows.

    Args:
        row: in the queue.
        said: by `scontrol show job`; empty where Slurm has forgotten it.
        run: the run's folder.
    """
    state, node, code = (
        row.state or said.get("JobState", ""),
        row.node or said.get("NodeList", ""),
        said.get("ExitCode"),
    )
    if state in _BY_STATE:
        return _BY_STATE[state].format(node=node)
    if code in {f"{UNSEEN}:0", _CANNOT_WRITE}:
        return f"node {node} does not see the store: {run.resolve()} must lie on a file system that the nodes share"
    if code == f"{SUPERSEDED}:0":
        return "the trial was handed to another job"
    if code in {"126:0", "127:0"}:
        return f"node {node} has no such Python: the environment must lie where the nodes see it (option `python`)"
    ended = f"ended in state {state} with exit code {code}" if code else "left the queue"
    return f"the Slurm job {ended} without a word about the trial"
