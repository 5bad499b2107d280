"""Recipes of the built-in models: everything that decides what comes out of a training run, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

PREFIX = "builtin:"
BUILD = 1
"""Version of the training code; part of the key under which a model is kept."""

ALIGNMENT_BUILD = 2
"""The same of the alignment code and its reward functions."""

LIBRARIES = ("torch", "transformers", "tokenizers", "pytorch-lightning")
"""Libraries whose version may change the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A Llama-architecture causal language model with tied embeddings, and how it is trained.

    Attributes:
        name: what a suite writes after `builtin:`.
        hidden_size: width.
        layers: number of decoder layers.
        heads: attention heads; `hidden_size / heads` is even.
        intermediate_size: width of the feed-forward layers.
        steps: optimiser steps; the budget of the training run.
        cpu_cap_s: training ends after so much processor time of all threads even if steps are left; then the record
            says so. Wall time would give a worse model on a machine that does other work. Several times what is
            needed, because threads that wait for each other on such a machine spend processor time, too.
        peak_lr: learning rate after warm-up, followed by a cosine down to a tenth of it.
        warm_up_steps: steps of linear warm-up.
        weight_decay: of AdamW.
        vocabulary: tokens of the byte-level BPE tokenizer.
        context: tokens in a training sequence, and so the longest prompt and output together.
        batch: sequences in a step.
        seed: of the initial weights and of the order of the sequences.
    """

    name: str
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    steps: int
    cpu_cap_s: float
    peak_lr: float
    warm_up_steps: int = 20
    weight_decay: float = 0.1
    vocabulary: int = 1024
    context: int = 256
    batch: int = 8
    seed: int = 1

    def key(self, corpus_digest: str) -> str:
        """What names the finished model: recipe, corpus, training code and library versions."""
        content = [BUILD, asdict(self), corpus_digest, versions()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentRecipe:
    """A stage of aligning a built-in model on pairs that it wrote itself and that a reward function ranked.

    Attributes:
        name: what a suite writes after `builtin:`.
        stage: `sft` on the chosen answers, or `dpo` on the pairs with the base as the reference.
        base: the model to begin with; it also writes the answers.
        beta: of the DPO loss, and so of the tilt; not used by `sft`.
        prompts: prompts, taken from the training text.
        prompt_tokens: length of a prompt.
        samples: answers to each; the best is chosen, the worst rejected.
        answer_tokens: longest answer.
        epochs: passes over the pairs.
        batch: pairs in a step.
        peak_lr: learning rate after warm-up.
        warm_up_steps: steps of linear warm-up.
        reward: name of the reward function.
        seed: of prompts, answers and order.
    """

    name: str
    stage: Literal["sft", "dpo"]
    base: Recipe | AlignmentRecipe
    beta: float = 0.1
    prompts: int
    prompt_tokens: int
    samples: int
    answer_tokens: int
    epochs: float
    batch: int
    peak_lr: float
    warm_up_steps: int = 5
    reward: str = "prose"
    seed: int = 1

    def key(self, corpus_digest: str) -> str:
        """What names the finished model: recipe, training code, and the base's key."""
        content = [ALIGNMENT_BUILD, asdict(self), self.base.key(corpus_digest)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Installed versions of `LIBRARIES`."""
    return {name: version(name) for name in LIBRARIES}


SMALL = Recipe(
    name="small",
    hidden_size=128,
    layers=4,
    heads=4,
    intermediate_size=352,
    steps=400,
    cpu_cap_s=900.0,
    peak_lr=4e-3,
)
"""0.94 million parameters."""

MEDIUM = Recipe(
    name="medium",
    hidden_size=80,
    layers=3,
    heads=4,
    intermediate_size=216,
    steps=400,
    cpu_cap_s=600.0,
    peak_lr=6e-3,
)
"""0.31 million parameters, of the same tokenizer as `SMALL`."""

TINY = Recipe(
    name="tiny",
    hidden_size=48,
    layers=2,
    heads=3,
    intermediate_size=176,
    steps=400,
    cpu_cap_s=400.0,
    peak_lr=8e-3,
)
"""0.12 million parameters, of the same tokenizer as `SMALL`."""

TINY_SFT = AlignmentRecipe(
    name="tiny-sft",
    stage="sft",
    base=TINY,
    prompts=1024,
    prompt_tokens=16,
    samples=4,
    answer_tokens=48,
    epochs=1.0,
    batch=32,
    peak_lr=5e-4,
)
"""`TINY`, fine-tuned on the best of its own answers."""

TINY_ALIGNED = AlignmentRecipe(
    name="tiny-aligned",
    stage="dpo",
    base=TINY_SFT,
    beta=0.1,
    prompts=2048,
    prompt_tokens=16,
    samples=4,
    answer_tokens=48,
    epochs=2.0,
    batch=32,
    peak_lr=1e-3,
)
"""`TINY_SFT`, optimised on pairs of its own answers."""

RECIPES: dict[str, Recipe | AlignmentRecipe] = {
    recipe.name: recipe for recipe in (SMALL, MEDIUM, TINY, TINY_SFT, TINY_ALIGNED)
}
