"""Intervals of savings: exact ends, what they depend on, seeds; and how declared watts move the headline saving."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting
from harness_disaggregated_serving.choosing.interval import SavingRange, Terms, mixed, saving_range
from harness_disaggregated_serving.choosing.pooling import pool
from harness_disaggregated_serving.choosing.profile_table import (
    ProfiledDevice,
    ProfileKey,
    ProfileRow,
    ProfileTable,
    row_from_json,
    row_to_json,
)
from harness_disaggregated_serving.load.slo import Slo, targets
from harness_disaggregated_serving.simulator.cell import Rule, settle
from harness_disaggregated_serving.simulator.options import SimulatedOptions
from harness_disaggregated_serving.simulator.workload import profile_row, setup_of, stream_of
from hypothesis import given
from hypothesis import strategies as st

from harness.quantity import Unavailable, Undefined

YEARS = {"new": 5 * SECONDS_PER_YEAR, "old": 7 * SECONDS_PER_YEAR}
KEY = ProfileKey(model="m", dtype="fp16", engine="e", driver="d", link_kind="simulated", seed=0)

ends = st.tuples(st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1)).map(
    lambda three: (three[0], three[0] + three[1], three[0] + three[1] + three[2])
)
both = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5), ends), min_size=1, max_size=5)


@given(both)
def test_the_ends_are_those_over_every_corner(numbers: list[tuple[float, float, tuple[float, float, float]]]) -> None:
    def terms(which: int) -> Terms:
        return {
            f"x{place}": tuple(coefficients[which] * end for end in coefficients[2])  # type: ignore[misc, operator]
            for place, coefficients in enumerate(numbers)
        }

    mine, base = terms(0), terms(1)
    found = saving_range([mine], [base])
    assert isinstance(found, SavingRange)
    corners = []
    for chosen in itertools.product((0, 2), repeat=len(numbers)):
        above = sum(mine[f"x{place}"][end] for place, end in enumerate(chosen))
        corners.append(1 - above / sum(base[f"x{place}"][end] for place, end in enumerate(chosen)))
    assert found.low == pytest.approx(min(corners), rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(max(corners), rel=1e-9, abs=1e-9)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert found.seeds == 1


def test_what_moves_it_most_is_told_first() -> None:
    base = {"watts of A": (100.0, 300.0, 300.0), "embodied of A": (1.0, 1.0, 1.1)}
    mine = {"watts of A": (60.0, 180.0, 180.0), "watts of B": (70.0, 70.0, 80.0), "embodied of A": (1.0, 1.0, 1.1)}
    found = saving_range([mine], [base])
    assert isinstance(found, SavingRange)
    assert [name for name, _, _ in found.depends] == ["watts of A", "watts of B"]
    _, low, high = found.depends[0]
    assert low == pytest.approx(1 - 131 / 101)
    assert high == pytest.approx(1 - 251 / 301)
    assert not found.told
    assert "watts of A (-29.7% to +16.6%)" in found.notes


def test_seeds_widen_it_and_one_seed_does_not() -> None:
    bases = [{"x": (2.0, 2.0, 2.0)}] * 3
    mine = [{"x": (value,) * 3} for value in (1.0, 1.1, 1.2)]
    found = saving_range(mine, bases)
    assert isinstance(found, SavingRange)
    assert found.value == pytest.approx(0.45)
    assert found.high - found.low == pytest.approx(2 * 4.303 * 0.05 / 3**0.5)
    alone = saving_range(mine[:1], bases[:1])
    assert isinstance(alone, SavingRange)
    assert (alone.low, alone.high, alone.told) == (0.5, 0.5, True)
    assert isinstance(saving_range([], []), Undefined)
    assert isinstance(saving_range([{"x": (1, 1, 1)}], [{"x": (0, 0, 0)}]), Undefined)


def test_terms_between_two_rates_are_linear() -> None:
    (found,) = mixed([{"a": (1, 2, 3)}], [{"a": (3, 4, 5), "b": (0, 1, 2)}], 0.5)
    assert found == {"a": (2, 3, 4), "b": (0, 0.5, 1)}


def simulated(seed: int = 0, **options: object) -> ProfileRow:
    asked = SimulatedOptions(seed=seed, **options)
    setup = setup_of(asked)
    assert not isinstance(setup, Unavailable)
    rule = Rule(least=1000, most=1000)
    return profile_row(asked, settle(setup, lambda count: stream_of(asked, count), targets(asked.slo), rule))


def saved(watts: dict[str, object]) -> SavingRange:
    """Of drafting on a T4 at QPS 1, chat, 261 g/kWh."""
    new = {"kind": "A100-40GB", "watts": watts}
    base = simulated(configuration="standalone", new=new)
    pair = simulated(configuration="dsd", new=new, old={"kind": "T4"})
    terms = [row.terms(261, YEARS, Accounting.RESERVED) for row in (pair, base)]
    found = saving_range(*terms)
    assert isinstance(found, SavingRange)
    return found


def test_the_saving_hangs_on_what_the_board_draws_while_decoding() -> None:
    limit = saved({"prefill": 400, "decode": 400, "verify": 400, "draft": 400, "idle": 60})
    less = saved({"prefill": 400, "decode": 200, "verify": 400, "draft": 400, "idle": 60})
    assert limit.value > less.value + 0.2
    ranged = saved({"prefill": 400, "decode": {"low": 200, "value": 400, "high": 400}, "verify": 400, "idle": 60})
    assert ranged.value == pytest.approx(limit.value)
    assert ranged.low <= less.value + 1e-9
    assert any(name == "decode watts of A100-40GB" for name, _, _ in ranged.depends)


def test_terms_sum_to_the_energy_and_carbon_of_the_row() -> None:
    row = simulated(configuration="dsd", old={"kind": "T4"}, qps=0.5)
    cost = row.cost(261, YEARS, Accounting.RESERVED)
    assert not isinstance(cost, Unavailable)
    (terms,) = row.terms(261, YEARS, Accounting.RESERVED)
    assert sum(ends[1] for ends in terms.values()) == pytest.approx(cost.total_g, rel=1e-9)
    assert all(low <= value <= high for low, value, high in terms.values())
    again = row_from_json(json.loads(json.dumps(row_to_json(KEY, row))))[1]
    assert again == row
    assert again.terms(261, YEARS, Accounting.BUSY) == row.terms(261, YEARS, Accounting.BUSY)


def test_seeds_are_pooled_and_kept_apart_for_the_interval(tmp_path: Path) -> None:
    rows = [simulated(seed, configuration="standalone", qps=0.5) for seed in range(3)]
    tables = [ProfileTable(ProfileKey(**{**KEY_FIELDS, "seed": seed}), (row,)) for seed, row in enumerate(rows)]
    ((one,),) = [table.rows for table in pool(tables)]
    assert one.requests == 3000
    assert len(one.parts) == len(one.terms(261, YEARS, Accounting.RESERVED)) == 3
    assert one.energy_per_request_j == pytest.approx(sum(device(row).energy_j for row in rows) / 3000)
    assert one.attained(Slo(15, 0.15)) == pytest.approx(
        sum(row.attained(Slo(15, 0.15)) * len(row.latencies) for row in rows) / sum(len(row.latencies) for row in rows)
    )
    other = ProfileTable(ProfileKey(**{**KEY_FIELDS, "model": "n"}), rows[:1])  # type: ignore[arg-type]
    assert len(pool([*tables, other])) == 2


KEY_FIELDS = {name: getattr(KEY, name) for name in ("model", "dtype", "engine", "driver", "link_kind", "seed")}


def device(row: ProfileRow) -> ProfiledDevice:
    (found,) = row.devices
    return found
