"""Workload `draft-alignment`: what it costs to align a small draft model, per pair that it is trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from harness_backend_torch.devices import device_uuid, torch_device
from harness_backend_torch.together import Member, Together, member_devices
from transformers import PreTrainedModel

from harness.workload import FetchContext, TrialContext, Window, Workload
from harness_speculative_decoding.data import corpus
from harness_speculative_decoding.data.chat import template_digest
from harness_speculative_decoding.data.preferences import Preferences, TokenPair, read_pairs, split, tokenized
from harness_speculative_decoding.loading import Loaded, fetch_causal_lm, load_causal_lm
from harness_speculative_decoding.methods.decoding import context_length
from harness_speculative_decoding.options import DraftAlignmentOptions
from harness_speculative_decoding.rewards import reward_function
from harness_speculative_decoding.training.aligned import windows
from harness_speculative_decoding.training.alignment import Stage as Trained
from harness_speculative_decoding.training.alignment import Tell, displaced, dpo, quality, sft
from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows
from harness_speculative_decoding.training.pretraining import token_stream
from harness_speculative_decoding.training.ranking import answers, ranked
from harness_speculative_decoding.training.settings import Settings, StepReport

WARM_UP_STEPS = 2
"""Optimiser steps of a stage while warming up: a whole alignment could take hours."""

OWN_ANSWERS = 64
"""Held-out prompts, at most, that the aligned model answers to be judged."""

Stage = Literal["sft", "dpo"]


class Twin:
    """What one more process of an alignment does: its share of every batch, on a copy of the same base model.

    Args:
        together: this process among the others.
        options: of the workload.
        cache: folder of built and downloaded models.
        pairs: to train on.
    """

    def __init__(
        self, together: Member, options: DraftAlignmentOptions, cache: Path, pairs: Sequence[TokenPair]
    ) -> None:
        self._together, self._options, self._pairs = together, options, pairs
        loaded = load_causal_lm(options.base, together.device, "float32", cache, lambda *_: None)
        self._base = loaded.model
        self._model = self._base

    def begin(self) -> None:
        """Takes a copy of the base model."""
        self._model = copy.deepcopy(self._base)

    def train(self, stage: Stage) -> None:
        """Its part of one stage."""
        trained(stage, self._model, self._pairs, self._options, _silent, self._together)


def _silent(report: StepReport) -> None:
    del report


def trained(
    stage: Stage,
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    options: DraftAlignmentOptions,
    tell: Tell,
    together: Member | None,
) -> Trained:
    """One stage of an alignment, in place."""
    settings = settings_of(options, stage)
    if stage == "sft":
        return sft(model, pairs, settings, tell=tell, together=together)
    beta, rpo_alpha = options.beta, options.rpo_alpha
    return dpo(model, pairs, settings, beta=beta, rpo_alpha=rpo_alpha, tell=tell, together=together)


def settings_of(options: DraftAlignmentOptions, stage: Stage) -> Settings:
    """Of a stage's optimiser."""
    return Settings(
        epochs=options.epochs,
        batch=options.batch,
        peak_lr=options.sft_lr if stage == "sft" else options.lr,
        warm_up_steps=options.warm_up_steps,
        accumulate=options.accumulate,
        precision=options.precision,
        seed=options.seed,
    )


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
        self._log: Callable[[str], object] = str
        self._devices: tuple[torch.device, ...] = ()
        self._together: Together | None = None
        self._busy_s = 0.0
        self._facts: dict[str, object] = {}
        self._template: dict[str, object] = {}

    def fetch(self, context: FetchContext) -> None:
        """Builds or downloads the base model."""
        fetch_causal_lm(self._options.base, context.cache, context.progress)

    def prepare(self, context: TrialContext) -> None:
        """Loads the base model, building it first if need be, and the pairs, from a file or by ranking its answers."""
        options = self._options
        self._log = context.log
        device = torch_device(context.backend)
        self._devices = member_devices(getattr(context.backend, "devices", (device,)), options.processes)
        self._loaded = load_causal_lm(options.base, device, "float32", context.cache, context.progress)
        if options.data:
            tokenizer = self._loaded.tokenizer
            read = read_pairs(Path(options.data).expanduser(), tokenizer)
            if any(pair.chat for pair in read):
                self._template = {"chat_template_sha256": template_digest(tokenizer)}
            pairs, left_out = tokenized(read, tokenizer, context_length(self._loaded.model), self._loaded.eos())
        else:
            context.progress(f"answers ranked by {options.reward}", None)
            pairs, left_out = self._ranked(context.cache)
        self._data = split(pairs, left_out)
        if len(self._devices) > 1:
            context.progress(f"{len(self._devices)} processes start", None)
            builder = f"{Twin.__module__}:{Twin.__qualname__}"
            self._together = Together(self._devices, builder, options, context.cache, self._data.train)

    def processes(self) -> Mapping[str, int]:
        """Those that train beside the trial's own."""
        return {} if self._together is None else self._together.processes

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
        for device in dict.fromkeys(self._devices):
            window.device(device_uuid(device), busy_s=self._busy_s, reserved_s=max(window.now_s(), self._busy_s))

    def step(self, window: Window) -> None:
        """Aligns a copy of the base model: fine-tuning if asked for, then DPO."""
        assert self._loaded is not None
        start_s = window.now_s()
        if self._together is not None:
            self._together.tell("begin")
        model, reference = copy.deepcopy(self._loaded.model), self._loaded.model
        if self._together is not None:
            self._together.wait()
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

        if self._together is not None:
            self._together.tell("train", stage)
        done = trained(stage, model, self._data.train, self._options, tell, self._together)
        if self._together is not None:
            self._together.wait()
        self._facts[stage] = {
            "settings": asdict(done.settings),
            "beta": done.beta,
            "rpo_alpha": done.rpo_alpha,
            "precision": done.precision,
            "steps": done.steps,
        }

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
                **self._template,
            },
            "stages": dict(self._facts),
            "processes": len(self._devices),
            "threads": torch.get_num_threads(),
        }

    def close(self) -> None:
        """Ends the other processes, and lets go of the models."""
        if self._together is not None:
            self._together.close()
            self._together = None
        self._loaded = self._aligned = self._reference = None
