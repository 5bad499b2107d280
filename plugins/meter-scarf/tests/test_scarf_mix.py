"""Generation mixes by the names that people have: no misspelt or plain name costs nothing in silence."""

import pytest
from harness_meter_scarf.place.generation import DEFAULTS, WITHOUT_VALUE, Mix, fuels, names, of_mix
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.quantity import Unavailable

GAL = 0.003785411784
TIGHT = 1e-9


def mixed(**shares: float) -> Mix:
    found = of_mix({name.replace("_", " "): share for name, share in shares.items()})
    assert isinstance(found, Mix)
    return found


def test_gas_and_wind_by_their_plain_names() -> None:
    found = mixed(gas=0.6, wind=0.4)
    assert found.l_per_kwh == pytest.approx(0.6 * 205 * GAL, rel=TIGHT)
    assert (found.low, found.high) == pytest.approx((0.6 * 2 * GAL, 0.6 * 826 * GAL), rel=TIGHT)
    assert found.coverage == 1.0
    assert found.defaults == ("gas as gas, combined cycle/tower",)


@pytest.mark.parametrize(
    ("name", "gallons", "low", "high"),
    [
        ("coal", 687, 250, 687),
        ("Coal", 687, 250, 687),
        ("Fossil Hard coal", 687, 250, 687),
        ("Fossil Brown coal/Lignite", 687, 250, 687),
        ("COL", 687, 250, 687),
        ("Natural Gas", 205, 2, 826),
        ("NG", 205, 2, 826),
        ("Fossil Gas", 205, 2, 826),
        ("gas, combined cycle", 205, 2, 205),
        ("Nuclear", 672, 269, 672),
        ("NUC", 672, 269, 672),
        ("Hydro", 4491, 4491, 4491),
        ("Hydro Run-of-river and poundage", 4491, 0, 4491),
        ("Solar", 1, 1, 1),
        ("SUN", 1, 1, 1),
        ("Wind Offshore", 0, 0, 0),
        ("Bioenergy", 553, 553, 553),
        ("Biomass", 553, 553, 553),
        ("Geothermal", 15, 15, 15),
        ("coal/once-through", 250, 250, 250),
        ("Nuclear/Pond", 610, 610, 610),
    ],
)
def test_names_of_eia_entsoe_and_ember(name: str, gallons: float, low: float, high: float) -> None:
    found = of_mix({name: 1.0})
    assert isinstance(found, Mix)
    assert (found.l_per_kwh, found.low, found.high) == pytest.approx((gallons * GAL, low * GAL, high * GAL), rel=TIGHT)


@pytest.mark.parametrize("name", ["gass", "naturalgas", "windd", "", "Kohle", "nuclear/dry"])
def test_a_name_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no fuel") as refused:
        of_mix({name: 0.6, "wind": 0.4})
    assert "gas, combined cycle/dry" not in str(refused.value)  # the least figure is nobody's default


def test_a_near_name_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean 'gas'"):
        of_mix({"gaz": 1.0})


@pytest.mark.parametrize("sum_", [0.5, 0.98, 1.02, 2.0])
def test_shares_sum_to_one(sum_: float) -> None:
    with pytest.raises(UsageError, match="sum to"):
        of_mix({"gas": sum_})
    for near in (0.99, 0.995, 1.0, 1.01):
        assert isinstance(of_mix({"gas": near}), Mix)


def test_what_has_no_value_is_left_out_named_and_widens_the_bound() -> None:
    found = mixed(gas=0.5, other=0.5)
    assert found.l_per_kwh == pytest.approx(205 * GAL, rel=TIGHT)
    assert (found.coverage, found.left_out) == (0.5, ("other",))
    assert (found.low, found.high) == pytest.approx((0.5 * 2 * GAL, 0.5 * (826 + 906) * GAL), rel=TIGHT)
    assert isinstance(of_mix(dict.fromkeys(["oil", "waste"], 0.5)), Unavailable)


def test_every_default_is_a_row_and_no_name_has_two_meanings() -> None:
    assert set(DEFAULTS.values()) <= set(fuels())
    assert not set(names()) & set(WITHOUT_VALUE)


@given(st.dictionaries(st.sampled_from([*DEFAULTS, "oil", "other"]), st.floats(0.001, 1000), min_size=1))
def test_the_bound_holds_the_value(generation: dict[str, float]) -> None:
    found = of_mix(generation, in_mwh=True)
    assert isinstance(found, Unavailable) or found.low <= found.l_per_kwh <= found.high
