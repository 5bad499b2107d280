"""What the tilt should do to a yes-or-no property of an answer, from what the three models do by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def odds(share: float, answers: int) -> float:
    """Odds of a share of so many answers; half an answer is added to each side, so that none is 0 or infinite."""
    return (share * answers + 0.5) / ((1 - share) * answers + 0.5)


def predicted(target: Mapping[str, Any], sft: Mapping[str, Any], aligned: Mapping[str, Any]) -> dict[str, float] | None:
    """Share of courteous answers that the tilted target should give, and of those that are right as well.

    Where alignment changed courtesy alone, the tilt multiplies the target's odds:

        odds = target odds x aligned odds / SFT odds

    and what is right is left to the target, so that the share of good answers is its share of right ones times that of
    courteous ones.

    Args:
        target: `facts` of the loaded target; `answers` in it says what its own answers are.
        sft: likewise, of the SFT draft.
        aligned: likewise, of the aligned draft.

    Returns:
        The three odds, their product, and the shares; None where a model was not judged by its own answers.
    """
    judged = [each.get("answers") for each in (target, sft, aligned)]
    if not all(isinstance(each, Mapping) for each in judged):
        return None
    of_target, before, after = (
        odds(each["courteous"]["mean"], each["courteous"]["answers"]) for each in judged if each is not None
    )
    moved = of_target * after / before
    courteous = moved / (1 + moved)
    right: float = target["answers"]["right"]["mean"]
    return {
        "target_odds": of_target,
        "sft_odds": before,
        "aligned_odds": after,
        "odds": moved,
        "courteous": courteous,
        "answered": right * courteous,
    }
