"""When a load is steady, at which rate the targets still hold, and what engines say of themselves."""

from __future__ import annotations

import asyncio
import random

import pytest
from harness_disaggregated_serving.endpoint.answer import Answer
from harness_disaggregated_serving.endpoint.driving import ClientLoad
from harness_disaggregated_serving.endpoint.engine_metrics import at, parsed, summary
from harness_disaggregated_serving.endpoint.rows import client_faults
from harness_disaggregated_serving.endpoint.search import Probe, max_qps
from harness_disaggregated_serving.endpoint.steady import in_flight, why_unsteady


def queue(rate: float, service_s: float, requests: int, seed: int) -> list[Answer]:
    """A single server with Poisson arrivals: each request waits for those before it."""
    generator, now, free, found = random.Random(seed), 0.0, 0.0, []
    for _ in range(requests):
        now += generator.expovariate(rate)
        free = max(free, now) + service_s
        found.append(Answer(sent_s=now, due_s=now, end_s=free, finished=True))
    return found


def verdict(answers: list[Answer]) -> str:
    return why_unsteady(answers, 5.0, max(each.sent_s or 0.0 for each in answers))


def test_an_overloaded_server_is_never_steady_and_an_idle_one_nearly_always() -> None:
    overloaded = [verdict(queue(1.5, 1.0, 400, seed)) for seed in range(40)]
    assert all(overloaded)
    light = [verdict(queue(0.5, 1.0, 400, seed)) for seed in range(40)]
    assert sum(map(bool, light)) <= 2


def test_a_draining_queue_is_named() -> None:
    answers = [Answer(sent_s=i * 0.01, end_s=1.0 + i * 0.1, finished=True) for i in range(100)]
    answers += [Answer(sent_s=12.0 + i, end_s=12.1 + i, finished=True) for i in range(200)]
    assert "drained" in why_unsteady(answers, 1.0, 200.0)


def test_a_span_of_few_latencies_says_nothing() -> None:
    answers = [Answer(sent_s=0.0, end_s=10.0, finished=True)]
    assert "shorter than" in why_unsteady(answers, 1.0, 9.0)
    assert "ended before" in why_unsteady(answers, None, None)


def test_requests_in_flight_by_hand() -> None:
    assert in_flight([(0.0, 4.0), (2.0, 3.0)], 1.0, 3.0) == pytest.approx(1.5)


@pytest.mark.parametrize("knee", [0.3, 1.0, 7.3, 90.0])
def test_the_search_brackets_the_knee(knee: float) -> None:
    async def probe(qps: float) -> Probe:
        return Probe(qps, 1.0 if qps <= knee else 0.2, "", qps <= knee)

    found, tried = asyncio.run(max_qps(probe, 1.0, resolution=0.05, most=40))
    assert found is not None
    assert found <= knee < found * 1.05
    assert len(tried) < 20


def test_a_search_ends_where_nothing_holds_and_where_everything_does() -> None:
    async def never(qps: float) -> Probe:
        return Probe(qps, 0.0, "", holds=False)

    async def always(qps: float) -> Probe:
        return Probe(qps, 1.0, "", holds=True)

    assert asyncio.run(max_qps(never, 1.0, resolution=0.05, most=5))[0] is None
    assert asyncio.run(max_qps(always, 1.0, resolution=0.05, most=5))[0] == 16.0


PAGES = {
    "vllm": 'vllm:num_requests_running{model_name="a b"} 3.0\nvllm:num_requests_waiting{engine="0"} 4\n'
    'vllm:num_requests_waiting{engine="1"} 1\nvllm:kv_cache_usage_perc{engine="0"} 0.2\n'
    'vllm:kv_cache_usage_perc{engine="1"} 0.4 1700000000\n# HELP vllm:num_requests_running x\n',
    "sglang": "sglang:num_running_reqs 3\nsglang:num_queue_reqs 5\nsglang:token_usage 0.3\n",
    "llama.cpp": "llamacpp:requests_processing 3\nllamacpp:requests_deferred 5\nllamacpp:kv_cache_usage_ratio 0.3\n",
}


@pytest.mark.parametrize("engine", PAGES)
def test_pages_of_engines(engine: str) -> None:
    found = parsed(PAGES[engine])
    assert found == {"server_running": 3.0, "server_waiting": 5.0, "server_cache_use": pytest.approx(0.3)}


def test_a_page_of_something_else_says_nothing() -> None:
    assert parsed("<html>vllm:num_requests_running</html>\nvllm:num_requests_running NaN\nfoo 1\n") == {}


def test_gauges_are_those_last_seen_and_counters_what_they_grew() -> None:
    samples = [
        (1.0, {"server_running": 2.0, "server_kv_transfer_s": 5.0}),
        (2.0, {"server_running": 4.0, "server_kv_transfer_s": 9.0}),
    ]
    assert at(samples, 0.5) == {}
    assert at(samples, 1.9) == {"server_running": 2.0}
    assert summary(samples) == {
        "server_running": {"mean": 3.0, "max": 4.0, "readings": 2},
        "server_kv_transfer_s": 4.0,
    }


def test_a_client_that_sets_the_pace_says_so() -> None:
    assert client_faults(ClientLoad(1.0, 10.0, 1000), [0.001] * 20) == []
    assert "90%" in client_faults(ClientLoad(9.0, 10.0, 1000), [])[0]
    assert "50 ms late" in client_faults(ClientLoad(1.0, 10.0, 1000), [0.05] * 20)[0]
