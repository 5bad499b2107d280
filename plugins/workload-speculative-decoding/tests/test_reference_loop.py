"""The paper's loop as it is written down, the fast path beside it, and what other programs take from this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LlamaConfig, LlamaForCausalLM, Request, Rule, Trio, cached_model, speculate, sss, torch
    import torch
    from harness_speculative_decoding import Request, Rule, Trio, cached_model, speculate
    from harness_speculative_decoding.methods.reference import sss
    from transformers import LlamaConfig, LlamaForCausalLM


V = 9


def llama(seed: int, size: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=size,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.35,
    )
    return LlamaForCausalLM(config).double().eval()  # type: ignore[no-any-return]


def policy(model: LlamaForCausalLM) -> Any:
    def log_pi(ids: list[int]) -> Any:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)

    return log_pi


@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_the_fast_path_gives_the_tokens_of_the_papers_loop(mode: Any, draft_tokens: int) -> None:
    target, aligned, tuned = llama(1, 16), llama(2, 8), llama(3, 8)
    written = [
        sss(
            policy(target),
            policy(tuned),
            policy(aligned),
            [1, 2, 3][: 1 + seed % 3],
            K=draft_tokens,
            max_new_tokens=14,
            seed=seed,
            eos=(4,),
            mode=mode,
        )
        for seed in range(8)
    ]
    assert len({len(tokens) for tokens in written}) > 1
    requests = [Request([1, 2, 3][: 1 + seed % 3], seed) for seed in range(8)]
    settings: dict[str, Any] = {"rule": Rule(mode=mode, draft_tokens=draft_tokens), "max_new_tokens": 14, "eos": (4,)}
    models = Trio(*map(cached_model, (target, aligned, tuned)))
    fast = speculate(models, requests, **settings)
    assert [one.tokens for one in fast] == written
    assert sum(one.accepted < one.judged for one in fast) > 2  # replacements were drawn
    assert sum(one.accepted for one in fast) > 2


def python(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=300)


def test_listing_the_plugin_imports_no_torch() -> None:
    python(
        "import sys, pluggy, harness_speculative_decoding as plugin\n"
        "manager = pluggy.PluginManager('harness')\n"
        "manager.register(plugin)\n"
        "assert [spec.name for spec in plugin.harness_workloads()]\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n"
        "    plugin.speculation\n"
        "except AttributeError as error:\n"
        "    assert 'speculation' in str(error)\n"
        "else:\n"
        "    raise SystemExit('an unknown name was found')\n"
    )


def test_what_is_lifted_out_is_what_the_modules_hold() -> None:
    import harness_speculative_decoding as plugin
    from harness_speculative_decoding.methods import rule, speculation

    assert plugin.speculate is speculation.speculate
    assert (plugin.Trio, plugin.Rule) == (rule.Trio, rule.Rule)


def test_the_readme_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (text,) = (
        found
        for found in re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
        if "import Request, Rule, Trio" in found
    )
    monkeypatch.chdir(tmp_path)
    for number, (name, size) in enumerate((("target", 16), ("draft-aligned", 8), ("draft-sft", 8))):
        llama(number, size).float().save_pretrained(name)
    exec(compile(text, "README.md", "exec"), {})
    tokens, share = capsys.readouterr().out.split("] ")
    assert len(tokens.split(",")) == 32
    assert 0 <= float(share) <= 1
