"""Workload `draft-alignment` on a model folder and a file of pairs: rows, spans, held-out quality, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness_speculative_decoding import harness_workloads
from harness_speculative_decoding.options import DraftAlignmentOptions
from pydantic import ValidationError

from harness.backend import Backend
from harness.errors import UsageError
from harness.testing import RecordingWindow, check_offers, trial_context


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global DraftAlignment, torch
    import torch
    from harness_speculative_decoding.workloads.draft_alignment import DraftAlignment


class Cpu(Backend):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def open(self) -> tuple[()]:
        return ()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(saved_model: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_model(tmp_path_factory.mktemp("base"))


def prepared(options: DraftAlignmentOptions, folder: Path) -> DraftAlignment:
    workload = DraftAlignment(options)
    workload.prepare(trial_context(folder, Cpu()))
    return workload


def test_every_step_is_an_item_and_every_iteration_does_the_same(base: str, data: str, tmp_path: Path) -> None:
    options = DraftAlignmentOptions(base=base, data=data, fine_tune=True, batch=16, epochs=2, lr=1e-2, accumulate=3)
    workload = prepared(options, tmp_path)
    window = RecordingWindow(iterations=2)
    workload.run(window)
    (spec,) = (spec for spec in harness_workloads() if spec.name == "draft-alignment")
    assert {key for row in window.rows for key in row} - {"item_id", "status", "start_s", "end_s"} <= {
        column.name for column in spec.columns
    }
    facts = workload.facts()
    pairs = facts["pairs"]
    assert isinstance(pairs, dict)
    steps = -(-2 * pairs["train"] // 16)
    assert pairs["train"] + pairs["held_out"] == 80
    assert len(window.rows) == 2 * 2 * steps
    assert window.marks == ["stage:sft", "stage:dpo"] * 2
    assert sum(row["pairs"] for row in window.rows) == 2 * steps * 16  # type: ignore[misc]
    half = len(window.rows) // 2
    for first, second in zip(window.rows[:half], window.rows[half:], strict=True):
        assert (first["loss"], first["reward_margin"]) == (second["loss"], second["reward_margin"])
    assert window.uses[0].busy_s > 0
    quality = workload.validate()
    assert quality["held_out_reward_margin"] > 0.02
    assert quality["held_out_reward_accuracy"] == 1.0
    assert 0 < quality["held_out_loss"] < 0.69
    json.dumps(facts)
    assert facts["stages"]["dpo"]["beta"] == 0.1  # type: ignore[index]
    workload.close()
    workload.close()


def test_a_warm_up_takes_a_few_steps_only(base: str, data: str, tmp_path: Path) -> None:
    workload = prepared(DraftAlignmentOptions(base=base, data=data, batch=8), tmp_path)
    window = RecordingWindow(iterations=1, index=-1)
    workload.run(window)
    assert [row["item_id"] for row in window.rows] == ["w-1-i0-dpo-1", "w-1-i0-dpo-2"]


def test_no_quality_before_the_first_alignment(base: str, data: str, tmp_path: Path) -> None:
    assert prepared(DraftAlignmentOptions(base=base, data=data), tmp_path).validate() == {}


def test_a_bad_row_is_a_usage_error(base: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad.jsonl:1: field 'rejected' is missing"):
        prepared(DraftAlignmentOptions(base=base, data=str(path)), tmp_path)


def test_more_parts_than_pairs_in_a_batch_are_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be computed in 5 parts"):
        DraftAlignmentOptions(batch=4, accumulate=5)


def test_the_offers_are_inert() -> None:
    check_offers("harness_speculative_decoding")
