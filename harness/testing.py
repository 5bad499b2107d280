"""Fakes and contract checks for plugin authors: `check_meter`, `check_workload`, `check_offers`.

The checks raise AssertionError with a sentence that says which promise was broken. Nothing here needs pytest.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.backend import Backend
from harness.functional_unit import count, finite
from harness.meter import DeviceUse, Meter, MeterContext
from harness.options import Options
from harness.quantity import Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.units import nanoseconds, seconds
from harness.workload import COMMON_COLUMNS, TrialContext, WorkloadSpec

HEAVY_MODULES: Final = (
    "torch",
    "numpy",
    "pynvml",
    "transformers",
    "codecarbon",
    "pandas",
    "pyarrow",
    "scipy",
    "ray",
    "lightning",
    "pytorch_lightning",
)
"""What no plugin may import to make its offers."""


class FakeClock:
    """A monotonic clock that goes only when it is told to.

    Args:
        start_ns: its first reading.
    """

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns

    def __call__(self) -> int:
        """The time in nanoseconds, as `time.monotonic_ns`."""
        return self._now_ns

    monotonic_ns = __call__

    def advance(self, duration_s: float) -> int:
        """Lets time pass; returns the new reading."""
        self._now_ns += nanoseconds(duration_s)
        return self._now_ns


class PowercapTree:
    """A powercap tree in a folder, as the kernel shows it, with counters that a test sets.

    Args:
        root: an empty folder; give it to meter `rapl` as option `root`, and `read_text` as its reader.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._faults: dict[Path, OSError] = {}

    def zone(self, folder: str, name: str, energy_uj: int = 0, range_uj: int = 65_712_999_613) -> Path:
        """Makes a zone such as `intel-rapl:0` or, inside it, `intel-rapl:0:1`; returns its folder."""
        parts = folder.split(":")
        path = self.root
        for depth in range(2, len(parts) + 1):
            path /= ":".join(parts[:depth])
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(name + "\n", encoding="ascii")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n", encoding="ascii")
        self.set_energy(path, energy_uj)
        return path

    def set_energy(self, zone: Path, energy_uj: int) -> None:
        """Sets a zone's counter, in microjoules."""
        (zone / "energy_uj").write_text(f"{energy_uj}\n", encoding="ascii")

    def make_unreadable(self, zone: Path) -> None:
        """Takes the permission away, also from root: through the file mode and through `read_text`."""
        (zone / "energy_uj").chmod(0)
        self.fail(zone, PermissionError(13, "Permission denied"))

    def fail(self, zone: Path, error: OSError) -> None:
        """Makes every read of a zone's counter through `read_text` fail."""
        self._faults[zone / "energy_uj"] = error

    def heal(self, zone: Path) -> None:
        """Makes a zone readable again."""
        (zone / "energy_uj").chmod(0o644)
        self._faults.pop(zone / "energy_uj", None)

    def read_text(self, path: Path) -> str:
        """Reads a file of the tree, or raises the fault that was set."""
        if path in self._faults:
            raise self._faults[path]
        return path.read_text(encoding="ascii")


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

    def device(self, device: str, *, role: str = "", busy_s: float, reserved_s: float, stands_for: str = "") -> None:
        """Keeps a device row."""
        self.uses.append(
            DeviceUse(device=device, role=role, busy_s=busy_s, reserved_s=reserved_s, stands_for=stands_for)
        )

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


def _cumulative(name: str, value: float | Cumulative | Unavailable) -> Cumulative | None:
    if isinstance(value, Unavailable):
        assert value.reason.strip(), f"{name} is Unavailable without a reason"
        return None
    state = value if isinstance(value, Cumulative) else Cumulative(value)
    for part in ("joules", "over_j", "under_j", "gap_s"):
        number = getattr(state, part)
        assert 0 <= number < math.inf, f"{part} of {name} is {number}"
    return state


def _check_snapshot(snapshot: Snapshot, opened: Mapping[str, Scope | Unavailable], last: dict[str, Cumulative]) -> None:
    read = {name for name, scope in opened.items() if isinstance(scope, Scope)}
    missing = read - snapshot.joules.keys()
    assert not missing, f"read() left out {sorted(missing)}: a failed read is Unavailable, not absent"
    for name, value in snapshot.joules.items():
        assert name in opened, f"read() gave {name!r}, which open() did not announce"
        state = _cumulative(name, value)
        if state is None:
            continue
        assert name in read, f"{name!r} was Unavailable at open() and must not read {state.joules} J"
        before = last.get(name)
        if before is not None:
            for part in ("joules", "over_j", "under_j", "gap_s", "resets"):
                assert getattr(state, part) >= getattr(before, part), f"{part} of {name} went back"
        last[name] = state


def check_meter(
    meter: Meter, context: MeterContext, *, reads: int = 3, between: Callable[[], object] = lambda: None
) -> list[Snapshot]:
    """Holds a meter to its contract; returns the snapshots of its first opening.

    It is opened, read and closed twice; it announces every scope with its node; what it reads is cumulative, finite
    and never falls; what was Unavailable at `open` never turns into joules.

    Args:
        meter: not yet opened.
        context: what to open it with.
        reads: snapshots per opening; at least 1.
        between: called between two reads, to let time pass or to do work.
    """
    assert meter.sample_hz > 0, f"sample_hz is {meter.sample_hz}"
    kept: list[Snapshot] = []
    for _ in range(2):
        opened = meter.open(context)
        if isinstance(opened, Unavailable):
            assert opened.reason.strip(), "open() is Unavailable without a reason"
            opened = {}
        for name, scope in opened.items():
            assert name.startswith(f"{context.node}/"), f"scope {name!r} does not begin with its node {context.node!r}"
            if isinstance(scope, Unavailable):
                assert scope.reason.strip(), f"{name} is Unavailable without a reason"
        last: dict[str, Cumulative] = {}
        snapshots = []
        for _ in range(max(1, reads)):
            snapshots.append(meter.read())
            _check_snapshot(snapshots[-1], opened, last)
            between()
        times = [snapshot.monotonic_ns for snapshot in snapshots]
        assert times == sorted(times), "the snapshots' times went back"
        json.dumps(dict(meter.facts()), allow_nan=False)
        list(meter.conditions())
        meter.close()
        meter.close()
        kept = kept or snapshots
    return kept


def check_workload(
    spec: WorkloadSpec, options: Mapping[str, object] | None, backend: Backend, folder: Path, *, iterations: int = 2
) -> RecordingWindow:
    """Holds a workload to its contract on a real backend; returns the window it wrote.

    It writes at least one item a window, each under its own id and with declared columns that hold finite numbers or
    None; its default functional units can be counted; outputs are JSON values; device rows reserve what they use.

    Args:
        spec: the offer.
        options: as a suite writes them; None for the defaults.
        backend: not yet opened; opened and closed here.
        folder: for the trial's and the cache's files.
        iterations: how many iterations the window asks for.
    """
    known = {column.name for column in (*spec.columns, *COMMON_COLUMNS)}
    for name, unit in spec.functional_units.items():
        used = {unit.sum, *(condition.column for condition in unit.where)} - {"items"}
        undeclared = used - known
        assert not undeclared, f"functional unit {name!r} uses undeclared columns {sorted(undeclared)}"
    parsed: Options = spec.options.model_validate(dict(options or {}))
    backend.open()
    workload = spec.factory(parsed)
    try:
        workload.prepare(trial_context(folder, backend))
        window = RecordingWindow(iterations)
        workload.run(window)
        backend.synchronize()
        workload.after_window(window)
        json.dumps(dict(workload.facts()), allow_nan=False)
    finally:
        workload.close()
        workload.close()
        backend.close()
        backend.close()
    _check_rows(window, known)
    for name, unit in spec.functional_units.items():
        achieved = count(unit, window.rows).achieved
        assert isinstance(achieved, float), f"functional unit {name!r} cannot be counted: {achieved}"
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
    strange = window.outputs.keys() - set(ids)
    assert not strange, f"outputs without an item: {sorted(strange)}"
    json.dumps(window.outputs, allow_nan=False)
    for use in window.uses:
        assert 0 <= use.busy_s <= use.reserved_s * (1 + 1e-9), f"{use} is busy for longer than reserved"


_OFFERS: Final = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[2])
import harness.hookspecs
before = set(sys.modules)
plugin = importlib.import_module(sys.argv[1])
kinds = ("workloads", "backends", "meters", "executors", "scorers", "commands")
names = []
for kind in kinds:
    offer = getattr(plugin, "harness_" + kind, None)
    for spec in offer() if offer else ():
        assert spec.name and spec.summary, f"an offer of {kind} lacks a name or a summary"
        names.append(f"{kind}:{spec.name}")
print(json.dumps({"names": names, "new": sorted(set(sys.modules) - before)}))
"""


def check_offers(module: str, *, timeout_s: float = 60.0) -> list[str]:
    """Imports a plugin module in a fresh process and lists its offers as `kind:name`; fails where that imports much.

    Args:
        module: dotted name, as the entry point gives it.
        timeout_s: limit of the process.
    """
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", _OFFERS, module, json.dumps(path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, f"offers of {module} failed:\n{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    heavy = sorted({name.partition(".")[0] for name in found["new"]} & set(HEAVY_MODULES))
    assert not heavy, f"{module} imports {', '.join(heavy)} to make its offers; import it in the factory instead"
    names: list[str] = found["names"]
    assert len(names) == len(set(names)), f"{module} offers a name twice: {names}"
    return names
