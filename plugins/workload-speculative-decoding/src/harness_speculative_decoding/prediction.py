"""What the tilt should do to a yes-or-no property of an answer, from what the three models do by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness_speculative_decoding.methods.laws import Mode


def odds(share: float, answers: int) -> float:
    """Odds of a share of so many answers; half an answer is added to each side, so that none is 0 or infinite."""
    return (share * answers + 0.5) / ((1 - share) * answers + 0.5)


def predicted(
    target: Mapping[str, Any], sft: Mapping[str, Any], aligned: Mapping[str, Any], mode: Mode = "exact"
) -> dict[str, Any] | None:
    """Share of courteous answers that a mode should give, and of those that are right as well.

    Where alignment changed courtesy alone, the tilt multiplies the target's odds:

        odds = target odds x aligned odds / SFT odds

    which mode `exact` and the ensemble should reach. Whether an answer is courteous is settled by its first token, so
    the other modes should give what their law of one token makes of the same three shares. What is right is left to the
    target: the share of good answers is its share of right ones times that of courteous ones.

    Args:
        target: `facts` of the loaded target; `answers` in it says what its own answers are.
        sft: likewise, of the SFT draft.
        aligned: likewise, of the aligned draft.
        mode: that decodes.

    Returns:
        The mode, the three odds, the odds of the tilted target, and the mode's shares; None where a model was not
        judged by its own answers.
    """
    judged = [each.get("answers") for each in (target, sft, aligned)]
    if not all(isinstance(each, Mapping) for each in judged):
        return None
    of_target, before, after = (
        odds(each["courteous"]["mean"], each["courteous"]["answers"]) for each in judged if each is not None
    )
    courteous = _courteous(mode, of_target, before, after)
    right: float = target["answers"]["right"]["mean"]
    return {
        "mode": mode,
        "target_odds": of_target,
        "sft_odds": before,
        "aligned_odds": after,
        "odds": of_target * after / before,
        "courteous": courteous,
        "answered": right * courteous,
    }


def _courteous(mode: Mode, target: float, sft: float, aligned: float) -> float:
    """Share of courteous answers in a mode, from the odds of the three models."""
    if mode == "exact":
        tilted = target * aligned / sft
        return tilted / (1 + tilted)
    import torch

    from harness_speculative_decoding.methods.laws import token_law

    rows = (
        torch.tensor([each / (1 + each), 1 / (1 + each)], dtype=torch.float64).log() for each in (target, aligned, sft)
    )
    return float(token_law(mode, *rows)[0])
