"""What speculative sampling is given and what it gives back: the rule, the models, the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness_speculative_decoding.methods.decoding import Generation
from harness_speculative_decoding.methods.laws import INFINITY, Mode
from harness_speculative_decoding.methods.sampling import SpeculationError
from harness_speculative_decoding.networks.cached import CausalModel

__all__ = ["Rule", "Speculated", "SpeculationError", "Trio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Settings of speculative sampling.

    Attributes:
        mode: the rule of acceptance and replacement; without an SFT draft only `exact`, which is the plain method.
        draft_tokens: K, proposals a round.
        temperature: of all models; 0 for greedy, where the modes coincide.
        top_k, top_p: truncation of the law put out, in mode `exact` only.
        draft_top_k, draft_top_p: truncation of the proposals, which are judged by what they were drawn from.
        bonus: whether a round that kept every proposal puts out one more token; None for the mode's own habit.
        replaced_by: how mode `released` picks the replacement.
    """

    mode: Mode = "exact"
    draft_tokens: int = 4
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    draft_top_k: int = 0
    draft_top_p: float = 1.0
    bonus: bool | None = None
    replaced_by: Literal["argmax", "sample"] = "argmax"

    def __post_init__(self) -> None:
        if self.draft_tokens < 1:
            raise ValueError(f"draft_tokens is at least 1, not {self.draft_tokens}")
        if not 0 <= self.temperature < INFINITY:
            raise ValueError(f"temperature is finite and not negative, not {self.temperature}")
        if min(self.top_k, self.draft_top_k) < 0:
            raise ValueError("top_k and draft_top_k are not negative")
        if not (0 < self.top_p <= 1 and 0 < self.draft_top_p <= 1):
            raise ValueError("top_p and draft_top_p lie in (0, 1]")
        if self.mode != "exact" and (self.top_k or self.top_p < 1):
            raise ValueError(f"mode {self.mode} has no law to truncate: top_k and top_p need mode exact")
        if self.mode == "released" and self.bonus:
            raise ValueError("mode released never takes a bonus token")

    @property
    def takes_bonus(self) -> bool:
        """Whether full rounds put out one token more."""
        return self.mode == "exact" if self.bonus is None else self.bonus

    @property
    def judged_by(self) -> Mode:
        """The rule in use: at temperature 0 no ratio is evaluated, and `exact` does what all modes would."""
        return "exact" if self.temperature == 0 else self.mode


@dataclass(slots=True)
class Speculated(Generation):
    """What a request produced, and what it took.

    Attributes:
        proposed: drafted tokens up to an end token or the length limit.
        judged: proposals that were tested; those behind the first rejection were not.
        accepted: proposals kept.
        rounds: drafting and testing.
        prefill_calls: passes over the prompt, of all models.
        target_calls, draft_calls, sft_calls: passes after the prefill that this request needed.
        zero_residuals: rejections that left nothing to replace with.
        log_z: log Z at the position of each token; empty without an SFT draft or at temperature 0.
        law_logprob: sum of the tokens' log-probabilities under the (tilted, tempered) law aimed at.
    """

    proposed: int = 0
    judged: int = 0
    accepted: int = 0
    rounds: int = 0
    prefill_calls: int = 0
    target_calls: int = 0
    draft_calls: int = 0
    sft_calls: int = 0
    zero_residuals: int = 0
    log_z: list[float] = field(default_factory=list)
    law_logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Trio:
    """The models of a method.

    Attributes:
        target: checks the proposals.
        draft: writes them; the aligned draft where there is an SFT draft.
        sft: the denominator of the preference shift; None for plain speculative sampling.
    """

    target: CausalModel
    draft: CausalModel
    sft: CausalModel | None = None

    @property
    def all(self) -> tuple[CausalModel, ...]:
        """Those that there are."""
        return tuple(model for model in (self.target, self.draft, self.sft) if model is not None)
