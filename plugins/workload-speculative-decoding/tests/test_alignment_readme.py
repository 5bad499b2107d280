"""The README's example of aligning a draft, run on the README's own pairs and a model of a few hundred weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, torch, train_tokenizer
    import torch
    from harness_speculative_decoding.training.pretraining import train_tokenizer
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first one under the heading of alignment."""
    part = README.partition("## Align a draft of your own")[2]
    return str(re.findall(rf"^```{language}\n(.*?)^```", part, re.MULTILINE | re.DOTALL)[0])


def test_the_story_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = block("json").strip().split("\n")
    assert len(rows) == 2
    Path("pairs.jsonl").write_text(
        "\n".join(row.replace("Human: ", f"Human: {number} ") for number in range(32) for row in rows), encoding="utf-8"
    )
    tokenizer = train_tokenizer(["Human: Assistant:"] * 9, 280, 96)
    tokenizer.save_pretrained("my-small-model")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained("my-small-model")
    exec(compile(block("python"), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Quality(loss=0.6")
    sft, aligned = (AutoModelForCausalLM.from_pretrained(name) for name in ("draft-sft", "draft-aligned"))
    assert any(not torch.equal(*both) for both in zip(sft.parameters(), aligned.parameters(), strict=True))
