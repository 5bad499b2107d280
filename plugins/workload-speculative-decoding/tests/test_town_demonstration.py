"""`suites/sss.yaml` in small: a target that one core trains in seconds shows what the 21 million parameters show."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import pytest
from harness_speculative_decoding.data import town
from harness_speculative_decoding.prediction import predicted
from harness_speculative_decoding.rewards import answered
from harness_speculative_decoding.training.recipes import GUEST_SFT, GUESTS, TOWN

pytestmark = pytest.mark.slow

SMALL_TOWN = replace(
    TOWN,
    hidden_size=96,
    layers=2,
    heads=4,
    intermediate_size=256,
    lessons=tuple(
        replace(lesson, epochs=epochs, peak_lr=peak_lr)
        for lesson, epochs, peak_lr in zip(TOWN.lessons, (12.0, 1.0), (4e-3, 1e-3), strict=True)
    ),
)
ANSWERS = 300
MODES: tuple[Literal["exact", "paper"], ...] = ("exact", "paper")


class Shown(NamedTuple):
    """Share of good answers, and target calls for one."""

    gold: float
    calls: float


def silent(_text: str, _done: float | None) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Target, SFT draft and aligned draft with the target's tokenizer, each by the recipe's own code."""
    from harness_speculative_decoding.data.preferences import Pair, tokenized
    from harness_speculative_decoding.training import townsfolk
    from harness_speculative_decoding.training.aligned import settings_of
    from harness_speculative_decoding.training.alignment import dpo

    target, guest = townsfolk.learn(SMALL_TOWN, silent), townsfolk.learn(GUEST_SFT, silent)
    aligned = copy.deepcopy(guest.model)
    pairs, _ = tokenized([Pair(*row) for row in town.preferences(GUESTS[0].times)], guest.tokenizer, 32)
    recipe = GUESTS[0]
    dpo(aligned, pairs, settings_of(recipe, recipe.seed), beta=recipe.beta, rpo_alpha=recipe.rpo_alpha)
    own = (target.extra["answers"], guest.extra["answers"], townsfolk.judged_answers(aligned, guest.tokenizer))
    judged: Any = [{"answers": answers} for answers in own]
    return {
        "tokenizer": target.tokenizer,
        "target": target.model,
        "sft": guest.model,
        "aligned": aligned,
        "predicted": {mode: predicted(*judged, mode) for mode in MODES},
    }


def test_what_neither_model_can_do_alone_they_do_together(models: dict[str, Any]) -> None:
    from harness_speculative_decoding import Request, Rule, Trio, cached_model, speculate
    from harness_speculative_decoding.data.prompts import encode
    from harness_speculative_decoding.methods.decoding import generate
    from harness_speculative_decoding.methods.ensemble import sample_ensemble
    from harness_speculative_decoding.methods.sampling import Sampling

    tokenizer, people = models["tokenizer"], town.people()
    limits: dict[str, Any] = {"max_new_tokens": 16, "eos": {tokenizer.eos_token_id}}
    asked = [tuple(encode(tokenizer, town.question(person))) for person in people]
    requests = [Request(asked[number % 100], number, people[number % 100].home) for number in range(ANSWERS)]

    def shown(decode: Callable[[Sequence[Any]], Sequence[Any]]) -> Shown:
        written = decode(requests)
        texts = [str(tokenizer.decode(one.tokens, skip_special_tokens=True)) for one in written]
        gold = [answered("", text, request.reference) for text, request in zip(texts, requests, strict=True)]
        calls = [getattr(one, "target_calls", len(one.tokens)) for one in written]
        return Shown(sum(gold) / ANSWERS, sum(calls) / ANSWERS)

    trio = Trio(*(cached_model(models[name]) for name in ("target", "aligned", "sft")))
    vanilla, draft = (
        shown(partial(generate, models[name], sampling=Sampling(), **limits)) for name in ("target", "aligned")
    )
    ensemble = shown(partial(sample_ensemble, trio, sampling=Sampling(), **limits))
    exact, paper = (
        shown(partial(speculate, trio, rule=rule, **limits)) for rule in (Rule(mode="exact"), Rule(mode="paper"))
    )
    assert exact.gold > 3 * max(vanilla.gold, draft.gold)
    of_both = (exact.gold + ensemble.gold) / 2
    assert abs(exact.gold - ensemble.gold) < 4 * (2 * of_both * (1 - of_both) / ANSWERS) ** 0.5, "one law"
    assert exact.calls < ensemble.calls / 2
    assert exact.calls < vanilla.calls
    assert paper.gold < exact.gold / 3, "Z is far from 1"
    for mode, found in zip(MODES, (exact, paper), strict=True):
        assert found.gold == pytest.approx(models["predicted"][mode]["answered"], abs=0.15)
