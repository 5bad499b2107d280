"""Profile tables made in this process: every configuration of a set of devices at a few rates, simulated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.quantity import Unavailable
from harness_disaggregated_serving.choosing.pooling import pool
from harness_disaggregated_serving.choosing.profile_table import ProfileKey, ProfileRow, ProfileTable
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.slo import targets
from harness_disaggregated_serving.simulator.cell import settle
from harness_disaggregated_serving.simulator.options import SimulatedOptions
from harness_disaggregated_serving.simulator.workload import profile_row, rule_of, setup_of, stream_of


def profiled(
    devices: Sequence[str],
    rates: Iterable[float],
    common: Mapping[str, Any],
    seeds: int,
    *,
    first_seed: int = 0,
    configurations: Sequence[Configuration] = tuple(Configuration),
) -> ProfileTable:
    """A table of all configurations of the first device with each of the others, seeds together.

    Args:
        devices: names of packaged profiles: the new one, then old ones.
        rates: requests per second.
        common: options of `greenllm-simulated` that all cells share.
        seeds: how many streams of requests each cell is simulated for.
        first_seed: of the first of them.
        configurations: of which kinds.
    """
    tables, grid = [], list(rates)
    for seed in range(first_seed, first_seed + seeds):
        cells = (_cells(devices, rate, {**common, "seed": seed}, configurations) for rate in grid)
        rows = tuple(_row(one) for several in cells for one in several)
        tables.append(ProfileTable(_key(common, seed), rows))
    (found,) = pool(tables)
    return found


def _cells(
    devices: Sequence[str], rate: float, common: Mapping[str, Any], configurations: Sequence[Configuration]
) -> Iterator[SimulatedOptions]:
    for configuration in configurations:
        for old in devices[1:] if configuration.needs_old else devices[:1]:
            given = {**common, "configuration": configuration.value, "new": {"kind": devices[0]}, "qps": rate}
            yield SimulatedOptions.model_validate({**given, "old": {"kind": old}} if configuration.needs_old else given)


def _row(options: SimulatedOptions) -> ProfileRow:
    """A cell; one that does not fit its device keeps the reason."""
    setup = setup_of(options)
    if isinstance(setup, Unavailable):
        return ProfileRow(
            configuration=options.configuration,
            new=options.new.kind,
            old=options.old.kind if Configuration(options.configuration).needs_old else "",
            size=options.sizes,
            prompt_tokens=1,
            qps=options.qps,
            failure=setup.reason,
        )
    return profile_row(
        options, settle(setup, lambda count: stream_of(options, count), targets(options.slo), rule_of(options))
    )


def _key(common: Mapping[str, Any], seed: int) -> ProfileKey:
    options = SimulatedOptions.model_validate(dict(common))
    return ProfileKey(
        model=options.model,
        dtype="float16",
        engine=f"simulator, {options.batching} batching, uncalibrated",
        driver="none",
        link_kind="simulated",
        seed=seed,
    )
