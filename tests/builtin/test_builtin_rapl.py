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


# Limits


def limited(tree, folder="intel-rapl:0", name="package-0", **files):
    zone = tree.zone(folder, name, 10)
    for file, text in files.items():
        (zone / file).write_text(f"{text}\n", encoding="ascii")
    return zone


LONG_AND_SHORT = {
    "enabled": 1,
    "constraint_0_name": "long_term",
    "constraint_0_power_limit_uw": 125_000_000,
    "constraint_0_max_power_uw": 125_000_000,
    "constraint_0_time_window_us": 27_983_872,
    "constraint_1_name": "short_term",
    "constraint_1_power_limit_uw": 253_000_000,
    "constraint_1_max_power_uw": 0,
}
AMD = {"enabled": 0, "constraint_0_name": "long_term"}


@pytest.mark.parametrize(
    ("files", "limit_w"),
    [
        (LONG_AND_SHORT, 253),
        ({**LONG_AND_SHORT, "constraint_2_name": "peak_power", "constraint_2_power_limit_uw": 380_000_000}, 380),
        ({**LONG_AND_SHORT, "constraint_1_max_power_uw": 300_000_000}, 300),
        ({**LONG_AND_SHORT, "max_power_range_uw": 400_000_000}, 400),
        ({**LONG_AND_SHORT, "constraint_1_power_limit_uw": 4_095_000_000}, 1000),
        ({**LONG_AND_SHORT, "enabled": 0}, 1000),
        ({"constraint_0_power_limit_uw": 0}, 1000),
        ({"constraint_0_power_limit_uw": "", "constraint_0_max_power_uw": 65_000_000}, 65),
        ({"constraint_0_name": "long_term", "constraint_0_power_limit_uw": 240_000_000}, 240),
        (AMD, 1000),
        ({}, 1000),
    ],
)
def test_the_limit_is_the_greatest_that_the_kernel_enforces(tree, files, limit_w):
    limited(tree, **files)
    meter, scopes = opened(tree)
    assert scopes[PACKAGE].max_power_w == limit_w
    assert meter.facts()["limit_w"] == {PACKAGE: limit_w}


def test_a_declared_limit_stands_in_the_place_of_the_kernels(tree):
    limited(tree, **LONG_AND_SHORT)
    assert opened(tree, max_power_w=500)[1][PACKAGE].max_power_w == 500


def test_limits_that_may_not_be_read_are_none_and_cost_no_reading(tree):
    zone = limited(tree, **LONG_AND_SHORT)

    def read_text(path):
        if path.name.startswith(("constraint", "max_energy", "enabled")):
            raise PermissionError(13, "Permission denied")
        return tree.read_text(path)

    clock = FakeClock()
    meter = RaplMeter(RaplOptions(root=tree.root), read_text, clock)
    assert meter.open(MeterContext())[PACKAGE].max_power_w == 1000
    clock.advance(0.1)
    tree.set_energy(zone, 5_000_010)
    assert joules(meter).joules == pytest.approx(5)


def test_read_only_files_of_a_whole_package_are_enough(tree):
    for folder, name in [("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram")]:
        for file in limited(tree, folder, name, **LONG_AND_SHORT).glob("*_*"):
            if file.is_file():
                file.chmod(0o444)
    limited(tree, "intel-rapl:1", "psys", constraint_0_power_limit_uw=60_000_000)
    _, scopes = opened(tree)
    assert {name: scope.max_power_w for name, scope in scopes.items()} == {PACKAGE: 253, DRAM: 253}


@pytest.mark.parametrize("range_uj", [0, None], ids=["zero", "missing"])
def test_without_a_range_a_counter_that_falls_was_reset(tree, range_uj):
    package = tree.zone("intel-rapl:0", "package-0", 900_000_000, range_uj=0)
    if range_uj is None:
        (package / "max_energy_range_uj").unlink()
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    clock.advance(0.1)
    tree.set_energy(package, 4_000_000)
    state = joules(meter)
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(4), 1, pytest.approx(0.1))


def test_a_jump_beyond_the_limit_is_a_gap(tree):
    package = limited(tree, **LONG_AND_SHORT)
    clock = FakeClock()
    meter, _ = opened(tree, clock)
    for microjoules in (10_000_010, 20_000_010, 8_144_000_010, 8_154_000_010):
        clock.advance(0.1)
        tree.set_energy(package, microjoules)
        state = joules(meter)
    assert state.joules == pytest.approx(30)
    assert (state.dropped, state.gap_s) == (1, pytest.approx(0.1))
    assert 25 <= state.under_j <= 26


# Dies


class Moving(PowercapTree):
    """Counters that move with the clock, each by its own power, from what the test has set."""

    def __init__(self, root, clock):
        super().__init__(root)
        self.clock, self.watts = clock, {}

    def read_text(self, path):
        text = super().read_text(path)
        if path.name != "energy_uj":
            return text
        return str(int(text) + round(self.watts.get(path.parent.name, 0) * (self.clock.s - 1) * 1e6))


@pytest.mark.parametrize(
    ("starts", "watts", "read"),
    [
        ((0, 0), (50, 80), {"0-die-0", "0-die-1"}),
        ((0, 0), (0, 0), {"0-die-0", "0-die-1"}),
        ((0, 0), (0, 80), {"0-die-0", "0-die-1"}),
        ((0, 0), (50, 50), {"0-die-0"}),
        ((5_000_000, 5_000_000), (50, 50), {"0-die-0"}),
        ((5_000_000, 6_000_000), (50, 50), {"0-die-0", "0-die-1"}),
    ],
    ids=["0 J, apart", "0 J, at rest", "0 J, one at rest", "0 J, alike", "alike", "apart"],
)
def test_dies_are_mirrors_only_where_both_moved_and_moved_alike(tmp_path, starts, watts, read):
    clock = FakeClock()
    tree = Moving(tmp_path, clock)
    for die in (0, 1):
        tree.zone(f"intel-rapl:{die}", f"package-0-die-{die}", starts[die])
        tree.watts[f"intel-rapl:{die}"] = watts[die]
    meter = RaplMeter(RaplOptions(root=tmp_path), tree.read_text, clock, clock.sleep)
    assert set(meter.open(MeterContext())) == {f"n0/cpu-package:{die}" for die in read}
    assert meter.facts()["left_out"] == (
        {} if len(read) == 2 else {"cpu-package:0-die-1": "repeats cpu-package:0-die-0"}
    )
