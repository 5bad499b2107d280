"""Bytes and times on the link: the specification's worked numbers; device profiles."""

from __future__ import annotations

import pytest
from harness_disaggregated_serving import traffic
from harness_disaggregated_serving.simulator.profiles import profile, profiles
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S, MODELS, ModelShape, Wire
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.quantity import Unavailable

GBIT = BYTES_PER_S_PER_GBIT_S


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("llama-2-7b", 524_288),
        ("llama-2-13b", 819_200),
        ("opt-13b", 819_200),
        ("llama-3-8b", 131_072),
        ("llama-2-70b", 327_680),
        ("tinyllama-1.1b", 22_528),
        ("draft-160m", 36_864),
        ("draft-68m", 6_144),
    ],
)
def test_case_1_kv_bytes_a_token(model: str, size: int) -> None:
    assert MODELS[model].kv_bytes_per_token == size


def test_case_1_guards_for_llama_3_8b() -> None:
    """Neither the QKV activation (3x) nor keys and values of query width (4x)."""
    assert MODELS["llama-3-8b"].kv_bytes_per_token not in {393_216, 524_288}


def test_section_6_kv_bytes_of_300_tokens() -> None:
    assert 300 * ModelShape(layers=8, kv_heads=4, head_width=32, element_bytes=4).kv_bytes_per_token == 2_457_600


@pytest.mark.parametrize(
    ("gbit", "seconds"), [(1, 2.147483648), (10, 0.2147483648), (16, 0.134217728), (100, 0.02147483648)]
)
def test_case_2_transfer(gbit: float, seconds: float) -> None:
    assert traffic.transfer_s(512 * 524_288, gbit * GBIT) == pytest.approx(seconds, rel=1e-9)


def test_case_2_demand_and_saturation() -> None:
    size = 512 * 524_288
    assert traffic.link_load(4, size, 8.589934592 * GBIT) == pytest.approx(1, rel=1e-9)
    assert 16 * GBIT / size == pytest.approx(7.4506, abs=5e-5)


def test_case_2_wait_at_a_serial_link() -> None:
    assert traffic.md1_wait_s(0.5, 0.1) == pytest.approx(0.05, rel=1e-9)
    assert traffic.md1_wait_s(0.8, 0.1) == pytest.approx(0.2, rel=1e-9)
    assert isinstance(traffic.md1_wait_s(1.0, 0.1), Unavailable)


def test_case_3_round_bytes() -> None:
    assert traffic.draft_bytes_per_round(gamma=4, vocabulary=32_000) == 256_016
    assert traffic.draft_bytes_per_round(gamma=4, vocabulary=32_000, probability_bytes=4) == 512_016
    assert traffic.draft_bytes_per_round(gamma=4, vocabulary=512) == 4_112
    assert traffic.draft_bytes_per_round(gamma=4, vocabulary=32_000, wire=Wire.IDS) == 16
    lazy = traffic.draft_bytes_per_round(gamma=4, vocabulary=32_000, wire=Wire.LAZY, acceptance=0.8)
    assert lazy == pytest.approx(37_817.6, rel=1e-9)


def test_case_3_tokens_a_round() -> None:
    assert traffic.tokens_per_round(0.8, 4) == pytest.approx(3.3616, rel=1e-9)
    assert traffic.tokens_per_round(0.6, 4) == pytest.approx(2.3056, rel=1e-9)
    assert traffic.tokens_per_round(1.0, 4) == 5


@pytest.mark.parametrize(("gbit", "milliseconds"), [(1, 12.9546), (16, 12.3834), (0.1, 18.4380)])
def test_case_3_tpot(gbit: float, milliseconds: float) -> None:
    found = traffic.speculative_tpot_s(
        gamma=4, acceptance=0.8, draft_s=0.004, verify_s=0.025, rtt_s=0.0005, round_bytes=256_016, bandwidth=gbit * GBIT
    )
    assert found * 1000 == pytest.approx(milliseconds, abs=5e-5)


def test_case_3_bandwidth_needed() -> None:
    given = {"gamma": 4, "acceptance": 0.8, "draft_s": 0.004, "verify_s": 0.025, "rtt_s": 0.0005}
    found = traffic.speculative_bandwidth(0.020, round_bytes=256_016, **given)
    assert isinstance(found, float)
    assert found * 8 / 1e6 == pytest.approx(79.595, abs=5e-4)
    assert traffic.speculative_tpot_s(round_bytes=256_016, bandwidth=found, **given) == pytest.approx(0.020, rel=1e-9)
    assert isinstance(traffic.speculative_bandwidth(0.012, round_bytes=256_016, **given), Unavailable)


def test_case_3_traffic_of_256_tokens() -> None:
    sent = 256 / traffic.tokens_per_round(0.8, 4) * 256_016
    assert round(sent) == 19_496_697
    assert 512 * 524_288 / sent == pytest.approx(13.77, abs=5e-3)
    assert 512 * 524_288 / (256_016 / traffic.tokens_per_round(0.8, 4)) == pytest.approx(3525, abs=1)


@given(st.floats(0, 1), st.integers(1, 12))
def test_lazy_sends_at_most_the_probabilities_more_than_full(acceptance: float, gamma: int) -> None:
    sizes = {
        wire: traffic.draft_bytes_per_round(gamma=gamma, vocabulary=32_000, wire=wire, acceptance=acceptance)
        for wire in Wire
    }
    assert sizes[Wire.IDS] <= sizes[Wire.LAZY] <= sizes[Wire.FULL] + 4 * gamma  # one probability each
    assert 1 <= traffic.tokens_per_round(acceptance, gamma) <= gamma + 1


def test_section_1_llama_on_16_gb() -> None:
    tokens = profile("T4").kv_tokens(MODELS["llama-2-7b"])
    assert isinstance(tokens, int)
    assert abs(tokens - 3990) <= 5
    assert tokens < 8 * 512


def test_what_does_not_fit_says_why() -> None:
    found = profile("T4").kv_tokens(MODELS["llama-2-13b"])
    assert isinstance(found, Unavailable)
    assert "GiB" in found.reason


def test_profiles_name_source_and_confidence() -> None:
    assert {"A100-40GB", "V100-16GB", "T4", "L4", "H100"} <= set(profiles())
    for device in profiles().values():
        assert device.source
        assert device.confidence
        assert 0 < device.idle_w < device.active_w
    with pytest.raises(UsageError, match="did you mean 'T4'"):
        profile("T4x")
