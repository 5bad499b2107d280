"""Which points of a plan are wanted on one occasion, and how many trials of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harness.errors import UsageError, did_you_mean
from harness.planning.point import Plan, Point

_SHOWN = 10
"""So many labels are offered where a pattern fits none."""


def selected(plan: Plan, patterns: Sequence[str], trials: int | None) -> Plan:
    """A plan with the points whose label fits a pattern alone, and with another number of trials.

    Args:
        plan: of the suites.
        patterns: parts of labels, or shell patterns (`*`, `?`, `[...]`) of whole ones; none keeps every point.
        trials: of each point, in place of what its suite says; None keeps that.

    Raises:
        UsageError: a pattern fits no point.
    """
    points, skipped = plan.points, plan.skipped
    if patterns:
        labels = [each.label for each in (*points, *(other.point for other in skipped))]
        for pattern in patterns:
            if not any(fits(label, pattern) for label in labels):
                accepted = "; ".join(labels[:_SHOWN]) + ("; ..." if len(labels) > _SHOWN else "")
                hint = did_you_mean(pattern, labels)
                raise UsageError(f"--only {pattern!r} fits no point", accepted=accepted or "none", hint=hint)
        points = [point for point in points if _wanted(point, patterns)]
        skipped = [each for each in skipped if _wanted(each.point, patterns)]
    if trials is not None:
        points = [replace(point, trials=trials, precision=None) for point in points]
    return Plan(points, skipped)


def fits(label: str, pattern: str) -> bool:
    """Whether a label holds a text, or fits a shell pattern as a whole."""
    return pattern in label or fnmatchcase(label, pattern)


def _wanted(point: Point, patterns: Sequence[str]) -> bool:
    return any(fits(point.label, pattern) for pattern in patterns)
