"""Profile tables made in this process: every configuration of a set of devices at a few rates, simulated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness_disaggregated_serving.choosing.pooling import pool
from harness_disaggregated_serving.choosing.profile_table import ProfileKey, ProfileRow, ProfileTable
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.lengths import application
from harness_disaggregated_serving.load.slo import Slo, targets
from harness_disaggregated_serving.simulator.cell import settle
from harness_disaggregated_serving.simulator.options import SimulatedOptions
from harness_disaggregated_serving.simulator.profiles import profile
from harness_disaggregated_serving.simulator.workload import profile_row, rule_of, setup_of, stream_of
from harness_disaggregated_serving.traffic import MODELS

SAMPLE: Final = 4096
"""Lengths that limits are judged by."""
SLACK: Final = 1.5
"""A rate is refused unseen only where it is so many times the one that keeps the device busy: the mean is drawn."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What no configuration of a set of devices does better, since no request is served faster than alone.

    Attributes:
        ttft_s: prefill of the shortest prompt on the new device, alone.
        tpot_s: a decode step of one sequence, or a round of verification over all tokens it can yield, on the fastest.
        qps: requests per second whose prompts keep the new device busy all the time.
    """

    ttft_s: float
    tpot_s: float
    qps: float


def limits_of(devices: Sequence[str], common: Mapping[str, Any]) -> Limits:
    """Limits by service times alone, as the simulator derives them; raises UsageError for an unknown name."""
    import numpy as np

    options = SimulatedOptions.model_validate(dict(common))
    drawn, _ = application(options.sizes).draw(SAMPLE, *(np.random.default_rng(0) for _ in range(2)))
    shortest, mean = int(drawn.min()), float(drawn.mean())
    costs = [profile(name).costs(MODELS[options.model]) for name in devices]
    proposals = len(options.positions)
    steps = [min(one.decode.seconds(1, 1, 1), one.verify_s(1, proposals, 1) / (proposals + 1)) for one in costs]
    prefill = costs[0].prefill
    return Limits(prefill.seconds(shortest, shortest**2), min(steps), 1 / (prefill.per_token_s * mean))


def hold(devices: Sequence[str], common: Mapping[str, Any], qps: float, slo: Slo) -> None:
    """Raises UsageError, before anything is simulated, for a demand that no configuration of the devices can meet."""
    least = limits_of(devices, common)
    where = f"{common['sizes']} on {' and '.join(devices)}"
    faults = (
        (slo.ttft_s < least.ttft_s, f"TTFT {slo.ttft_s:g} s", f"{least.ttft_s:.3g} s or more"),
        (slo.tpot_s < least.tpot_s, f"TPOT {slo.tpot_s:g} s", f"{least.tpot_s:.3g} s or more"),
        (qps > SLACK * least.qps, f"{qps:g} requests/s", f"less than {least.qps:.3g} requests/s"),
    )
    for beyond, found, accepted in faults:
        if beyond:
            raise UsageError(f"no configuration can hold {found} for {where}", accepted=accepted)


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
