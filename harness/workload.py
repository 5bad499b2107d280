"""The role of a workload: does the work and writes a row for each work item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.backend import Backend, Device
from harness.functional_unit import FunctionalUnit
from harness.meter import Node
from harness.options import NoOptions, Options
from harness.quantity import Method, Unavailable
from harness.sample import Scope
from harness.suite_paths import OptionFault


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the work items that a workload or a scorer fills.

    Attributes:
        name: with its SI unit as suffix where it has one (`latency_s`).
        unit: SI symbol, `1` for a count or ratio.
        summary: what it holds.
        higher_is_better: direction, for reports and gates; None for neither.
        bars: limits that a report sweeps where a functional unit has a condition on the column; deciles if empty.
        method: how its values are obtained; `simulated` where no machine did the work they speak of.
    """

    name: str
    unit: str
    summary: str = ""
    higher_is_better: bool | None = None
    bars: tuple[float, ...] = ()
    method: Method = Method.MEASURED


COMMON_COLUMNS = (
    Column("start_s", "s", "start of the item, from the opening of its window"),
    Column("first_token_s", "s", "first token or first result, from the opening of the window"),
    Column("end_s", "s", "completion, from the opening of the window"),
)
"""Columns that every work item may carry besides `item_id` and `status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """What a workload may know when it prepares.

    Attributes:
        backend: the opened backend; a workload that needs a framework's device asks it for one.
        seed: differs between trials, equal for the same trial of two compared points.
        folder: the trial's own folder, for side-cars such as images.
        cache: a folder shared between runs, for what is expensive to build (trained models).
        progress: reports progress (text, done share or None); silence for too long ends the trial.
        log: writes a line into the trial's log.
        suite_folder: the folder that paths in the suite are relative to: that of its file.
        windows_done: measured windows that an earlier attempt at this trial finished, in the same folder; `prepare`
            restores the state after the last of them. 0 unless the spec says `resumable`.
    """

    backend: Backend
    seed: int
    folder: Path
    cache: Path
    progress: Callable[[str, float | None], None]
    log: Callable[[str], None]
    suite_folder: Path = Path()
    windows_done: int = 0


@dataclass(frozen=True, slots=True)
class ToFetch:
    """Something that `Workload.fetch` has yet to bring.

    Attributes:
        what: in words, such as `builtin:town is trained`; several points that need the same thing say the same.
        seconds: about how long it takes on a machine that does nothing else; None where that is not known.
    """

    what: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchContext:
    """What a workload may know when it fetches.

    Attributes:
        cache: a folder shared between runs, for what is expensive to build or far away.
        progress: reports progress (text, done share or None); silence for too long ends the trial.
        log: writes a line into the trial's log.
    """

    cache: Path
    progress: Callable[[str, float | None], None]
    log: Callable[[str], None]


class Window(Protocol):
    """The measured interval that a workload writes its rows into. Times are seconds since the window opened."""

    @property
    def index(self) -> int:
        """0, 1, ... for measured windows, -1 while warming up."""

    @property
    def iteration(self) -> int:
        """How many iterations this window has finished."""

    def now_s(self) -> float:
        """Seconds since the window opened, on the monotonic clock."""

    def wants_more(self) -> bool:
        """Whether the window is still shorter than the suite asks for."""

    def item(self, item_id: str, *, status: str = "ok", **columns: float | None) -> None:
        """Records one work item. Columns must be declared; a missing value is None, never 0."""

    def output(self, item_id: str, value: object) -> None:
        """Keeps what the item produced (a JSON value), for scoring after the windows."""

    def device(
        self,
        device: str,
        *,
        role: str = "",
        busy_s: float,
        reserved_s: float,
        stands_for: str = "",
        phases: Mapping[str, float] | None = None,
    ) -> None:
        """Records how long a device served a role; `stands_for` names the product that it only pretends to be.

        `phases` splits the busy seconds by what was done, where its power is declared by phase.
        """

    def simulated_duration(self, seconds: float) -> None:
        """Adds to how long the modelled work of this window takes on its own clock, where no machine does the work.

        Rates, mean power and all that is charged by time use that clock; device rows are seconds of it. What the
        model itself took on this machine is kept apart. A window that says it is modelled, whatever its offer says.
        """

    def mark(self, name: str) -> AbstractContextManager[None]:
        """Opens a nested span (`steady`, `role:draft`) whose energy is read apart."""


class Workload(ABC):
    """A piece of work, one object per trial. It never measures its own energy and never names a meter."""

    def fetch(self, context: FetchContext) -> None:  # noqa: B027 - most work has all it needs
        """Downloads or builds into the cache what `prepare` loads; called where the spec names options in `fetched_by`.

        In a process of its own, before any device is locked, so that no other run waits for it: without a backend, on
        the host's processors. `prepare` comes in another process, and must do without it where it was not called.
        """

    def prepare(self, context: TrialContext) -> None:  # noqa: B027 - small workloads load nothing
        """Loads models and data. Not measured."""

    def devices(self) -> Sequence[Device]:
        """Devices that do the work beside the backend's, such as a server's; meters open with them too."""
        return ()

    def processes(self) -> Mapping[str, int]:
        """Process ids by role, asked once after `prepare`; a meter that reads processes gives each its own scope."""
        return {}

    def nodes(self) -> Sequence[Node]:
        """Nodes of a cluster that do part of the work, asked once after `prepare`; meters are opened there too."""
        return ()

    def charged(self, read: Mapping[tuple[str, str], Scope]) -> Collection[str] | Unavailable | None:  # noqa: ARG002
        """Scopes whose energy is that of the work; asked once, when every meter is open. None for all of them.

        A load generator is not what it measures: energy that is not charged stays in the record, by scope, and is in
        no total and no cost. Unavailable, with the reason, where no meter reads what does the work.

        Args:
            read: (meter, scope) -> the scope, of all that is read.
        """
        return None

    def elsewhere(self) -> bool:
        """Whether another machine than this one does the work, as a remote server does; asked once, after `prepare`.

        What this machine is made of is then none of the work's: of all devices only those of `devices` and `nodes` are
        charged, so that impact meters know no processor and no memory unless the suite declares them.
        """
        return False

    @abstractmethod
    def step(self, window: Window) -> None:
        """One iteration. The core repeats it until the window is long enough."""

    def run(self, window: Window) -> None:
        """The whole window. Override it where the work decides when it ends, as serving does."""
        while window.wants_more():
            self.step(window)

    def after_window(self, window: Window) -> None:  # noqa: B027 - most work is measured whole
        """What is measured apart or judged, after a measured window has closed; its time and energy are not charged.

        Of the window, `mark`, `item` and `output` may be used: rows may wait here for their quality.
        """

    def validate(self) -> Mapping[str, float]:
        """Quality between windows, outside the measured time (training)."""
        return {}

    def finished(self) -> bool:
        """Whether no further window is wanted, asked after each: training that reached its target ends its trial."""
        return False

    def why_zero(self) -> Mapping[str, str]:
        """Column -> why it sums to 0, where the workload can say it (`mIoU 0.45 not reached in 240 steps`)."""
        return {}

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record: model digests, perplexity, data set. JSON values only.

        Three names have a meaning in reports. `ranked_as`: points in which it differs are never ranked with each other.
        `means`: column -> what it counts under these options, where that is part of a functional unit's definition:
        `{"target_reached": "mIoU 0.5 of 16 validation images"}`. A name that ends in `_by_class`: name of a class ->
        number or None, shown as a table with the points side by side.
        """
        return {}

    def flags(self) -> Sequence[str]:
        """What a reader of the results must know, one sentence each; asked with the facts."""
        return ()

    def close(self) -> None:  # noqa: B027 - nothing held by default
        """Frees what `prepare` took. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """The plugin spec of a workload. Making one imports nothing heavy and reads no file.

    Attributes:
        name: what a suite writes under `workload:`.
        summary: one line for `harness plugins`.
        factory: options -> Workload.
        columns: columns it fills besides the common ones.
        functional_units: default units, used where a case names none.
        units_by: options -> default units that depend on them, in place of those of `functional_units` by name: a
            latency target is the suite's; None for a unit that these options do not have.
        options: model of the options.
        backends: names of the backends it runs on; empty for any.
        probe: options -> why it cannot run here, or None; runs in a process of its own.
        modelled: its numbers come from a model of the hardware: trials may run side by side, every number is
            `simulated`, and without `Window.simulated_duration` nothing is divided or multiplied by time.
        check: options and the suite's folder -> what is wrong with them that their model cannot see: a missing file or
            folder, an unknown name. Called while planning, in the planner's process: it imports nothing heavy, runs
            nothing and loads nothing. Options of the types of `harness.suite_paths` are absolute paths in it, and in
            the workload.
        fetched_by: options that decide what `Workload.fetch` brings, once for trials that agree in them; empty where it
            brings nothing.
        to_fetch: options and the cache -> what `fetch` has yet to bring into it, in its order, for `harness plan` to
            tell. Called as `check` is: it looks at files and imports nothing heavy.
        fork_safe: importing the plugin and making its work opens no device, starts no thread and draws no random number
            that trials would share, so that `run` may fork trials that read no energy from one process that has done
            both.
        resumable: `after_window` keeps the work's state in the trial's folder, and `prepare` restores it after
            `TrialContext.windows_done` windows: a trial that was interrupted goes on with `harness run --resume`, and
            the windows that it had finished keep their cost and their rows.
    """

    name: str
    summary: str
    factory: Callable[[Any], Workload]
    columns: tuple[Column, ...] = ()
    functional_units: Mapping[str, FunctionalUnit] = field(default_factory=dict)
    units_by: Callable[[Any], Mapping[str, FunctionalUnit | None]] | None = None
    options: type[Options] = NoOptions
    backends: tuple[str, ...] = ()
    probe: Callable[[Any], Unavailable | None] | None = None
    modelled: bool = False
    check: Callable[[Any, Path], Iterable[OptionFault | str]] | None = None
    fetched_by: tuple[str, ...] = ()
    to_fetch: Callable[[Any, Path], Iterable[ToFetch]] | None = None
    fork_safe: bool = False
    resumable: bool = False
