"""A tiny reward model, saved and loaded: its scores are the model's raw logits; what is refused, and how."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from harness_scorer_reward_model import harness_scorers
from harness_scorer_reward_model.options import RewardModelOptions
from pydantic import ValidationError

from harness.costing.coster import finish_trial
from harness.discovery.registry import load_plugins
from harness.errors import ExitCode, MeasurementError
from harness.functional_unit import Sweep
from harness.planning.point import Choice, Point
from harness.quantity import Amount
from harness.records import paths
from harness.records.files import load_record, write_measurement
from harness.records.paths import OUTPUTS, RECORD
from harness.records.record import Measurement, Span, WarmUp
from harness.testing import check_offers


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    global PreTrainedTokenizerFast, RewardModel, Tokenizer, models, pre_tokenizers, torch
    import torch
    from harness_scorer_reward_model.scorer import RewardModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoModelForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )


TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
WORDS = ["[UNK]", "[PAD]", "<user>", "<assistant>", "the", "cat", "sat", "on", "a", "mat", "why", "because"]
ITEMS: list[tuple[dict[str, object], object]] = [
    ({"item_id": "0:a"}, {"prompt": "why the cat", "text": "because a mat", "tokens": [1, 2]}),
    ({"item_id": "0:b"}, {"prompt": "the", "text": "cat sat on the mat on a cat", "tokens": [3]}),
    ({"item_id": "1:a"}, {"prompt": "why", "text": "", "tokens": []}),
]


def config(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "num_labels": 1,
    }
    return LlamaConfig(**{**settings, **changes})


def tokenizer(*, chat: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **({"pad_token": "[PAD]"} if pad else {}))
    if chat:
        made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    where = tmp_path_factory.mktemp("reward")
    LlamaForSequenceClassification(config()).save_pretrained(where)
    tokenizer().save_pretrained(where)
    return where


def scored(folder: Path | str, items: list[tuple[dict[str, object], object]] | None = None, **options: Any) -> Any:
    scorer = RewardModel(RewardModelOptions(model=str(folder), device="cpu", **options))
    return scorer.score(ITEMS if items is None else items), scorer.facts()


def direct(folder: Path, text: str, dtype: torch.dtype | None = None) -> float:
    """The logit, computed without the plugin."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype or torch.float32).eval()
    ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[0, 0])


def test_the_offer() -> None:
    check_offers("harness_scorer_reward_model")
    (spec,) = harness_scorers()
    (column,) = spec.columns
    assert (spec.name, column.name) == ("reward-model", "quality")
    assert column.bars == (*range(-5, 16), 20, 25, 30)


def test_scores_are_the_raw_logits_of_a_two_turn_chat(folder: Path) -> None:
    scores, facts = scored(folder)
    assert list(scores) == ["0:a", "0:b", "1:a"]
    expected = direct(folder, "<user> why the cat <assistant> because a mat")
    assert scores["0:a"]["quality"] == pytest.approx(expected, rel=1e-5)
    assert scores["1:a"]["quality"] == pytest.approx(direct(folder, "<user> why <assistant>"), rel=1e-5)
    assert facts["model"] == str(folder)
    assert facts["architecture"] == "LlamaForSequenceClassification"
    assert (facts["dtype"], facts["template"], facts["revision"]) == ("float32", "chat", None)
    assert len(facts["weights_sha256"]) == 64
    json.dumps(facts)


def test_plain_is_prompt_and_answer_as_they_are(folder: Path) -> None:
    items = [({"item_id": "x"}, {"prompt": "why the ", "text": "cat sat"})]
    scores, _ = scored(folder, items, template="plain")
    assert scores["x"]["quality"] == pytest.approx(direct(folder, "why the cat sat"), rel=1e-5)


def test_a_batch_changes_no_score(folder: Path) -> None:
    one, _ = scored(folder)
    for size in (2, 3, 100):
        many, _ = scored(folder, batch=size)
        assert {name: each["quality"] for name, each in many.items()} == {
            name: pytest.approx(each["quality"], abs=1e-5) for name, each in one.items()
        }


def test_another_dtype_is_used_and_recorded(folder: Path) -> None:
    scores, facts = scored(folder, dtype="bfloat16")
    expected = direct(folder, "<user> why the cat <assistant> because a mat", torch.bfloat16)
    assert scores["0:a"]["quality"] == expected
    assert facts["dtype"] == "bfloat16"


def test_a_score_that_is_not_finite_is_missing(folder: Path, tmp_path: Path) -> None:
    model = LlamaForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.score.weight.fill_(math.inf)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    scores, facts = scored(tmp_path)
    assert {each["quality"] for each in scores.values()} == {None}
    assert facts["missing"] == 3


def test_an_exchange_longer_than_the_model_is_missing_and_not_cut(folder: Path) -> None:
    long = ({"item_id": "long"}, {"prompt": "why", "text": "cat " * 70})
    scores, facts = scored(folder, [ITEMS[0], long])
    assert scores["long"]["quality"] is None
    assert scores["0:a"]["quality"] is not None
    assert (facts["too_long"], facts["missing"]) == (1, 1)


def test_nothing_to_score_loads_nothing() -> None:
    assert scored("no/such-model", [])[0] == {}


@pytest.mark.parametrize("output", [None, "text", {"text": "x"}, {"prompt": "x"}, {"prompt": 1, "text": "x"}])
def test_an_item_without_its_text_is_an_error_that_names_it(folder: Path, output: object) -> None:
    with pytest.raises(MeasurementError, match="item '0:z' left no prompt and text"):
        scored(folder, [({"item_id": "0:z"}, output)])


# In a run


def test_a_run_with_outputs_of_vanilla_is_scored_and_scored_again(folder: Path, tmp_path: Path) -> None:
    unit = {"sum": "output_tokens", "where": {"ttft_s": "<= 1", "quality": ">= -1000"}}
    trial = a_trial(tmp_path, a_point(folder, good=unit))
    first = finish_trial(trial, load_plugins())
    again = finish_trial(trial, load_plugins())
    assert first == again == load_record(trial)
    good = first.units["good"]
    assert good.count.achieved == 30
    assert good.shares["slo_attainment"] == Amount.exact(100 * 2 / 3, "%")
    axis = good.sweeps["quality"]
    assert isinstance(axis, Sweep)
    assert axis.bars == (-1000, *range(-5, 16), 20, 25, 30)
    assert axis.achieved(1000) == 0
    assert sum(axis.amounts) == 30
    assert first.scorers["reward-model"]["template"] == "chat"
    assert isinstance(first.columns["quality"]["mean"], Amount)


def a_point(model: Path, **units: dict[str, Any]) -> Point:
    return Point(
        id="p",
        suite="s",
        label="p",
        workload="vanilla",
        backend=Choice("torch"),
        scorers=(Choice("reward-model", {"model": str(model), "device": "cpu"}),),
        functional_units=units,
    )


def a_trial(folder: Path, point: Point) -> Path:
    """A trial as a worker leaves it: two requests that completed, one that failed."""
    trial = folder / "p-t000"
    trial.mkdir()
    measurement = Measurement(
        run="r",
        trial_id="p-t000",
        trial=0,
        point=point.to_json(),
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={"name": "torch"},
        devices=(),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=0, seconds=0.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**9, start_utc_s=0.0),),
        readings=(),
        uses=(),
        meters=(),
        conditions=(),
    )
    write_measurement(trial, measurement)
    times = {"ttft_s": 0.1, "tpot_s": 0.01, "latency_s": 0.2, "start_s": 0.0, "end_s": 0.2}
    rows = [
        {"item_id": "a", "window": 0, "status": "ok", "output_tokens": 10, **times},
        {"item_id": "b", "window": 0, "status": "ok", "output_tokens": 20, **times},
        {"item_id": "c", "window": 0, "status": "failed", "output_tokens": 0, "ttft_s": 0.0},
    ]
    outputs = [
        {"item_id": row["item_id"], "window": 0, "output": {"prompt": "why", "text": "the cat", "tokens": [1]}}
        for row in rows
    ]
    for name, lines in ((paths.ITEMS, rows), (OUTPUTS, outputs)):
        (trial / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return trial


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        (OUTPUTS, {"item_id": "a", "window": 0, "output": {}}, "'0:a' has two outputs"),
        (OUTPUTS, {"item_id": "z", "window": 0, "output": {}}, "'0:z' has an output and no work item"),
        (paths.ITEMS, {"item_id": "d", "window": 0, "status": "ok", "output_tokens": 1}, "'0:d' left no prompt"),
        (paths.ITEMS, {"item_id": "d", "window": 0, "status": "failed", "output_tokens": 1.5}, ""),
    ],
)
def test_outputs_and_items_that_do_not_match_are_an_error(
    folder: Path, tmp_path: Path, name: str, line: dict[str, object], says: str
) -> None:
    trial = a_trial(tmp_path, a_point(folder, token={"sum": "output_tokens"}))
    with (trial / name).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    if says:
        with pytest.raises(MeasurementError, match=says):
            finish_trial(trial, load_plugins())
        assert not (trial / RECORD).exists()
    else:
        assert finish_trial(trial, load_plugins()).units["token"].count.items == 4


# What is no reward model


def test_offline_the_error_names_the_id_and_how_to_give_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MeasurementError) as caught:
        scored("nobody/no-such-reward-model")
    assert "nobody/no-such-reward-model cannot be loaded" in str(caught.value)
    assert "reward-model: {model: /path/to/folder}" in str(caught.value)
    assert caught.value.exit_code is ExitCode.MEASUREMENT


def test_a_language_model_has_no_score_head_and_is_not_given_a_random_one(tmp_path: Path) -> None:
    LlamaForCausalLM(config()).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MeasurementError, match=r"not a trained reward model: it lacks score\.weight"):
        scored(tmp_path)


def test_two_labels_are_no_reward(tmp_path: Path) -> None:
    LlamaForSequenceClassification(config(num_labels=2)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MeasurementError, match="has 2 labels"):
        scored(tmp_path)


def test_without_a_chat_template_plain_is_accepted(folder: Path, tmp_path: Path) -> None:
    LlamaForSequenceClassification(config()).save_pretrained(tmp_path)
    tokenizer(chat=False).save_pretrained(tmp_path)
    with pytest.raises(MeasurementError, match=r"no chat template.*plain"):
        scored(tmp_path)
    assert len(scored(tmp_path, template="plain")[0]) == 3


def test_without_a_padding_token_one_at_a_time_is_accepted(tmp_path: Path) -> None:
    LlamaForSequenceClassification(config(pad_token_id=None)).save_pretrained(tmp_path)
    tokenizer(pad=False).save_pretrained(tmp_path)
    with pytest.raises(MeasurementError, match="batch: 1"):
        scored(tmp_path, batch=2)
    assert len(scored(tmp_path)[0]) == 3


@pytest.mark.parametrize(
    "options", [{}, {"model": ""}, {"model": "x", "batch": 0}, {"model": "x", "dtype": "int8"}, {"model": "x", "t": 1}]
)
def test_what_a_suite_may_not_write(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RewardModelOptions.model_validate(options)
