"""`harness run --resume`: which points a run goes on with, and what it says of suites that are not what they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness.errors import UsageError
from harness.planning.point import Plan, Point
from harness.running.run_folder import reopen

REFUSE: Final = "refuse"
KEEP: Final = "keep"
NEW: Final = "new"
SHOWN: Final = 3
"""So many points of a kind are named."""

_PLACES: Final = frozenset({"id", "suite_file", "case", "label", "matrix"})
"""Fields of a point that say where it stands and not what is measured."""


def resumed(folder: Path, planned: Plan | None, changed: str) -> tuple[list[Point], int] | None:
    """The points and the seed to go on with; None where a new run is to begin instead.

    Args:
        folder: of the run.
        planned: what the suites plan now; None where the command names no suites.
        changed: what to do when that is not what the run was planned with: `refuse`, `keep` (go on with the run's own
            plan) or `new` (begin a new run).

    Raises:
        UsageError: the plans differ and `changed` says to refuse; or `changed` is none of the three.
    """
    if changed not in (REFUSE, KEEP, NEW):
        raise UsageError(f"--changed cannot be {changed!r}", accepted=f"{REFUSE}, {KEEP}, {NEW}")
    points, seed = reopen(folder)
    if planned is None:
        return points, seed
    found = differences(points, planned)
    if not found or changed == KEEP:
        return points, seed
    if changed == NEW:
        return None
    raise UsageError(
        f"the suites plan other points than the run to be resumed: {'; '.join(found)}",
        where=str(folder),
        accepted=f"--changed {KEEP} goes on with the run's own plan, --changed {NEW} begins a new run",
    )


def differences(before: Sequence[Point], planned: Plan) -> list[str]:
    """What a plan has more, has less, or has otherwise than the points of a run; empty where nothing is."""
    old, new = ({point.id: point for point in points} for points in (before, planned.points))
    why = {skipped.point.id: f" (skipped now: {skipped.reason})" for skipped in planned.skipped}
    added = [point.label for key, point in new.items() if key not in old]
    removed = [point.label + why.get(key, "") for key, point in old.items() if key not in new]
    otherwise = [f"{point.label}: {text}" for key, point in old.items() if (text := _otherwise(point, new.get(key)))]
    return [
        f"{word} {_named(labels)}"
        for word, labels in (("added", added), ("removed", removed), ("changed", otherwise))
        if labels
    ]


def _otherwise(before: Point, now: Point | None) -> str:
    """The fields that a point has otherwise, with both values where they are short."""
    if now is None:
        return ""
    old, new = before.to_json(), now.to_json()
    fields = [name for name in {**old, **new} if name not in _PLACES and old.get(name) != new.get(name)]
    return ", ".join(f"{name} {_change(old.get(name), new.get(name))}" for name in fields)


def _change(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        inner = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return " and ".join(f"{name} {_change(old.get(name), new.get(name))}" for name in inner)
    text = f"{old} -> {new}"
    return text if len(text) <= 60 else "otherwise"


def _named(labels: Iterable[str]) -> str:
    listed = list(labels)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{len(listed)} ({' | '.join(listed[:SHOWN])}{more})"
