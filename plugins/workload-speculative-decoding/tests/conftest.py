"""A small model of words, as `save_pretrained` writes it, and pairs of answers in those words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ["yes", "no", "maybe", "never", "always", "often"]


@pytest.fixture(scope="session")
def saved_model() -> Callable[..., str]:
    """Writes a Llama of so many layers, with random weights, and its tokenizer into a folder; returns its name."""

    def save(folder: Path, layers: int = 1) -> str:
        import torch
        from harness_speculative_decoding.training.pretraining import llama_config, train_tokenizer
        from harness_speculative_decoding.training.recipes import Pretrained
        from transformers import LlamaForCausalLM

        tokenizer = train_tokenizer([" ".join(WORDS)] * 20, 300, 48)
        tokenizer.save_pretrained(folder)
        sizes = Pretrained(name="words", hidden_size=16, layers=layers, heads=2, intermediate_size=32, context=48)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            LlamaForCausalLM(llama_config(sizes, len(tokenizer), tokenizer)).save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A file of eighty pairs."""
    path = tmp_path / "pairs.jsonl"
    rows = []
    for number in range(80):
        start = f"\n\nHuman: {WORDS[number % 6]} {number}\n\nAssistant:"
        rows.append({"chosen": f"{start} yes always", "rejected": f"{start} no {WORDS[number % 5]}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
