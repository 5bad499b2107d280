"""The meter `prometheus` against pages and answers as exporters and servers write them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_meter_prometheus import PrometheusOptions, harness_meters
from harness_meter_prometheus.meter import PrometheusMeter
from harness_meter_prometheus.presets import PRESETS, UNITS
from pydantic import ValidationError

from harness import Device, MeasurementError, MeterContext, Method, Scope, Unavailable
from harness.quantity import Amount
from harness.sample import Cumulative
from harness.testing import FakeClock, check_meter, check_offers
from harness.units import nanoseconds

# The layout of NVIDIA/dcgm-exporter, README.md and default-counters.csv; the values are made up.
DCGM = """# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-aa",device="nvidia0",modelName="NVIDIA L40S",Hostname="node7"} 61.5
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-bb",device="nvidia1",modelName="NVIDIA L40S",Hostname="node7"} 35.25
# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-aa",device="nvidia0",Hostname="node7",pod="a"} %(a)d
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-aa",device="nvidia0",Hostname="node7",pod="b"} %(a)d
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="1",UUID="GPU-bb",device="nvidia1",Hostname="node7"} %(b)d
"""
# sustainable-computing-io/kepler, docs/user/metrics.md (0.10 and newer).
KEPLER = """# TYPE kepler_node_cpu_joules_total counter
kepler_node_cpu_joules_total{node_name="n",path="/host/sys/class/powercap/intel-rapl/intel-rapl:0",zone="package"} 500.5
kepler_node_cpu_joules_total{node_name="n",path="/host/sys/class/powercap/intel-rapl/intel-rapl:0:0",zone="core"} 200
kepler_node_cpu_joules_total{node_name="n",path="/host/sys/class/powercap/intel-rapl/intel-rapl:0:1",zone="dram"} 60
# TYPE kepler_pod_cpu_joules_total counter
kepler_pod_cpu_joules_total{pod_name="web-0",pod_namespace="shop",state="running",zone="package"} 9
kepler_pod_cpu_joules_total{pod_name="web-0",pod_namespace="shop",state="running",zone="dram"} 2
kepler_pod_cpu_joules_total{pod_name="db-0",pod_namespace="shop",state="running",zone="package"} 4
kepler_pod_cpu_joules_total{pod_name="web-9",pod_namespace="shop",state="terminated",zone="package"} 7
"""
# Its docs up to 0.9: dynamic and idle energy are two series of one package.
OLD_KEPLER = """# TYPE kepler_node_package_joules_total counter
kepler_node_package_joules_total{instance="n",mode="dynamic",package="0",source="intel_rapl"} 100
kepler_node_package_joules_total{instance="n",mode="idle",package="0",source="intel_rapl"} 50
# TYPE kepler_node_dram_joules_total counter
kepler_node_dram_joules_total{instance="n",mode="dynamic",package="0",source="intel_rapl"} 10
kepler_node_dram_joules_total{instance="n",mode="idle",package="0",source="intel_rapl"} 20
"""
# hubblo-org/scaphandre, docs_src/references/metrics.md.
SCAPHANDRE = """# TYPE scaph_host_energy_microjoules counter
scaph_host_energy_microjoules 81000000
# TYPE scaph_process_power_consumption_microwatts gauge
scaph_process_power_consumption_microwatts{cmdline="/usr/bin/x --y",exe="x",pid="7"} 2500000
"""
# prometheus/node_exporter, collector/rapl_linux.go.
RAPL = """# TYPE node_rapl_package_joules_total counter
node_rapl_package_joules_total{index="0",path="/sys/class/powercap/intel-rapl:0"} 12.5
node_rapl_package_joules_total{index="1",path="/sys/class/powercap/intel-rapl:1"} 13.5
"""


MADE: list[PrometheusMeter] = []


@pytest.fixture(autouse=True)
def hung_up() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def meter_of(threaded: bool = False, clock: Any = None, **options: Any) -> PrometheusMeter:
    given = {} if clock is None else {"clock": clock}
    MADE.append(PrometheusMeter(PrometheusOptions.model_validate(options), threaded=threaded, **given))
    return MADE[-1]


def opened(meter: PrometheusMeter, *uuids: str) -> Mapping[str, Scope | Unavailable]:
    devices = tuple(Device(kind="gpu", uuid=uuid, name="card") for uuid in uuids)
    found = meter.open(MeterContext(devices=devices))
    assert isinstance(found, Mapping), found
    return found


def joules(meter: PrometheusMeter, name: str) -> float:
    state = meter.read().joules[name]
    assert isinstance(state, Cumulative), state
    return state.joules


def test_the_offer_imports_nothing_heavy() -> None:
    (spec,) = harness_meters()
    assert not spec.auto
    check_offers("harness_meter_prometheus")


def test_cards_of_dcgm_by_uuid_each_once_in_joules(pages: Any) -> None:
    pages.pages["/metrics"] = DCGM % {"a": 5_000, "b": 9_000}
    meter = meter_of(exporter=f"{pages.url}/metrics", preset="dcgm")
    scopes = opened(meter)
    assert set(scopes) == {"n0/gpu:GPU-aa", "n0/gpu:GPU-bb"}
    pages.pages["/metrics"] = DCGM % {"a": 7_500, "b": 9_100}
    meter.poll()
    assert joules(meter, "n0/gpu:GPU-aa") == pytest.approx(2.5)
    assert joules(meter, "n0/gpu:GPU-bb") == pytest.approx(0.1)
    one = scopes["n0/gpu:GPU-aa"]
    assert isinstance(one, Scope)
    assert (one.method, one.gain, one.device) == (Method.COUNTER, 0.10, None)
    assert one.tick_s is not None
    assert one.tick_s >= 30  # what the exporter collects every 30 s is up to 30 s old


def test_the_work_s_own_cards_are_read_and_no_other(pages: Any) -> None:
    pages.pages["/metrics"] = DCGM % {"a": 1, "b": 1}
    scopes = opened(meter_of(exporter=f"{pages.url}/metrics", preset="dcgm"), "GPU-bb")
    assert set(scopes) == {"n0/gpu:GPU-bb"}
    assert isinstance(scope := scopes["n0/gpu:GPU-bb"], Scope)
    assert scope.device == "GPU-bb"


def test_a_power_gauge_has_a_sensor(pages: Any) -> None:
    pages.pages["/metrics"] = DCGM % {"a": 1, "b": 1}
    meter = meter_of(exporter=f"{pages.url}/metrics", preset="dcgm-power", match={"gpu": "1"}, node="server", lag="1s")
    scopes = opened(meter)
    scope = scopes["server/gpu:GPU-bb"]
    assert isinstance(scope, Scope)
    assert scope.sensor is not None
    assert (scope.sensor.update_s, scope.sensor.window_s) == (1.0, 1.0)
    assert meter.read().watts == {"server/gpu:GPU-bb": 35.25}


@pytest.mark.parametrize(
    ("preset", "page", "names"),
    [
        ("kepler-node", KEPLER, {"n0/cpu-packages", "n0/dram"}),
        ("kepler-pod", KEPLER, {"n0/pod:shop.web-0", "n0/pod:shop.db-0"}),
        ("kepler-0.9-node", OLD_KEPLER, {"n0/cpu-packages", "n0/dram"}),
        ("scaphandre", SCAPHANDRE, {"n0/cpu-packages"}),
        ("scaphandre-process", SCAPHANDRE, {"n0/process:x.7"}),
        ("node-exporter-rapl", RAPL, {"n0/cpu-package:0", "n0/cpu-package:1"}),
    ],
)
def test_presets_sum_nothing_twice(pages: Any, preset: str, page: str, names: set[str]) -> None:
    pages.pages["/metrics"] = page
    assert set(opened(meter_of(exporter=f"{pages.url}/metrics", preset=preset))) == names


def test_parts_of_a_package_are_added(pages: Any) -> None:
    pages.pages["/metrics"] = OLD_KEPLER
    meter = meter_of(exporter=f"{pages.url}/metrics", preset="kepler-0.9-node")
    opened(meter)
    pages.pages["/metrics"] = OLD_KEPLER.replace("} 100", "} 130").replace("} 50", "} 57")
    meter.poll()
    assert joules(meter, "n0/cpu-packages") == pytest.approx(37.0)


def test_shares_by_a_model_are_estimates_without_a_bound(pages: Any) -> None:
    pages.pages["/metrics"] = KEPLER
    scopes = opened(meter_of(exporter=f"{pages.url}/metrics", preset="kepler-pod", match={"pod_name": "web-*"}))
    (scope,) = scopes.values()
    assert isinstance(scope, Scope)
    assert (scope.method, scope.gain) == (Method.ESTIMATED, None)


def test_every_preset_says_method_unit_and_source() -> None:
    for rows in PRESETS.values():
        for row in rows:
            assert row.unit in UNITS
            assert row.note
            assert row.method is Method.ESTIMATED or row.gain is not None


# NVIDIA/TensorRT-LLM, tensorrt_llm/serve/openai_server.py, get_energy_metrics; pull request 11855.
def test_the_energy_endpoint_of_tensorrt_llm(pages: Any) -> None:
    pages.pages["/energy_metrics"] = {"total_energy_j": 120.25, "query_time": 5.0}
    meter = meter_of(exporter=pages.url, preset="tensorrt-llm", node="server")
    assert set(opened(meter)) == {"server/gpus"}
    pages.pages["/energy_metrics"] = {"total_energy_j": 220.25, "query_time": 6.0}
    meter.poll()
    assert joules(meter, "server/gpus") == 100.0
    pages.pages["/energy_metrics"] = (503, '{"error": "Energy monitoring is not available"}')
    refused = meter_of(exporter=pages.url, preset="tensorrt-llm").open(MeterContext())
    assert isinstance(refused, Unavailable)
    assert "not available" in refused.reason


def api(values: list[tuple[float, float]], **labels: str) -> dict[str, Any]:
    """An answer as Prometheus' HTTP API documentation prints it, "Querying API", result type matrix."""
    result = [{"metric": {"__name__": "energy", **labels}, "values": [[at, str(value)] for at, value in values]}]
    return {"status": "success", "data": {"resultType": "matrix", "result": result if values else []}}


def test_samples_of_a_server_are_told_apart_by_their_stamps_and_its_clock_is_not_believed(pages: Any) -> None:
    clock, samples = FakeClock(), [(5e9 + 5.0 * index, 100.0 * index) for index in range(4)]
    pages.pages["/api/v1/query"] = lambda query: api(samples, job="node")
    meter = meter_of(clock=clock, server=pages.url, query="energy", unit="J", gain="1%")
    (scope,) = opened(meter).values()
    assert isinstance(scope, Scope)
    assert meter.facts()["interval_s"] == 5.0
    assert meter.poll_s == 0.5
    for _ in range(100):
        clock.advance(0.5)
        if round(clock.s * 2) % 10 == 0:
            samples.append((samples[-1][0] + 5.0, samples[-1][1] + 100.0))
        meter.poll()
    found = meter.between(nanoseconds(12.0), nanoseconds(42.0))["n0/host"].amount
    assert isinstance(found, Amount)
    assert found.value == pytest.approx(600.0, abs=20.0)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 600.0 <= found.high
    assert (found.high - found.low) / 2 <= 100.0 * 1.05 + 7.0


def test_an_expression_is_as_old_as_its_oldest_sample(pages: Any) -> None:
    value = {"metric": {}, "value": [1.0, "42"]}
    pages.pages["/api/v1/query"] = {"status": "success", "data": {"resultType": "vector", "result": [value]}}
    meter = meter_of(server=pages.url, query='sum(energy{job="x"}) / 1000', unit="mJ", interval="4s", gain=0.0)
    (scope,) = opened(meter).values()
    assert isinstance(scope, Scope)
    assert scope.tick_s is not None
    assert scope.tick_s >= 8.0


def test_labels_choose_and_become_the_scope(pages: Any) -> None:
    pages.pages["/api/v1/query"] = lambda query: api([(1.0, 1.0), (2.0, 2.0)], pod="web/1", namespace="shop")
    meter = meter_of(
        server=pages.url, query="energy", unit="Wh", match={"namespace": "shop"}, scope="pod:{namespace}.{pod}"
    )
    assert set(opened(meter)) == {"n0/pod:shop.web-1"}
    assert any(query.get("query", "").startswith('energy{namespace="shop"}') for _, query, _ in pages.asked)


def test_two_series_of_one_name_are_refused(pages: Any) -> None:
    pages.pages["/metrics"] = RAPL
    meter = meter_of(exporter=f"{pages.url}/metrics", query="node_rapl_package_joules_total", unit="J")
    found = meter.open(MeterContext())
    assert isinstance(found, Unavailable)
    assert "two series" in found.reason


def test_two_metrics_of_one_name_are_refused(pages: Any) -> None:
    memory = 'node_rapl_dram_joules_total{index="0",path="/sys/class/powercap/intel-rapl:0"} 7.5\n'
    pages.pages["/metrics"] = RAPL + memory
    meter = meter_of(
        exporter=f"{pages.url}/metrics", preset="node-exporter-rapl", match={"index": "0"}, scope="socket:{index}"
    )
    found = meter.open(MeterContext())
    assert isinstance(found, Unavailable), "a package and its memory were added up"
    assert "two series" in found.reason


def test_of_a_device_that_is_listed_again_the_newest_series_is_read(pages: Any) -> None:
    def answer(query: Mapping[str, str]) -> dict[str, Any]:
        if "scrape_duration" in query["query"]:
            return {"status": "success", "data": {"resultType": "vector", "result": []}}
        ended, goes_on = [[1.0, "0"], [2.0, "1000"]], [[3.0, "2000"], [4.0, str(seen["mj"])]]
        result = [
            {"metric": {"UUID": "GPU-aa", "pod": pod}, "values": values}
            for pod, values in (("a-ended", ended), ("b-new", goes_on))
        ]
        return {"status": "success", "data": {"resultType": "matrix", "result": result}}

    seen = {"mj": 3000}
    pages.pages["/api/v1/query"] = answer
    meter = meter_of(server=pages.url, preset="dcgm", interval="1s")
    opened(meter)
    seen["mj"] = 4500
    pages.pages["/api/v1/query"] = lambda query: _later(answer(query))
    meter.poll()
    assert joules(meter, "n0/gpu:GPU-aa") == pytest.approx(1.5)


def _later(answer: dict[str, Any]) -> dict[str, Any]:
    """The last sample a second later."""
    for series in answer["data"]["result"][1:]:
        series["values"][-1][0] += 1.0
    return answer


def test_no_series_no_server_and_no_number_are_reasons(pages: Any) -> None:
    pages.pages["/metrics"] = RAPL.replace("12.5", "NaN")
    asked = {"exporter": f"{pages.url}/metrics", "query": "node_rapl_package_joules_total", "unit": "J"}
    none = meter_of(**asked, match={"index": "7"}).open(MeterContext())
    assert isinstance(none, Unavailable)
    assert "no series" in none.reason
    nan = opened(meter_of(**asked, match={"index": "0"}))["n0/host"]
    assert isinstance(nan, Unavailable)
    assert "nan" in nan.reason
    gone = meter_of(server="http://127.0.0.1:9", query="x", unit="J").open(MeterContext())
    assert isinstance(gone, Unavailable)
    assert "127.0.0.1:9" in gone.reason


def test_a_series_that_ends_is_unavailable_and_the_others_go_on(pages: Any) -> None:
    pages.pages["/metrics"] = RAPL
    clock = FakeClock()
    meter = meter_of(clock=clock, exporter=f"{pages.url}/metrics", preset="node-exporter-rapl")
    opened(meter)
    pages.pages["/metrics"] = RAPL.replace('index="0"', 'index="5"').replace("13.5", "23.5")
    for _ in range(10):
        clock.advance(1.0)
        meter.poll()
    lost = meter.read().joules["n0/cpu-package:0"]
    assert isinstance(lost, Unavailable)
    assert "gone" in lost.reason
    assert joules(meter, "n0/cpu-package:1") == pytest.approx(10.0)


def test_tokens_and_passwords_are_sent_and_kept_nowhere(
    pages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages.pages["/metrics"] = RAPL
    monkeypatch.setenv("METRICS_TOKEN", "s3cret-token")
    file = tmp_path / "password"
    file.write_text("s3cret-word\n", encoding="utf-8")
    common = {"exporter": f"{pages.url}/metrics", "preset": "node-exporter-rapl"}
    for given, sent in (
        ({"token_env": "METRICS_TOKEN"}, "Bearer s3cret-token"),
        (
            {"username": "me", "password_file": str(file)},
            "Basic " + base64.b64encode(b"me:s3cret-word").decode(),
        ),
    ):
        meter = meter_of(**common, **given)
        scopes = opened(meter)
        assert pages.asked[-1][2] == sent
        assert "s3cret" not in repr((scopes, meter.facts(), PrometheusOptions.model_validate({**common, **given})))
    monkeypatch.delenv("METRICS_TOKEN")
    unset = meter_of(**common, token_env="METRICS_TOKEN").open(MeterContext())
    assert isinstance(unset, Unavailable)
    assert "METRICS_TOKEN" in unset.reason


@pytest.mark.parametrize(
    "given",
    [
        {"preset": "dcgm"},
        {"server": "http://a", "exporter": "http://b", "preset": "dcgm"},
        {"server": "http://a", "query": "x"},
        {"server": "http://a", "preset": "dcgm", "unit": "J"},
        {"server": "ftp://a", "preset": "dcgm"},
        {"server": "http://me:word@a", "preset": "dcgm"},
        {"server": "http://a", "preset": "dcgm", "username": "me"},
        {"server": "http://a", "preset": "tensorrt-llm"},
    ],
)
def test_options_that_cannot_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, MeasurementError)):
        PrometheusOptions.model_validate(given)


def test_it_keeps_the_contract(pages: Any) -> None:
    counted = iter(range(10_000))
    pages.pages["/metrics"] = lambda query: RAPL.replace("12.5", str(next(counted)))
    check_meter(
        meter_of(True, exporter=f"{pages.url}/metrics", preset="node-exporter-rapl", poll="10ms"), MeterContext()
    )


def test_milliwatts_taken_for_watts_are_refused(pages: Any) -> None:
    pages.pages["/metrics"] = DCGM.replace("61.5", "61500") % {"a": 1, "b": 1}
    asked = {"exporter": f"{pages.url}/metrics", "preset": "dcgm-power", "max_power_w": 350}
    scopes = opened(meter_of(**asked))
    wrong, right = scopes["n0/gpu:GPU-aa"], scopes["n0/gpu:GPU-bb"]
    assert isinstance(right, Scope)
    assert isinstance(wrong, Unavailable)
    assert "unit" in wrong.reason
