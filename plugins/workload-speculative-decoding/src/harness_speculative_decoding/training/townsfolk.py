"""The models of `data.town`: one that knows the homes, a small one that cannot, and that one aligned for courtesy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from harness_speculative_decoding.data import town
from harness_speculative_decoding.data.preferences import Pair, TokenPair, tokenized
from harness_speculative_decoding.data.prompts import encode
from harness_speculative_decoding.methods.decoding import Request, generate
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.rewards import answered, courteous, right
from harness_speculative_decoding.training.aligned import gone_on, settings_of, teller
from harness_speculative_decoding.training.alignment import Stage, displaced, dpo, quality, sft
from harness_speculative_decoding.training.dpo import chosen_rows, log_probabilities, pair_rows
from harness_speculative_decoding.training.pretraining import (
    CHECKPOINT_EVERY,
    END,
    Progress,
    Trained,
    fixed_threads,
    llama_config,
)
from harness_speculative_decoding.training.ranking import AT_ONCE, MeanReward
from harness_speculative_decoding.training.recipes import PREFIX, MannersRecipe, TownRecipe

ANSWERS = 400
"""Answers by which a finished model is judged, four to each person."""
ANSWER_TOKENS = 16
JUDGED_SEED = 2**40
"""Far from the seeds of a suite's requests."""


def town_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """A token for each word and mark of the town; token 0 ends an answer."""
    words = {token: number for number, token in enumerate((END, *town.vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(town.WORD), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def learn(recipe: TownRecipe, progress: Progress, *, checkpoints: Path | None = None) -> Trained:
    """Trains a model on the town's answers; the same recipe and versions give the same weights.

    Args:
        recipe: what to do.
        progress: receives text and the share that is done.
        checkpoints: a folder of this training alone; where it holds a checkpoint, the training goes on from there.
    """
    start = time.monotonic()
    tokenizer = town_tokenizer(recipe.context)
    with fixed_threads(recipe.threads) as threads, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(llama_config(recipe, len(tokenizer), tokenizer))
        stages = []
        for number, lesson in enumerate(recipe.lessons, start=1):
            rows = _told(tokenizer, lesson.courteous, lesson.times, recipe.seed)
            folder = None if checkpoints is None else checkpoints / str(number)
            run = partial(
                sft,
                model,
                rows,
                settings_of(lesson, recipe.seed),
                tell=teller(f"{recipe.name}, lesson {number} of {len(recipe.lessons)}", progress),
                checkpoints=folder,
                checkpoint_every=CHECKPOINT_EVERY,
            )
            stages.append(gone_on(run, folder))
        return _trained(model, tokenizer, stages, recipe, threads, start, {})


def align_manners(recipe: MannersRecipe, base: Path, progress: Progress, *, checkpoints: Path | None = None) -> Trained:
    """Aligns a model of the town for courtesy by DPO, and judges it by its own answers, before and after.

    Args:
        recipe: what to do.
        base: folder of the model to begin with.
        progress: receives text and the share that is done; hears of likelihood displacement.
        checkpoints: a folder of this stage alone; where it holds a checkpoint, the training goes on from there.
    """
    start = time.monotonic()
    with fixed_threads(recipe.base.threads) as threads:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        model = LlamaForCausalLM.from_pretrained(base)
        texts = [Pair(*row) for row in town.preferences(recipe.times)]
        pairs, _ = tokenized(texts, tokenizer, recipe.base.context)
        rows = pair_rows(pairs[: len(town.people())])
        reference = log_probabilities(model, rows, 64)
        before = judged_answers(model, tokenizer)

        run = partial(
            dpo,
            model,
            pairs,
            settings_of(recipe, recipe.seed),
            beta=recipe.beta,
            rpo_alpha=recipe.rpo_alpha,
            tell=teller(recipe.name, progress),
            checkpoints=checkpoints,
            checkpoint_every=CHECKPOINT_EVERY,
        )
        stage = gone_on(run, checkpoints)
        found = quality(log_probabilities(model, rows, 64), reference, recipe.beta)
        warning = displaced(found.chosen_shift)
        if warning is not None:
            progress(f"warning: {PREFIX}{recipe.name}: {warning}", None)
        alignment = {
            "stage": "dpo",
            "beta": recipe.beta,
            "rpo_alpha": recipe.rpo_alpha,
            "reward": "courteous",
            "pairs": len(pairs),
            "resumed_at": stage.resumed_at,
            "training_pairs": asdict(found),
            "warning": warning,
            "answers_before": before,
        }
        return _trained(model, tokenizer, [stage], recipe.base, threads, start, {"alignment": alignment})


def judged_answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Shares of a model's own answers that are courteous, right and both, each with its standard error."""
    people = town.people()
    asked = [tuple(encode(tokenizer, town.question(person))) for person in people]
    requests = [Request(asked[number % len(asked)], JUDGED_SEED + number) for number in range(ANSWERS)]
    texts: list[str] = []
    for first in range(0, len(requests), AT_ONCE):
        written = generate(
            model,
            requests[first : first + AT_ONCE],
            sampling=Sampling(),
            max_new_tokens=ANSWER_TOKENS,
            eos={tokenizer.eos_token_id},
        )
        texts += [str(tokenizer.decode(answer.tokens, skip_special_tokens=True)) for answer in written]
    homes = [people[number % len(people)].home for number in range(ANSWERS)]
    return {
        reward.__name__: asdict(_share([reward("", text, home) for text, home in zip(texts, homes, strict=True)]))
        for reward in (courteous, right, answered)
    } | {"first": texts[:3]}


def _share(rewards: Sequence[float]) -> MeanReward:
    share = sum(rewards) / len(rewards)
    return MeanReward(share, (share * (1 - share) / len(rewards)) ** 0.5, len(rewards))


def _trained(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[Stage],
    recipe: TownRecipe,
    threads: int,
    start: float,
    extra: dict[str, object],
) -> Trained:
    """Judged by other answers than those learnt: the people are the same, which of them are courteous is drawn anew."""
    rows = chosen_rows(_told(tokenizer, recipe.lessons[-1].courteous, 1, JUDGED_SEED))
    tokens = sum(len(answer) for _, answer in rows)
    return Trained(
        model=model,
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        perplexity=float(torch.exp(-log_probabilities(model, rows, 64).sum() / tokens)),
        steps=sum(stage.steps for stage in stages),
        train_tokens=sum(report.tokens for stage in stages for report in stage.reports),
        held_out_tokens=tokens,
        threads=threads,
        time_cap_struck=False,
        duration_s=time.monotonic() - start,
        extra={"answers": judged_answers(model, tokenizer), **extra},
    )


def _told(tokenizer: PreTrainedTokenizerBase, share: float, times: int, seed: int) -> list[TokenPair]:
    """Answers to learn, as pairs whose rejected side nobody looks at."""
    end: tuple[int, ...] = (tokenizer.eos_token_id,)
    return [
        TokenPair(tuple(encode(tokenizer, asked)), (*encode(tokenizer, said), *end), end)
        for asked, said in town.told(share, times, seed)
    ]
