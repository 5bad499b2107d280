"""What makes a whole job invalid: a control workload that moved, and trials of one side that fail more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from harness.quantity import SLACK
from harness.statistics.paired import effect, fisher_more_often

CONTROL_ALPHA: Final = 0.005
"""Error rate of each bound of a control that no calibration knows: a clean job is lost once in a hundred."""


def control_moved(differences: Sequence[float], bounds: tuple[float, float] | None) -> str:
    """Why the control workload makes a job invalid, or an empty string.

    Args:
        differences: log ratios of the control, head over base.
        bounds: what the control's estimate does when nothing changes, from calibration; without one the control is
            judged by its own spread within the job: it moved where its bounds at 99 % exclude no change.
    """
    if bounds is None:
        found = effect(differences, CONTROL_ALPHA)
        if found.low <= SLACK and found.high >= -SLACK:
            return ""
        estimate, low, high = found.ratio
        return (
            f"the control workload, which the change cannot touch, moved by {estimate:+.1%} "
            f"({low:+.1%} to {high:+.1%} by its own spread in this job)"
        )
    estimate = effect(differences).estimate
    low, high = bounds
    if low <= estimate <= high:
        return ""
    return (
        f"the control workload, which the change cannot touch, moved by {math.expm1(estimate):+.1%}; "
        f"without a change it stays within {math.expm1(low):+.1%} and {math.expm1(high):+.1%}"
    )


def one_side_fails(base_redone: int, head_redone: int, base_tried: int, head_tried: int, alpha: float = 0.05) -> str:
    """Why redone pairs make a job invalid, or an empty string: one side's trials fail clearly more often.

    Redoing pairs would then hide an effect: the failing trials may be the slow ones.
    """
    for name, hits, tried, other, others in (
        ("head", head_redone, head_tried, base_redone, base_tried),
        ("base", base_redone, base_tried, head_redone, head_tried),
    ):
        p_value = fisher_more_often(hits, tried, other, others)
        if p_value < alpha:
            return (
                f"trials of {name} were not valid clearly more often: {hits} of {tried} against {other} of {others} "
                f"(p = {p_value:.2g})"
            )
    return ""
