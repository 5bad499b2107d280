"""A place on the command line: every impact meter that takes one is there."""

import pytest

from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.session.meters import choose, with_place


@pytest.fixture(scope="module")
def registry() -> Registry:
    pytest.importorskip("harness_meter_fuel")
    pytest.importorskip("harness_meter_scarf")
    return load_plugins()


def test_a_place_brings_carbon_and_water(registry: Registry) -> None:
    chosen = {each.name: each.options for each in choose(with_place(["tdp"], place="us-east-1"), registry)}
    assert chosen["fuel"]["place"]["row"] == chosen["scarf"]["place"]["row"] == "aws-n-virginia"


def test_own_options_go_before_it(registry: Registry) -> None:
    asked = with_place(["tdp"], grid="518", place="us-east-1")
    chosen = {each.name: each.options for each in choose(asked, registry)}
    assert chosen["fuel"]["grid"] == "518"
    assert chosen["fuel"]["place"]["row"] == "aws-n-virginia"


def test_an_unknown_place_is_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"no place 'us-esat-1'.*did you mean"):
        choose(with_place(["tdp"], place="us-esat-1"), registry)


def test_own_values_are_a_place(registry: Registry) -> None:
    for place in ({"grid": "518 g/kWh", "pue": 1.2}, "{grid: 518 g/kWh, pue: 1.2}"):
        chosen = {each.name: each.options for each in choose(with_place(["tdp"], place=place), registry)}
        assert chosen["fuel"]["place"]["grid"]["value"] == chosen["scarf"]["place"]["grid"]["value"] == 518.0
    with pytest.raises(UsageError, match="less than any grid has"):
        choose(with_place(["tdp"], place="{grid: 0.518}"), registry)
