"""Options of the decoding methods beside `vanilla`, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.options import Options
from harness_speculative_decoding.options import DecodingOptions

Name = Annotated[str, Field(min_length=1)]
DraftTokens = Annotated[int, Field(ge=1, le=256)]


class DraftOnlyOptions(DecodingOptions):
    """Options of workload `draft-only`.

    Attributes:
        draft_aligned: the model that is sampled from.
    """

    draft_aligned: Name = "builtin:tiny-aligned"


class EnsembleOptions(DecodingOptions):
    """Options of workload `ensemble`.

    Attributes:
        draft_aligned: the small model after preference optimisation.
        draft_sft: the same small model before it.
        cache: `static` (allocated once), `dynamic` (transformers' own, batch 1), `none` (everything anew, to check), or
            `auto`: static where the model agrees with it.
        role_energy: after the window, repeat each model's passes in a span of its own to read their energy apart.
    """

    draft_aligned: Name = "builtin:tiny-aligned"
    draft_sft: Name = "builtin:tiny-sft"
    cache: Literal["auto", "static", "dynamic", "none"] = "auto"
    role_energy: bool = False


class SpeculationOptions(EnsembleOptions):
    """Options of workload `sss`, after arXiv 2508.15044.

    Attributes:
        mode: `exact` puts out the tilted target for any three models; `paper` is the acceptance and replacement that
            secondary sources give; `released` is the rule in the authors' public code, without its row slip and
            truncation mismatch; differs from the paper's equations.
        draft_tokens: K, proposals a round.
        draft_top_k: truncation of the proposals, which are judged by what they were drawn from; 0 for none.
        draft_top_p: likewise; 1 for none.
        bonus: one token more after a round that kept every proposal; by default in mode `exact` only. In `paper` the
            law then depends on `draft_tokens`.
        replacement: how `released` picks the token after a rejection.
    """

    mode: Literal["exact", "paper", "released"] = "exact"
    draft_tokens: DraftTokens = 4
    draft_top_k: Annotated[int, Field(ge=0)] = 0
    draft_top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    bonus: bool | None = None
    replacement: Literal["argmax", "sample"] = "argmax"

    @model_validator(mode="after")
    def _one_law(self) -> SpeculationOptions:
        if self.mode != "exact" and (self.top_k or self.top_p < 1):
            raise ValueError(
                f"mode {self.mode} has no law to truncate: give draft_top_k and draft_top_p, or mode exact"
            )
        if self.mode == "released" and self.bonus:
            raise ValueError("mode released never takes a bonus token; mode exact does")
        return self


class PlainSpeculationOptions(DecodingOptions):
    """Options of workload `speculative`.

    Attributes:
        draft: which of the two drafts proposes.
        draft_aligned, draft_sft: the drafts.
        draft_tokens: K, proposals a round.
        draft_top_k, draft_top_p: truncation of the proposals.
        bonus: one token more after a round that kept every proposal.
        cache: as in `sss`.
        role_energy: likewise.
    """

    draft: Literal["sft", "aligned"] = "sft"
    draft_aligned: Name = "builtin:tiny-aligned"
    draft_sft: Name = "builtin:tiny-sft"
    draft_tokens: DraftTokens = 4
    draft_top_k: Annotated[int, Field(ge=0)] = 0
    draft_top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    bonus: bool = True
    cache: Literal["auto", "static", "dynamic", "none"] = "auto"
    role_energy: bool = False


class AssistedOptions(DecodingOptions):
    """Options of workload `assisted`: transformers' `generate(assistant_model=...)`.

    Attributes:
        draft: which of the two drafts assists.
        draft_aligned, draft_sft: the drafts.
        draft_tokens: K, the same in every round.
        batch: one request at a time is all that it offers.
    """

    draft: Literal["sft", "aligned"] = "sft"
    draft_aligned: Name = "builtin:tiny-aligned"
    draft_sft: Name = "builtin:tiny-sft"
    draft_tokens: DraftTokens = 4
    batch: Annotated[int, Field(ge=1, le=1)] = 1


class BestOfNOptions(DecodingOptions):
    """Options of workload `best-of-n`.

    Attributes:
        n: samples of a prompt, of which the one with the highest reward is kept.
        reward: a function by name (`prose`, `brevity`), or a reward model: a folder or a hub id.
    """

    n: Annotated[int, Field(ge=1, le=1024)] = 5
    reward: Name = "prose"


class RejectionOptions(BestOfNOptions):
    """Options of workload `rejection`.

    Attributes:
        n: samples of a prompt at most; after the last the best one is kept.
        threshold: the first sample whose reward reaches it is kept.
    """

    threshold: float = 0.5


class RewardOptions(Options):
    """Options of scorer `reward`.

    Attributes:
        reward: a function by name, or a reward model: a folder or a hub id.
        device: where a reward model runs.
    """

    reward: Name = "prose"
    device: Name = "cpu"
