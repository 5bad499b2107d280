"""The executor `ray`: a keeper on the node that the cluster picks for each trial; files come back, measurement last."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from harness import Executor, Job, MeasurementError, Outcome
from harness.executor import JOB, Listener
from harness_executor_ray import RayOptions, delivery, keeper, manifest, parcel, placement
from harness_executor_ray.cluster import Cluster
from harness_executor_ray.placement import Request

_POLL_S: Final = 0.5
_TAKE_S: Final = 10.0
_ANSWER_S: Final = 180.0
"""A node that says nothing for so long is lost, whatever Ray thinks."""
_CLOSE_S: Final = 8.0
_SIDE_BY_SIDE: Final = 256
"""Trials asked for side by side on few nodes with many processors: each costs this process a thread."""


class _Ended(Exception):  # noqa: N818 - an end, not always an error
    """The trial is over before it had an outcome of its own; the message says why."""


@dataclass(slots=True)
class _Visit:
    """A keeper, and whether it has its place on a node yet."""

    keeper: Any
    placed: bool = False


class RayExecutor(Executor):
    """Runs each trial where the cluster has what it requires.

    A trial that measures has its node to itself among all trials of the harness on the cluster; trials that model their
    hardware share one. Driver and nodes agree on sources and versions, by digest.
    """

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._cluster: Cluster | None = None
        self._keeper_class: Any = None
        self._parcel: tuple[Any, ...] = ()
        self._manifest: dict[str, Any] = {}
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._visits: dict[int, _Visit] = {}
        self._freed = 0.0
        self._agreed: set[str] = set()

    @property
    def at_once(self) -> int:
        """As many as were asked for, else one a node, or one a processor up to 256; the cluster decides which wait."""
        if self._options.at_most is not None:
            return self._options.at_most
        nodes = self._connected().nodes()
        processors = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
        return max(len(nodes), min(int(processors), _SIDE_BY_SIDE), 1)

    def begin(self, jobs: Iterable[Job]) -> None:  # noqa: ARG002 - each is asked for when its turn comes
        """Connects to the cluster, so that a wrong address ends the run before its first trial."""
        self._connected()

    def _connected(self) -> Cluster:
        with self._changed:
            if self._cluster is None:
                cluster = Cluster(self._options.address)
                ray = cluster.ray
                ray.cloudpickle.register_pickle_by_value(keeper)
                self._keeper_class = ray.remote(keeper.Keeper)
                if self._options.environment != "ignore":
                    self._manifest = manifest.describe()
                if self._options.environment == "ship":
                    digest, packed = parcel.pack()
                    self._parcel = (digest, ray.put(packed))
                self._cluster = cluster
            return self._cluster

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial to its end."""
        if self._closed.is_set():
            return Outcome(ok=False, reason="the executor was closed")
        cluster = self._connected()
        options = self._options
        nodes = cluster.nodes()
        asked = placement.request(job.requires, nodes, measured=job.measured, share_nodes=options.share_nodes)
        if not options.autoscaling and not any(asked.fits(node) for node in nodes):
            return Outcome(
                ok=False, skipped=True, reason=f"requires {asked}; the cluster has {placement.describe(nodes)}"
            )
        try:
            with self._visit(asked) as visit:
                return self._stay(visit, job, asked, listener)
        except (_Ended, MeasurementError) as error:
            return Outcome(ok=False, reason=str(error))
        except OSError as error:
            return Outcome(ok=False, reason=f"the trial's files could not be kept: {error}")
        except cluster.ray.exceptions.RayError as error:
            return Outcome(ok=False, reason=_said(error))

    @contextmanager
    def _visit(self, asked: Request) -> Iterator[_Visit]:
        """A keeper, wherever the cluster puts it; it is gone afterwards, and so is what it kept."""
        ray = self._connected().ray
        # One more call at a time than the one that waits for news: close.
        kept = self._keeper_class.options(max_concurrency=2, max_restarts=0, **asked.options()).remote()
        visit = _Visit(kept)
        with self._changed:
            self._visits[id(visit)] = visit
        try:
            yield visit
        finally:
            with suppress(ray.exceptions.RayError):
                if visit.placed:
                    ray.wait([kept.close.remote()], timeout=_CLOSE_S)
            with suppress(ray.exceptions.RayError):
                ray.kill(kept)
            with self._changed:
                del self._visits[id(visit)]
                self._freed = time.monotonic() if visit.placed else self._freed
                self._changed.notify_all()

    def _stay(self, visit: _Visit, job: Job, asked: Request, listener: Listener) -> Outcome:
        """What becomes of a trial, from its place to its files."""
        kept = visit.keeper
        where = self._place(visit, asked)
        listener({"type": "progress", "phase": "placed", "text": f"on {where['host']}", "done": None})
        threads = bool(job.requires.get("cpu"))
        self._answer(kept.prepare.remote(self._options.python, threads=threads, parcel=self._parcel))
        self._compare(kept, where)
        file = job.folder / JOB
        text = file.read_text(encoding="utf-8") if file.exists() else None
        self._answer(kept.start.remote(self._order(job, where, asked), text))
        ended = self._follow(kept, listener)
        try:
            if not ended["skipped"]:
                self._fetch(kept, job)
        except (_Ended, MeasurementError, self._connected().ray.exceptions.RayError):
            if ended["ok"]:
                raise
        return Outcome(ended["ok"], ended["reason"], tuple(ended["log_tail"]), ended["skipped"])

    def _order(self, job: Job, where: dict[str, Any], asked: Request) -> dict[str, Any]:
        """What the process on the node is told, and what goes into the record."""
        facts = {
            "name": "ray",
            "version": self._connected().ray.__version__,
            **where,
            "asked": str(asked),
            "shared_node": asked.shared,
            "environment": self._options.environment,
        }
        return {
            "trial_id": job.trial_id,
            "timeout_s": job.timeout_s,
            "silence_s": job.silence_s,
            "environment": dict(job.environment),
            "measured": job.measured,
            "facts": facts,
        }

    def _compare(self, kept: Any, where: dict[str, Any]) -> None:
        """Raises _Ended where the node would run something else than what is here; each node is looked at once."""
        if self._options.environment == "ignore" or where["node"] in self._agreed:
            return
        found = self._answer(kept.manifest.remote(inspect.getsource(manifest)))
        node = f"{where['host']} ({where['node'][:8]})"
        if "fault" in found:
            raise _Ended(f"the environment of node {node} cannot be looked at: {found['fault']}")
        differing = manifest.differences(self._manifest, found)
        if differing:
            hint = "" if self._options.environment == "ship" else "; `environment: ship` runs this machine's there"
            raise _Ended(f"the environment of node {node} differs: {', '.join(differing)}{hint}")
        self._agreed.add(where["node"])

    def _follow(self, kept: Any, listener: Listener) -> dict[str, Any]:
        """Passes the trial's messages on until it ends; returns how."""
        while True:
            for news in self._answer(kept.take.remote(_TAKE_S)):
                if "end" in news:
                    return dict(news["end"])
                listener(news["message"])

    def _fetch(self, kept: Any, job: Job) -> None:
        read: Callable[[str, int, int], bytes] = lambda *piece: self._answer(kept.read.remote(*piece))  # noqa: E731
        delivery.receive(job.folder, self._answer(kept.files.remote()), read)

    def _place(self, visit: _Visit, asked: Request) -> dict[str, Any]:
        """Waits for a node; time in which other trials of this run are under way does not count."""
        ray = self._connected().ray
        reference = visit.keeper.where.remote()
        since = time.monotonic()
        while not ray.wait([reference], timeout=_POLL_S)[0]:
            if self._closed.is_set():
                raise _Ended("the executor was closed")
            with self._changed:
                busy = any(each.placed for each in self._visits.values())
                since = time.monotonic() if busy else max(since, self._freed)
            if time.monotonic() - since > self._options.timeout_s:
                raise _Ended(self._not_placed(asked))
        found = dict(ray.get(reference))
        with self._changed:
            visit.placed = True
        return found

    def _not_placed(self, asked: Request) -> str:
        cluster = self._connected()
        free = placement.shown(cluster.ray.available_resources())
        return (
            f"no node took the trial within {self._options.timeout_s:g} s; it requires {asked}; "
            f"free now: {free or 'nothing'}; the cluster has {placement.describe(cluster.nodes())}"
        )

    def _answer(self, reference: Any) -> Any:
        """What a keeper answers; raises _Ended where it does not, or where this executor was closed."""
        ray = self._connected().ray
        until = time.monotonic() + _ANSWER_S
        while not ray.wait([reference], timeout=_POLL_S)[0]:
            if self._closed.is_set():
                raise _Ended("the executor was closed")
            if time.monotonic() > until:
                raise _Ended(f"the node did not answer for {_ANSWER_S:g} s")
        return ray.get(reference)

    def close(self) -> None:
        """Ends every trial on the nodes and disconnects."""
        self._closed.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._visits, _CLOSE_S + 2 * _POLL_S)
            left = list(self._visits.values())
        if self._cluster is None:
            return
        for visit in left:
            self._cluster.ray.kill(visit.keeper)
        self._cluster.close()


def _said(error: Exception) -> str:
    """What Ray says of a keeper, a worker or a node that is gone, in one line without addresses."""
    lines = [line.strip() for line in str(error).splitlines()]
    skipped = ("class_name:", "actor_id:", "namespace:", "ip:", "pid:", "name:")
    text = " ".join(line for line in lines if line and not line.startswith(skipped))
    return f"the cluster lost the trial: {type(error).__name__}: {text[:500]}"
