"""Options of the workloads, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from harness.errors import UsageError
from harness.options import Options
from harness_speculative_decoding.rewards import reward_function

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Name = Annotated[str, Field(min_length=1)]
DraftTokens = Annotated[int, Field(ge=1, le=256)]


class DecodingOptions(Options):
    """Options of every decoding workload here.

    Attributes:
        target: `builtin:small`, `builtin:tiny`, a folder, or a hub id.
        prompts: `builtin` (held-out prose), or a file: one prompt a line, or JSON Lines with a key `prompt`.
        prompt_tokens: length of the built-in prompts; those of a file are used whole.
        max_new_tokens: limit of a request's output.
        temperature: 0 for greedy.
        top_k: most likely tokens to keep; 0 for all.
        top_p: mass to keep; 1 for all.
        batch: requests decoded together; a step is one batch.
        ignore_eos: go on to `max_new_tokens` after an end token, so that all outputs are equally long.
        dtype: of the weights.
        quantization: of the target's linear layers, through torchao (extra `quantization`); its dtype computes.
        fused: passes of Llama-like models skip transformers' modules where the logits stay the same.
        compile: passes of fixed shapes, captured as CUDA graphs: `auto` on a CUDA device, `on`, or `off`. Where they
            cannot be captured, the same passes run eagerly, and the record says why. Needs the static cache.
        trust_remote_code: run the code that comes with a model; the record is flagged with it.
    """

    target: Annotated[str, Field(min_length=1)] = "builtin:small"
    prompts: Annotated[str, Field(min_length=1)] = "builtin"
    prompt_tokens: Count = 32
    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    ignore_eos: bool = False
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantization: Literal["none", "int8-weight-only", "int8-dynamic"] = "none"
    fused: bool = True
    compile: Literal["auto", "on", "off"] = "auto"
    trust_remote_code: bool = False


class VanillaOptions(DecodingOptions):
    """Options of workload `vanilla`."""


class DraftAlignmentOptions(Options):
    """Options of workload `draft-alignment`.

    Attributes:
        base: the model to align: `builtin:tiny-sft`, a folder, or a hub id.
        data: JSON Lines in the form of HH-RLHF; empty to rank the base's own answers instead.
        reward: name of the reward function that ranks them.
        prompts: how many prompts to answer, taken from the built-in prose.
        prompt_tokens: length of such a prompt.
        samples: answers to each; the best is chosen, the worst rejected.
        answer_tokens: longest such answer.
        fine_tune: first fine-tune on the chosen answers; the result is then the reference.
        beta: of the DPO loss, and so of the tilt that sampling carries over.
        epochs: passes over the pairs, in each stage.
        batch: pairs of an optimiser step.
        accumulate: parts that a batch is computed in; saves memory and changes only rounding.
        lr: peak learning rate of DPO.
        sft_lr: peak learning rate of fine-tuning.
        warm_up_steps: steps of linear warm-up.
        precision: `auto` computes in bfloat16 under autocast on a GPU that has it; weights are float32.
        seed: of prompts, answers and order.
    """

    base: Annotated[str, Field(min_length=1)] = "builtin:tiny-sft"
    data: str = ""
    reward: str = "prose"
    prompts: Count = 512
    prompt_tokens: Count = 16
    samples: Annotated[int, Field(ge=2, le=1024)] = 4
    answer_tokens: Count = 48
    fine_tune: bool = False
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    batch: Count = 32
    accumulate: Count = 1
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    sft_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-4
    warm_up_steps: Annotated[int, Field(ge=0)] = 5
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 1

    @field_validator("reward")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            reward_function(name)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> DraftAlignmentOptions:
        if self.accumulate > self.batch:
            raise ValueError(f"a batch of {self.batch} cannot be computed in {self.accumulate} parts")
        return self


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
