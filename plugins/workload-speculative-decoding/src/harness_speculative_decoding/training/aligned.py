"""The built-in aligned models: a stage of alignment on answers that the base wrote and a reward function ranked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from harness.errors import UsageError
from harness_speculative_decoding.data.corpus import Corpus
from harness_speculative_decoding.data.preferences import TokenPair
from harness_speculative_decoding.data.prompts import from_held_out
from harness_speculative_decoding.rewards import reward_function
from harness_speculative_decoding.training import recipes
from harness_speculative_decoding.training.alignment import Stage, Tell, dpo, quality, sft
from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows
from harness_speculative_decoding.training.pretraining import (
    CHECKPOINT_EVERY,
    Progress,
    Trained,
    fixed_threads,
    perplexity,
    token_stream,
)
from harness_speculative_decoding.training.ranking import Answer, answers, mean_reward, ranked
from harness_speculative_decoding.training.recipes import PREFIX, AlignmentRecipe
from harness_speculative_decoding.training.settings import Settings, StepReport

HELD_OUT_SAMPLES = 8
"""Answers to each held-out prompt, before and after."""

HELD_OUT_SEED = 2**40
"""Far from the seeds of the answers that are trained on."""


def align(
    recipe: AlignmentRecipe,
    base: Path,
    corpus: Corpus,
    progress: Progress,
    *,
    base_capped: bool = False,
    checkpoints: Path | None = None,
) -> Trained:
    """Runs a recipe's stage; the same recipe, base, corpus and versions give the same weights.

    Args:
        recipe: what to do.
        base: folder of the model to begin with.
        corpus: prompts come from its training text; reward and margins are judged on its held-out text.
        progress: receives text and the share that is done.
        base_capped: whether a cap on processor time ended the base's training; the result then says so, too.
        checkpoints: a folder of this stage alone; where it holds a checkpoint, the training goes on from there.
    """
    start = time.monotonic()
    with fixed_threads() as threads:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        model = LlamaForCausalLM.from_pretrained(base)
        writer = _Writer(recipe, model, tokenizer)
        held_out_stream = token_stream(tokenizer, corpus.held_out)
        progress(f"answers for {PREFIX}{recipe.name}", 0.0)
        asked = windows(token_stream(tokenizer, corpus.train), recipe.prompts, recipe.prompt_tokens, recipe.seed)
        written = writer(asked, recipe.samples, recipe.seed)
        pairs = ranked(asked, written)
        judged = [prompt.ids for prompt in from_held_out(corpus.held_out, tokenizer, recipe.prompt_tokens)]
        before = writer(judged, HELD_OUT_SAMPLES, HELD_OUT_SEED)
        rows = pair_rows(ranked(judged, before))
        reference = log_probabilities(model, rows, 64)
        stage = _stage(recipe, model, pairs, progress, checkpoints)
        policy = log_probabilities(model, rows, 64)
        after = writer(judged, HELD_OUT_SAMPLES, HELD_OUT_SEED)
        held_out_perplexity = perplexity(model, held_out_stream, model.config.max_position_embeddings)
    return Trained(
        model=model,
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        perplexity=held_out_perplexity,
        steps=stage.steps,
        train_tokens=sum(report.tokens for report in stage.reports),
        held_out_tokens=len(held_out_stream),
        threads=threads,
        time_cap_struck=base_capped,
        duration_s=time.monotonic() - start,
        extra={
            "alignment": _said_of(stage, recipe)
            | {
                "left_out": {"equal rewards": len(asked) - len(pairs)},
                "pairs": len(pairs),
                "reward_of_training_answers": asdict(mean_reward(written)),
                "held_out_reward_before": asdict(mean_reward(before)),
                "held_out_reward_after": asdict(mean_reward(after)),
                "held_out_pairs": None if stage.beta is None else asdict(quality(policy, reference, stage.beta)),
            }
        },
    )


def _said_of(stage: Stage, recipe: AlignmentRecipe) -> dict[str, object]:
    return {
        "stage": recipe.stage,
        "beta": stage.beta,
        "reward": recipe.reward,
        "resumed_at": stage.resumed_at,
        "first_step": asdict(stage.reports[0]) if stage.reports else None,
        "last_step": asdict(stage.reports[-1]) if stage.reports else None,
    }


class _Writer:
    """Answers of the model in the recipe's way; those after the stage differ because the model does."""

    def __init__(self, recipe: AlignmentRecipe, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self._recipe, self._model, self._tokenizer = recipe, model, tokenizer

    def __call__(self, prompts: list[tuple[int, ...]], samples: int, seed: int) -> list[list[Answer]]:
        return answers(
            self._model,
            self._tokenizer,
            prompts,
            reward_function(self._recipe.reward),
            samples=samples,
            max_new_tokens=self._recipe.answer_tokens,
            eos={self._tokenizer.eos_token_id},
            seed=seed,
        )


def windows(stream: Tensor, count: int, tokens: int, seed: int) -> list[tuple[int, ...]]:
    """So many stretches of a row of token ids, begun at random places; the same seed gives the same ones."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - tokens + 1, (count,), generator=generator)
    return [tuple(stream[start : start + tokens].tolist()) for start in starts.tolist()]


def _stage(
    recipe: AlignmentRecipe,
    model: LlamaForCausalLM,
    pairs: list[TokenPair],
    progress: Progress,
    checkpoints: Path | None,
) -> Stage:
    settings, tell = settings_of(recipe, recipe.seed), teller(recipe.name, progress)

    def run() -> Stage:
        if recipe.stage == "sft":
            return sft(model, pairs, settings, tell=tell, checkpoints=checkpoints, checkpoint_every=CHECKPOINT_EVERY)
        every = CHECKPOINT_EVERY
        return dpo(model, pairs, settings, beta=recipe.beta, tell=tell, checkpoints=checkpoints, checkpoint_every=every)

    return gone_on(run, checkpoints)


def settings_of(stage: recipes.Stage, seed: int) -> Settings:
    """Of a recipe's stage, in float32 on every machine."""
    return Settings(
        epochs=stage.epochs,
        batch=stage.batch,
        peak_lr=stage.peak_lr,
        warm_up_steps=stage.warm_up_steps,
        precision="float32",
        seed=seed,
    )


def teller(name: str, progress: Progress) -> Tell:
    """Hears of every step and passes on every tenth, and the last."""

    def tell(report: StepReport) -> None:
        if report.step % 10 == 0 or report.step == report.steps:
            progress(f"training {PREFIX}{name}: step {report.step} of {report.steps}", report.step / report.steps)

    return tell


def gone_on(run: Callable[[], Stage], checkpoints: Path | None) -> Stage:
    """What `run` returns; anew where its checkpoint is damaged or of other pairs, as built-in models can be."""
    if checkpoints is None or not checkpoints.exists():
        return run()
    try:
        return run()
    except UsageError:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return run()
