"""Latency targets of serving: time to first token and time per output token, both of which a request must meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from harness.errors import UsageError, did_you_mean
from harness.options import Duration, Options, Share


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets in s. A missing value (one token has no TPOT) meets none, as in functional units."""

    ttft_s: float
    tpot_s: float

    def __post_init__(self) -> None:
        if not (0 < self.ttft_s < math.inf and 0 < self.tpot_s < math.inf):
            raise UsageError(
                f"latency targets {self.ttft_s} s and {self.tpot_s} s", accepted="two finite times above 0"
            )

    def met(self, ttft_s: float | None, tpot_s: float | None) -> bool:
        """Whether a request was served."""
        if ttft_s is None or tpot_s is None or math.isnan(ttft_s) or math.isnan(tpot_s):
            return False
        return ttft_s <= self.ttft_s and tpot_s <= self.tpot_s


SLOS: Final = {
    "longbench": Slo(15.0, 0.15),
    "sharegpt-13b": Slo(0.25, 0.10),
    "sharegpt-66b": Slo(2.5, 0.15),
    "sharegpt-175b": Slo(4.0, 0.20),
    "humaneval-66b": Slo(0.125, 0.20),
    "longbench-66b": Slo(15.0, 0.15),
}
"""From secondary sources: `longbench` is used by a later repository of the first author, the others are DistServe's."""


def named(name: str) -> Slo:
    """A shipped set by name; raises UsageError for another."""
    if name not in SLOS:
        raise UsageError(f"no latency targets {name!r}", accepted=", ".join(SLOS), hint=did_you_mean(name, SLOS))
    return SLOS[name]


class SloOptions(Options):
    """Latency targets of the user's own.

    Attributes:
        ttft: longest time from arrival to the first token; seconds, or `500ms`.
        tpot: longest time per output token after the first; seconds, or `50ms`.
    """

    ttft: Annotated[Duration, Field(gt=0, allow_inf_nan=False)]
    tpot: Annotated[Duration, Field(gt=0, allow_inf_nan=False)]


def _known(given: str | SloOptions) -> str | SloOptions:
    """What was given; raises ValueError for a name that is none of the shipped sets."""
    if isinstance(given, str) and given not in SLOS:
        hint = did_you_mean(given, SLOS)
        raise ValueError(
            f"no slo {given!r}; accepted: {', '.join(SLOS)}, or {{ttft: 2s, tpot: 100ms}}"
            + (f" ({hint})" if hint else "")
        )
    return given


SloOption = Annotated[str | SloOptions, AfterValidator(_known)]
"""What every serving workload takes as `slo`: a name of `SLOS`, or two finite times above 0."""
Attainment = Annotated[Share, Field(gt=0, le=1)]
"""Share of the requests that must meet both targets, above 0 and up to 1; written as `0.9` or `90%`."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0: a rate, a bandwidth, a life in years."""


def targets(given: str | SloOptions) -> Slo:
    """The targets that a suite's `slo` names; raises UsageError for an unknown name."""
    return named(given) if isinstance(given, str) else Slo(given.ttft, given.tpot)


def parsed(text: str) -> Slo:
    """Targets as a command line gives them, a name or `ttft=2s,tpot=100ms`; raises UsageError for another text."""
    if "=" not in text:
        return named(text)
    try:
        found = SloOptions.model_validate(dict(part.strip().split("=", 1) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"latency targets {text!r}", accepted="ttft=2s,tpot=100ms or a name") from None
    return Slo(found.ttft, found.tpot)
