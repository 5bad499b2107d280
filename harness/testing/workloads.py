"""The contract of workloads and scorers, and a window that keeps what a workload writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.backend import Backend
from harness.functional_unit import count, finite
from harness.impact import DeviceUse
from harness.options import Options
from harness.sample import now_ns
from harness.scorer import ScorerSpec
from harness.testing.checks import Checks
from harness.units import seconds
from harness.workload import COMMON_COLUMNS, TrialContext, Workload, WorkloadSpec


@dataclass(slots=True)
class RecordingWindow:
    """A window that keeps what a workload writes; implements `harness.workload.Window`.

    Attributes:
        iterations: how many iterations it asks for.
        index: -1 would be a warm-up.
        clock: monotonic nanoseconds.
    """

    iterations: int = 2
    index: int = 0
    clock: Callable[[], int] = now_ns
    iteration: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)
    outputs: dict[str, object] = field(default_factory=dict)
    uses: list[DeviceUse] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    simulated_s: float = 0.0
    _started: bool = False
    _opened_ns: int | None = None

    def now_s(self) -> float:
        """Seconds since the window was first asked."""
        if self._opened_ns is None:
            self._opened_ns = self.clock()
        return seconds(self.clock() - self._opened_ns)

    def wants_more(self) -> bool:
        """Whether another iteration is wanted."""
        self.iteration += self._started
        self._started = True
        return self.iteration < self.iterations

    def item(self, item_id: str, *, status: str = "ok", **columns: float | None) -> None:
        """Keeps a work item."""
        self.rows.append({"item_id": item_id, "status": status, **columns})

    def output(self, item_id: str, value: object) -> None:
        """Keeps what an item produced."""
        self.outputs[item_id] = value

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
        """Keeps a device row."""
        self.uses.append(
            DeviceUse(
                device=device,
                role=role,
                busy_s=busy_s,
                reserved_s=reserved_s,
                stands_for=stands_for,
                phases=dict(phases or {}),
            )
        )

    def simulated_duration(self, seconds: float) -> None:
        """Keeps how long modelled work takes on its own clock."""
        self.simulated_s += seconds

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Keeps the name of a nested span."""
        self.marks.append(name)
        yield


def trial_context(folder: Path, backend: Backend, seed: int = 0) -> TrialContext:
    """What a workload is given when it prepares, with its folders inside `folder`."""
    for name in ("trial", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return TrialContext(
        backend=backend,
        seed=seed,
        folder=folder / "trial",
        cache=folder / "cache",
        progress=lambda _text, _done: None,
        log=lambda _line: None,
    )


def check_workload(
    spec: WorkloadSpec,
    options: Mapping[str, object] | None,
    backend: Backend,
    folder: Path,
    *,
    iterations: int = 2,
    checks: Checks | None = None,
) -> RecordingWindow:
    """Holds a workload to its contract on a real backend; returns the window it wrote.

    It writes at least one item a window, each under its own id and with declared columns that hold finite numbers or
    None; its default functional units can be counted; outputs are JSON values; device rows reserve what they use;
    modelled work says how long it takes.

    Args:
        spec: the plugin spec.
        options: as a suite writes them; None for the defaults.
        backend: not yet opened; opened and closed here.
        folder: for the trial's and the cache's files.
        iterations: how many iterations the window asks for.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    known = {column.name for column in (*spec.columns, *COMMON_COLUMNS)}
    with held.that("its default functional units use declared columns"):
        for name, unit in spec.functional_units.items():
            used = {unit.sum, *(condition.column for condition in unit.where)} - {"items"}
            assert not used - known, f"functional unit {name!r} uses undeclared columns {sorted(used - known)}"
    parsed: Options = spec.options.model_validate(dict(options or {}))
    window = _one_trial(spec, parsed, backend, trial_context(folder, backend), iterations, held)
    with held.that("its items have an id each and finite numbers in declared columns"):
        _check_rows(window, known)
    with held.that("its outputs belong to items and are JSON values"):
        strange = window.outputs.keys() - {row["item_id"] for row in window.rows}
        assert not strange, f"outputs without an item: {sorted(strange)}"
        json.dumps(window.outputs, allow_nan=False)
    with held.that("its device rows reserve what they use"):
        for use in window.uses:
            assert 0 <= use.busy_s <= use.reserved_s * (1 + 1e-9), f"{use} is busy for longer than reserved"
    with held.that("modelled work says how long it takes"):
        assert not spec.modelled or window.simulated_s > 0, "no `simulated_duration`: its rates and power are missing"
    with held.that("its default functional units can be counted"):
        for name, unit in spec.functional_units.items():
            achieved = count(unit, window.rows).achieved
            assert isinstance(achieved, float), f"functional unit {name!r} cannot be counted: {achieved}"
    return window


def _one_trial(
    spec: WorkloadSpec, options: Options, backend: Backend, context: TrialContext, iterations: int, held: Checks
) -> RecordingWindow:
    """Everything a worker does with a workload, once."""
    window = RecordingWindow(iterations)
    backend.open()
    backend.seed(context.seed)
    workload: Workload = spec.factory(options)
    try:
        with held.that("it prepares, runs a window and tells facts that are JSON values"):
            workload.prepare(context)
            workload.run(window)
            backend.synchronize()
            workload.after_window(window)
            json.dumps(dict(workload.facts()), allow_nan=False)
    finally:
        with held.that("close() may be called twice"):
            workload.close()
            workload.close()
        backend.close()
        backend.close()
    return window


def _check_rows(window: RecordingWindow, known: set[str]) -> None:
    assert window.rows, "the workload wrote no item"
    ids = [row["item_id"] for row in window.rows]
    assert len(ids) == len(set(ids)), "two items of one window share an id"
    for row in window.rows:
        columns = {name: value for name, value in row.items() if name not in {"item_id", "status"}}
        undeclared = columns.keys() - known
        assert not undeclared, f"item {row['item_id']!r} fills undeclared columns {sorted(undeclared)}"
        for name, value in columns.items():
            assert value is None or finite(value) is not None, f"{name} of item {row['item_id']!r} is {value}"


def check_determinism(
    spec: WorkloadSpec,
    options: Mapping[str, object] | None,
    backend: Callable[[], Backend],
    folder: Path,
    *,
    iterations: int = 2,
    checks: Checks | None = None,
) -> None:
    """Holds a workload to its seed: two trials of one seed write the same items, outputs and summed columns.

    Columns in seconds may differ; those that its default functional units sum may not.

    Args:
        spec: the plugin spec.
        options: as a suite writes them; None for the defaults.
        backend: makes a backend that is not yet opened; called twice.
        folder: for the trials' and the cache's files.
        iterations: how many iterations each window asks for.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    parsed: Options = spec.options.model_validate(dict(options or {}))
    units = {column.name: column.unit for column in spec.columns}
    summed = {unit.sum for unit in spec.functional_units.values() if units.get(unit.sum, "s") != "s"}

    def seen() -> tuple[list[dict[str, object]], dict[str, object]]:
        one = backend()
        window = _one_trial(spec, parsed, one, trial_context(folder, one), iterations, Checks(strict=True))
        kept = {"item_id", "status", *summed}
        return [{name: row[name] for name in kept if name in row} for row in window.rows], window.outputs

    with held.that("two trials of one seed give the same items and outputs"):
        first, second = seen(), seen()
        assert first[0] == second[0], f"the items differ: {_difference(first[0], second[0])}"
        assert first[1] == second[1], "the outputs differ"


def _difference(first: Sequence[object], second: Sequence[object]) -> str:
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} items"
    return next(f"{one} and {other}" for one, other in zip(first, second, strict=True) if one != other)


def check_scorer(
    spec: ScorerSpec,
    options: Mapping[str, object] | None,
    items: Sequence[tuple[Mapping[str, Any], object]],
    *,
    checks: Checks | None = None,
) -> Mapping[str, Mapping[str, float | None]]:
    """Holds a scorer to its contract on given outputs; returns its scores.

    Args:
        spec: the plugin spec.
        options: as a suite writes them; None for the defaults.
        items: pairs of a row with its `item_id` and the output that a workload kept for it.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    scorer = spec.factory(spec.options.model_validate(dict(options or {})))
    scores: Mapping[str, Mapping[str, float | None]] = {}
    with held.that("it gives every item its declared columns, each a finite number or None"):
        scores = scorer.score(items)
        ids = [row["item_id"] for row, _ in items]
        assert sorted(scores) == sorted(ids), f"scored {sorted(scores)}, asked for {sorted(ids)}"
        declared = {column.name for column in spec.columns}
        for item_id, columns in scores.items():
            assert set(columns) <= declared, f"item {item_id!r} got undeclared {sorted(set(columns) - declared)}"
            for name, value in columns.items():
                assert value is None or finite(value) is not None, f"{name} of item {item_id!r} is {value}"
    with held.that("scoring again gives the same"):
        assert scorer.score(items) == scores, "the scores differ"
    with held.that("facts are JSON values"):
        json.dumps(dict(scorer.facts()), allow_nan=False)
    return scores
