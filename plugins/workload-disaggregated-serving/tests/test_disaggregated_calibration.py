"""Calibration: recovers known service times, judges on the other half, refuses what cannot be judged."""

from __future__ import annotations

import numpy as np
import pytest
from harness_disaggregated_serving.simulator.calibration import (
    DecodePoint,
    HeldOutError,
    PrefillPoint,
    TransferPoint,
    calibrate,
    not_negative,
    unbiased,
)
from harness_disaggregated_serving.simulator.costs import DecodeCost, PrefillCost
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeasurementError

PREFILL, DECODE = PrefillCost(0.02, 3e-5, 4e-9), DecodeCost(0.015, 2e-7, 3e-4)


def points(noise: float, seed: int = 0) -> tuple[list[PrefillPoint], list[DecodePoint], list[TransferPoint]]:
    draw = np.random.default_rng(seed)
    factor = lambda: float(1 + noise * draw.uniform(-1, 1))  # noqa: E731 - one line
    prompts = [tuple(int(x) for x in draw.integers(16, 4000, draw.integers(1, 4))) for _ in range(40)]
    steps = [(int(draw.integers(1, 64)), int(draw.integers(100, 200_000))) for _ in range(40)]
    sizes = [int(x) for x in draw.integers(10_000, 500_000_000, 20)]
    return (
        [PrefillPoint(p, factor() * PREFILL.seconds(sum(p), sum(n * n for n in p))) for p in prompts],
        [DecodePoint(b, c, factor() * DECODE.seconds(1, b, c)) for b, c in steps],
        [TransferPoint(size, factor() * (0.0004 + size / 2e9)) for size in sizes],
    )


def test_known_service_times_come_back() -> None:
    found = calibrate(*points(0.0))
    prefill, decode = found.costs.prefill, found.costs.decode
    assert (prefill.fixed_s, prefill.per_token_s, prefill.per_square_s) == pytest.approx((0.02, 3e-5, 4e-9), rel=1e-6)
    assert (decode.fixed_s, decode.per_context_s, decode.per_sequence_s) == pytest.approx((0.015, 2e-7, 3e-4), rel=1e-6)
    assert found.link is not None
    assert (found.link.bandwidth, found.link.rtt_s) == pytest.approx((2e9, 0.0008), rel=1e-6)
    assert all(error.worst < 1e-6 for error in found.errors.values())


def test_error_on_the_other_half_tells_the_noise() -> None:
    found = calibrate(*points(0.1))
    for error in found.errors.values():
        assert 0.01 < error.median <= error.worst < 0.25
    assert found.errors["prefill"].cells == 20
    assert found.label.startswith("held-out error: prefill")


def test_a_form_that_does_not_fit_is_seen() -> None:
    prefills, _, transfers = points(0.0)
    odd = [DecodePoint(b, 1000, 0.01 * (1 + (b % 3))) for b in range(1, 41)]
    assert calibrate(prefills, odd, transfers).errors["decode"].worst > 0.3


def test_widened_interval() -> None:
    assert HeldOutError(0.01, 0.2, 9).widened(10.0) == (8.0, 12.0)
    assert HeldOutError(0.01, 2.0, 9).widened(10.0) == (0.0, 30.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.5))
def test_no_coefficient_is_negative_and_none_fits_better(seed: int, noise: float) -> None:
    draw = np.random.default_rng(seed)
    factors = np.column_stack([np.ones(20), draw.uniform(1, 100, 20), draw.uniform(1, 50, 20)])
    seconds = np.abs(factors @ draw.uniform(-0.1, 1, 3)) * (1 + noise * draw.uniform(-1, 1, 20)) + 0.1

    def loss(coefficients: np.ndarray) -> float:
        return float((((factors @ coefficients) / seconds - 1) ** 2).sum())

    found = not_negative(factors, seconds, seconds)
    assert (found >= 0).all()
    for _ in range(30):
        other = np.maximum(0, found * (1 + 0.2 * draw.uniform(-1, 1, 3)) + 0.01 * draw.uniform(-1, 1, 3))
        assert loss(found) <= loss(other) + 1e-9


def test_noise_does_not_pull_the_fit_below_the_mean() -> None:
    draw = np.random.default_rng(5)
    factors = np.column_stack([np.ones(4000), draw.uniform(1, 100, 4000)])
    true = factors @ np.array([0.02, 3e-4])
    noisy = true * draw.gamma(9, 1 / 9, 4000)  # mean 1, deviation 1/3
    assert (factors @ unbiased(factors, noisy)).sum() == pytest.approx(true.sum(), rel=0.02)
    assert (factors @ not_negative(factors, noisy, noisy)).sum() < 0.9 * true.sum()


def test_both_halves_span_the_sizes() -> None:
    prefills = [PrefillPoint((n,), PREFILL.seconds(n, n * n)) for n in (8, 16, 32, 64, 96, 128, 192, 256, 320, 384)]
    _, decodes, _ = points(0.0)
    assert calibrate(prefills[::-1], decodes) == calibrate(prefills, decodes)
    bent = [PrefillPoint(one.prompt_tokens, one.seconds * (1 + 0.1 * (one.prompt_tokens[0] > 60))) for one in prefills]
    assert calibrate(bent, decodes).errors["prefill"].median < 0.05


def test_too_few_or_impossible_cells_are_refused() -> None:
    prefills, decodes, transfers = points(0.0)
    with pytest.raises(MeasurementError, match="7 grid points of prefill"):
        calibrate(prefills[:7], decodes)
    with pytest.raises(MeasurementError, match="took no time"):
        calibrate(prefills, [DecodePoint(1, 1, 0.0)] * 8)
    with pytest.raises(MeasurementError, match="no bandwidth"):
        calibrate(prefills, decodes, [TransferPoint(size, 0.1) for size in range(8)])
    assert calibrate(prefills, decodes).link is None
    assert "transfer" in calibrate(prefills, decodes, transfers).errors
