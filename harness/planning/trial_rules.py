"""How long a trial warms up and measures, and when it is ended: as a suite says it and a point carries it.

Apart from the suite, so that a worker, which needs no more than this of it, imports no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Field

from harness.options import Duration, Share, Size

LIMIT_TRIALS: Final = 10_000


def no_bool(value: object) -> object:
    """Refuses `true` and `false`, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"found {value}; accepted: a number")  # noqa: TRY004 - pydantic reports ValueError only
    return value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=LIMIT_TRIALS)]
Seconds = Annotated[Duration, Field(le=31_536_000.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long is measured: `count` windows a trial, each of at least so many seconds and iterations."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    count: Count = 2
    min_seconds: Seconds = 30.0
    min_iterations: Count = 1
    max_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        if self.max_seconds is not None and self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds:g} is less than min_seconds {self.min_seconds:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How long is warmed up: until iterations vary by less than `tolerance`, within the caps."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    max_seconds: Seconds = 30.0
    max_iterations: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 50
    min_iterations: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 5
    tolerance: Share = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a trial is ended: after `trial_s` in all, `silence_s` without a word, or above `memory_bytes`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    trial_s: Annotated[Seconds, Field(validation_alias="trial", gt=0)] = 3600.0
    silence_s: Annotated[Seconds, Field(validation_alias="silence", gt=0)] = 600.0
    memory_bytes: Annotated[Size | None, Field(validation_alias="memory")] = None
