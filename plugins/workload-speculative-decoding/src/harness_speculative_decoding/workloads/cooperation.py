"""The decoding workloads beside `vanilla`: same prompts, same columns, another way to the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.errors import UsageError
from harness.workload import TrialContext, Window
from harness_speculative_decoding.columns import speculation_columns
from harness_speculative_decoding.data.prompts import ROW
from harness_speculative_decoding.loading import Loaded
from harness_speculative_decoding.methods.decoding import Generation, Request
from harness_speculative_decoding.methods.ensemble import sample_ensemble
from harness_speculative_decoding.methods.rule import Rule, Speculated, Trio
from harness_speculative_decoding.methods.selection import Selected, select_best, select_first
from harness_speculative_decoding.methods.speculation import capacity_for, speculate
from harness_speculative_decoding.networks.trace import Traced
from harness_speculative_decoding.options import (
    BestOfNOptions,
    DraftOnlyOptions,
    EnsembleOptions,
    PlainSpeculationOptions,
    RejectionOptions,
    SpeculationOptions,
    draft_option,
)
from harness_speculative_decoding.prediction import predicted
from harness_speculative_decoding.reward_models import Judged, Reward, reward_named
from harness_speculative_decoding.rewards import NEED_REFERENCE
from harness_speculative_decoding.together import (
    ancestry,
    check_contexts,
    pass_facts,
    warm_up,
    wrap,
)
from harness_speculative_decoding.workloads.decoding import Alone, Decoding, Vanilla

ROLES = {"target": "target", "draft": "draft", "draft_aligned": "draft", "draft_sft": "sft"}
"""Option that names a model, and the role in which its energy is read."""


class DraftOnly(Vanilla):
    """Samples from the aligned draft alone; its calls are draft calls."""

    def __init__(self, options: DraftOnlyOptions) -> None:
        super().__init__(options)
        self._draft = options.draft_aligned

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        return self._load_model(self._draft, context, device)

    def _columns(self, prompt: Sequence[int], generation: Generation) -> Mapping[str, float | None]:
        calls = float(len(generation.tokens))
        return {"prefill_calls": float(len(prompt) > 1), "draft_calls": calls, "logprob": None}


class _Cooperation(Decoding):
    """Several models decode together, on caches that can be rolled back."""

    models: Trio

    def __init__(self, options: EnsembleOptions | PlainSpeculationOptions) -> None:
        super().__init__(options)
        self._cooperation = options
        self._draft_tokens: int = getattr(options, "draft_tokens", 0)  # an ensemble reads token by token
        self._all: dict[str, Loaded] = {}
        self._traced: dict[str, Traced] = {}
        self._ancestry: list[str] = []
        self._predicted: dict[str, Any] | None = None

    def _drafts(self) -> tuple[str, ...]:
        """Options that name the drafts in use."""
        return ("draft_aligned", "draft_sft")

    def _tokens_a_pass(self) -> tuple[int, ...]:
        """Tokens that the target, the draft and the SFT draft read in most passes."""
        return (self._draft_tokens + 1, 1, self._draft_tokens + 1)

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        options = self._cooperation
        for name in ("target", *self._drafts()):
            quantization = options.quantization if name == "target" else "none"
            self._all[name] = self._load_model(getattr(options, name), context, device, quantization)
        wrapped = wrap(
            self._all,
            options.cache,
            options.batch,
            fused=options.fused,
            compiled=options.compile,
            tokens=self._tokens_a_pass(),
            cache=context.cache,
        )
        if options.role_energy:
            self._traced = {ROLES[name]: Traced(model) for name, model in wrapped.items()}
            wrapped = dict(zip(wrapped, self._traced.values(), strict=True))
        self.models = Trio(*wrapped.values())
        if len(self._drafts()) == 2:
            self._ancestry = ancestry(self._all["draft_sft"], self._all["draft_aligned"])
            for reason in self._ancestry:
                context.log(f"warning: draft_sft is hardly what draft_aligned was trained from: {reason}")
            target, sft, aligned = (self._all[name].facts for name in ("target", "draft_sft", "draft_aligned"))
            self._predicted = predicted(target, sft, aligned, getattr(options, "mode", "exact"))
        return self._all["target"]

    def prepare(self, context: TrialContext) -> None:
        """Loads all models and checks that prompts fit each of them."""
        super().prepare(context)
        check_contexts(self._all, [prompt.ids for prompt in self._prompts], self._options.max_new_tokens)
        lengths = [len(prompt.ids) for prompt in self._prompts]
        capacity = capacity_for(max(lengths), self._options.max_new_tokens, self._draft_tokens)
        for model, tokens in zip(self.models.all, self._tokens_a_pass(), strict=False):
            # Fewer tokens than usual are read at the end of a request; a draft reads two after a full round.
            passes = [(count, count) for count in range(2, tokens + 1)] if tokens > 1 else [(1, 1), (2, 1)]
            warm_up(model, self._options.batch, lengths, capacity, passes)

    def run(self, window: Window) -> None:
        """The whole window."""
        for traced in self._traced.values():
            traced.forget()
        super().run(window)

    def after_window(self, window: Window) -> None:
        """Makes each model's passes again in a span of its own."""
        for role, traced in self._traced.items():
            with window.mark(f"role:{role}"):
                traced.replay()

    def _columns(self, prompt: Sequence[int], generation: Generation) -> Mapping[str, float | None]:
        del prompt
        assert isinstance(generation, Speculated)
        guess = self._predicted
        known = {} if guess is None else {"predicted_odds": guess["odds"], "predicted_answered": guess["answered"]}
        return speculation_columns(generation) | known

    def _speculated(self, requests: Sequence[Request], rule: Rule, window: Window) -> Sequence[Generation]:
        return speculate(
            self.models,
            requests,
            rule=rule,
            max_new_tokens=self._options.max_new_tokens,
            eos=self._eos,
            stop=self._stop,
            clock=window.now_s,
        )

    def facts(self) -> Mapping[str, object]:
        """All models, their caches, whether the drafts can be one model before and after alignment."""
        facts = dict(super().facts())
        if not self._all:
            return facts
        unavailable = {"unavailable": "the option role_energy is off"}
        drafts: dict[str, object] = {name: self._all[name].facts for name in self._drafts()}
        if len(drafts) == 2:
            drafts["predicted"] = self._predicted
        return {
            **facts,
            **drafts,
            "ancestry_doubts": self._ancestry,
            "role_energy": [f"role:{role}" for role in self._traced] if self._traced else unavailable,
        }

    def _passes(self) -> Mapping[str, object]:
        return {name: pass_facts(model) for name, model in zip(self._all, self.models.all, strict=True)}

    def close(self) -> None:
        """Lets go of the models."""
        super().close()
        self._all, self._traced = {}, {}
        if hasattr(self, "models"):
            del self.models


class Speculation(_Cooperation):
    """Reward-shifted speculative sampling."""

    def __init__(self, options: SpeculationOptions) -> None:
        super().__init__(options)
        self._rule = Rule(
            mode=options.mode,
            draft_tokens=options.draft_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            draft_top_k=options.draft_top_k,
            draft_top_p=options.draft_top_p,
            bonus=options.bonus,
            replaced_by=options.replacement,
        )

    def prepare(self, context: TrialContext) -> None:
        """Also warns of a law that depends on K."""
        super().prepare(context)
        if self._rule.mode == "paper" and self._rule.takes_bonus:
            context.log("warning: in mode paper with bonus the law depends on draft_tokens wherever Z is not 1")

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return self._speculated(requests, self._rule, window)

    def facts(self) -> Mapping[str, object]:
        """Also whether a bonus token is taken."""
        return {**super().facts(), "bonus": self._rule.takes_bonus}


class PlainSpeculation(_Cooperation):
    """Speculative sampling from the target with one draft."""

    def __init__(self, options: PlainSpeculationOptions) -> None:
        super().__init__(options)
        self._draft_option = draft_option(options.draft)
        self._rule = Rule(
            draft_tokens=options.draft_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            draft_top_k=options.draft_top_k,
            draft_top_p=options.draft_top_p,
            bonus=options.bonus,
        )

    def _drafts(self) -> tuple[str, ...]:
        return (self._draft_option,)

    def _loads(self, option: str) -> bool:
        return option in {"target", self._draft_option}

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return self._speculated(requests, self._rule, window)


class Ensemble(_Cooperation):
    """Ancestral sampling from the three models' product."""

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return sample_ensemble(
            self.models,
            requests,
            sampling=self._sampling,
            max_new_tokens=self._options.max_new_tokens,
            eos=self._eos,
            stop=self._stop,
            clock=window.now_s,
        )


class BestOfN(Alone):
    """Samples each prompt n times and keeps the answer with the highest reward."""

    def __init__(self, options: BestOfNOptions) -> None:
        super().__init__(options)
        self._selection = options
        self._reward: Reward | None = None

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        self._reward = reward_named(self._selection.reward, device)
        return super()._load(context, device)

    def prepare(self, context: TrialContext) -> None:
        """Also refuses prompts without the reference that the reward judges by."""
        super().prepare(context)
        reward, source = self._selection.reward, self._options.prompts
        if reward in NEED_REFERENCE and any(prompt.reference is None for prompt in self._prompts):
            raise UsageError(f"reward {reward} needs a reference for each prompt of {source!r}", accepted=ROW)

    def _rows(self) -> int:
        return self._options.batch * self._selection.n

    def _rewards(self, requests: Sequence[Request], answers: Sequence[Generation]) -> list[float]:
        assert self._loaded is not None and self._reward is not None, "prepare() comes first"  # noqa: PT018
        decode = self._loaded.tokenizer.decode
        return self._reward(
            [
                Judged(
                    str(decode(list(request.prompt), skip_special_tokens=True)),
                    self._text(answer.tokens),
                    request.reference,
                )
                for request, answer in zip(requests, answers, strict=True)
            ]
        )

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return select_best(
            requests, self._selection.n, lambda batch: self._generate(batch, window), self._rewards, window.now_s
        )

    def _columns(self, prompt: Sequence[int], generation: Generation) -> Mapping[str, float | None]:
        assert isinstance(generation, Selected)
        return {
            "prefill_calls": float(generation.samples * (len(prompt) > 1)),
            "target_calls": generation.target_calls,
            "tokens_per_target_call": len(generation.tokens) / generation.target_calls,
            "reward_calls": generation.samples,
            "selection_reward": generation.reward,
        }

    def facts(self) -> Mapping[str, object]:
        """Also the reward."""
        facts = dict(super().facts())
        return facts if self._reward is None else {**facts, "reward": dict(self._reward.facts())}


class Rejection(BestOfN):
    """Samples a prompt until an answer's reward reaches the threshold, n times at most; then keeps the best."""

    def __init__(self, options: RejectionOptions) -> None:
        super().__init__(options)
        self._threshold = options.threshold

    def _rows(self) -> int:
        return self._options.batch

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return select_first(
            requests,
            self._selection.n,
            self._threshold,
            lambda batch: self._generate(batch, window),
            self._rewards,
            window.now_s,
        )
