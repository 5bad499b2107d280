"""Plugin: the scorer `reward-model`. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness import Column, Scorer, ScorerSpec, hookimpl
from harness_scorer_reward_model.options import RewardModelOptions

BARS: Final = (*map(float, range(-5, 16)), 20.0, 25.0, 30.0)
"""Quality bars of FUEL's sweep (arXiv 2502.11256), after a public descendant of its code."""


def _reward_model(options: RewardModelOptions) -> Scorer:
    from harness_scorer_reward_model.scorer import RewardModel

    return RewardModel(options)


@hookimpl
def harness_scorers() -> Iterable[ScorerSpec]:
    """The scorer `reward-model`."""
    yield ScorerSpec(
        name="reward-model",
        summary="raw logit of a Hugging Face reward model per response",
        factory=_reward_model,
        columns=(Column("quality", "1", "raw logit of the reward model", higher_is_better=True, bars=BARS),),
        options=RewardModelOptions,
    )
