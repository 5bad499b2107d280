"""`harness gate --pytest-benchmark BASE HEAD`: judges times that pytest-benchmark measured, from the JSON it wrote.

Its rounds are no trials: all of a benchmark's rounds ran in one process, one after another, so they share whatever that
process had (memory layout, clocks, neighbours). The bounds below hold for the noise between rounds alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from harness.errors import UsageError
from harness.gating.result import InterimAnalysis, Kind, Result
from harness.gating.verdict import Cell, CellKey, Seen, Verdict, build, decide, margin
from harness.quantity import SLACK
from harness.records.trials import describe, differing
from harness.statistics.paired import ALPHA, Effect
from harness.statistics.unpaired import p_above, shift

TOLERANCE: Final = 0.05
"""Of a time, where the command names none."""
BLOCKS: Final = 40
"""More rounds than this are put together: neighbours are alike, and more would only look more certain."""
ROUNDS_ARE_NO_TRIALS: Final = (
    "rounds of one process on each side: the interval holds the noise between rounds and not that between processes, "
    "jobs or hosts; `harness gate SUITE --base REF` measures pairs of processes"
)
STATISTICS_ONLY: Final = (
    "no rounds are in the file, only their statistics: the interval is the widest that quartiles allow; "
    "`--benchmark-json`, or `--benchmark-save-data`, keeps the rounds"
)


@dataclass(frozen=True, slots=True)
class Times:
    """The logarithms of one benchmark's seconds a call, each known to lie between two values.

    Attributes:
        low: the least that each may be; as `high` where the rounds themselves were saved.
        high: the greatest.
        middle: of their median.
        rounds: how many were run.
        timer: which clock.
        raw: whether the rounds were saved.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    middle: float
    rounds: int
    timer: str
    raw: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """A file of pytest-benchmark: the machine, and each benchmark by its full name, or why it has no times."""

    machine: Mapping[str, Any]
    benchmarks: Mapping[str, Times | str]


def load(path: Path) -> Saved:
    """Reads a file written by `--benchmark-json` or `--benchmark-save`.

    Raises:
        UsageError: there is no such file, or it is none of pytest-benchmark's.
    """
    try:
        content = json.loads(path.read_bytes())
        machine = _machine(content["machine_info"])
        benchmarks = {str(each["fullname"]): _times(each) for each in content["benchmarks"]}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"not a file of pytest-benchmark: {type(error).__name__}: {error}",
            where=str(path),
            accepted="what --benchmark-json or --benchmark-save wrote",
        ) from None
    return Saved(machine, benchmarks)


def _machine(info: Mapping[str, Any]) -> dict[str, Any]:
    """What two files must agree in; the name of the host is none of it, for a runner's changes with every job."""
    cpu = info.get("cpu") or {}
    return {
        "cpu": cpu.get("brand_raw", cpu.get("brand")),
        "cores": cpu.get("count"),
        **{key: info.get(key) for key in ("system", "machine", "python_implementation", "python_version")},
    }


def _times(benchmark: Mapping[str, Any]) -> Times | str:
    stats = benchmark["stats"]
    timer = str(benchmark.get("options", {}).get("timer", ""))
    rounds = int(stats["rounds"])
    data = [float(seconds) for seconds in stats.get("data") or ()]
    known = data or [float(stats[name]) for name in ("min", "q1", "median", "q3", "max")]
    if rounds < 1 or not all(0 < seconds < math.inf for seconds in known):
        return "a time of 0 or less has no ratio"
    if data:
        logs = tuple(map(math.log, blocks(data)))
        return Times(logs, logs, median(logs), len(data), timer, raw=True)
    low, high = envelope(*known, rounds=rounds)
    return Times(tuple(map(math.log, low)), tuple(map(math.log, high)), math.log(known[2]), rounds, timer, raw=False)


def blocks(data: Sequence[float]) -> list[float]:
    """Medians of at most `BLOCKS` stretches of consecutive rounds, of equal length but for one round."""
    count = min(BLOCKS, len(data))
    edges = [len(data) * number // count for number in range(count + 1)]
    return [median(data[edges[number] : edges[number + 1]]) for number in range(count)]


def envelope(
    least: float, q1: float, middle: float, q3: float, greatest: float, *, rounds: int
) -> tuple[list[float], list[float]]:
    """What the sorted rounds must lie above and below, given their quartiles as pytest-benchmark computes them.

    Its first quartile lies between the values at n//4 - 1 and n//4 + 1 (counted from 0), whichever of its rules for
    odd and even n applies. Of more than `BLOCKS` rounds, as many at equal steps stand for all.
    """
    steps = min(BLOCKS, rounds)
    places = [int((number + 0.5) * rounds / steps) for number in range(steps)]
    low, high = [], []
    for place in places:
        from_end = rounds - 1 - place
        floor, ceiling = least, greatest
        for beyond, value in ((rounds // 4 + 1, q1), (rounds // 2, middle)):
            floor = max(floor, value) if place >= beyond else floor
        for beyond, value in ((rounds // 4 + 1, q3), (rounds // 2, middle)):
            ceiling = min(ceiling, value) if from_end >= beyond else ceiling
        low.append(max(floor, q3) if from_end < rounds // 4 else floor)
        high.append(min(ceiling, q1) if place < rounds // 4 else ceiling)
    return low, high


def judge_files(files: Sequence[Path], tolerance: float) -> Result:
    """Judges two files of pytest-benchmark, base first; raises UsageError unless there are two that it wrote."""
    if len(files) != 2:
        raise UsageError(
            f"{len(files)} files are given", accepted="two JSON files of pytest-benchmark: base, then head"
        )
    base, head = map(load, files)
    return judge(base, head, tolerance)


def judge(base: Saved, head: Saved, tolerance: float = TOLERANCE, alpha: float = ALPHA) -> Result:
    """Judges every benchmark that both files have, as a result of the gate.

    Args:
        base: what to judge by.
        head: what is judged.
        tolerance: how much longer a call may take, as a fraction.
        alpha: error rate of each bound, and of all benchmarks together by Holm.

    Raises:
        UsageError: the files have no benchmark in common.
    """
    names = [name for name in base.benchmarks if name in head.benchmarks]
    if not names:
        raise UsageError("the two files have no benchmark in common")
    notes = [ROUNDS_ARE_NO_TRIALS]
    rounds = {name: times.rounds for name in names if isinstance(times := head.benchmarks[name], Times)}
    found = Result(
        kind=Kind.PYTEST_BENCHMARK,
        verdict=Verdict.INVALID,
        pairs=rounds,
        looks=[InterimAnalysis(max(rounds.values(), default=0), alpha)],
        notes=notes,
        cells=(),
    )
    odd = differing(base.machine, head.machine, list(base.machine))
    if odd:
        return replace(found, differing=odd, reason=f"not comparable: {describe(odd, 'base', 'head')}")
    seen = [_seen(name, base.benchmarks[name], head.benchmarks[name], margin(tolerance), alpha) for name in names]
    both = [side.benchmarks[name] for side in (base, head) for name in names]
    if any(isinstance(times, Times) and not times.raw for times in both):
        notes.append(STATISTICS_ONLY)
    single = sorted(base.benchmarks.keys() ^ head.benchmarks.keys())
    notes += [f"{name}: only {'base' if name in base.benchmarks else 'head'} has it" for name in single]
    judged = decide(seen, alpha)
    return replace(found, verdict=build(judged), cells=judged, notes=notes)


def _seen(name: str, base: Times | str, head: Times | str, allowed: float, alpha: float) -> Seen:
    key = CellKey("", name, "seconds", "call")
    for side, times in (("base", base), ("head", head)):
        if isinstance(times, str):
            return Seen(Cell(key=key, missing=f"{side}: {times}"))
    assert isinstance(base, Times)
    assert isinstance(head, Times)
    if base.timer != head.timer:
        return Seen(Cell(key=key, missing=f"measured by another clock: {head.timer}, base by {base.timer}"))
    low, high = shift(base.high, head.low, alpha), shift(base.low, head.high, alpha)
    estimate = low.estimate if base.raw and head.raw else head.middle - base.middle
    found = Effect(low.n, min(max(estimate, low.low), high.high), low.low, high.high, alpha)
    return Seen(Cell(key=key, margin=allowed), found, p_above(base.high, head.low, allowed + SLACK))
