"""The client's side of a pair: starts the roles' processes, joins them, hears what they say, ends them."""

from __future__ import annotations

import contextlib
import secrets
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from harness.backend import Device
from harness.errors import MeasurementError
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.runtime.launching import Launcher, LocalLauncher, RoleProcess
from harness_disaggregated_serving.runtime.requests import PromptedRequest, Settings
from harness_disaggregated_serving.transport.faults import LinkError
from harness_disaggregated_serving.transport.link import Carrier, Inbox, Link, LinkOptions, Message
from harness_disaggregated_serving.transport.opening import listen

Address = tuple[str, int]

_END_TOLD_S: Final = 0.2
"""A process that closed its link has ended after so long, if it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """What a pair is made of.

    Attributes:
        model: fields of `SeededModel` or `FolderModel`.
        dtype: of both models, as torch names it.
        devices: torch device of each role.
        threads: threads of each role's process.
        rows: rows of a tile (see `engine`).
        slow_down: per role, emulated: each step takes so many times its own duration.
        carrier: how caches and rows travel between the roles.
        bytes_per_s: shaped bandwidth between the roles; None for none.
        latency_s: emulated one-way delay between the roles.
        timeout_s: longest silence of a link.
        start_timeout_s: for starting processes and loading models.
        reroute: where `old` connects to, given where `new` listens; for tests that put a faulty wire between.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    devices: Mapping[str, str] = field(default_factory=lambda: {"new": "cpu", "old": "cpu"})
    threads: int = 1
    rows: int = 8
    slow_down: Mapping[str, float] = field(default_factory=dict)
    carrier: Carrier = Carrier.AUTO
    bytes_per_s: float | None = None
    latency_s: float = 0.0
    timeout_s: float = 10.0
    start_timeout_s: float = 120.0
    reroute: Callable[[Address], Address] = lambda address: address


ENGINES: Mapping[Configuration, Mapping[str, tuple[str, ...]]] = {
    Configuration.STANDALONE: {"new": ("target",)},
    Configuration.SPEC_LOCAL: {"new": ("target", "draft")},
    Configuration.DPD: {"new": ("target",), "old": ("target",)},
    Configuration.DSD: {"new": ("target",), "old": ("draft",)},
}
"""The models that each role holds."""


class News(NamedTuple):
    """Something a role said, or its loss (`lost`, with a reason)."""

    role: str
    kind: str
    fields: Mapping[str, Any]


@dataclass(slots=True)
class _Member:
    process: RoleProcess
    link: Link
    engines: Mapping[str, Mapping[str, int]]
    pid: int
    device: Device
    clock: str


class Pair:
    """Running roles. Use it as a context manager: no process outlives it.

    Args:
        options: what it is made of.
        configurations: those it must be able to take; decides which processes start and which models they hold.
        launcher: where the processes start; children of this one if not given.

    Raises:
        MeasurementError: a role did not start; the message holds what it said last.
    """

    def __init__(
        self, options: PairOptions, configurations: Sequence[Configuration], launcher: Launcher | None = None
    ) -> None:
        self._options = options
        self._launcher: Launcher = launcher or LocalLauncher()
        self._inbox = Inbox()
        self._members: dict[str, _Member] = {}
        self._starting: dict[str, RoleProcess] = {}
        self.epoch = 0
        self.carrier: str | None = None
        self.one_clock = True
        self.busy_s: dict[str, float] = {}
        """Busy seconds of each role since its start, as it told last: all that is known of one that was lost."""
        wanted: dict[str, set[str]] = {}
        for configuration in configurations:
            for role, engines in ENGINES[configuration].items():
                wanted.setdefault(role, set()).update(engines)
        try:
            self._start(wanted)
            if len(wanted) > 1:
                self._join()
        except BaseException:
            self.close()
            raise

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that are alive."""
        return tuple(self._members)

    def pid(self, role: str) -> int:
        """Process id of a role."""
        return self._members[role].pid

    def device(self, role: str) -> Device:
        """A role's device as its driver reports it; UUID `cpu` for a processor."""
        return self._members[role].device

    def engine(self, role: str, name: str) -> Mapping[str, int]:
        """What a role said about a model it holds: bytes a token, weight bytes, vocabulary, context."""
        return self._members[role].engines[name]

    def holds(self, role: str, name: str) -> bool:
        """Whether a living role holds a model."""
        return role in self._members and name in self._members[role].engines

    def _start(self, wanted: Mapping[str, set[str]]) -> None:
        secret = secrets.token_bytes(32)
        options = LinkOptions(carrier=Carrier.TCP, timeout_s=self._options.timeout_s)
        host = self._launcher.client_host()
        with contextlib.closing(listen(secret, self._inbox, options, host=host, name="a role")) as listener:
            for role, engines in wanted.items():
                job = self._job(role, sorted(engines, reverse=True), secret, listener.address)
                self._starting[role] = self._launcher.launch(role, job)
            deadline = time.monotonic() + self._options.start_timeout_s
            links: list[Link] = []
            while len(links) < len(wanted):
                self._watch_start(deadline, listener.refused)
                with contextlib.suppress(LinkError):
                    links.append(listener.accept(0.1))
        for _ in links:
            arrival = self._inbox.get(self._options.timeout_s)
            if arrival is None or not isinstance(arrival.content, Message):
                raise MeasurementError(f"a role of the pair did not report: {arrival and arrival.content}")
            fields = arrival.content.fields
            role = fields["role"]
            arrival.link.name = role
            process, device = self._starting.pop(role), Device(**fields["device"])
            self._members[role] = _Member(
                process, arrival.link, fields["engines"], fields["pid"], device, fields["clock"]
            )

    def _watch_start(self, deadline: float, refused: Sequence[str]) -> None:
        for role, process in self._starting.items():
            ended = process.ended()
            if ended is not None:
                raise MeasurementError(f"the process of role {role!r} ended {ended} at its start")
        if time.monotonic() > deadline:
            why = f"; {refused[-1]}" if refused else ""
            raise MeasurementError(f"the pair did not start in {self._options.start_timeout_s:g} s{why}")

    def _job(self, role: str, engines: list[str], secret: bytes, address: Address) -> dict[str, Any]:
        options = self._options
        return {
            "role": role,
            "host": address[0],
            "port": address[1],
            "secret": secret.hex(),  # on standard input: neither arguments nor environment are private
            "engines": engines,
            "model": dict(options.model),
            "dtype": options.dtype,
            "device": options.devices[role],
            "threads": options.threads,
            "rows": options.rows,
            "slow_down": options.slow_down.get(role, 1.0),
            "timeout_s": options.timeout_s,
            "link": {
                "carrier": options.carrier.value,
                "bytes_per_s": options.bytes_per_s,
                "latency_s": options.latency_s,
            },
        }

    def _join(self) -> None:
        timeout_s = self._options.timeout_s
        self.one_clock = len({member.clock for member in self._members.values()}) == 1
        here = {"host": self._launcher.role_host("new"), "timeout_s": timeout_s, "one_clock": self.one_clock}
        self._members["new"].link.send("listen", here)
        where = self._await("listening", timeout_s)
        host, port = self._options.reroute((where["host"], where["port"]))
        self._members["old"].link.send("join", {"host": host, "port": port, "one_clock": self.one_clock})
        self.carrier = self._await("joined", 2 * timeout_s)["carrier"]

    def _await(self, kind: str, timeout_s: float) -> Mapping[str, Any]:
        """The next news of one kind; other news are dropped. Raises MeasurementError for a loss or silence."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            news = self.news(left)
            if news is not None and news.kind == kind:
                return news.fields
            if news is not None and news.kind in {"lost", "peer-lost"}:
                raise MeasurementError(f"the pair broke while {kind!r} was due: {news.role}: {news.fields['reason']}")
        raise MeasurementError(f"no role said {kind!r} in {timeout_s:g} s")

    def configure(self, settings: Settings) -> None:
        """Gives every living role its duty; whatever they were doing is forgotten."""
        self.epoch += 1
        for member in self._members.values():
            fields = {"epoch": self.epoch, "settings": settings.to_json(), "paired": len(self._members) > 1}
            member.link.send("configure", fields)
        waiting = set(self._members)
        while waiting:
            news = self.news(self._options.timeout_s)
            if news is not None and news.kind == "peer-lost" and len(self._members) == 1:
                continue  # what the survivor says about the one that was given up
            if news is None or news.kind in {"lost", "peer-lost"}:
                why = "silence" if news is None else f"{news.role}: {news.fields['reason']}"
                raise MeasurementError(f"the pair could not be configured: {why}")
            if news.kind == "configured":
                waiting.discard(news.role)

    def submit(self, role: str, request: PromptedRequest) -> None:
        """Sends a role a request; raises LinkError."""
        ids = array("i", request.prompt)
        fields = {"name": request.name, "output_tokens": request.output_tokens, "seed": request.seed}
        self._members[role].link.send("request", {"epoch": self.epoch, **fields}, [memoryview(ids)])

    def drop(self, name: str) -> None:
        """Tells every living role to forget a request."""
        for member in self._members.values():
            with contextlib.suppress(LinkError):
                member.link.send("drop", {"name": name})

    def reports(self) -> dict[str, Mapping[str, Any]]:
        """Busy and CPU seconds and bytes sent to the other role, of every living role, since its start."""
        found: dict[str, Mapping[str, Any]] = {}
        for member in self._members.values():
            with contextlib.suppress(LinkError):
                member.link.send("report")
        deadline = time.monotonic() + self._options.timeout_s
        while set(self._members) - set(found) and (left := deadline - time.monotonic()) > 0:
            news = self.news(left)
            if news is not None and news.kind == "report":
                found[news.role] = news.fields
            elif news is not None and news.kind == "lost":
                self.lose(news.role)
        return found

    def news(self, timeout_s: float) -> News | None:
        """What a role said next, or that it is lost; None when nothing came in time. Old epochs are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            arrival = self._inbox.get(max(0.0, deadline - time.monotonic()))
            if arrival is None:
                return None
            role = next((name for name, member in self._members.items() if member.link is arrival.link), None)
            if role is None:
                continue
            if not isinstance(arrival.content, Message):
                return News(role, "lost", {"reason": self._why(role, arrival.content)})
            self.busy_s[role] = arrival.content.fields.get("busy_s", self.busy_s.get(role, 0.0))
            if arrival.content.kind == "broken":
                return News(role, "lost", arrival.content.fields)
            if arrival.content.fields.get("epoch", self.epoch) == self.epoch:
                return News(role, arrival.content.kind, arrival.content.fields)

    def _why(self, role: str, fault: LinkError) -> str:
        ended = self._members[role].process.ended(_END_TOLD_S)
        if ended is None:
            return f"{type(fault).__name__}: {fault}"
        return f"the process of role {role!r} ended {ended}"

    def lose(self, role: str) -> None:
        """Ends a role's process at once and forgets it."""
        member = self._members.pop(role, None)
        if member is not None:
            member.process.kill()
            member.link.close()

    def close(self) -> None:
        """Ends both processes: asks, waits a little, kills."""
        for member in self._members.values():
            with contextlib.suppress(LinkError):
                member.link.send("end")
        for member in self._members.values():
            member.process.ended(3.0)
        for role in list(self._members):
            self.lose(role)
        for process in self._starting.values():
            process.kill()
        self._starting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
