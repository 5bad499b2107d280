"""Carbon: the specification's worked numbers, the savings theory with both signs, embodied data."""

from __future__ import annotations

import pytest
from harness_disaggregated_serving.carbon import embodied
from harness_disaggregated_serving.carbon.accounting import (
    SECONDS_PER_YEAR,
    Accounting,
    Footprint,
    HeldDevice,
    Pays,
    break_even,
    footprint,
    longer_new_life_helps,
    operational_g,
    saving,
    saving_from_ratios,
    saving_grows_with_intensity,
)
from harness_disaggregated_serving.carbon.embodied import EmbodiedRow, Node, Provenance
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.quantity import Unavailable, Undefined

KWH = 3.6e6
HOUR = 3600.0


def held(name: str, kwh: float, kg: float, years: float, *, busy: float = HOUR, reserved: float = HOUR) -> HeldDevice:
    return HeldDevice(
        name=name,
        energy_j=kwh * KWH,
        busy_s=busy,
        reserved_s=reserved,
        embodied_g=kg * 1000,
        lifetime_s=years * SECONDS_PER_YEAR,
    )


def case4(alpha: float, new_years: float = 5, old_years: float = 5) -> tuple[Footprint, Footprint]:
    alone = footprint([held("A", 0.30, 31.536, new_years)], alpha, Accounting.RESERVED)
    pair = footprint(
        [held("A", 0.12, 31.536, new_years), held("B", 0.10, 7.884, old_years)], alpha, Accounting.RESERVED
    )
    assert isinstance(alone, Footprint)
    assert isinstance(pair, Footprint)
    return alone, pair


def saved(alpha: float, new_years: float = 5, old_years: float = 5) -> float:
    alone, pair = case4(alpha, new_years, old_years)
    value = saving(alone.total_g, pair.total_g)
    assert isinstance(value, float)
    return value


def test_case_4_milligrams_per_second() -> None:
    assert held("A", 0, 31.536, 5, reserved=1, busy=1).embodied_share_g(Accounting.RESERVED) == pytest.approx(
        2e-4, rel=1e-9
    )
    assert held("B", 0, 7.884, 5, reserved=1, busy=1).embodied_share_g(Accounting.RESERVED) == pytest.approx(
        5e-5, rel=1e-9
    )


@pytest.mark.parametrize(
    ("alpha", "percent"),
    [(0, -25.0), (1, -9.8039), (2.25, 0.0), (17, 20.2749), (100, 25.4557), (261, 26.1959)],
)
def test_case_4_savings_by_intensity(alpha: float, percent: float) -> None:
    assert 100 * saved(alpha) == pytest.approx(percent, abs=5e-5)


def test_case_4_savings_exactly() -> None:
    for alpha in (0, 1, 2.25, 17, 100, 261):
        expected = 1 - (0.22 * alpha + 0.9) / (0.30 * alpha + 0.72)
        assert saved(alpha) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert saved(1e15) == pytest.approx(1 - 0.22 / 0.30, abs=1e-9)


@pytest.mark.parametrize(
    ("years", "star", "percent"),
    [(1, 11.25, 7.9038), (2.5, 4.5, 17.1821), (5, 2.25, 20.2749), (10, 1.125, 21.8213)],
)
def test_case_4_life_of_the_old_device(years: float, star: float, percent: float) -> None:
    alone, pair = case4(0, old_years=years)
    found = break_even(0.08 * KWH, pair.embodied_g - alone.embodied_g)
    assert found.pays is Pays.ABOVE
    assert found.intensity == pytest.approx(star, rel=1e-9)
    assert 100 * saved(17, old_years=years) == pytest.approx(percent, abs=5e-5)


@pytest.mark.parametrize(("years", "percent"), [(2.5, 18.0428), (5, 20.2749), (10, 21.6117)])
def test_case_4_life_of_the_new_device_leaves_the_break_even(years: float, percent: float) -> None:
    alone, pair = case4(0, new_years=years)
    assert break_even(0.08 * KWH, pair.embodied_g - alone.embodied_g).intensity == pytest.approx(2.25, rel=1e-9)
    assert 100 * saved(17, new_years=years) == pytest.approx(percent, abs=5e-5)


def test_case_4_under_busy_on_numbers_of_our_own() -> None:
    """The new device works half as long, the old one a tenth: embodied carbon falls, energy rises."""
    alone = [held("A", 0.30, 31.536, 5, busy=3000)]
    pair = [held("A", 0.20, 31.536, 5, busy=1500), held("B", 0.12, 7.884, 5, busy=360)]
    values = {}
    for alpha in (0, 13, 15, 300):
        one, two = (footprint(devices, alpha, Accounting.BUSY) for devices in (alone, pair))
        assert isinstance(one, Footprint)
        assert isinstance(two, Footprint)
        values[alpha] = 1 - two.total_g / one.total_g
    added = 0.30 + 0.018 - 0.60  # g
    found = break_even(-0.02 * KWH, added)
    assert found.pays is Pays.BELOW
    assert found.intensity == pytest.approx(14.1, rel=1e-9)
    assert values[0] > values[13] > 0 > values[15] > values[300]


def test_busy_and_reserved_can_differ_in_sign() -> None:
    alone = [held("A", 0.30, 31.536, 5, busy=HOUR)]
    pair = [held("A", 0.20, 31.536, 5, busy=600), held("B", 0.10, 7.884, 5, busy=600)]
    signs = []
    for accounting in Accounting:
        one, two = (footprint(devices, 100, accounting) for devices in (alone, pair))
        assert isinstance(one, Footprint)
        assert isinstance(two, Footprint)
        value = saving(one.total_g, two.total_g)
        assert isinstance(value, float)
        signs.append(value > 0)
    assert signs == [True, False]


def test_claim_of_406_percent_where_operation_dominates_needs_e_of_0594() -> None:
    assert saving_from_ratios(0.594, 1.25, 0.0) == pytest.approx(0.406, abs=1e-12)


def test_a_gpu_weighs_about_a_watt_at_261() -> None:
    for kg, years in ((17.473, 5), (12.662, 5), (8.961, 5)):
        per_second = held("g", 0, kg, years, busy=1, reserved=1).embodied_share_g(Accounting.RESERVED)
        assert isinstance(per_second, float)
        assert 0.5 < per_second / operational_g(1.0, 261) < 2


@given(st.floats(1, 1e8), st.floats(1, 1e8), st.floats(0.001, 1e3), st.floats(0.001, 1e3), st.floats(0, 2000))
def test_saving_is_the_theory(energy: float, other: float, weight: float, weight2: float, alpha: float) -> None:
    one, two = operational_g(energy, alpha), operational_g(other, alpha)
    share = weight / (one + weight)
    direct = saving(one + weight, two + weight2)
    assert isinstance(direct, float)
    assert saving_from_ratios(other / energy, weight2 / weight, share) == pytest.approx(direct, rel=1e-6, abs=1e-6)
    dirtier = saving(operational_g(energy, alpha + 100) + weight, operational_g(other, alpha + 100) + weight2)
    assert isinstance(dirtier, float)
    grows = saving_grows_with_intensity(other / energy, weight2 / weight)
    if grows is not None and abs(dirtier - direct) > 1e-9:
        assert (dirtier > direct) is grows


@given(st.floats(-1e8, 1e8), st.floats(-1e3, 1e3), st.floats(0, 1e4))
def test_break_even_says_the_sign_on_both_sides(saved_j: float, added_g: float, alpha: float) -> None:
    found = break_even(saved_j, added_g)
    gain = operational_g(abs(saved_j), alpha) * (1 if saved_j >= 0 else -1) - added_g
    if abs(gain) < 1e-9 * (1 + abs(added_g)):
        return
    expected = {
        Pays.ALWAYS: True,
        Pays.NEVER: False,
        Pays.ABOVE: found.intensity is not None and alpha > found.intensity,
        Pays.BELOW: found.intensity is not None and alpha < found.intensity,
    }
    assert (gain > 0) is expected[found.pays]


@given(st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 500))
def test_longer_life_of_the_new_device(life: float, other: float, t: float, t2: float, alpha: float) -> None:
    def total(years: float, seconds: float, energy: float, extra: float) -> float:
        return operational_g(energy, alpha) + 30_000 * seconds * HOUR / (years * SECONDS_PER_YEAR) + extra

    one, two = total(life, t, 1e6, 0), total(life, t2, 7e5, 0.2)
    later_one, later_two = total(life + other, t, 1e6, 0), total(life + other, t2, 7e5, 0.2)
    change = (1 - later_two / later_one) - (1 - two / one)
    if abs(change) > 1e-9:
        assert longer_new_life_helps(t, t2, one, two) is (change > 0)


def test_negative_saving_is_a_result() -> None:
    assert saving(1.0, 3.0) == -2.0
    assert isinstance(saving(0.0, 1.0), Undefined)


def test_missing_embodied_figure_gives_no_total() -> None:
    device = HeldDevice(
        name="x", energy_j=1, busy_s=0, reserved_s=1, embodied_g=Unavailable("not in the table"), lifetime_s=1
    )
    assert footprint([device], 100, Accounting.BUSY) == Unavailable("not in the table")


@pytest.mark.parametrize(
    "change", [{"energy_j": -1.0}, {"busy_s": 2.0}, {"lifetime_s": 0.0}, {"energy_j": float("nan")}]
)
def test_impossible_devices_are_refused(change: dict[str, float]) -> None:
    given = {"energy_j": 1.0, "busy_s": 0.0, "reserved_s": 1.0, "embodied_g": 1.0, "lifetime_s": 1.0, **change}
    with pytest.raises(UsageError):
        HeldDevice(name="x", **given)


def test_case_8_embodied_estimator() -> None:
    assert round(embodied.estimate_kg(8.26, Node.NM7, 40), 3) == 17.473
    assert round(embodied.estimate_kg(8.26, Node.NM7_EUV, 40), 3) == 19.898
    assert round(embodied.estimate_kg(8.26, Node.NM7, 80), 3) == 20.823
    assert round(embodied.estimate_kg(8.15, Node.NM12, 16), 3) == 12.662
    assert round(embodied.estimate_kg(5.45, Node.NM12, 16), 3) == 8.961


@pytest.mark.parametrize(
    ("row", "five", "seven"),
    [
        ("act-birds:A100-40GB", 0.1108, 0.0792),
        ("act-birds:A100-80GB", 0.1321, 0.0943),
        ("act-birds:V100-16GB", 0.0803, 0.0574),
        ("act-birds:T4", 0.0568, 0.0406),
    ],
)
def test_table_in_milligrams_per_second(row: str, five: float, seven: float) -> None:
    grams = embodied.table()[row].grams
    assert grams * 1000 / (5 * SECONDS_PER_YEAR) == pytest.approx(five, abs=5e-5)
    assert grams * 1000 / (7 * SECONDS_PER_YEAR) == pytest.approx(seven, abs=5e-5)


def test_no_unverified_figure_is_a_default() -> None:
    from harness_disaggregated_serving.simulator.profiles import profiles

    for device in profiles().values():
        found = embodied.find(device.embodied_id)
        assert isinstance(found, Unavailable) or found.provenance is not Provenance.UNVERIFIED


def test_device_profiles_weigh_what_the_impact_meter_charges() -> None:
    fuel = pytest.importorskip("harness_meter_fuel.embodied")
    from harness_disaggregated_serving.simulator.profiles import profiles

    weighed = {}
    for device in profiles().values():
        charged, found = fuel.find("fuel", "gpu", device.device), embodied.find(device.embodied_id)
        assert (charged is None) == isinstance(found, Unavailable), device.device
        if charged is not None:
            assert isinstance(found, EmbodiedRow)
            assert found.kg == charged.kg
            assert charged.confidence in found.source  # how sure it is stands beside it
            weighed[device.device] = found.kg
    assert weighed == {
        "A100-40GB": 26.34, "A100-80GB": 26.34, "H100": 29.92, "L40": 26.6, "V100-16GB": 20.0, "T4": 10.3
    }  # fmt: skip


def test_user_rows_need_a_source_and_an_id_of_their_own() -> None:
    good = {"device": "X", "kg": 1.0, "low_kg": 1.0, "high_kg": 2.0, "provenance": Provenance.USER}
    row = EmbodiedRow(id="mine", source="my own LCA", **good)
    assert embodied.with_user_rows([row])["mine"] is row
    with pytest.raises(UsageError, match="no source"):
        EmbodiedRow(id="mine", source="  ", **good)
    with pytest.raises(UsageError, match="taken"):
        embodied.with_user_rows([EmbodiedRow(id="act-birds:T4", source="x", **good)])
    with pytest.raises(UsageError, match="no embodied row"):
        embodied.find("act-birds:T5")
