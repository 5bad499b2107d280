"""What an offer's option model refused, as usage errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from harness.errors import UsageError, did_you_mean
from harness.options import Options
from harness.planning.faults import accepted_keys, real_path
from harness.planning.located_yaml import short


class OptionsOf(Protocol):
    """An offer that takes options."""

    @property
    def name(self) -> str:
        """Of the offer."""

    @property
    def options(self) -> type[Options]:
        """Their model."""


def refusals(error: ValidationError, spec: OptionsOf, options: Mapping[str, Any], where: str) -> Iterator[UsageError]:
    """What pydantic found wrong with options that do not come from a file.

    Args:
        error: what it found.
        spec: the offer whose options they are.
        options: as given.
        where: what the user wrote.
    """
    for found in error.errors(include_url=False):
        loc, said = tuple(found["loc"]), str(found["msg"])
        place = ".".join(map(str, (spec.name, *real_path(options, loc))))
        if found["type"] == "extra_forbidden":
            known = accepted_keys(spec.options, loc[:-1])
            hint = did_you_mean(str(loc[-1]), known)
            yield UsageError(f"there is no option {place}", where=where, accepted=", ".join(known) or "none", hint=hint)
        elif found["type"] == "missing":
            yield UsageError(f"the option {place}.{loc[-1]} is missing", where=where)
        elif found["type"] in {"value_error", "assertion_error"}:
            message, _, accepted = said.partition(", ")[2].partition("; accepted: ")
            yield UsageError(f"{place}: {message}", where=where, accepted=accepted)
        else:
            accepted = said.removeprefix("Input should be ")
            yield UsageError(f"{place}: found {short(found['input'])}", where=where, accepted=accepted)
