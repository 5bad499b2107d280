"""Preference pairs from JSON Lines and from rankings; bad rows name file, line and field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.data.preferences import Pair, TokenPair, read_pairs, split, tokenized

from harness.errors import UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Answer, mean_reward, ranked
    from harness_speculative_decoding.training.ranking import Answer, mean_reward, ranked


def written(folder: Path, *rows: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_rows_with_a_prompt(tmp_path: Path) -> None:
    row = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " What?", "score": 1}
    assert read_pairs(written(tmp_path, row, "", row)) == [Pair(row["prompt"], " Hello.", " What?")] * 2  # type: ignore[arg-type]


def test_rows_with_whole_dialogues_part_at_the_last_shared_answer(tmp_path: Path) -> None:
    """The answers begin alike ("I "), which belongs to the answers; the first exchange belongs to the prompt."""
    start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Who are you?\n\nAssistant:"
    row = {"chosen": f"{start} I am a model.", "rejected": f"{start} I do not say."}
    assert read_pairs(written(tmp_path, row)) == [Pair(start, " I am a model.", " I do not say.")]


def test_whole_dialogues_of_different_length(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    row = {"chosen": f"{start} Hello.", "rejected": f"{start} Go.\n\nHuman: Why?\n\nAssistant: So."}
    assert read_pairs(written(tmp_path, row)) == [Pair(start, " Hello.", " Go.\n\nHuman: Why?\n\nAssistant: So.")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "pairs.jsonl:2: not JSON"),
        ([1], "pairs.jsonl:2: a row is an object, not list"),
        ({"prompt": "a", "chosen": "b"}, "pairs.jsonl:2: field 'rejected' is missing"),
        ({"prompt": "a", "rejected": "b"}, "pairs.jsonl:2: field 'chosen' is missing"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "pairs.jsonl:2: field 'chosen' is a text, not int"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "pairs.jsonl:2: field 'prompt' is a text, not NoneType"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "pairs.jsonl:2: field 'prompt' is empty"),
        ({"chosen": "a", "rejected": "b"}, "pairs.jsonl:2: there is no field 'prompt', and fields 'chosen'"),
    ],
)
def test_a_bad_row_names_file_line_and_field(tmp_path: Path, bad: object, message: str) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(UsageError) as caught:
        read_pairs(written(tmp_path, good, bad, good))
    assert message in str(caught.value)


def test_a_file_without_pairs_or_without_being_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pair"):
        read_pairs(written(tmp_path, "", " "))
    with pytest.raises(UsageError, match="cannot be read"):
        read_pairs(tmp_path / "absent.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_pairs(tmp_path / "binary.jsonl")


class Letters:
    """A tokenizer whose tokens are characters; 0 begins a prompt and 1 ends a text."""

    eos_token_id: int | None = 1

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> Mapping[str, Any]:
        return {"input_ids": [0] * add_special_tokens + [ord(letter) for letter in text]}


def test_tokens_of_a_pair() -> None:
    kept, left_out = tokenized([Pair("ab", "c", "de")], Letters(), None)
    assert kept == [TokenPair((0, 97, 98), (99, 1), (100, 101, 1))]
    assert set(left_out.values()) == {0}


def test_a_long_prompt_loses_its_beginning_and_a_long_answer_its_pair() -> None:
    pairs = [Pair("abc", "x", "yz"), Pair("a", "vwxyz", "y"), Pair("a", "x", "x")]
    kept, left_out = tokenized(pairs, Letters(), 6)
    assert kept == [TokenPair((97, 98, 99), (120, 1), (121, 122, 1))]
    assert left_out == {"equal answers": 1, "longer than the context": 1, "no token": 0}


def test_an_empty_answer_is_an_end_token_or_nothing() -> None:
    kept, _ = tokenized([Pair("a", "", "b")], Letters(), None)
    assert kept[0].chosen == (1,)
    endless = Letters()
    endless.eos_token_id = None
    assert tokenized([Pair("a", "", "b")], endless, None) == (
        [],
        {"equal answers": 0, "longer than the context": 0, "no token": 1},
    )


def test_a_prompt_never_changes_sides() -> None:
    pairs = [TokenPair((number % 100,), (number,), (number + 1,)) for number in range(400)]
    data = split(pairs, {})
    sides = [{pair.prompt for pair in side} for side in (data.train, data.held_out)]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.held_out) == 400
    assert split(pairs, {}).digest == data.digest != split(pairs[1:], {}).digest
    with pytest.raises(UsageError, match="0 to hold out"):
        split(pairs[1:2], {})


def test_the_best_answer_is_chosen_over_the_worst_and_equals_make_no_pair() -> None:
    several = [Answer((1,), 0.5), Answer((2,), 0.9), Answer((3,), 0.1), Answer((4,), 0.9)]
    equal = [Answer((5,), 0.5), Answer((6,), 0.5)]
    assert ranked([(7,), (8,)], [several, equal]) == [TokenPair((7,), (2,), (3,))]


def test_mean_reward_and_its_error() -> None:
    """Means of prompts 0.2 and 0.6: mean 0.4, standard error 0.2828... / sqrt 2 = 0.2."""
    found = mean_reward([[Answer((), 0.1), Answer((), 0.3)], [Answer((), 0.6)]])
    assert (found.mean, found.standard_error, found.answers) == (pytest.approx(0.4), pytest.approx(0.2), 3)
