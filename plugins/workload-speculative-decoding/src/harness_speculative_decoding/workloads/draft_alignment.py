"""Workload `draft-alignment`: what it costs to align a small draft model, per pair that it is trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from harness.workload import FetchContext, TrialContext, Window, Workload
from harness_speculative_decoding.data import corpus
from harness_speculative_decoding.data.preferences import Preferences, TokenPair, read_pairs, split, tokenized
from harness_speculative_decoding.loading import Loaded, fetch_causal_lm, load_causal_lm
from harness_speculative_decoding.methods.decoding import context_length
from harness_speculative_decoding.options import DraftAlignmentOptions
from harness_speculative_decoding.rewards import reward_function
from harness_speculative_decoding.training.aligned import windows
from harness_speculative_decoding.training.alignment import displaced, dpo, quality, sft
from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows
from harness_speculative_decoding.training.pretraining import token_stream
from harness_speculative_decoding.training.ranking import answers, ranked
from harness_speculative_decoding.training.settings import Settings, StepReport
from harness_speculative_decoding.workloads.decoding import device_uuid, torch_device

WARM_UP_STEPS = 2
"""Optimiser steps of a stage while warming up: a whole alignment could take hours."""

OWN_ANSWERS = 64
"""Held-out prompts, at most, that the aligned model answers to be judged."""

Stage = Literal["sft", "dpo"]


class DraftAlignment(Workload):
    """One iteration aligns the base model anew, from its first weights; each optimiser step is a work item.

    Windows therefore do equal work. Energy per pair covers everything in the window: the reference's log-probabilities,
    the copy of the model and, where asked for, the fine-tuning; the stages also have spans of their own.
    """

    def __init__(self, options: DraftAlignmentOptions) -> None:
        self._options = options
        self._loaded: Loaded | None = None
        self._data: Preferences | None = None
        self._aligned: PreTrainedModel | None = None
        self._reference: PreTrainedModel | None = None
        self._device = ""
        self._log: Callable[[str], object] = str
        self._busy_s = 0.0
        self._facts: dict[str, object] = {}

    def fetch(self, context: FetchContext) -> None:
        """Builds or downloads the base model."""
        fetch_causal_lm(self._options.base, context.cache, context.progress)

    def prepare(self, context: TrialContext) -> None:
        """Loads the base model, building it first if need be, and the pairs, from a file or by ranking its answers."""
        options = self._options
        self._log = context.log
        device = torch_device(context.backend)
        self._device = device_uuid(device)
        self._loaded = load_causal_lm(options.base, device, "float32", context.cache, context.progress)
        if options.data:
            tokenizer = self._loaded.tokenizer
            pairs, left_out = tokenized(
                read_pairs(Path(options.data).expanduser()), tokenizer, context_length(self._loaded.model)
            )
        else:
            context.progress(f"answers ranked by {options.reward}", None)
            pairs, left_out = self._ranked(context.cache)
        self._data = split(pairs, left_out)

    def _ranked(self, cache: Path) -> tuple[list[TokenPair], dict[str, int]]:
        assert self._loaded is not None
        options, tokenizer = self._options, self._loaded.tokenizer
        stream = token_stream(tokenizer, corpus.load(cache / "models").train)
        asked = windows(stream, options.prompts, options.prompt_tokens, options.seed)
        written = answers(
            self._loaded.model,
            tokenizer,
            asked,
            reward_function(options.reward),
            samples=options.samples,
            max_new_tokens=options.answer_tokens,
            eos=self._loaded.eos(),
            seed=options.seed,
        )
        pairs = ranked(asked, written)
        return pairs, {"equal rewards": len(asked) - len(pairs)}

    def run(self, window: Window) -> None:
        """The whole window, then how long the device worked in it."""
        self._busy_s = 0.0
        super().run(window)
        window.device(self._device, busy_s=self._busy_s, reserved_s=max(window.now_s(), self._busy_s))

    def step(self, window: Window) -> None:
        """Aligns a copy of the base model: fine-tuning if asked for, then DPO."""
        assert self._loaded is not None
        start_s = window.now_s()
        model, reference = copy.deepcopy(self._loaded.model), self._loaded.model
        if self._options.fine_tune:
            with window.mark("stage:sft"):
                self._train(model, "sft", window)
            reference = copy.deepcopy(model)
        with window.mark("stage:dpo"):
            self._train(model, "dpo", window)
        self._aligned, self._reference = model, reference
        self._busy_s += window.now_s() - start_s

    def _train(self, model: PreTrainedModel, stage: Stage, window: Window) -> None:
        assert self._data is not None
        options = self._options
        iteration, last_s = window.iteration, window.now_s()

        def tell(report: StepReport) -> bool:
            nonlocal last_s
            now = window.now_s()
            window.item(
                f"w{window.index}-i{iteration}-{stage}-{report.step}",
                start_s=last_s,
                end_s=now,
                pairs=report.pairs,
                answers=report.answers,
                tokens=report.tokens,
                loss=report.loss,
                reward_margin=report.margin,
                reward_accuracy=report.accuracy,
                chosen_logprob=report.chosen_logprob,
                chosen_shift=report.chosen_shift,
                latency_s=now - last_s,
            )
            last_s = now
            return window.index < 0 and report.step >= WARM_UP_STEPS

        settings = self._settings(stage)
        if stage == "sft":
            done = sft(model, self._data.train, settings, tell=tell)
        else:
            done = dpo(model, self._data.train, settings, beta=options.beta, rpo_alpha=options.rpo_alpha, tell=tell)
        self._facts[stage] = {
            "settings": asdict(done.settings),
            "beta": done.beta,
            "rpo_alpha": done.rpo_alpha,
            "precision": done.precision,
            "steps": done.steps,
        }

    def _settings(self, stage: Stage) -> Settings:
        options = self._options
        return Settings(
            epochs=options.epochs,
            batch=options.batch,
            peak_lr=options.sft_lr if stage == "sft" else options.lr,
            warm_up_steps=options.warm_up_steps,
            accumulate=options.accumulate,
            precision=options.precision,
            seed=options.seed,
        )

    def validate(self) -> Mapping[str, float]:
        """Quality of the last run's model: over the held-out pairs, and of its own answers to their prompts.

        `held_out_own_divergence` is the mean of log aligned - log reference over those answers, in nats: an estimate of
        the divergence of the aligned model from the reference. It is the price of the reward, and a large one at a
        perfect accuracy is a model that writes what nobody chose.
        """
        if self._aligned is None or self._reference is None:
            return {}
        assert self._data is not None
        rows = pair_rows(self._data.held_out)
        policy, reference = (
            log_probabilities(model, rows, self._options.batch) for model in (self._aligned, self._reference)
        )
        found = quality(policy, reference, self._options.beta)
        warning = displaced(found.chosen_shift)
        if warning is not None:
            self._log(f"warning: {warning}")
        return {
            "held_out_chosen_logprob": found.chosen_logprob,
            "held_out_chosen_shift": found.chosen_shift,
            **self._own_answers(),
            "held_out_loss": found.loss,
            "held_out_reward_margin": found.margin,
            "held_out_reward_accuracy": found.accuracy,
        }

    def _own_answers(self) -> dict[str, float]:
        assert self._loaded is not None and self._data is not None  # noqa: PT018
        assert self._aligned is not None and self._reference is not None  # noqa: PT018
        options = self._options
        room = context_length(self._loaded.model)
        asked = sorted({pair.prompt for pair in self._data.held_out})[:OWN_ANSWERS]
        asked = [prompt for prompt in asked if room is None or len(prompt) + options.answer_tokens <= room]
        if not asked:
            return {}
        written = answers(
            self._aligned,
            self._loaded.tokenizer,
            asked,
            reward_function(options.reward),
            samples=1,
            max_new_tokens=options.answer_tokens,
            eos=self._loaded.eos(),
            seed=options.seed,
        )
        rows = [(prompt, own.tokens) for prompt, (own,) in zip(asked, written, strict=True)]
        aligned, reference = (
            log_probabilities(model, rows, options.batch) for model in (self._aligned, self._reference)
        )
        return {
            "held_out_own_reward": sum(own.reward for (own,) in written) / len(written),
            "held_out_own_divergence": float((aligned - reference).mean()),
        }

    def facts(self) -> Mapping[str, object]:
        """Base model, pairs, settings of each stage with its beta, threads."""
        if self._loaded is None or self._data is None:
            return {}
        data = self._data
        return {
            "base": self._loaded.facts,
            "pairs": {
                "source": self._options.data or f"answers of the base ranked by {self._options.reward}",
                "train": len(data.train),
                "held_out": len(data.held_out),
                "left_out": dict(data.left_out),
                "sha256": data.digest,
            },
            "stages": dict(self._facts),
            "threads": torch.get_num_threads(),
        }

    def close(self) -> None:
        """Lets go of the models."""
        self._loaded = self._aligned = self._reference = None
