"""Fits the simulator's service times to measured ones on one half of the cells, and tells its error on the other half.

The halves take turns along the sizes, so that neither is judged beyond what the other was fitted on. The error is
reported by quantity, median and worst, before anything is simulated with the fit, and widens every number that is.
Coefficients are kept at 0 or above: a negative time per token would be a fit of noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

from harness.errors import MeasurementError
from harness_disaggregated_serving.simulator.costs import DecodeCost, PhaseCosts, PrefillCost
from harness_disaggregated_serving.simulator.setup import Link

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A measured prefill batch: its prompts and its time in s."""

    prompt_tokens: tuple[int, ...]
    seconds: float

    @property
    def factors(self) -> tuple[float, ...]:
        """What the coefficients are multiplied with."""
        return (1.0, float(sum(self.prompt_tokens)), float(sum(length**2 for length in self.prompt_tokens)))


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """A measured decode step: sequences, sum of their contexts, time in s."""

    batch: int
    context_tokens: int
    seconds: float

    @property
    def factors(self) -> tuple[float, ...]:
        """What the coefficients are multiplied with."""
        return (1.0, float(self.context_tokens), float(self.batch))


@dataclass(frozen=True, slots=True)
class TransferPoint:
    """A measured message: bytes and time in s."""

    size_bytes: int
    seconds: float

    @property
    def factors(self) -> tuple[float, ...]:
        """What the coefficients are multiplied with."""
        return (1.0, float(self.size_bytes))


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """Relative error on the half that was not fitted.

    Attributes:
        median: of the cells.
        worst: of the cells.
        cells: how many.
    """

    median: float
    worst: float
    cells: int

    def widened(self, value: float) -> tuple[float, float]:
        """A simulated value's interval: the worst error to both sides, not below 0."""
        return max(0.0, value * (1 - self.worst)), value * (1 + self.worst)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted service times of one model on one device, and of the link where it was measured.

    Attributes:
        costs: for the simulator.
        link: likewise; None where no message was measured.
        errors: on the held-out half, by quantity: `prefill`, `decode`, `transfer`.
    """

    costs: PhaseCosts
    link: Link | None
    errors: Mapping[str, HeldOutError]

    @property
    def label(self) -> str:
        """What an outcome says about its calibration."""
        parts = [f"{name} {error.median:.1%} median, {error.worst:.1%} worst" for name, error in self.errors.items()]
        return "held-out error: " + "; ".join(parts)


Point = TypeVar("Point", PrefillPoint, DecodePoint, TransferPoint)


def calibrate(
    prefills: Sequence[PrefillPoint],
    decodes: Sequence[DecodePoint],
    transfers: Sequence[TransferPoint] = (),
) -> Calibration:
    """Fits and judges; raises MeasurementError where a half is too small to fit or to judge.

    Args:
        prefills: at least 8.
        decodes: at least 8.
        transfers: none, or at least 8.
    """
    prefill, prefill_error = _fitted("prefill", prefills)
    decode, decode_error = _fitted("decode", decodes)
    errors = {"prefill": prefill_error, "decode": decode_error}
    link = None
    if transfers:
        coefficients, errors["transfer"] = _fitted("transfer", transfers)
        if not coefficients[1] > 0:
            raise MeasurementError("the measured transfers do not grow with their size: no bandwidth fits")
        link = Link(bandwidth=1 / coefficients[1], rtt_s=2 * coefficients[0])
    return Calibration(PhaseCosts(PrefillCost(*prefill), DecodeCost(*decode)), link, errors)


def _fitted(name: str, points: Sequence[Point]) -> tuple[tuple[float, ...], HeldOutError]:
    import numpy as np

    if len(points) < 8:
        raise MeasurementError(
            f"{len(points)} grid points of {name} are too few to fit and to judge", accepted="at least 8"
        )
    if any(not point.seconds > 0 for point in points):
        raise MeasurementError(f"a grid point of {name} took no time")
    ordered = sorted(points, key=lambda point: point.factors[::-1])
    factors = np.array([point.factors for point in ordered])
    seconds = np.array([point.seconds for point in ordered])
    coefficients = unbiased(factors[::2], seconds[::2])
    errors = np.abs(factors[1::2] @ coefficients - seconds[1::2]) / seconds[1::2]
    return tuple(coefficients.tolist()), HeldOutError(float(np.median(errors)), float(errors.max()), len(errors))


def unbiased(factors: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients for mean times, small ones weighing as much as large ones; shapes (n, k) and (n,).

    Residuals are relative to the fitted time. Relative to the measured one they would count a late measurement less
    than an early one, and the fit would lie below the mean by about twice the noise's variance. Iteratively reweighted
    least squares; a few rounds are enough, since only the weights change.
    """
    import numpy as np

    found = not_negative(factors, seconds, seconds)
    for _ in range(5):
        found = not_negative(factors, seconds, np.maximum(factors @ found, 1e-3 * seconds))
    return found


def not_negative(
    factors: NDArray[np.float64], seconds: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares of residuals over `scale` with no coefficient below 0; shapes (n, k), (n,) and (n,).

    With three coefficients every choice of those that are not 0 can be tried, which is exact and needs no iteration.
    """
    import numpy as np

    relative, wanted = factors / scale[:, None], seconds / scale
    unit = np.abs(relative).max(axis=0)
    unit[unit == 0] = 1.0
    relative = relative / unit
    wide = factors.shape[1]
    best, best_loss = np.zeros(wide), np.inf
    for size in range(1, wide + 1):
        for chosen in combinations(range(wide), size):
            found, *_ = np.linalg.lstsq(relative[:, chosen], wanted, rcond=None)
            loss = float(((relative[:, chosen] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and loss < best_loss:
                best, best_loss = np.zeros(wide), loss
                best[list(chosen)] = found
    return np.asarray(best / unit)
