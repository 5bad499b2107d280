"""The cap on processor time of built-in models, and that what is built on a capped model says so."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.data.corpus import Corpus
from harness_speculative_decoding.training import builder
from harness_speculative_decoding.training.recipes import TINY, TINY_SFT, Recipe


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global torch, training
    import torch
    from harness_speculative_decoding.training import pretraining as training


TEXT = tuple(f"The quick brown fox number {number} jumps over the lazy dog and runs on." for number in range(80))
SHORT = replace(
    TINY, name="short", hidden_size=16, layers=1, heads=2, intermediate_size=16, steps=4, vocabulary=300, context=16,
    batch=2, warm_up_steps=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    small = Corpus(TEXT, TEXT[:8], "a digest")
    monkeypatch.setattr(builder.prose, "load", lambda _cache: small)
    return small


@pytest.mark.parametrize(("cap_s", "steps"), [(1e9, 4), (0.0, 1)])
def test_the_cap_counts_processor_time_and_leaves_one_step(corpus: Corpus, cap_s: float, steps: int) -> None:
    trained = training.train(replace(SHORT, cpu_cap_s=cap_s), corpus, lambda _text, _done: None)
    assert trained.steps == steps
    assert trained.time_cap_struck == (steps < 4)


def test_waiting_does_not_count(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that does other work wall time passes and processor time does not."""
    from harness_speculative_decoding.training import lightning

    spent = iter([10.0, 10.0, 10.4, 10.8, 11.2, 11.6])
    cap = lightning.ProcessorTimeCap(1.0, clock=lambda: next(spent))
    cap.on_train_start(None, None)  # type: ignore[arg-type]

    class Trainer:
        should_stop = False

    stops = []
    for _ in range(3):
        cap.on_train_batch_end(Trainer, None, None, None, 0)  # type: ignore[arg-type]
        stops.append(Trainer.should_stop)
    assert stops == [False, False, True]


@pytest.mark.parametrize("capped", [False, True])
def test_what_is_built_on_a_capped_model_says_so(corpus: Corpus, tmp_path: Path, capped: bool) -> None:
    base = replace(SHORT, cpu_cap_s=0.0 if capped else 1e9)
    stage: dict[str, Any] = {"prompts": 24, "prompt_tokens": 4, "samples": 3, "answer_tokens": 8, "batch": 8}
    sft = replace(TINY_SFT, name="short-sft", base=base, reward="brevity", **stage)
    dpo = replace(sft, name="short-aligned", stage="dpo", base=sft)
    folder = builder.build(dpo, tmp_path, lambda _text, _done: None)
    facts = json.loads((folder / builder.FACTS).read_text())
    assert facts["time_cap_struck"] is capped
    assert facts["recipe"]["base"]["base"] == asdict(base)
    loaded = builder.facts_of(builder.build(sft, tmp_path, lambda _text, _done: None))
    assert loaded is not None
    assert loaded["time_cap_struck"] is capped


def test_recipes_leave_room_for_a_busy_machine() -> None:
    def first(recipe: Any) -> Any:
        return first(recipe.base) if hasattr(recipe, "base") else recipe

    capped = [base for base in map(first, builder.RECIPES.values()) if isinstance(base, Recipe)]
    assert len(capped) > 1
    assert all(base.cpu_cap_s >= base.steps for base in capped)
