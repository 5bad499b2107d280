"""Numbers and names of a report as plain text; escaping is left to the layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.errors import printable
from harness.quantity import Amount, Method
from harness.records.summary import Summary
from harness.sample import Scope
from harness.statistics.intervals import mean_interval
from harness.units import number, prefix_of, si

LEAST_ITEMS = 20
"""Of fewer items no quantile is told: the 95th of 20 is their greatest but one."""
UNKNOWN_BOUND = "[bound not known]"
SPREAD_EXPLAINED = (
    "of three trials and more the 95 % interval of their mean (Student, of the logarithms), of two both values"
)


def clean(text: object) -> str:
    """Text of one line with control characters as escapes: a label or a log can neither colour nor move a terminal."""
    whole = str(text)
    return whole if whole.isprintable() else printable(whole.translate(_BLANKS), keep="")


_BLANKS: Final = str.maketrans("\t\r\n", "   ")


def base_unit(value: Amount, name: str) -> str:
    """The unit without the functional unit, which stands in the heading: `J` of `J/token`, `/s` of `token/s`."""
    if value.unit == "1":
        return ""
    return value.unit.removesuffix(f"/{name}") if value.unit.endswith(f"/{name}") else value.unit.removeprefix(name)


def percent(share: float) -> str:
    """A share as a percentage with two significant digits."""
    number = share * 100
    return f"{number:.0f} %" if abs(number) >= 99.5 else f"{number:.2g} %"


def bound(summary: Summary, unit: str) -> str:
    """The bound of the instrument: `± 4.2 %`, `+6 % / -1 %`, `exact` of a count or clock, or `[bound not known]`.

    Where an end lies below 0, both are told in the unit: a share of so small a value says nothing.
    """
    low, high = summary.bound
    value = summary.value
    if not isinstance(value, Amount) or (low is None and high is None):
        return UNKNOWN_BOUND
    if low is None or high is None:
        return f"at least {si(low, unit)}" if low is not None else f"at most {si(high or 0.0, unit)}"
    if low == high:
        return "exact" if summary.label is Method.MEASURED else UNKNOWN_BOUND
    if low < 0 or value.value == 0:
        return f"{si(low, unit)} to {si(high, unit)}"
    down = percent((value.value - low) / abs(value.value))
    up = percent((high - value.value) / abs(value.value))
    return f"± {up}" if up == down else f"+{up} / -{down}"


def interval(summary: Summary, unit: str) -> str:
    """Where the mean of the trials lies, `95 %: 510 mJ to 690 mJ`; of two trials both values; of one nothing."""
    found = mean_interval(summary.values)
    if found is not None:
        return f"95 %: {si(found[0], unit)} to {si(found[1], unit)}"
    if summary.spread is None:
        return ""
    least, greatest = (si(end, unit) for end in summary.spread)
    return f"{least} and {greatest}"


def ranged(summary: Summary, unit: str) -> str:
    """A median with the interval of the mean under one prefix: `600 [510 to 690] mJ`; the median alone without one."""
    value, found = summary.value, mean_interval(summary.values)
    if not isinstance(value, Amount):
        return value.kind
    if found is None:
        return si(value.value, unit)
    factor, prefix = prefix_of(value.value, unit)
    middle, low, high = (number(each / factor) for each in (value.value, *found))
    return f"{middle} [{low} to {high}] {prefix}{unit}".rstrip()


def label(summary: Summary) -> str:
    """The weakest method, as a word."""
    return summary.label.value if isinstance(summary.label, Method) else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are; a label holds commas itself."""
    shown = "; ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Footnotes:
    """Reasons that are too long for a cell, numbered in order of first mention."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The mark of a reason, such as `(1)`."""
        return f"({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def texts(self) -> list[str]:
        """The notes, in order."""
        return [f"({number}) {reason}" for reason, number in self._numbers.items()]


def sensor_error(scope: Scope) -> str:
    """The error of a scope's sensor, as instruments are specified: `± 10 % ± 20 W`, `± 5 %`, or `not known`."""
    if scope.sensor is None:
        return "not known" if scope.gain is None else f"± {percent(scope.gain)}"
    offset_w = scope.sensor.offset_w
    return f"± {percent(scope.sensor.gain)}" + (f" ± {si(offset_w, 'W')}" if offset_w else "")
