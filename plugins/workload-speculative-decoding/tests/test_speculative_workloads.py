"""The workloads through the harness's contract: columns, counts, bad input, energy by role, rewards."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness_speculative_decoding as plugin
import pytest
from harness_speculative_decoding import rewards
from pydantic import ValidationError

from harness import HarnessError, UsageError
from harness.backend import Backend, Device
from harness.testing import RecordingWindow, check_offers, check_workload, trial_context


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Generation, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, MambaConfig, MambaForCausalLM
    global PreTrainedTokenizerFast, Request, RewardScorer, Tokenizer, load_causal_lm, models, pre_tokenizers
    global reward_models, select_best, select_first, torch
    import torch
    from harness_speculative_decoding import reward_models
    from harness_speculative_decoding.loading import load_causal_lm
    from harness_speculative_decoding.methods.decoding import Generation, Request
    from harness_speculative_decoding.methods.selection import select_best, select_first
    from harness_speculative_decoding.workloads.scorer import RewardScorer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        MambaConfig,
        MambaForCausalLM,
        PreTrainedTokenizerFast,
    )


WORDS = ["<eos>", "the", "cat", "sat", "on", "a", "mat", "dog", "ran", "."]
SPECS = {spec.name: spec for spec in plugin.harness_workloads() if spec.name != "draft-alignment"}
THREE = ("sss", "ensemble")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Cpu(Backend):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def open(self) -> Sequence[Device]:
        return [Device(kind="cpu", uuid="cpu", name="test")]


def tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="the"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def save(
    folder: Path,
    seed: int,
    words: Sequence[str] = WORDS,
    width: int = 16,
    layers: int = 1,
    padding: int = 0,
    **more: Any,
) -> str:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words) + padding,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        **more,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    prompts = root / "prompts.txt"
    prompts.write_text("the cat sat\na dog ran on the mat\ncat\n")
    return {
        "target": save(root / "target", 1, width=32, layers=2, padding=6),
        "draft_aligned": save(root / "aligned", 2),
        "draft_sft": save(root / "sft", 3),
        "prompts": str(prompts),
        "max_new_tokens": 12,
        "dtype": "float64",
    }


def options(name: str, suite: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    known = SPECS[name].options.model_fields
    return {key: value for key, value in {**suite, **more}.items() if key in known or key in more}


def test_offers_are_inert() -> None:
    assert check_offers("harness_speculative_decoding") == [
        *(f"workloads:{name}" for name in ("vanilla", "sss", "draft-only", "ensemble", "speculative")),
        *(f"workloads:{name}" for name in ("best-of-n", "rejection", "assisted", "draft-alignment")),
        "scorers:reward",
        "commands:rewards",
        "commands:break-even",
    ]


@pytest.mark.parametrize("name", SPECS)
def test_every_workload_keeps_its_contract(name: str, suite: dict[str, Any], tmp_path: Path) -> None:
    given = {**suite, "target": suite["draft_aligned"]} if name == "assisted" else suite
    window = check_workload(SPECS[name], options(name, given), Cpu(), tmp_path, iterations=3)
    assert len(window.rows) == 3
    for row in window.rows:
        tokens = row["output_tokens"]
        assert window.outputs[str(row["item_id"])].keys() == {"prompt", "text", "tokens"}  # type: ignore[attr-defined]
        assert max(window.outputs[str(row["item_id"])]["tokens"]) < len(WORDS) or name in {  # type: ignore[index]
            "vanilla",
            "best-of-n",
            "rejection",
            "assisted",
        }
        if name in {"vanilla", "ensemble"}:
            assert row["target_calls"] == tokens
        if name in {"sss", "speculative"}:
            assert row["target_calls"] == row["rounds"]
            assert row["reward_calls"] == 0
            assert row["accepted_tokens"] <= row["judged_tokens"] <= row["proposed_tokens"]  # type: ignore[operator]
        if name in THREE:
            assert row["log_z_sum"] == pytest.approx(row["log_z_mean"] * tokens)  # type: ignore[operator]
        if name == "sss":
            assert row["sft_calls"] == row["rounds"]
        if name == "best-of-n":
            assert row["reward_calls"] == 5
        if name == "draft-only":
            assert "target_calls" not in row


@pytest.mark.parametrize("name", ["sss", "speculative", "ensemble"])
def test_a_batch_gives_the_tokens_of_single_requests(name: str, suite: dict[str, Any], tmp_path: Path) -> None:
    single = check_workload(SPECS[name], options(name, suite), Cpu(), tmp_path / "1", iterations=6)
    batch = check_workload(SPECS[name], options(name, suite, batch=3), Cpu(), tmp_path / "3", iterations=2)
    assert single.outputs == batch.outputs


@pytest.mark.parametrize("name", ["sss", "speculative", "ensemble"])
def test_energy_by_role_repeats_each_models_passes_after_the_window(
    name: str, suite: dict[str, Any], tmp_path: Path
) -> None:
    spec = SPECS[name]
    workload = spec.factory(spec.options.model_validate(options(name, suite, role_energy=True)))
    workload.prepare(trial_context(tmp_path, Cpu()))
    passes: dict[str, int] = {}
    for role, traced in workload._traced.items():
        extend = traced.model.extend

        def counting(*arguments: Any, role: str = role, extend: Any = extend) -> Any:
            passes[role] = passes.get(role, 0) + 1
            return extend(*arguments)

        traced.model.extend = counting
    window = RecordingWindow(3)
    workload.run(window)
    assert window.marks == []
    decoding, passes_before = dict(passes), dict(passes)
    passes.clear()
    workload.after_window(window)
    assert window.marks == [f"role:{role}" for role in passes_before]
    assert passes == decoding
    assert workload.facts()["role_energy"] == window.marks
    workload.run(RecordingWindow(1))  # a window begins with an empty trace
    passes.clear()
    workload.after_window(RecordingWindow(1))
    assert sum(passes.values()) < sum(decoding.values())
    workload.close()
    without = spec.factory(spec.options.model_validate(options(name, suite)))
    without.prepare(trial_context(tmp_path, Cpu()))
    assert "unavailable" in without.facts()["role_energy"]


def prepare(name: str, given: Mapping[str, Any], folder: Path, log: list[str] | None = None) -> Any:
    spec = SPECS[name]
    workload = spec.factory(spec.options.model_validate(given))
    context = trial_context(folder, Cpu())
    workload.prepare(replace(context, log=(log if log is not None else []).append))
    return workload


@pytest.mark.parametrize("name", ["sss", "ensemble", "speculative", "assisted"])
def test_different_vocabularies_are_refused(name: str, suite: dict[str, Any], tmp_path: Path) -> None:
    swapped = [*WORDS[:7], "ran", "dog", "."]
    other = {"draft_sft": save(tmp_path / "other", 4, swapped)}
    with pytest.raises(UsageError, match=r"different vocabularies.*token 7"):
        prepare(name, options(name, {**suite, **other}), tmp_path)


def test_an_sft_draft_of_another_shape_is_warned_of(suite: dict[str, Any], tmp_path: Path) -> None:
    log: list[str] = []
    workload = prepare("sss", options("sss", suite), tmp_path, log)
    assert (log, workload.facts()["ancestry_doubts"]) == ([], [])
    wider = {"draft_sft": save(tmp_path / "wide", 4, width=32)}
    workload = prepare("sss", options("sss", {**suite, **wider}), tmp_path, log)
    assert "different shapes" in log[0]
    assert "different shapes" in workload.facts()["ancestry_doubts"][0]


def test_recurrent_models_are_refused(suite: dict[str, Any], tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=len(WORDS), hidden_size=16, state_size=4, num_hidden_layers=1)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    tokenizer(WORDS).save_pretrained(tmp_path / "mamba")
    with pytest.raises(UsageError, match=r"target: .*recurrent state"):
        prepare("sss", options("sss", {**suite, "target": str(tmp_path / "mamba")}), tmp_path)


def test_prompts_must_have_tokens_and_fit_every_context(suite: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not fit"):
        prepare("sss", options("sss", suite, max_new_tokens=80), tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"prompt": ""}) + "\n")
    with pytest.raises(UsageError, match="no token"):
        prepare("sss", options("sss", {**suite, "prompts": str(empty)}), tmp_path)


def test_a_folder_without_weights_is_refused(suite: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(save(tmp_path / "bare", 4))
    (folder / "model.safetensors").unlink()
    with pytest.raises(HarnessError, match="no weights"):
        prepare("sss", options("sss", {**suite, "draft_sft": str(folder)}), tmp_path)


def test_dynamic_cache_decodes_one_request_at_a_time(suite: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one request at a time"):
        prepare("sss", options("sss", suite, cache="dynamic", batch=2), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"draft_tokens": 0}, "greater than or equal to 1"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"mode": "paper", "top_k": 5}, "mode exact"),
        ({"mode": "released", "top_p": 0.9}, "mode exact"),
        ({"mode": "released", "bonus": True}, "never takes"),
        ({"mode": "fast"}, "exact"),
    ],
)
def test_options_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SPECS["sss"].options.model_validate(wrong)


def test_paper_with_bonus_is_warned_of(suite: dict[str, Any], tmp_path: Path) -> None:
    log: list[str] = []
    prepare("sss", options("sss", suite, mode="paper", bonus=True), tmp_path, log)
    assert "depends on draft_tokens" in log[0]


def test_greedy_sss_has_no_z(suite: dict[str, Any], tmp_path: Path) -> None:
    window = check_workload(SPECS["sss"], options("sss", suite, temperature=0), Cpu(), tmp_path)
    assert {row["log_z_mean"] for row in window.rows} == {None}


def test_assisted_greedy_gives_the_greedy_tokens(suite: dict[str, Any], tmp_path: Path) -> None:
    given = {"temperature": 0, "ignore_eos": True}
    plain = {**suite, "target": suite["draft_aligned"]}  # without padding of the vocabulary
    found = [
        check_workload(SPECS[name], options(name, plain, **given), Cpu(), tmp_path / name, iterations=3).outputs
        for name in ("vanilla", "assisted", "speculative")
    ]
    assert found[0] == found[1] == found[2]


def test_assisted_refuses_padded_vocabularies(suite: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16 logits"):
        prepare("assisted", options("assisted", suite), tmp_path)


def answer(tokens: int) -> Generation:
    return Generation([1] * tokens, [0.0] * tokens)


def test_best_of_n_keeps_the_best_and_counts_all() -> None:
    scores = {seed: float(seed % 7) for seed in range(100)}
    lengths: dict[int, int] = {}

    def decode(batch: Sequence[Request]) -> list[Generation]:
        for number, request in enumerate(batch):
            lengths[request.seed] = 1 + number % 3
        return [answer(lengths[request.seed]) for request in batch]

    def score(batch: Sequence[Request], _: Sequence[Generation]) -> list[float]:
        return [scores.get(request.seed, request.seed % 5) for request in batch]

    (chosen,) = select_best([Request([1], 6)], 4, decode, score, lambda: 9.0)
    assert chosen.reward == 6
    assert chosen.samples == 4
    assert chosen.target_calls == sum(lengths.values())
    assert chosen.token_s == [9.0]
    (first,) = select_first([Request([1], 6)], 4, 5.5, decode, score, lambda: 9.0)
    assert (first.samples, first.reward) == (1, 6)
    (never,) = select_first([Request([1], 6)], 3, 99.0, decode, score, lambda: 9.0)
    assert (never.samples, never.reward) == (3, 6)
    assert never.target_calls == 3 * 1


def test_named_rewards_can_be_worked_out_by_hand() -> None:
    assert rewards.brevity("x y z", "one two") == -2
    with pytest.raises(UsageError, match="no reward function"):
        reward_models.reward_named("pros", torch.device("cpu"))


def test_reward_model_and_scorer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "rm")
    words = tokenizer(WORDS)
    words.save_pretrained(tmp_path / "rm")
    (spec,) = plugin.harness_scorers()
    scorer: RewardScorer = spec.factory(spec.options(reward=str(tmp_path / "rm")))
    scores = scorer.score([({"item_id": "a"}, {"prompt": "the cat", "text": " sat"})])
    ids = torch.tensor([words("the cat sat")["input_ids"]])
    with torch.inference_mode():
        assert scores["a"]["reward"] == pytest.approx(float(model(input_ids=ids).logits[0, 0]), abs=1e-6)
    with pytest.raises(HarnessError, match="no output"):
        scorer.score([({"item_id": "a"}, {"text": ""})])
    two = LlamaForSequenceClassification(replace_labels(config))
    two.save_pretrained(tmp_path / "rm")
    with pytest.raises(UsageError, match="2 labels"):
        spec.factory(spec.options(reward=str(tmp_path / "rm")))


def replace_labels(config: LlamaConfig) -> LlamaConfig:
    config.num_labels = 2
    return config


def test_code_that_comes_with_a_model_runs_only_where_the_suite_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder, trace = save(tmp_path / "foreign", 1), tmp_path / "trace"
    code = f"""
        from pathlib import Path
        from transformers import LlamaForCausalLM
        Path({str(trace)!r}).touch()
        class Foreign(LlamaForCausalLM):
            pass
    """
    (tmp_path / "foreign" / "modeling_foreign.py").write_text(textwrap.dedent(code))
    path = tmp_path / "foreign" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModelForCausalLM": "modeling_foreign.Foreign"}})
    )
    ours = load_causal_lm(folder, torch.device("cpu"), "float32", tmp_path, lambda *_: None)
    assert not trace.exists()
    assert (ours.facts["architecture"], ours.facts["trust_remote_code"]) == ("LlamaForCausalLM", False)
    theirs = load_causal_lm(folder, torch.device("cpu"), "float32", tmp_path, lambda *_: None, trust_remote_code=True)
    assert trace.exists()
    assert (theirs.facts["architecture"], theirs.facts["trust_remote_code"]) == ("Foreign", True)
