"""Options say what they mean: texts of docstrings, units and defaults in the JSON Schema, read when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field

from harness.discovery.option_table import OptionTable, option_tables, type_of
from harness.options import Duration, Options, Share, Size, meanings
from harness.units import parse_duration, parse_share, parse_size, write_duration, write_share, write_size


@dataclass(frozen=True)
class Cap:
    """A limit.

    Attributes:
        watts: the most that is drawn, in W.
    """

    watts: Annotated[float, Field(validation_alias="most", gt=0)] = 300.0


class Inner(BaseModel):
    """A plain model, not one of ours."""

    depth: int = 3
    """how deep"""


class Base(Options):
    """Options of a family.

    A second paragraph.

    Attributes:
        rate: how often,
            over two lines: with a colon.
        gain: of the base

    Note:
        gain: this is no attribute.
    """

    rate: float = 1.0
    gain: Share = 0.05
    """a string below loses against the section"""
    wait: Duration | None = None
    """How long, if at all."""
    size: Size = 40 * 10**9
    said: int = Field(1, description="in its field")
    undocumented: int = 0


class Derived(Base):
    """More options."""

    gain: Share = 0.03
    """Of the derived one."""
    cap: Cap = Cap()
    inner: Inner = Inner(depth=4)
    many: list[int] = Field(default_factory=lambda: [1, 2])
    cards: int | None = Field(None, validation_alias=AliasChoices("gpu", "gpus"))
    """Number of cards."""


def properties(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_json_schema()["properties"]
    return found


def table(model: Any, name: str = "") -> OptionTable:
    return next(each for each in option_tables(model.model_json_schema()) if each.name == name)


def test_texts_come_from_sections_strings_and_fields() -> None:
    assert meanings(Base) == {
        "rate": "How often, over two lines: with a colon.",
        "gain": "Of the base.",
        "wait": "How long, if at all.",
        "said": "In its field.",
    }
    assert properties(Base)["rate"]["description"] == "How often, over two lines: with a colon."
    assert "description" not in properties(Base)["undocumented"]


def test_a_subclass_goes_before_its_base() -> None:
    said = meanings(Derived)
    assert said["gain"] == "Of the derived one."
    assert said["rate"] == meanings(Base)["rate"]
    assert said["said"] == "In its field."


def test_plain_models_and_dataclasses_inside_are_described_by_their_keys() -> None:
    inside = Derived.model_json_schema()["$defs"]
    assert inside["Inner"]["properties"]["depth"]["description"] == "How deep."
    assert inside["Cap"]["properties"]["most"]["description"] == "The most that is drawn, in W."
    assert properties(Derived)["gpu"]["description"] == "Number of cards."


def test_the_text_of_a_class_is_shown_without_its_section() -> None:
    assert Base.model_json_schema()["description"].startswith("Options of a family.\n\nA second paragraph.")
    assert "how often" not in Base.model_json_schema()["description"]
    assert Derived.model_json_schema()["$defs"]["Cap"]["description"] == "A limit."


@pytest.mark.parametrize(
    ("key", "kind", "unit", "default"),
    [
        ("rate", "number", "", "1.0"),
        ("gain", "share", "1", "3%"),
        ("wait", "duration", "s", "null"),
        ("size", "size", "B", "40GB"),
        ("cap", "Cap", "", "{most: 300.0}"),
        ("inner", "Inner", "", "{depth: 4}"),
        ("many", "list of whole number", "", "[1, 2]"),
        ("gpu", "whole number", "", "null"),
    ],
)
def test_rows_show_type_unit_and_a_default_as_written(key: str, kind: str, unit: str, default: str) -> None:
    (row,) = (row for row in table(Derived).rows if row.key == key)
    assert (row.type, row.unit, row.default, row.required) == (kind, unit, default, False)


def test_several_types_are_told_in_words() -> None:
    assert type_of({"type": ["string", "object", "null"]}) == "text or mapping"


def test_a_unit_is_read_from_the_text() -> None:
    (row,) = table(Derived, "Cap").rows
    assert (row.type, row.unit) == ("number > 0", "W")


def test_a_class_whose_source_is_not_to_be_had_keeps_its_section() -> None:
    names: dict[str, Any] = {"Options": Options, "__name__": "nowhere"}
    exec(
        'class Made(Options):\n    """Made.\n\n    Attributes:\n        a: an option.\n    """\n    a: int = 1\n', names
    )
    assert properties(names["Made"])["a"]["description"] == "An option."


def test_declaring_options_parses_no_source() -> None:
    code = (
        "import ast\n"
        "def refuse(*_a, **_k): raise AssertionError('parsed')\n"
        "import harness.planning.suite\n"
        "ast.parse = refuse\n"
        "import harness.builtin\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False) | st.integers(0, 10**6))
def test_a_written_duration_is_read_as_what_it_was(value: float) -> None:
    assert parse_duration(write_duration(value)) == value


@given(st.integers(0, 10**15))
def test_a_written_size_is_read_as_what_it_was(value: int) -> None:
    assert parse_size(write_size(value)) == value


@given(st.floats(min_value=0, max_value=10, allow_nan=False) | st.integers(0, 1000).map(lambda share: share / 1000))
def test_a_written_share_is_read_as_what_it_was(value: float) -> None:
    assert parse_share(write_share(value)) == value


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (write_duration, 0, "0s"),
        (write_duration, 0.1, "100ms"),
        (write_duration, 90.0, "90s"),
        (write_duration, 600.0, "10min"),
        (write_duration, 7200, "2h"),
        (write_size, 0, "0B"),
        (write_size, 16 * 2**30, "16GiB"),
        (write_size, 16 * 10**9, "16GB"),
        (write_share, 0.03, "3%"),
        (write_share, 1.5, "150%"),
    ],
)
def test_written_as_people_write(write: Any, value: float, text: str) -> None:
    assert write(value) == text
