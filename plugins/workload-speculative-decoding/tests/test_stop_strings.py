"""Stop strings: the text ends before them, in every workload, alone and in a batch; what was decoded counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness_speculative_decoding as plugin
import pytest
from pydantic import ValidationError

from harness.backend import Backend, Device
from harness.testing import check_workload

WORDS = ["yes", "no", "maybe", "never", "always", "often"]
"""Of the models that `saved_model` writes, so that the tokenizer here is theirs."""
SPECS = {spec.name: spec for spec in plugin.harness_workloads() if spec.name != "draft-alignment"}


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global AutoModelForCausalLM, AutoTokenizer, Request, Rule, Sampling, StopStrings, Trio, assisted, cached_model
    global generate, sample_ensemble, speculate, torch, train_tokenizer, first_stop
    import torch
    from harness_speculative_decoding import Request, Rule, Trio, cached_model, speculate
    from harness_speculative_decoding.methods.assisted import assisted
    from harness_speculative_decoding.methods.decoding import generate
    from harness_speculative_decoding.methods.ensemble import sample_ensemble
    from harness_speculative_decoding.methods.sampling import Sampling
    from harness_speculative_decoding.methods.stopping import StopStrings, first_stop
    from harness_speculative_decoding.training.pretraining import train_tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([" ".join(WORDS)] * 20, 300, 48)


@pytest.fixture(scope="module")
def folders(saved_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {name: saved_model(root / name, layers) for name, layers in (("large", 2), ("small", 1), ("other", 1))}


class Cpu(Backend):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def open(self) -> Sequence[Device]:
        return [Device(kind="cpu", uuid="cpu", name="test")]


def text_of(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


@pytest.mark.parametrize("string", ["d gr", "e", "één", "\n\n", " blue one"])
def test_a_stop_string_is_found_with_the_token_that_completes_it(string: str, tokenizer: Any) -> None:
    ids = tokenizer(f"red green bleu{string}", add_special_tokens=False)["input_ids"]
    ids += tokenizer(" three two", add_special_tokens=False)["input_ids"]
    stop = StopStrings(tokenizer, [string])
    ends = [place for place in range(1, len(ids) + 1) if string in text_of(tokenizer, ids[:place])]
    assert first_stop((), ids, stop) == ends[0] - 1
    cut = stop.cut(text_of(tokenizer, ids[: ends[0]]))
    assert string not in cut
    assert (cut + string) in text_of(tokenizer, ids)


def test_random_texts_stop_where_the_whole_text_says(tokenizer: Any) -> None:
    drawn = random.Random(5)
    for _ in range(200):
        ids = [drawn.randrange(len(tokenizer)) for _ in range(30)]
        text = text_of(tokenizer, ids)
        begin = drawn.randrange(len(text) - 4)
        string = text[begin : begin + drawn.randrange(1, 5)]
        if "\ufffd" in string:
            continue
        stop = StopStrings(tokenizer, [string, "never there"])
        wanted = next(place for place in range(1, 31) if string in text_of(tokenizer, ids[:place])) - 1
        assert first_stop(ids[:0], ids, stop) == wanted


def test_an_end_token_between_pieces_does_not_hide_a_stop_string(tokenizer: Any) -> None:
    red, end = tokenizer("red", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    ids = [*red, *[end] * 9, *tokenizer(" green", add_special_tokens=False)["input_ids"]]
    assert first_stop((), ids, StopStrings(tokenizer, ["d g"])) is not None


def test_the_earliest_of_several_stop_strings_cuts(tokenizer: Any) -> None:
    stop = StopStrings(tokenizer, ["two", "one"])
    assert stop.cut("red one two") == "red "
    assert stop.cut("red") == "red"
    assert StopStrings(tokenizer, ["ed one", "e"]).cut("red one") == "r"


def common_stop(tokenizer: Any, answers: Sequence[Sequence[int]]) -> str:
    """A piece of text that comes early in some answers and late or never in others."""
    texts = [text_of(tokenizer, answer) for answer in answers]
    pieces = {text[place : place + 2] for text in texts for place in range(2, 12)}
    sound = sorted(piece for piece in pieces if "\ufffd" not in piece and len(piece) == 2)
    return max(sound, key=lambda piece: len({text.find(piece) for text in texts}))


@pytest.mark.parametrize("method", ["generate", "speculate", "speculate-draft", "ensemble", "assisted"])
def test_answers_end_at_a_stop_string_and_are_a_beginning_of_what_they_were(
    method: str, folders: dict[str, str], tokenizer: Any
) -> None:
    models = {
        name: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        for name, folder in folders.items()
    }
    models["other"].load_state_dict(models["small"].state_dict())
    requests = [
        Request(tokenizer(word, add_special_tokens=False)["input_ids"], seed) for seed, word in enumerate(WORDS * 2)
    ]

    def answers(some: list[Any], **stop: Any) -> list[Any]:
        wrapped = {name: cached_model(model) for name, model in models.items()}
        if method == "generate":
            return generate(wrapped["large"], some, sampling=Sampling(), max_new_tokens=24, **stop)
        if method == "speculate":
            return speculate(Trio(*wrapped.values()), some, rule=Rule(), max_new_tokens=24, **stop)
        if method == "speculate-draft":
            trio = Trio(wrapped["large"], wrapped["small"])
            return speculate(trio, some, rule=Rule(draft_tokens=3), max_new_tokens=24, **stop)
        if method == "ensemble":
            return sample_ensemble(Trio(*wrapped.values()), some, sampling=Sampling(), max_new_tokens=24, **stop)
        return [
            assisted(
                models["large"],
                models["small"],
                each,
                sampling=Sampling(),
                draft_tokens=3,
                max_new_tokens=24,
                **stop,
            )
            for each in some
        ]

    free = answers(requests)
    string = common_stop(tokenizer, [answer.tokens for answer in free])
    stop = StopStrings(tokenizer, [string])
    stopped = answers(requests, stop=stop)
    ends = set()
    for before, after in zip(free, stopped, strict=True):
        end = first_stop((), before.tokens, stop)
        assert after.tokens == before.tokens[: None if end is None else end + 1]
        assert len(after.token_s) == len(after.tokens)
        assert after.stopped == ("length" if end is None else "stop")
        assert string not in stop.cut(text_of(tokenizer, after.tokens))
        ends.add(end)
    assert len(ends) > 2
    assert [answer.tokens for answer in (answers([each], stop=stop)[0] for each in requests)] == [
        answer.tokens for answer in stopped
    ]
    if method.startswith("speculate"):
        for answer in stopped:
            assert answer.accepted <= answer.judged <= answer.proposed
            assert len(answer.tokens) <= answer.accepted + answer.rounds


@pytest.mark.parametrize("sft", [False, True])
def test_speculation_looks_for_a_stop_string_once_at_each_token(
    sft: bool, folders: dict[str, str], tokenizer: Any
) -> None:
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders.values()]
    asked: list[tuple[int, ...]] = []

    def stop(tokens: Sequence[int]) -> bool:
        asked.append(tuple(tokens))
        return False

    trio = Trio(*map(cached_model, models if sft else models[:2]))
    request = Request(tokenizer("red", add_special_tokens=False)["input_ids"], 1)
    (answer,) = speculate(trio, [request], rule=Rule(), max_new_tokens=24, stop=stop)
    assert answer.accepted
    assert {tuple(answer.tokens[:end]) for end in range(1, 25)} <= set(asked)
    assert len(asked) == len(set(asked))


def test_assisted_generation_reads_no_tokens_back_where_no_string_stops_it(
    folders: dict[str, str], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_speculative_decoding.methods import assisted as module

    target, draft = (AutoModelForCausalLM.from_pretrained(folders[name]).eval() for name in ("large", "small"))
    made: list[object] = []
    monkeypatch.setattr(module, "_Stopping", lambda *given: made.append(given))
    request = Request(tokenizer("red", add_special_tokens=False)["input_ids"], 1)
    answer = assisted(target, draft, request, sampling=Sampling(), draft_tokens=3, max_new_tokens=8)
    assert len(answer.tokens) == 8
    assert not made


@pytest.mark.parametrize("name", SPECS)
def test_every_workload_ends_its_texts_before_a_stop_string(
    name: str, folders: dict[str, str], tokenizer: Any, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{word}\n" for word in WORDS))
    given: dict[str, Any] = {
        "target": folders["large"],
        "draft": folders["small"],
        "draft_sft": folders["small"],
        "draft_aligned": folders["other"],
        "prompts": str(prompts),
        "max_new_tokens": 20,
        "batch": 1 if name == "assisted" else 3,
    }
    given = {key: value for key, value in given.items() if key in SPECS[name].options.model_fields}
    free = check_workload(SPECS[name], given, Cpu(), tmp_path, iterations=6 if name == "assisted" else 2)
    string = common_stop(tokenizer, [output["tokens"] for output in free.outputs.values()])  # type: ignore[call-overload, index, unused-ignore]
    window = check_workload(
        SPECS[name], {**given, "stop": [string]}, Cpu(), tmp_path, iterations=6 if name == "assisted" else 2
    )
    counts = {}
    for row in window.rows:
        output: Any = window.outputs[str(row["item_id"])]
        assert string not in output["text"]
        assert row["output_tokens"] == len(output["tokens"])
        counts[row["item_id"]] = row["output_tokens"]
        if string in text_of(tokenizer, output["tokens"]):
            assert text_of(tokenizer, output["tokens"]).startswith(output["text"] + string)
    assert min(counts.values()) < 20


def test_an_empty_stop_string_is_refused() -> None:
    for spec in SPECS.values():
        with pytest.raises(ValidationError):
            spec.options.model_validate({"stop": [""]})


@pytest.mark.parametrize("name", ["speculative", "assisted"])
def test_a_plain_draft_is_named_and_the_other_drafts_are_not_loaded(
    name: str, folders: dict[str, str], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red\n")
    given = {
        "target": folders["large"],
        "draft": folders["small"],
        "draft_sft": str(tmp_path / "missing"),
        "prompts": str(prompts),
        "max_new_tokens": 8,
    }
    workload = SPECS[name].factory(SPECS[name].options.model_validate(given))
    window = check_workload(SPECS[name], given, Cpu(), tmp_path, iterations=1)
    assert len(window.rows) == 1
    assert not workload._loads("draft_sft")  # type: ignore[attr-defined]
    assert workload._loads("draft")  # type: ignore[attr-defined]


def test_the_words_for_the_three_models_of_sss_still_choose_a_draft() -> None:
    options = SPECS["speculative"].options
    assert options.model_validate({"draft": "aligned"}).draft == "aligned"  # type: ignore[attr-defined]
    assert options.model_validate({}).draft == "sft"  # type: ignore[attr-defined]


def test_planning_names_no_training_of_a_draft_that_is_not_loaded(tmp_path: Path) -> None:
    from harness_speculative_decoding.checks import to_fetch

    options = SPECS["speculative"].options
    named = options.model_validate({"target": "builtin:tiny", "draft": "builtin:guest-sft"})
    assert [each.what for each in to_fetch(named, tmp_path)] == ["builtin:guest-sft is trained"]  # type: ignore[arg-type]
    chosen = options.model_validate({"target": "builtin:tiny", "draft": "aligned", "draft_aligned": "builtin:tiny"})
    assert list(to_fetch(chosen, tmp_path)) == []  # type: ignore[arg-type]
