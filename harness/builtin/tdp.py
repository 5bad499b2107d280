"""Meter `tdp`: thermal design power of the CPU times its utilisation. An estimate, given only when asked for."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self

import psutil
from pydantic import PositiveFloat, model_validator

from harness.backend import processor_name
from harness.builtin.cpu_temperature import package_temperatures
from harness.builtin.cpu_time import JITTER_TICKS
from harness.builtin.host import topology
from harness.counter import CounterTrack
from harness.machine.processor_time import BUSY, clock_tick_s, tree_cpu_s
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Options
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns

STILL_S: Final = 1.0
"""Busy and idle time together pass by in any case: a system that shows none for so long shows no CPU times."""
_NOISE: Final = re.compile(r"\((?:r|tm)\)|®|™|\b(?:cpu|processor|\d+-core)\b|@.*$|\bwith radeon.*$", re.IGNORECASE)


class TdpOptions(Options):
    """Options of meter `tdp`."""

    watts: PositiveFloat | None = None
    """Declared power of one package at full load, in W; codecarbon's table of TDPs if not set."""
    watts_per_thread: PositiveFloat | None = None
    """Power of one hardware thread at full load, in W, for a CPU that no table has; no estimate if not set."""
    attribute: Literal["machine", "process"] = "machine"
    """What is charged: all load of the `machine`, or only that of the work's `process` tree."""
    range: tuple[float, float] | None = None
    """Factors on the estimate between which the truth is stated to lie, `[0.5, 1.5]`; no bound if not set."""

    @model_validator(mode="after")
    def _holds_one(self) -> Self:
        if self.range is not None and not 0 <= self.range[0] <= 1 <= self.range[1] < float("inf"):
            raise ValueError(f"range {list(self.range)} does not hold 1: write [low, high] with low <= 1 <= high")
        return self


@dataclass(frozen=True, slots=True)
class PackagePower:
    """Power of one package at full load, and where the number comes from."""

    watts: float
    source: str
    fallback: bool = False


def normalised(model: str) -> str:
    """A CPU's name without marks, clock rate and core count, for exact comparison."""
    return " ".join(_NOISE.sub(" ", model).lower().split())


def codecarbon_table() -> Path | None:
    """The CPU power table that the package codecarbon carries, found without importing it."""
    spec = importlib.util.find_spec("codecarbon")
    for location in (spec.submodule_search_locations or []) if spec else []:
        table = Path(location) / "data" / "hardware" / "cpu_power.csv"
        if table.is_file():
            return table
    return None


def table_watts(model: str, table: Path) -> float | None:
    """The TDP of exactly this model; None where the table has none, or several that differ."""
    wanted = normalised(model)
    with table.open(encoding="utf-8", newline="") as stream:
        listed = {row["TDP"] for row in csv.DictReader(stream) if normalised(row["Name"]) == wanted}
    try:
        values = {float(text) for text in listed}
    except ValueError:
        return None
    return values.pop() if len(values) == 1 else None


def package_power(options: TdpOptions, model: str, threads: int, table: Path | None) -> PackagePower | Unavailable:
    """Power of a package: as declared, else from the table, else per thread where that is allowed."""
    if options.watts is not None:
        return PackagePower(options.watts, "declared")
    listed = table_watts(model, table) if table is not None else None
    if listed is not None:
        return PackagePower(listed, f"codecarbon's CPU table, {model!r}")
    if options.watts_per_thread is not None:
        return PackagePower(
            options.watts_per_thread * threads, f"{options.watts_per_thread:g} W a thread, no table", fallback=True
        )
    where = "codecarbon's table" if table is not None else "no table (package codecarbon is not installed)"
    return Unavailable(
        f"TDP of CPU {model!r} is not known: {where} has it not; set `watts` to its TDP, or allow `watts_per_thread`"
    )


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """Cumulative seconds per logical CPU, shape (logical CPUs,)."""

    busy: tuple[float, ...]
    elapsed: tuple[float, ...]


def cpu_seconds() -> CpuSeconds:
    """Busy seconds, and busy and idle ones together, of every logical CPU. Time stolen by a hypervisor is not busy."""
    times = psutil.cpu_times(percpu=True)
    busy = tuple(sum(getattr(one, name, 0.0) for name in BUSY) for one in times)
    rest = tuple(sum(getattr(one, name, 0.0) for name in ("idle", "iowait", "steal")) for one in times)
    return CpuSeconds(busy, tuple(map(float.__add__, busy, rest)))


@dataclass(slots=True)
class _Register:
    cpus: list[int]
    watts_per_cpu: float
    track: CounterTrack
    elapsed: CounterTrack


class TdpMeter(Meter):
    """Estimates joules per package, or in scope `process` for the work's process tree alone.

    Args:
        options: where the power comes from, and what is charged.
        read_cpus: cumulative CPU seconds of the machine.
        read_tree: cumulative CPU seconds of a process tree.
        model: name of the CPU.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        options: TdpOptions,
        read_cpus: Callable[[], CpuSeconds] = cpu_seconds,
        read_tree: Callable[[int], float | Unavailable] = tree_cpu_s,
        model: Callable[[], str] = processor_name,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._options = options
        self._read_cpus, self._read_tree = read_cpus, read_tree
        self._model, self._clock = model, clock
        self._registers: dict[str, _Register] = {}
        self._pid = 0
        self._node = ""
        self._facts: dict[str, object] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Finds the power of each package and starts from the CPU times so far."""
        self._registers = {}
        self._pid, self._node = context.pid or os.getpid(), context.node
        sockets = topology()
        threads = max(map(len, sockets.values()))
        model = self._model()
        power = package_power(self._options, model, threads, codecarbon_table())
        if isinstance(power, Unavailable):
            return power
        self._facts = {
            "model": "TDP x utilisation",
            "cpu": model,
            "watts_per_package": power.watts,
            "source": power.source,
            "fallback": power.fallback,
            "attribute": self._options.attribute,
            "packages": {package: len(cpus) for package, cpus in sockets.items()},
            "range": list(self._options.range) if self._options.range else None,
        }
        per_package = {f"{context.node}/cpu-package:{package}": cpus for package, cpus in sockets.items()}
        shared = self._options.attribute == "process"
        chosen = (
            {f"{context.node}/process": [cpu for cpus in sockets.values() for cpu in cpus]} if shared else per_package
        )
        note = f"model: TDP x utilisation; {power.watts:g} W a package, {power.source}"
        note += "; the work's process tree alone" if shared else "; the whole package, other processes included"
        found: dict[str, Scope | Unavailable] = {}
        for name, cpus in chosen.items():
            watts = power.watts * (len(sockets) if shared else 1)
            track = CounterTrack(max_power_w=watts, tick_s=JITTER_TICKS * clock_tick_s())
            self._registers[name] = _Register(cpus, watts / len(cpus), track, CounterTrack())
            found[name] = Scope(
                method=Method.ESTIMATED,
                within=tuple(per_package) if shared else (),
                tick_s=clock_tick_s(),
                gain=0.0 if self._options.range else None,
                max_power_w=watts,
                note=f"{note}; the bound is the stated range" if self._options.range else note,
            )
        first = self.read().joules
        return {name: value if isinstance(value := first[name], Unavailable) else found[name] for name in found}

    def read(self) -> Snapshot:
        """Reads the CPU times."""
        now = self._clock()
        read = self._process if self._options.attribute == "process" else self._machine
        joules = read(now) if self._registers else {}
        return Snapshot(now, joules, self._clock() - now)

    def _machine(self, now: int) -> dict[str, float | Cumulative | Unavailable]:
        try:
            times = self._read_cpus()
        except OSError as error:
            lost = Unavailable(f"CPU times not readable: {error}")
            return {name: self._take(register, now, lost) for name, register in self._registers.items()}
        joules: dict[str, float | Cumulative | Unavailable] = {}
        for name, register in self._registers.items():
            if max(register.cpus) >= len(times.busy):
                joules[name] = self._take(register, now, Unavailable("a CPU went offline"))
                continue
            register.elapsed.update(now, sum(times.elapsed[cpu] for cpu in register.cpus))
            still_s = register.elapsed.still_s(now)
            busy = sum(times.busy[cpu] for cpu in register.cpus)
            dead = Unavailable(f"the system shows no CPU time in {still_s:.3g} s") if still_s >= STILL_S else None
            joules[name] = self._take(register, now, dead or busy)
        return joules

    def _process(self, now: int) -> dict[str, float | Cumulative | Unavailable]:
        spent = self._read_tree(self._pid)
        return {name: self._take(register, now, spent) for name, register in self._registers.items()}

    def _take(self, register: _Register, now: int, busy_s: float | Unavailable) -> Cumulative | Unavailable:
        if isinstance(busy_s, Unavailable):
            register.track.update(now, None)
            return busy_s
        state = register.track.update(now, busy_s * register.watts_per_cpu)
        if self._options.range is None:
            return state
        low, high = self._options.range
        over_j = state.over_j + state.joules * (1 - low)
        under_j = state.under_j * high + state.joules * (high - 1)
        return replace(state, over_j=over_j, under_j=under_j)

    def temperatures(self) -> Mapping[str, float]:
        """Of each CPU package with a sensor."""
        return package_temperatures(self._node)

    def facts(self) -> Mapping[str, object]:
        """CPU model, power and its source, what is charged."""
        return self._facts

    def close(self) -> None:
        """Nothing is held."""
        self._registers = {}


METER: Final = MeterSpec(
    name="tdp",
    summary="estimate: TDP of the CPU x its utilisation",
    factory=TdpMeter,
    options=TdpOptions,
    fork_safe=True,
)
