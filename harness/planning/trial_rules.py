"""How long a trial warms up and measures, and when it is ended: as a suite says it and a point carries it.

Apart from the suite, so that a worker, which needs no more than this of it, imports no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from harness.options import Duration, Share, Size

LIMIT_TRIALS: Final = 10_000
HOUR_S: Final = 3600.0


def no_bool(value: object) -> object:
    """Refuses `true` and `false`, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"found {value}; accepted: a number")  # noqa: TRY004 - pydantic reports ValueError only
    return value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=LIMIT_TRIALS)]
Seconds = Annotated[Duration, Field(le=31_536_000.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How many trials: until the value of a metric is known so well, between a least and a greatest number.

    A point ends when Student's 95 % interval of the mean logarithm of its trials is no wider, to either side, than
    `until`. The number of trials then depends on their values, so the interval holds the truth somewhat less often
    than 95 %: it says when to stop, and bounds no error.

    Attributes:
        at_least: trials before a point may end.
        until: half-width of the interval at which it ends, relative to the value: `2%`.
        at_most: trials after which it ends, however wide the interval is.
        metric: whose interval; if not set, that of the suite's first rule of the gate, else `duration_s`.
        per: functional unit that the metric is divided by; if no metric is set, that of the rule, else the first one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    at_least: Annotated[Count, Field(ge=3)] = 3
    until: Annotated[Share, Field(gt=0)]
    at_most: Count = 20
    metric: str | None = None
    per: str | None = None

    def __post_init__(self) -> None:
        if self.at_most < self.at_least:
            raise ValueError(f"at_most {self.at_most} is less than at_least {self.at_least}")


def _is_precision(value: object) -> str:
    return "precision" if isinstance(value, dict | Precision) else "number"


Trials = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Precision, Tag("precision")], Discriminator(_is_precision)
]
"""A number of trials, or how well a metric is to be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long is measured: `count` windows a trial, each of at least so many seconds and iterations.

    Attributes:
        count: measured windows of each trial.
        min_seconds: a window is at least this long.
        min_iterations: a window has at least so many iterations of the workload.
        max_seconds: no further iteration begins after this time, whatever `min_iterations` says; no limit if not set.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    count: Count = 2
    min_seconds: Seconds = 30.0
    min_iterations: Count = 1
    max_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        if self.max_seconds is not None and self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds:g} is less than min_seconds {self.min_seconds:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpRule:
    """How long is warmed up: until iterations vary by less than `tolerance`, within the caps.

    Attributes:
        max_seconds: the warm-up ends after this time, steady or not; one that is not steady is flagged.
        max_iterations: the warm-up ends after so many iterations, steady or not; 0 for no warm-up.
        min_iterations: iterations before it may end as steady.
        tolerance: steady means that time and power of the last five iterations have a coefficient of
            variation below it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    max_seconds: Seconds = 30.0
    max_iterations: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 50
    min_iterations: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 5
    tolerance: Share = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CoolDown:
    """How long a trial rests before its warm-up, so that each begins equally warm.

    Attributes:
        to_celsius: it rests until every temperature that a meter reads is at most this, in °C; not awaited if not set.
        at_most_s: the longest that is waited for the temperature; a trial that is still warmer is flagged, and goes on.
        pause_s: how long it rests where no meter reads a temperature, or where none is awaited.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    to_celsius: Annotated[float, BeforeValidator(no_bool), Field(gt=-273.15, le=150.0)] | None = None
    at_most_s: Annotated[Seconds, Field(validation_alias="at_most")] = 300.0
    pause_s: Annotated[Seconds, Field(validation_alias="pause")] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a trial is ended as failed.

    Attributes:
        trial_s: the longest that a trial may take, loading and warm-up included. Without a value an hour, or what fits
            the windows where that is more: twice the seconds that they, idle time, warm-up and cool-down ask for, and
            an hour for each window whose iterations, not its seconds, say when it ends.
        silence_s: the longest that a trial may report no progress; inside a window, that no iteration ends once the
            window is as long as the suite asks for.
        memory_bytes: the most resident memory that the trial's process may use; no limit if not set.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    trial_s: Annotated[Seconds | None, Field(validation_alias="trial", gt=0)] = None
    silence_s: Annotated[Seconds, Field(validation_alias="silence", gt=0)] = 600.0
    memory_bytes: Annotated[Size | None, Field(validation_alias="memory")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLoad:
    """What is said and done where other processes worked beside the trial.

    Attributes:
        at_most: share of the machine's processor time that other processes and a hypervisor may have had in a window;
            above it the trial carries the condition `foreign_load`, and no gate judges energy that holds theirs.
        apportion: charges the work, of scopes that count the whole machine, its share of the processor time that was
            spent: an estimate, whose bound reaches from 0 to the whole; the whole is kept beside it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    at_most: Annotated[Share, Field(ge=0, le=1)] = 0.05
    apportion: bool = False
