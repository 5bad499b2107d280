"""Agreement with published worked examples (SCI, ACT, LLMCarbon), and logs of power (V3)."""

import math

import pytest
from harness_meter_fuel import act, carbon

from harness.counter import PowerIntegrator
from harness.errors import UsageError
from harness.quantity import Amount, Method, total

TIGHT = 1e-9


def test_sci_example_of_the_impact_framework() -> None:
    # Green Software Foundation, Impact Framework, manual of `explain`: 1533.12 g device, 1 h of 3 years, 1 of 8 vCPUs,
    # 5 g operational, 100 requests.
    embodied = carbon.embodied_g(1533.12, duration_s=3600, lifetime_s=94_608_000, share=1 / 8)
    assert embodied.value == pytest.approx(0.00729223744292, rel=1e-9)
    whole = total([Amount.of(5.0, "g", Method.MEASURED), embodied])
    assert whole.value / 100 == pytest.approx(0.0500729223744, rel=1e-9)


@pytest.mark.parametrize(
    ("node", "energy", "gases"),
    [
        (28, 0.90, (175, 100)),
        (20, 1.20, (190, 110)),
        (14, 1.20, (200, 125)),
        (10, 1.475, (240, 150)),
        (8, 1.52, (240, 150)),
        (7, 2.15, (350, 200)),
        (5, 2.75, (430, 225)),
        (3, 3.25, (470, 275)),
    ],
)
def test_act_carbon_per_area(node: int, energy: float, gases: tuple[float, float]) -> None:
    expected = (583 * energy + sum(gases) / 2 + 500) / 0.875
    assert act.logic_g_per_cm2(node) == pytest.approx(expected, rel=TIGHT)
    greener = act.logic_g_per_cm2(node, fab_g_per_kwh=0, fab_yield=1.0)
    assert greener == pytest.approx(sum(gases) / 2 + 500, rel=TIGHT)


def test_act_device() -> None:
    assert act.device_kg(packages=1) == pytest.approx(0.150)
    assert act.device_kg(packages=0, memory={"DDR4 10 nm": 504}) == pytest.approx(504 * 0.065, rel=TIGHT)
    assert act.device_kg(packages=0, memory={"LPDDR4": 1, "NAND TLC v3": 1000}) == pytest.approx(6.348, rel=TIGHT)
    seven = (583 * 2.15 + 275 + 500) / 0.875
    assert act.device_kg(1.0, 7, packages=2) == pytest.approx((seven + 300) / 1000, rel=TIGHT)


def test_act_refuses_what_it_has_no_row_for() -> None:
    with pytest.raises(UsageError, match=r"no process node '6'.*28"):
        act.device_kg(1.0, 6)
    with pytest.raises(UsageError, match="node_nm"):
        act.device_kg(1.0)
    with pytest.raises(UsageError, match="no memory 'GDDR6'"):
        act.device_kg(memory={"GDDR6": 48})
    with pytest.raises(UsageError, match="fab_yield"):
        act.logic_g_per_cm2(7, fab_yield=0.0)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="at least 0"):
            act.device_kg(bad, 7)


@pytest.mark.parametrize(("kg_per_cm2", "area_cm2", "kg"), [(1.8, 8.14, 14.652), (1.2, 8.15, 9.78)])
def test_llmcarbon_figures_are_die_area_times_carbon_per_area(kg_per_cm2: float, area_cm2: float, kg: float) -> None:
    # H100: 4 nm, 814 mm2; V100: 12 nm, 815 mm2.
    from harness_meter_fuel.embodied import tables

    assert kg_per_cm2 * area_cm2 == pytest.approx(kg, rel=TIGHT)
    assert kg in {row.kg for row in tables()["llmcarbon"]}


A = ((0.0, 0.2, 0.4, 1.4, 1.6, 2.0), (200.0, 200.0, 400.0, 400.0, 300.0, 300.0))
B = ((0.0, 1.0, 2.0, 3.0, 4.0), (100.0, 300.0, 300.0, 500.0, 100.0))


def integrated(times_s: tuple[float, ...], watts: tuple[float, ...], interval_s: float) -> tuple[float, float]:
    """Joules and gap seconds as the harness's own meters find them."""
    meter = PowerIntegrator(interval_s)
    state = [meter.update(round(time_s * 1e9), watt) for time_s, watt in zip(times_s, watts, strict=True)][-1]
    return state.joules, state.gap_s


def test_v3a_uneven_samples_and_a_gap() -> None:
    joules, gap_s = integrated(*A, 0.2)
    assert joules == pytest.approx(690, rel=TIGHT)
    assert gap_s == pytest.approx(1.0)
    grams = carbon.operational_g(Amount.exact(joules, "J"), 518).value
    assert grams == pytest.approx(0.099283333, rel=1e-8)  # the mean of the samples x duration would give 0.086333333


def test_v3b_the_trapezoid_is_not_mean_times_duration() -> None:
    assert integrated(*B, 1.0) == (pytest.approx(1200), 0.0)  # mean x duration: 1040
