"""How long measuring will take, told before it is begun: what the suite asks for, and what a trial takes here besides.

Windows and idle time are what a suite asks for. What else a trial takes (its process, loading, warming up, costing) is
not known beforehand: it is taken from the trials of this machine, kept in the user's cache, and a guess before there
are any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from platformdirs import user_cache_path

from harness.discovery.registry import Registry
from harness.errors import PluginError
from harness.planning.point import Point
from harness.records.files import write_json
from harness.workload import ToFetch, WorkloadSpec

GUESS_S: Final = 3.0
"""Start, loading, warm-up and costing of a trial of a workload that this machine has run none of yet."""
KEPT: Final = 50
"""So many of the latest trials of a workload are remembered."""


def _path() -> Path:
    return user_cache_path("joule-harness", ensure_exists=False) / "overhead.json"


def _remembered() -> dict[str, list[float]]:
    """Workload -> seconds besides windows and idle time, of trials of this machine."""
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a cache: without it there is a guess, which is said to be one
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        str(name): [float(each) for each in found if isinstance(each, int | float) and math.isfinite(each)]
        for name, found in content.items()
        if isinstance(found, list)
    }


def remember(overheads: Iterable[tuple[str, float]]) -> None:
    """Keeps what trials took besides what their suite asks for, by workload."""
    known = _remembered()
    for workload, seconds in overheads:
        known[workload] = [*known.get(workload, []), max(0.0, seconds)][-KEPT:]
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_path(), known)
    except OSError:  # a read-only home: the next estimate is a guess, and says so
        return


def trial_s(point: Point, known: dict[str, list[float]]) -> tuple[float, float]:
    """Seconds of one trial: expected, and at most, when the warm-up takes all it may."""
    besides = median(known[point.workload]) if known.get(point.workload) else GUESS_S
    warm_up_s = point.warm_up.max_seconds if point.warm_up.max_iterations else 0.0
    return point.asked_s + besides, point.asked_s + besides + warm_up_s


def expected(points: Sequence[Point], trials: Sequence[tuple[int, int]]) -> str:
    """What trials of points will take, in words.

    Args:
        points: to be measured.
        trials: of each of them, at least and at most.
    """
    known = _remembered()
    low = math.fsum(least * trial_s(point, known)[0] for point, (least, _) in zip(points, trials, strict=True))
    high = math.fsum(most * trial_s(point, known)[1] for point, (_, most) in zip(points, trials, strict=True))
    windows = math.fsum(
        least * point.windows.count * point.windows.min_seconds
        for point, (least, _) in zip(points, trials, strict=True)
    )
    guessed = any(point.workload not in known for point in points)
    source = (
        "start, warm-up and costing guessed: nothing of this was measured here yet"
        if guessed
        else "as trials took here before"
    )
    if any(point.windows.min_iterations > 1 for point in points):
        source += "; windows last until their iterations are done"
    return f"about {minutes(low)}, with the longest warm-ups {minutes(high)} (windows {minutes(windows)}; {source})"


def to_fetch(points: Iterable[Point], registry: Registry) -> list[ToFetch]:
    """What is fetched into this machine's cache before the first trials of points, each thing once.

    Raises:
        PluginError: a workload cannot say it.
    """
    found: dict[str, ToFetch] = {}
    cache = user_cache_path("joule-harness", ensure_exists=False)
    for point in points:
        offer = registry.get("workload", point.workload)
        spec: WorkloadSpec = offer.spec
        if spec.to_fetch is None:
            continue
        try:
            for each in spec.to_fetch(spec.options.model_validate(dict(point.options)), cache):
                found.setdefault(each.what, each)
        except Exception as error:
            message = f"what workload {spec.name!r} fetches is not known: {type(error).__name__}: {error}"
            raise PluginError(message, where=str(offer.plugin)) from error
    return list(found.values())


def told_first(wanted: Sequence[ToFetch]) -> str:
    """What is fetched before the first trial and how long that takes, in words; empty where it is nothing."""
    if not wanted:
        return ""
    each = [one.what if one.seconds is None else f"{one.what} ({minutes(one.seconds)})" for one in wanted]
    known = [one.seconds for one in wanted if one.seconds is not None]
    together = f": about {minutes(math.fsum(known))} on an idle machine" if known else ""
    more = " or more" if together and len(known) < len(wanted) else ""
    return f"first, and not measured: {', '.join(each)}{together}{more}"


def total_s(points: Sequence[Point]) -> float:
    """Seconds that a run of points is expected to take."""
    known = _remembered()
    return math.fsum(point.at_least * trial_s(point, known)[0] for point in points)


def run_cost(points: Sequence[Point]) -> str:
    """What a run of points will take, in words."""
    return expected(points, [(point.at_least, point.trials) for point in points])


def minutes(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def between(least: int, most: int) -> str:
    """A number, or a range of numbers."""
    return str(most) if least == most else f"{least} to {most}"
