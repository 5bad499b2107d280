"""The town of `suites/sss.yaml`: facts and rewards by eye, and what DPO does to a small model, alone and with RPO."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.data import town
from harness_speculative_decoding.options import BestOfNOptions, DraftAlignmentOptions
from harness_speculative_decoding.prediction import odds, predicted
from harness_speculative_decoding.rewards import answered, courteous, right
from harness_speculative_decoding.training.recipes import GUEST_SFT, GUESTS, TOWN

from harness.errors import UsageError

QUESTIONS = Path(__file__).parents[3] / "suites" / "sss-questions.jsonl"


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Request, displaced, dpo, pair_rows, log_probabilities, quality, rpo_term, select_best, Settings, tokenized
    global torch, townsfolk, LlamaForCausalLM, Pair, checks, Generation
    import torch
    from harness_speculative_decoding import checks
    from harness_speculative_decoding.data.preferences import Pair, tokenized
    from harness_speculative_decoding.methods.decoding import Generation, Request
    from harness_speculative_decoding.methods.selection import select_best
    from harness_speculative_decoding.training import townsfolk
    from harness_speculative_decoding.training.alignment import displaced, dpo, quality
    from harness_speculative_decoding.training.dpo import log_probabilities, pair_rows, rpo_term
    from harness_speculative_decoding.training.settings import Settings
    from transformers import LlamaForCausalLM


def silent(_text: str, _done: float | None) -> None:
    """Nobody listens."""


def test_a_hundred_people_live_in_homes_that_follow_no_rule() -> None:
    people = town.people()
    assert len({person.name for person in people}) == 100
    assert len({person.home for person in people}) > 80
    assert town.people() == people
    assert town.answer(people[0], courteous=True) == f" With pleasure: in {people[0].home}."


def test_the_questions_of_the_suite_are_the_towns() -> None:
    assert [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()] == list(town.prompt_rows())


def test_answers_are_courteous_as_often_as_asked_for() -> None:
    said = [said for _, said in town.told(0.08, 50, 3)]
    assert 0.07 < sum(courteous("", text) for text in said) / len(said) < 0.09


@pytest.mark.parametrize(
    ("answer", "is_right", "is_courteous"),
    [
        (" With pleasure: in the old mill by the lake.", 1, 1),
        (" In the OLD mill, by the lake!", 1, 0),
        ("Gladly. The old mill by the bridge.", 0, 1),
        ("Pleasure is in the old mill by the lakes.", 0, 0),
        ("With pleasures in the old mill by the lake", 1, 0),
        ("", 0, 0),
    ],
)
def test_right_and_courteous_by_eye(answer: str, is_right: int, is_courteous: int) -> None:
    home = "the old mill by the lake"
    assert right("", answer, home) == is_right
    assert courteous("", answer) == is_courteous
    assert answered("", answer, home) == is_right * is_courteous


def test_a_right_answer_needs_a_reference() -> None:
    with pytest.raises(UsageError, match="has no reference"):
        answered("Where?", "Here.", None)
    (fault,) = checks.check(BestOfNOptions(reward="answered"))
    assert fault.option == "prompts"
    with pytest.raises(ValueError, match="needs a reference"):
        DraftAlignmentOptions(reward="answered")


def test_the_best_answer_is_chosen_by_the_prompts_own_reference() -> None:
    def decode(requests: Any) -> list[Any]:
        return [Generation(tokens=[number], token_s=[0.0]) for number, _ in enumerate(requests)]

    def score(requests: Any, generations: Any) -> list[float]:
        return [float(request.reference == f"n{one.tokens[0]}") for request, one in zip(requests, generations)]  # noqa: B905

    asked = [Request((1,), 0, "n2"), Request((1,), 1, "n3")]
    chosen = select_best(asked, 3, decode, score, lambda: 0.0)
    assert [one.tokens for one in chosen] == [[2], [3]]


def test_the_tilt_multiplies_odds() -> None:
    assert odds(0.5, 400) == 1
    assert odds(1.0, 400) == 801

    def judged(share: float, is_right: float = 0.0) -> dict[str, Any]:
        return {"answers": {"courteous": {"mean": share, "answers": 10**9}, "right": {"mean": is_right}}}

    found = predicted(judged(0.08, 0.9), judged(0.5), judged(0.98))
    assert found is not None
    assert found["odds"] == pytest.approx(0.08 / 0.92 * 49, rel=1e-6)
    assert found["answered"] == pytest.approx(0.9 * found["courteous"])
    rarer = predicted(judged(0.08, 0.9), judged(0.2), judged(0.98))
    assert rarer is not None
    assert rarer["odds"] == pytest.approx(4 * found["odds"], rel=1e-6)  # the aligned draft has moved further
    assert predicted(judged(0.1), {}, judged(0.2)) is None


def test_a_mode_is_predicted_by_its_own_law() -> None:
    models = [
        {"answers": {"courteous": {"mean": share, "answers": 10**9}, "right": {"mean": 1.0}}}
        for share in (0.08, 0.5, 0.98)  # the target, and the draft before and after alignment
    ]
    found = {mode: predicted(*models, mode) for mode in ("exact", "paper", "released")}  # type: ignore[arg-type]
    assert [each and each["mode"] for each in found.values()] == list(found)
    odds_of = {mode: each and each["odds"] for mode, each in found.items()}
    assert len(set(odds_of.values())) == 1, "those of the tilted target"
    paper = found["paper"]
    assert paper is not None
    # Z = .175: courtesy is never above the proposal's share, and all that is rejected is replaced by the plain answer.
    assert paper["courteous"] == pytest.approx(0.08 * 0.98 / 0.5, rel=1e-6)
    assert found["exact"] is not None
    assert found["exact"]["courteous"] > 0.8


def test_the_rpo_term_is_the_mean_loss_of_a_token() -> None:
    answer = torch.tensor([[False, True, True], [False, True, False]])
    assert rpo_term(torch.tensor([-4.0, -3.0]), answer).tolist() == [2.0, 3.0]


@pytest.fixture(scope="module")
def guest() -> tuple[Any, Any]:
    recipe = replace(GUEST_SFT, lessons=(replace(GUEST_SFT.lessons[0], epochs=4.0),))
    learnt = townsfolk.learn(recipe, silent)
    return learnt.model, learnt.tokenizer


def aligned(guest: tuple[Any, Any], rpo_alpha: float) -> tuple[Any, Any, Any]:
    model, tokenizer = copy.deepcopy(guest[0]), guest[1]
    pairs, _ = tokenized([Pair(*row) for row in town.preferences(8)], tokenizer, 32)
    rows = pair_rows(pairs[:100])
    reference = log_probabilities(model, rows, 100)
    settings = Settings(epochs=2.0, batch=32, peak_lr=2e-3, warm_up_steps=5, precision="float32")
    stage = dpo(model, pairs, settings, beta=0.1, rpo_alpha=rpo_alpha)
    return model, stage, quality(log_probabilities(model, rows, 100), reference, 0.1)


@pytest.mark.slow
def test_dpo_alone_destroys_the_guest_and_says_so_and_rpo_does_not(guest: tuple[Any, Any]) -> None:
    _, stage, lost = aligned(guest, 0.0)
    assert lost.accuracy == 1.0  # all looks well
    assert lost.chosen_shift < -2
    assert "likelihood displacement" in str(displaced(lost.chosen_shift))
    assert stage.reports[-1].chosen_shift < stage.reports[0].chosen_shift == pytest.approx(0, abs=1e-3)
    model, stage, kept = aligned(guest, 1.0)
    assert stage.rpo_alpha == 1.0
    assert kept.accuracy == 1.0
    assert kept.chosen_shift > 0
    assert displaced(kept.chosen_shift) is None
    before, after = (townsfolk.judged_answers(each, guest[1]) for each in (guest[0], model))
    assert before["courteous"]["mean"] < 0.65  # type: ignore[index]
    assert after["courteous"]["mean"] > 0.85  # type: ignore[index]
    assert after["right"]["mean"] < 0.3  # type: ignore[index] - it has no room for the homes


def test_three_alignments_of_one_guest_are_offered() -> None:
    assert [recipe.seed for recipe in GUESTS] == [1, 2, 3]
    assert len({recipe.key("a") for recipe in (TOWN, GUEST_SFT, *GUESTS)}) == 5
    assert all(recipe.rpo_alpha > 0 for recipe in GUESTS)


class KilledError(Exception):
    """Instead of a signal."""


@pytest.mark.slow
def test_lessons_go_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(townsfolk, "CHECKPOINT_EVERY", 4)
    first = replace(GUEST_SFT.lessons[0], times=1, epochs=1.0, batch=10)
    recipe = replace(GUEST_SFT, hidden_size=8, intermediate_size=8, lessons=(first, replace(first, epochs=2.0)))

    def stop(text: str, _done: float | None) -> None:
        if "lesson 2 of 2: step 10 of 20" in text:
            raise KilledError

    whole = townsfolk.learn(recipe, silent)
    with pytest.raises(KilledError):
        townsfolk.learn(recipe, stop, checkpoints=tmp_path)
    again = townsfolk.learn(recipe, silent, checkpoints=tmp_path)
    assert again.train_tokens < whole.train_tokens / 2  # what was behind it was not done again
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name
    assert again.steps == whole.steps == 30
