"""A number that says how it was obtained and how sure it is; a missing one that says why.

An `Amount` keeps its composition by method, so that a total of counted and estimated joules never reads like a
measurement, and a `bound` (low, high) that adds up linearly (CONTRIBUTING, "Never a silent number").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal, TypeAlias

SLACK: Final = 1e-9
"""Relative slack of every comparison with a threshold: two values this close are equal, however they were rounded. On
a logarithmic scale it is a difference."""


class Method(StrEnum):
    """How a value was obtained. Order of strength: counter, wall, measured < integrated < estimated < simulated."""

    COUNTER = "counter"
    """A hardware energy counter."""
    WALL = "wall"
    """An external meter."""
    MEASURED = "measured"
    """Times and counts."""
    INTEGRATED = "integrated"
    """Sampled power, integrated over time."""
    ESTIMATED = "estimated"
    """A model of this machine, such as TDP x load, or a factor that was not measured here, as a grid's intensity."""
    SIMULATED = "simulated"
    """No machine did the work that the number speaks of."""

    @property
    def weakness(self) -> int:
        """0 for the strongest methods, growing with doubt."""
        return _WEAKNESS[self]


_WEAKNESS = {
    Method.COUNTER: 0,
    Method.WALL: 0,
    Method.MEASURED: 0,
    Method.INTEGRATED: 1,
    Method.ESTIMATED: 2,
    Method.SIMULATED: 3,
}


def weakest(first: Method, *others: Method) -> Method:
    """The method with most doubt, the first of equals: what a sum, product or quotient of such parts is called."""
    return max((first, *others), key=lambda method: method.weakness)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A value that could not be read, and why. Never 0."""

    reason: str
    kind: Literal["unavailable"] = "unavailable"


@dataclass(frozen=True, slots=True)
class Undefined:
    """A quotient whose denominator is zero (no functional unit was achieved), and why. Never infinity."""

    reason: str
    kind: Literal["undefined"] = "undefined"


@dataclass(frozen=True, slots=True)
class Amount:
    """A finite number with unit, composition by method, and an instrument bound.

    Attributes:
        value: the best estimate.
        unit: SI symbol (`J`, `s`, `g`, `L`, `1`).
        composition: how much of `value` came from which method; sums to `value`.
        low: lower end of the instrument's bound; None where no bound is known.
        high: upper end; None where none is known, or where there is none.

    Examples:
        >>> energy = Amount.of(120.0, "J", Method.COUNTER, low=117.0, high=123.0)
        >>> each = energy.times(1 / 60, "J/token", method=Method.MEASURED)
        >>> f"{each.value:g} {each.unit}, {each.low:g} to {each.high:g}, {each.label}"
        '2 J/token, 1.95 to 2.05, counter'
    """

    value: float
    unit: str
    composition: Mapping[Method, float]
    low: float | None = None
    high: float | None = None
    kind: Literal["amount"] = field(default="amount")

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"an amount is finite, not {self.value} {self.unit}")
        if not self.composition:
            raise ValueError("an amount names at least one method")
        parts = self.composition.values()
        total = next(iter(parts)) if len(parts) == 1 else math.fsum(parts)
        if total != self.value and abs(total - self.value) > 1e-9 * max(abs(self.value), math.fsum(map(abs, parts))):
            raise ValueError(f"composition sums to {total}, the value is {self.value} {self.unit}")
        slack = 1e-12 * abs(self.value)
        if self.low is not None and not self.low <= self.value + slack:
            raise ValueError(f"lower bound {self.low} lies above the value {self.value} {self.unit}")
        if self.high is not None and not self.high >= self.value - slack:
            raise ValueError(f"upper bound {self.high} lies below the value {self.value} {self.unit}")

    @classmethod
    def of(
        cls, value: float, unit: str, method: Method, *, low: float | None = None, high: float | None = None
    ) -> Amount:
        """An amount obtained by one method."""
        return cls(value, unit, {method: value}, low, high)

    @classmethod
    def exact(cls, value: float, unit: str, method: Method = Method.MEASURED) -> Amount:
        """A count or a clock reading, whose bound has no width."""
        return cls(value, unit, {method: value}, value, value)

    @property
    def label(self) -> Method:
        """The weakest method in the composition; one that contributed 0 counts, since its 0 may be wrong."""
        if len(self.composition) == 1:
            return next(iter(self.composition))
        return weakest(*self.composition)

    def shares(self) -> dict[Method, float]:
        """The share of each method in the value; empty where the value is 0."""
        if self.value == 0:
            return {}
        return {method: part / self.value for method, part in self.composition.items()}

    def as_weak_as(self, method: Method) -> Amount:
        """The same number and instrument's bound, with no part of a stronger method than this one."""
        if all(own.weakness >= method.weakness for own in self.composition):
            return self
        parts: dict[Method, float] = {}
        for own, part in self.composition.items():
            name = weakest(own, method)
            parts[name] = parts.get(name, 0.0) + part
        return replace(self, composition=parts)

    def times(
        self,
        factor: float,
        unit: str,
        *,
        low: float | None = None,
        high: float | None = None,
        method: Method = Method.ESTIMATED,
    ) -> Amount:
        """This amount times a factor >= 0, in another unit; no part of the product has a stronger method than either.

        Args:
            factor: the multiplier.
            unit: unit of the product.
            low: lower end of the factor's own range; the factor itself where it has none.
            high: upper end of the factor's own range; likewise.
            method: how the factor was obtained: `MEASURED` for a count, a clock reading or a conversion of units; a
                number from a publication or a suite says nothing that was measured here, and is `ESTIMATED`.
        """
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(f"a factor is finite and not negative, not {factor}")
        low_factor = factor if low is None else low
        high_factor = factor if high is None else high
        if not 0 <= low_factor <= factor <= high_factor:
            raise ValueError(f"the range {low_factor}..{high_factor} does not hold the factor {factor}")
        low_end = None if self.low is None else self.low * (low_factor if self.low >= 0 else high_factor)
        high_end = None if self.high is None else self.high * (high_factor if self.high >= 0 else low_factor)
        parts: dict[Method, float] = {}
        for own, part in self.composition.items():
            name = own if own.weakness >= method.weakness else method
            parts[name] = parts.get(name, 0.0) + part * factor
        value = math.fsum(parts.values())
        # The ends are rounded by themselves: by a last digit they may pass the value.
        low_end = low_end if low_end is None else min(low_end, value)
        high_end = high_end if high_end is None else max(high_end, value)
        return Amount(value, unit, parts, low_end, high_end)

    def over(self, divisor: Amount, unit: str) -> Amount:
        """This amount over one above 0, with the bounds of both and the weaker method."""
        if not divisor.value > 0:
            raise ValueError(f"a divisor is above 0, not {divisor.value} {divisor.unit}")
        if divisor.low is None or divisor.high is None or not divisor.low > 0:
            quotient = self.times(1.0 / divisor.value, unit, method=divisor.label)
            return replace(quotient, low=None, high=None)
        return self.times(
            1.0 / divisor.value, unit, low=1.0 / divisor.high, high=1.0 / divisor.low, method=divisor.label
        )

    @property
    def relative_bound(self) -> float | None:
        """Half the width of the bound over the value; None where either is missing or the value is 0."""
        if self.low is None or self.high is None or self.value == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.value)


Value: TypeAlias = Amount | Unavailable | Undefined
"""What a reading may be."""


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts of one unit: compositions add, bounds add linearly, one unknown bound makes it unknown.

    Examples:
        >>> gpu = Amount.of(75.0, "J", Method.COUNTER, low=74.0, high=76.0)
        >>> cpu = Amount.of(25.0, "J", Method.ESTIMATED)
        >>> both = total([gpu, cpu])
        >>> both.value, str(both.label), both.high
        (100.0, 'estimated', None)
        >>> {str(method): share for method, share in both.shares().items()}
        {'counter': 0.75, 'estimated': 0.25}
    """
    listed = list(amounts)
    if len(listed) == 1:
        return listed[0]
    units = {amount.unit for amount in listed}
    if len(units) != 1:
        raise ValueError(f"a total needs amounts of one unit, found {sorted(units) or 'none'}")
    parts = {
        method: math.fsum(amount.composition.get(method, 0.0) for amount in listed)
        for method in dict.fromkeys(method for amount in listed for method in amount.composition)
    }
    value = math.fsum(parts.values())
    lows = [amount.low for amount in listed]
    highs = [amount.high for amount in listed]
    # Each sum is rounded by itself: a bound still holds its value.
    return Amount(
        value,
        units.pop(),
        parts,
        None if None in lows else min(value, math.fsum(low for low in lows if low is not None)),
        None if None in highs else max(value, math.fsum(high for high in highs if high is not None)),
    )
