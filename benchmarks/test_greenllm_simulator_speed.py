"""How many requests the simulator of disaggregated serving handles per second of wall time, and in which memory.

Goals on one core: 30,000 requests/s for `standalone` and `dpd`, 10,000 for `spec-local` and `dsd` (requests, not
tokens; one of `dsd` takes 74 rounds here); 1,000,000 requests in bounded memory.
"""

from __future__ import annotations

import resource
from typing import Any

import pytest
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import Poisson, requests
from harness_disaggregated_serving.load.lengths import application
from harness_disaggregated_serving.load.slo import SLOS
from harness_disaggregated_serving.simulator.profiles import profile
from harness_disaggregated_serving.simulator.setup import Batching, Link, Setup, SimulatedDevice, Speculation
from harness_disaggregated_serving.simulator.simulate import simulate
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S, MODELS

RATES = {Configuration.STANDALONE: 2.0, Configuration.DPD: 0.3, Configuration.SPEC_LOCAL: 2.0, Configuration.DSD: 1.0}
"""Below saturation of the slower device."""


def setup(configuration: Configuration) -> Setup:
    target, draft = MODELS["llama-2-7b"], MODELS["draft-160m"]

    def device(name: str, *models: Any) -> SimulatedDevice:
        found = profile(name)
        tokens = found.kv_tokens(*models)
        return SimulatedDevice(
            name=name,
            target=found.costs(target),
            draft=found.costs(draft),
            active_w=found.active_w,
            idle_w=found.idle_w,
            kv_tokens=tokens if isinstance(tokens, int) else None,
        )

    return Setup(
        configuration=configuration,
        new=device("A100-40GB", target),
        old=device("V100-16GB", draft if configuration is Configuration.DSD else target),
        link=Link(bandwidth=16 * BYTES_PER_S_PER_GBIT_S, rtt_s=0.0005),
        kv_bytes_per_token=target.kv_bytes_per_token,
        speculation=Speculation(acceptance=(0.8,) * 4),
        batching=Batching.ITERATION,
    )


def run(configuration: Configuration, count: int) -> int:
    stream = requests(Poisson(RATES[configuration]), application("chat"), count, 1)
    return simulate(setup(configuration), stream, slo=SLOS["longbench"]).arrived


@pytest.mark.parametrize("configuration", list(Configuration))
def test_requests_per_second(benchmark: Any, configuration: Configuration) -> None:
    count = 5_000 if configuration.speculates else 20_000
    assert benchmark.pedantic(run, (configuration, count), rounds=3, warmup_rounds=1) == count
    benchmark.extra_info["requests_per_s"] = count / benchmark.stats.stats.min


@pytest.mark.parametrize("configuration", [Configuration.STANDALONE, Configuration.DPD])
def test_a_million_requests_in_bounded_memory(benchmark: Any, configuration: Configuration) -> None:
    run(configuration, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.pedantic(run, (configuration, 1_000_000), rounds=1)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    benchmark.extra_info["grown_kib"] = grown_kib
    benchmark.extra_info["requests_per_s"] = 1_000_000 / benchmark.stats.stats.min
    assert grown_kib < 16 * 1024
