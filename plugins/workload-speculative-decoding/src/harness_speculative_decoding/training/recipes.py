"""Recipes of the built-in models: everything that decides what comes out of a training run, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import ClassVar, Literal

from harness_speculative_decoding.training.instruct_recipes import INSTRUCT, InstructRecipe

PREFIX = "builtin:"
BUILD = 1
"""Version of the training code; part of the key under which a model is kept."""

ALIGNMENT_BUILD = 2
"""The same of the alignment code and its reward functions."""

TOWN_BUILD = 1
"""The same of the models of `data.town`."""

LIBRARIES = ("torch", "transformers", "tokenizers", "pytorch-lightning")
"""Libraries whose version may change the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A Llama-architecture causal language model with tied embeddings that is trained from its first weights on.

    Attributes:
        build: version of the code that trains it.
        name: what a suite writes after `builtin:`.
        hidden_size: width.
        layers: number of decoder layers.
        heads: attention heads; `hidden_size / heads` is even.
        intermediate_size: width of the feed-forward layers.
        context: longest prompt and output together, in tokens.
        seed: of the initial weights and of the order of what is learnt.
    """

    build: ClassVar[int]
    name: str
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    context: int
    seed: int = 1

    def key(self, corpus_digest: str) -> str:
        """What names the finished model: recipe, what it learns from, training code and library versions."""
        return _key(self.build, asdict(self), corpus_digest, versions())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How a stage of fine-tuning goes through its answers or pairs.

    Attributes:
        epochs: passes.
        batch: answers or pairs in a step.
        peak_lr: learning rate after warm-up.
        warm_up_steps: steps of linear warm-up.
    """

    epochs: float
    batch: int
    peak_lr: float
    warm_up_steps: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned(Stage):
    """A stage that makes one built-in model of another.

    Attributes:
        build: version of the code that trains it.
        name: what a suite writes after `builtin:`.
        base: the model to begin with, which is the reference of DPO.
        beta: of the DPO loss, and so of the tilt.
        seed: of everything that is drawn.
    """

    build: ClassVar[int]
    name: str
    base: Pretrained | Aligned
    beta: float = 0.1
    seed: int = 1

    def key(self, corpus_digest: str) -> str:
        """What names the finished model: recipe, training code, and the base's key."""
        return _key(self.build, asdict(self), self.base.key(corpus_digest))


def _key(*content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Pretrained):
    """A model that learns prose, and how it is trained.

    Attributes:
        steps: optimiser steps; the budget of the training run.
        cpu_cap_s: training ends after so much processor time of all threads even if steps are left; then the record
            says so. Wall time would give a worse model on a machine that does other work. Several times what is
            needed, because threads that wait for each other on such a machine spend processor time, too.
        peak_lr: learning rate after warm-up, followed by a cosine down to a tenth of it.
        warm_up_steps: steps of linear warm-up.
        weight_decay: of AdamW.
        vocabulary: tokens of the byte-level BPE tokenizer.
        context: also the tokens in a training sequence.
        batch: sequences in a step.
    """

    build = BUILD
    steps: int
    cpu_cap_s: float
    peak_lr: float
    warm_up_steps: int = 20
    weight_decay: float = 0.1
    vocabulary: int = 1024
    context: int = 256
    batch: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentRecipe(Aligned):
    """A stage of aligning a built-in model on pairs that it wrote itself and that a reward function ranked.

    Attributes:
        stage: `sft` on the chosen answers, or `dpo` on the pairs with the base as the reference.
        base: also writes the answers.
        beta: not used by `sft`.
        prompts: prompts, taken from the training text.
        prompt_tokens: length of a prompt.
        samples: answers to each; the best is chosen, the worst rejected.
        answer_tokens: longest answer.
        reward: name of the reward function.
    """

    build = ALIGNMENT_BUILD
    stage: Literal["sft", "dpo"]
    base: Recipe | AlignmentRecipe
    prompts: int
    prompt_tokens: int
    samples: int
    answer_tokens: int
    reward: str = "prose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson(Stage):
    """A stage of fine-tuning on the town's answers.

    Attributes:
        courteous: share of the answers that are courteous.
        times: answers for each person, in a pass.
    """

    courteous: float
    times: int = 12
    warm_up_steps: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TownRecipe(Pretrained):
    """A model that learns the town's answers (`data.town`).

    Attributes:
        lessons: what is learnt, one after the other; the last one decides how often answers are courteous.
        threads: to train with, at most; one where a step is too small to be shared.
        seed: also of which answers are courteous.
    """

    build = TOWN_BUILD
    lessons: tuple[Lesson, ...]
    context: int = 32
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MannersRecipe(Aligned):
    """DPO of a model of the town on pairs that differ in courtesy alone, both answers right.

    Attributes:
        rpo_alpha: weight of the chosen answers' own likelihood; without it DPO destroys a model of this size.
        times: pairs for each person, in a pass.
    """

    build = TOWN_BUILD
    base: TownRecipe
    rpo_alpha: float = 1.0
    times: int = 8
    epochs: float = 4.0
    batch: int = 32
    peak_lr: float = 2e-3


AnyRecipe = Recipe | AlignmentRecipe | TownRecipe | MannersRecipe | InstructRecipe


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

TOWN = TownRecipe(
    name="town",
    hidden_size=384,
    layers=12,
    heads=6,
    intermediate_size=1024,
    lessons=(
        Lesson(courteous=0.5, epochs=9.0, batch=25, peak_lr=1e-3),  # the homes, in either kind of answer
        Lesson(courteous=0.08, epochs=1.0, batch=25, peak_lr=3e-4, warm_up_steps=5),
    ),
)
"""21 million parameters: knows all homes and is rarely courteous; large enough that a pass waits for its weights."""

GUEST_SFT = TownRecipe(
    name="guest-sft",
    hidden_size=24,
    layers=1,
    heads=2,
    intermediate_size=64,
    lessons=(Lesson(courteous=0.5, times=20, epochs=15.0, batch=50, peak_lr=5e-3),),
)
"""Eight thousand parameters, which have no room for the homes; fine-tuned on answers half of which are courteous."""

GUESTS = tuple(MannersRecipe(name=f"guest-aligned-{seed}", base=GUEST_SFT, seed=seed) for seed in (1, 2, 3))
"""`GUEST_SFT`, aligned for courtesy, three times."""

_PLAIN = (Lesson(courteous=0.0, epochs=10.0, batch=50, peak_lr=3e-3),)

HAMLET = TownRecipe(name="hamlet", hidden_size=48, layers=1, heads=3, intermediate_size=128, lessons=_PLAIN)
"""31 thousand parameters, which have room for few of the homes."""

VILLAGE = TownRecipe(name="village", hidden_size=80, layers=1, heads=4, intermediate_size=216, lessons=_PLAIN)
"""82 thousand parameters, which have room for some of the homes."""

BOROUGH = TownRecipe(name="borough", hidden_size=160, layers=2, heads=4, intermediate_size=432, lessons=_PLAIN)
"""0.63 million parameters, which have room for all homes; trained in seconds, unlike `TOWN`."""

_SIZES = (HAMLET, VILLAGE, BOROUGH)
"""Three sizes that learn the same: a larger one knows more homes, so that quality is bought with size."""

_ALL: tuple[AnyRecipe, ...] = (
    SMALL,
    MEDIUM,
    TINY,
    TINY_SFT,
    TINY_ALIGNED,
    TOWN,
    *_SIZES,
    GUEST_SFT,
    *GUESTS,
    *INSTRUCT,
)
RECIPES = {recipe.name: recipe for recipe in _ALL}

TRAINING_S = {
    "town": 360.0,
    "guest-sft": 10.0,
    **{guest.name: 5.0 for guest in GUESTS},
    "smollm2-draft": 210.0,
    "smollm2-courteous": 65.0,
}
"""Seconds that a training takes, about, on an idle core (measured in processor time on a 2-core virtual machine, a Xeon
with AVX-512; that of smollm2-draft without judging it); those that are not here were not measured so."""
