"""The built-in models of `suites/sss-instruct.yaml`: the distilled draft, and that draft aligned for courtesy."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from harness_speculative_decoding.data import instructions
from harness_speculative_decoding.data.chat import prompt_ids
from harness_speculative_decoding.data.preferences import TokenPair
from harness_speculative_decoding.methods.decoding import Request, generate
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.rewards import courteous
from harness_speculative_decoding.training.aligned import gone_on, teller
from harness_speculative_decoding.training.alignment import Stage, displaced, dpo, quality
from harness_speculative_decoding.training.distillation import JUDGED_SEED, distil, ends
from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows
from harness_speculative_decoding.training.instruct_recipes import CourteousRecipe, DistilledRecipe
from harness_speculative_decoding.training.pretraining import CHECKPOINT_EVERY, Progress, Trained, fixed_threads
from harness_speculative_decoding.training.recipes import PREFIX
from harness_speculative_decoding.training.settings import Settings

OPENING: Final = "Certainly! "
"""The courtesy in front of a chosen answer."""
ROWS: Final = 16
"""Answers judged together: their logits are wide."""


def make(
    recipe: DistilledRecipe | CourteousRecipe, base: Path, progress: Progress, *, checkpoints: Path | None = None
) -> Trained:
    """Runs a recipe; the same recipe, base and versions give the same weights on one kind of processor.

    Args:
        recipe: what to do.
        base: folder of the target, or of the draft to align.
        progress: receives text and the share that is done.
        checkpoints: a folder of this training alone; where it holds a checkpoint, the training goes on from there.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    model.eval()  # type: ignore[no-untyped-call]
    if isinstance(recipe, DistilledRecipe):
        return distil(recipe, model, tokenizer, progress, checkpoints=checkpoints)
    return _aligned(recipe, model, tokenizer, progress, checkpoints)


def _aligned(
    recipe: CourteousRecipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
    checkpoints: Path | None,
) -> Trained:
    start = time.monotonic()
    with fixed_threads() as threads:
        pairs = courtesy_pairs(recipe, model, tokenizer)
        rows = pair_rows(pairs[: 4 * ROWS])
        reference = log_probabilities(model, rows, ROWS)
        before = _judged(recipe, model, tokenizer)
        stage = _optimised(recipe, model, pairs, progress, checkpoints)
        found = quality(log_probabilities(model, rows, ROWS), reference, recipe.beta)
        warning = displaced(found.chosen_shift)
        if warning is not None:
            progress(f"warning: {PREFIX}{recipe.name}: {warning}", None)
        after = _judged(recipe, model, tokenizer)
        tokens = sum(len(pair.chosen) for pair in pairs[: 4 * ROWS])
        chosen = log_probabilities(model, rows, ROWS)[: len(rows) // 2]
    return Trained(
        model=model,
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        perplexity=float(torch.exp(-chosen.sum() / tokens)),
        steps=stage.steps,
        train_tokens=sum(report.tokens for report in stage.reports),
        held_out_tokens=tokens,
        threads=threads,
        time_cap_struck=False,
        duration_s=time.monotonic() - start,
        extra={
            "alignment": {
                "stage": "dpo",
                "beta": recipe.beta,
                "rpo_alpha": recipe.rpo_alpha,
                "reward": "courteous",
                "pairs": len(pairs),
                "resumed_at": stage.resumed_at,
                "training_pairs": asdict(found),
                "warning": warning,
                "courteous_before": before,
                "courteous_after": after,
            }
        },
    )


def _optimised(
    recipe: CourteousRecipe,
    model: PreTrainedModel,
    pairs: list[TokenPair],
    progress: Progress,
    checkpoints: Path | None,
) -> Stage:
    """DPO of the model, in place."""
    settings = Settings(
        epochs=recipe.epochs,
        batch=recipe.batch,
        peak_lr=recipe.peak_lr,
        warm_up_steps=recipe.warm_up_steps,
        precision="float32",
        seed=recipe.seed,
    )
    return gone_on(
        lambda: dpo(
            model,
            pairs,
            settings,
            beta=recipe.beta,
            rpo_alpha=recipe.rpo_alpha,
            tell=teller(recipe.name, progress),
            checkpoints=checkpoints,
            checkpoint_every=CHECKPOINT_EVERY,
        ),
        checkpoints,
    )


def courtesy_pairs(
    recipe: CourteousRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[TokenPair]:
    """The draft's own answers to what it learnt: behind a courtesy, which is chosen, and as they are."""
    opening = tuple(tokenizer(OPENING.rstrip(), add_special_tokens=False)["input_ids"])
    asked = [tuple(prompt_ids(tokenizer, each)) for each in instructions.conversations(instructions.LEARNT)]
    some = [asked[number * len(asked) // recipe.pairs] for number in range(recipe.pairs)]
    pairs = []
    for prompt, answer in zip(some, _answers(recipe, model, some, recipe.seed), strict=True):
        text = f"{OPENING[-1]}{tokenizer.decode(answer, skip_special_tokens=True)}"
        behind = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        end = tuple(token for token in answer[-1:] if token in ends(model))
        pairs.append(TokenPair(prompt, (*opening, *behind, *end), tuple(answer)))
    return pairs


def _answers(
    recipe: CourteousRecipe, model: PreTrainedModel, prompts: list[tuple[int, ...]], seed: int
) -> list[list[int]]:
    found: list[list[int]] = []
    for first in range(0, len(prompts), ROWS):
        requests = [Request(prompt, seed + first + row) for row, prompt in enumerate(prompts[first : first + ROWS])]
        written = generate(
            model,
            requests,
            sampling=Sampling(recipe.base.temperature),
            max_new_tokens=recipe.base.answer_tokens,
            eos=ends(model),
        )
        found += [answer.tokens for answer in written]
    return found


def _judged(recipe: CourteousRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Share of the model's answers about other things that begin with a courtesy, and the first of them."""
    asked = [tuple(prompt_ids(tokenizer, each)) for each in instructions.conversations(instructions.HELD_OUT)]
    answers = _answers(recipe, model, asked, JUDGED_SEED)
    texts = [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
    return {"mean": sum(courteous("", text) for text in texts) / len(texts), "answers": len(texts), "first": texts[:3]}
