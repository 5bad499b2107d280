"""The model that a plugin's options are declared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from harness.errors import UsageError
from harness.units import parse_duration, parse_share, parse_size


class Options(BaseModel):
    """Options of a plugin: strict keys, immutable, part of the suite's JSON Schema.

    Subclass it with annotated fields; an unknown key or a wrong type is reported with the suite's file and line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoOptions(Options):
    """For a plugin that takes none."""


def _parsed(parse: Callable[[float | str], float]) -> BeforeValidator:
    def validate(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate, json_schema_input_type=float | str)


Duration = Annotated[float, _parsed(parse_duration)]
"""Seconds; written as a number or as `500ms`, `30s`, `10min`, `1h`."""
Size = Annotated[int, _parsed(parse_size)]
"""Bytes; written as a number or as `40GB`, `16GiB`."""
Share = Annotated[float, _parsed(parse_share)]
"""A fraction; written as `0.03` or `3%`."""
