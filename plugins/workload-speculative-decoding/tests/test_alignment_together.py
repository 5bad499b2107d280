"""Two processes align a draft together: the same losses as one process, each pair counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.testing import RecordingWindow, trial_context

pytestmark = pytest.mark.slow
WORDS = ["yes", "no", "maybe", "never", "always", "often"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """A base model, and a file of pairs."""
    import torch
    from harness_speculative_decoding.training.pretraining import train_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    base, data = tmp_path / "base", tmp_path / "pairs.jsonl"
    tokenizer = train_tokenizer([" ".join(WORDS)] * 20, 300, 48)
    tokenizer.save_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=48,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).save_pretrained(base)
    rows = []
    for number in range(80):
        start = f"\n\nHuman: {WORDS[number % 6]} {number}\n\nAssistant:"
        rows.append({"chosen": f"{start} yes always", "rejected": f"{start} no {WORDS[number % 5]}"})
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(base), str(data)


def aligned(folders: tuple[str, str], folder: Path, processes: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of one window, and the quality afterwards."""
    import torch
    from harness_speculative_decoding.options import DraftAlignmentOptions
    from harness_speculative_decoding.workloads.draft_alignment import DraftAlignment

    from harness.backend import Backend

    class Cpu(Backend):
        @property
        def device(self) -> torch.device:
            return torch.device("cpu")

        def open(self) -> tuple[()]:
            return ()

    base, data = folders
    options = DraftAlignmentOptions(
        base=base, data=data, batch=10, epochs=1, fine_tune=True, warm_up_steps=0, processes=processes, accumulate=2
    )
    workload = DraftAlignment(options)
    folder.mkdir()
    try:
        workload.prepare(trial_context(folder, Cpu()))
        assert len(workload.processes()) == processes - 1
        window = RecordingWindow(iterations=1)
        workload.run(window)
        assert workload.facts()["processes"] == processes
        return list(window.rows), dict(workload.validate())
    finally:
        workload.close()


def test_two_processes_are_the_same_alignment_as_one(folders: tuple[str, str], tmp_path: Path) -> None:
    alone, quality = aligned(folders, tmp_path / "one", 1)
    both, same = aligned(folders, tmp_path / "two", 2)
    assert len(alone) == len(both) > 4
    for one, two in zip(alone, both, strict=True):
        for column in ("pairs", "answers", "tokens"):
            assert two[column] == one[column], "each is counted once"
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert same == pytest.approx(quality, rel=1e-3, abs=1e-4)
