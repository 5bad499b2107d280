"""RAPL meter against a powercap tree in a folder."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.builtin.rapl import GAIN, RaplMeter, RaplOptions
from harness.meter import MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope
from harness.testing import FakeClock, PowercapTree, check_meter

RANGE = 65_712_999_613
PACKAGE, DRAM = "n0/cpu-package:0", "n0/dram:0"


@pytest.fixture
def tree(tmp_path):
    return PowercapTree(tmp_path)


def opened(tree, clock=None, **options):
    meter = RaplMeter(RaplOptions(root=tree.root, **options), tree.read_text, clock or FakeClock())
    return meter, meter.open(MeterContext())


def joules(meter, scope=PACKAGE):
    value = meter.read().joules[scope]
    assert isinstance(value, Cumulative)
    return value


def test_packages_and_dram_are_read_and_nothing_else(tree):
    package = tree.zone("intel-rapl:0", "package-0", 1000)
    dram = tree.zone("intel-rapl:0:1", "dram", 500)
    tree.zone("intel-rapl:0:0", "core", 1)
    tree.zone("intel-rapl:1", "package-1", 7_000_000)
    tree.zone("intel-rapl:2", "psys", 9)
    clock = FakeClock()
    meter, scopes = opened(tree, clock)
    assert set(scopes) == {PACKAGE, DRAM, "n0/cpu-package:1"}
    assert scopes[PACKAGE].method is Method.COUNTER
    assert scopes[PACKAGE].tick_s == 1e-3
    assert scopes[PACKAGE].gain == GAIN >= 0.05
    clock.advance(0.1)
    tree.set_energy(package, 3_001_000)
    tree.set_energy(dram, 1_000_500)
    assert joules(meter).joules == pytest.approx(3)
    assert joules(meter, DRAM).joules == pytest.approx(1)
    assert set(meter.facts()["left_out"]) == {"psys", "core"}


def test_range_is_read_and_the_wrap_repaired(tree):
    package = tree.zone("intel-rapl:0", "package-0", 999_000_000, range_uj=1_000_000_000)
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    clock.advance(0.2)
    tree.set_energy(package, 4_000_000)
    state = joules(meter)
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(5), 0, 0)


def test_failed_read_is_unavailable_then_bridged_and_no_wrap(tree):
    package = tree.zone("intel-rapl:0", "package-0", 10_000_000)
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    tree.fail(package, OSError(5, "Input/output error"))
    clock.advance(0.1)
    lost = meter.read().joules[PACKAGE]
    assert isinstance(lost, Unavailable)
    assert "Input/output error" in lost.reason
    tree.heal(package)
    tree.set_energy(package, 30_000_000)
    clock.advance(0.1)
    state = joules(meter)
    assert (state.joules, state.gap_s, state.resets) == (pytest.approx(20), 0, 0)
    assert "Input/output error" in meter.facts()["last_errors"][PACKAGE]


def test_gap_longer_than_a_wrap_is_counted_and_bounded(tree):
    package = tree.zone("intel-rapl:0", "package-0", 0, range_uj=1_000_000_000)
    clock = FakeClock()
    meter, _ = opened(tree, clock, max_power_w=500)
    clock.advance(10)
    tree.set_energy(package, 200_000_000)
    state = joules(meter)
    assert (state.joules, state.gap_s) == (pytest.approx(200), 10)
    assert state.under_j == pytest.approx(4000)


def test_truncated_file_is_unavailable(tree):
    package = tree.zone("intel-rapl:0", "package-0", 10)
    meter, _ = opened(tree)
    (package / "energy_uj").write_text("", encoding="ascii")
    assert isinstance(meter.read().joules[PACKAGE], Unavailable)


def test_permission_is_told_with_the_remedy(tree):
    tree.make_unreadable(tree.zone("intel-rapl:0", "package-0", 10))
    meter, scopes = opened(tree)
    assert isinstance(scopes[PACKAGE], Unavailable)
    assert "udev" in scopes[PACKAGE].reason
    assert "permission denied" in scopes[PACKAGE].reason
    assert meter.read().joules == {}


def test_one_readable_zone_is_read_beside_one_that_is_not(tree):
    tree.zone("intel-rapl:0", "package-0", 10)
    tree.make_unreadable(tree.zone("intel-rapl:1", "package-1", 10))
    _, scopes = opened(tree)
    assert isinstance(scopes[PACKAGE], Scope)
    assert isinstance(scopes["n0/cpu-package:1"], Unavailable)


def test_no_tree_is_unavailable(tree):
    _, scopes = opened(tree)
    assert isinstance(scopes, Unavailable)
    assert "no RAPL" in scopes.reason


def test_counter_that_stands_still_is_dead(tree):
    tree.zone("intel-rapl:0", "package-0", 10)
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    assert joules(meter).joules == 0  # within the same tick nothing was drawn yet
    clock.advance(1)
    lost = meter.read().joules[PACKAGE]
    assert isinstance(lost, Unavailable)
    assert "not moved" in lost.reason


def test_driver_gone_is_unavailable(tree):
    package = tree.zone("intel-rapl:0", "package-0", 10)
    meter, _ = opened(tree)
    (package / "energy_uj").unlink()
    assert isinstance(meter.read().joules[PACKAGE], Unavailable)


def test_second_control_type_of_one_package_is_not_counted_twice(tree):
    tree.zone("intel-rapl:0", "package-0", 10)
    tree.zone("intel-rapl-mmio:0", "package-0", 999)
    meter, scopes = opened(tree)
    assert set(scopes) == {PACKAGE}
    assert meter.facts()["zones"][PACKAGE].endswith("intel-rapl:0")


def test_flat_links_beside_nested_zones_are_not_counted_twice(tree):
    tree.zone("intel-rapl:0", "package-0", 10)
    nested = tree.zone("intel-rapl:0:0", "dram", 20)
    (tree.root / "intel-rapl:0:0").symlink_to(nested)
    _, scopes = opened(tree)
    assert set(scopes) == {PACKAGE, DRAM}


def test_mirrored_die_is_left_out_and_a_real_one_kept(tree):
    tree.zone("intel-rapl:0", "package-0-die-0", 5_000_000)
    tree.zone("intel-rapl:1", "package-0-die-1", 5_000_000)
    tree.zone("intel-rapl:2", "package-1-die-0", 5_000_000)
    tree.zone("intel-rapl:3", "package-1-die-1", 6_000_000)
    meter, scopes = opened(tree)
    assert set(scopes) == {"n0/cpu-package:0-die-0", "n0/cpu-package:1-die-0", "n0/cpu-package:1-die-1"}
    assert meter.facts()["left_out"]["cpu-package:0-die-1"] == "repeats cpu-package:0-die-0"


@pytest.mark.parametrize(("range_uj", "hz"), [(RANGE, 1.0), (1_000_000_000, 4.0), (10_000_000, 10.0)])
def test_sampling_follows_the_shortest_wrap_and_its_cap(tree, range_uj, hz):
    tree.zone("intel-rapl:0", "package-0", 0, range_uj=range_uj)
    meter, _ = opened(tree)
    assert meter.sample_hz == pytest.approx(hz)


def test_contract(tree):
    package = tree.zone("intel-rapl:0", "package-0", 0)
    clock = FakeClock()
    energy = iter(range(1_000_000, 100_000_000, 1_000_000))

    def between():
        clock.advance(0.1)
        tree.set_energy(package, next(energy))

    meter = RaplMeter(RaplOptions(root=tree.root), tree.read_text, clock)
    assert check_meter(meter, MeterContext(), reads=4, between=between)[-1].joules[PACKAGE].joules > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 90_000_000), min_size=1, max_size=12))
def test_any_series_of_wraps_conserves_energy(tree, steps):
    package = tree.zone("intel-rapl:0", "package-0", 0, range_uj=100_000_000)
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    total = 0
    for step in steps:
        total += step
        clock.advance(0.095)
        tree.set_energy(package, total % 100_000_000)
        meter.read()
    state = joules(meter)
    assert state.joules == pytest.approx(total / 1e6)
    assert state.gap_s == 0
