"""The reward `prose` against texts counted by eye."""

from __future__ import annotations

import pytest
from harness_speculative_decoding.options import DraftAlignmentOptions
from harness_speculative_decoding.rewards import prose, reward_function
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError


@pytest.mark.parametrize(
    ("text", "plain", "words"),
    [
        ("The file is read, line by line, until its end.", 10, 10),
        ("Don't use well-known names; they aren't yours. Really!", 8, 8),
        ("f(x) self._name HTTP 3.11 *args 'quoted' don''t camelCase", 0, 8),
        ("Return True if the object is an instance of `int`.", 9, 10),
        ("I agree", 2, 8),
        ("", 0, 8),
        ("  \n\t ", 0, 8),
        ("a b c d e f g h i_ j_", 8, 10),
    ],
)
def test_prose_is_plain_words_over_words(text: str, plain: int, words: int) -> None:
    assert prose(text) == plain / words


@given(st.text())
def test_prose_lies_between_0_and_1(text: str) -> None:
    assert 0 <= prose(text) <= 1


def test_a_reward_by_name_judges_the_answer_alone() -> None:
    answer = "one two three four five six seven eight_"
    assert reward_function("prose")("f(x) = 1", answer) == 7 / 8
    with pytest.raises(UsageError, match="did you mean 'prose'"):
        reward_function("pros")
    with pytest.raises(ValueError, match="did you mean 'prose'"):
        DraftAlignmentOptions(reward="pros")
