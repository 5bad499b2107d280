"""What is sent to a gateway or a receiver arrives as it was measured, once, or is said not to have arrived."""

from __future__ import annotations

import io
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from harness_exports import mlflow_runs, needed, otlp, pushgateway, wandb_runs
from harness_exports.cells import cells, digest, left_out, settings
from harness_exports.options import MlflowOptions, PushgatewayOptions, WandbOptions

from harness import Figure, LoadedRun, MeasurementError, NoOptions, UsageError, figures, open_metrics
from harness.testing import until

Kept = Callable[..., LoadedRun]
Started = Callable[..., AbstractContextManager[str]]
GONE = "the sensor is gone"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


# Names


def test_every_number_has_a_name_of_its_own_with_unit_and_method(kept: Kept) -> None:
    run = kept("a", "b")
    for point in run.points:
        made = cells(run, point)
        wanted = [figure for figure in figures(run.report) if figure.point_id == point.id and figure.value is not None]
        plain = {name for name in made.numbers if f"method.{name}" in made.said}
        assert len(plain) == len(wanted)
        assert {f"unit.{name}" for name in plain} <= made.said.keys()
        assert made.said["method.trial_median/energy_j.n0.gpu.GPU-1"] == "counter"
        assert (
            made.numbers["trial_median/energy_j.low"]
            < made.numbers["trial_median/energy_j"]
            < made.numbers["trial_median/energy_j.high"]
        )
    assert digest(run, run.points[0]) != digest(run, run.points[1])
    assert settings(run.points[0])["workload"]


def test_a_total_is_named_for_the_median_trial_whose_it_is(kept: Kept) -> None:
    run = kept(trials=3)
    made = cells(run, run.points[0])
    assert made.numbers["trial_median/energy_j.n0.gpu.GPU-1"] == 101.0, "of 100, 101 and 102 J"
    assert not any(name.startswith("total/") for name in made.numbers)


def test_what_is_missing_has_no_number(kept: Kept) -> None:
    run = kept(ram=GONE)
    made = cells(run, run.points[0])
    assert GONE in made.missing["trial_median/energy_j"]
    assert not any(
        name.startswith("trial_median/energy_j.n0.dram") or name == "trial_median/energy_j" for name in made.numbers
    )


def test_points_with_the_same_to_say_say_it_together(kept: Kept) -> None:
    said = left_out(kept("a", "b", "c", "d", "e", trials=1, ram=GONE))
    (line,) = (line for line in said if "trial_median/energy_j" in line.partition(GONE)[0])
    assert line.startswith("a, b, c and 2 more: ")


def test_names_that_lack_a_number_for_one_reason_are_told_in_one_line(kept: Kept) -> None:
    said = left_out(kept(trials=1, ram=GONE))
    reasons = [line.partition(": ")[2].partition(": ")[2] for line in said]
    assert len(reasons) == len(set(reasons))
    assert sum(line.count("energy_j.n0.dram.0") for line in said) == 2, "per item and in total, both named"


def test_names_that_differ_in_a_sign_alone_stay_two() -> None:
    from harness_exports.cells import Cells, _add

    made, blank = Cells(), {each.name: None for each in fields(Figure)}
    for metric in ("energy_j:n0/x", "energy_j n0:x"):
        _add(made, Figure(**{**blank, "metric": metric, "per": "token", "value": 1.0}))
    assert list(made.numbers) == ["token/energy_j.n0.x", "token/energy_j.n0.x_"]


# Pushgateway


def test_a_push_holds_the_metrics_of_the_run_and_replaces_them(kept: Kept, receiver: Any) -> None:
    pytest.importorskip("prometheus_client")
    run = kept("a", ram=GONE)
    done = pushgateway.export(run, receiver.url, PushgatewayOptions(job="nightly"))
    ((method, path, _, body),) = receiver.asked
    assert (method, path) == ("PUT", f"/metrics/job/nightly/run/{run.name}")
    assert families(body.decode()) == openmetrics_samples(run)
    assert any(GONE in line for line in done.left_out)
    pushgateway.export(run, receiver.url, PushgatewayOptions(job="nightly"))
    assert receiver.asked[0][1:2] + receiver.asked[0][3:] == receiver.asked[1][1:2] + receiver.asked[1][3:]


def families(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    from prometheus_client.parser import text_string_to_metric_families as parsed

    samples = (sample for family in parsed(text) for sample in family.samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def openmetrics_samples(run: LoadedRun) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

    samples = (sample for family in parsed(open_metrics(run.report)) for sample in family.samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@pytest.mark.parametrize("status", [400, 500])
def test_a_gateway_that_does_not_take_it_is_said(kept: Kept, nobody: str, receiver: Any, status: int) -> None:
    pytest.importorskip("prometheus_client")
    receiver.status = status
    with pytest.raises(MeasurementError, match=r"the gateway did not take the \d+ metrics of run "):
        pushgateway.export(kept(), receiver.url, PushgatewayOptions())
    with pytest.raises(MeasurementError, match="Connection refused"):
        pushgateway.export(kept(), nobody, PushgatewayOptions())


@pytest.fixture
def gateway(started: Started, tmp_path: Path) -> Iterator[str]:
    binary = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if binary is None:
        pytest.skip("no Pushgateway is installed (Debian: apt-get install prometheus-pushgateway)")
    with started(
        lambda port: [
            binary, f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={tmp_path / 'gateway'}",
        ],
        "/metrics",
    ) as url:  # fmt: skip # Debian's keeps groups in a file of the system
        yield url


def test_a_real_gateway_shows_what_was_pushed(kept: Kept, gateway: str) -> None:
    pytest.importorskip("prometheus_client")
    run = kept("a", "b")
    for _ in range(2):
        pushgateway.export(run, gateway, PushgatewayOptions())
    shown = families(page(f"{gateway}/metrics"))
    ours = {key: value for key, value in shown.items() if key[0].startswith("harness_")}
    group = {"job": "joule-harness", "instance": "", "run": run.name}
    wanted = {
        (name, tuple(sorted({**dict(labels), **group}.items()))): value
        for (name, labels), value in openmetrics_samples(run).items()
    }
    assert ours == wanted


@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_gateway(kept: Kept, gateway: str, started: Started, tmp_path: Path) -> None:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no Prometheus is installed (Debian: apt-get install prometheus)")
    run = kept("a")
    pushgateway.export(run, gateway, PushgatewayOptions())
    job = {"job_name": "gw", "honor_labels": True, "scrape_interval": "1s",
           "static_configs": [{"targets": [gateway.removeprefix("http://")]}]}  # fmt: skip
    (tmp_path / "p.yml").write_text(json.dumps({"scrape_configs": [job]}), encoding="utf-8")
    options = [f"--config.file={tmp_path / 'p.yml'}", f"--storage.tsdb.path={tmp_path / 'db'}"]
    query = "/api/v1/query?query=harness_energy_j%7Bper%3D%22window+time%22%2Cscope%3D%22%22%7D"
    with started(lambda port: [binary, *options, f"--web.listen-address=127.0.0.1:{port}"], "/-/ready") as url:
        until(lambda: bool(json.loads(page(url + query))["data"]["result"]), limit_s=30.0)
        (found,) = json.loads(page(url + query))["data"]["result"]
    assert found["metric"]["method"] == "integrated"
    assert found["metric"]["job"] == "joule-harness"
    (wanted,) = (each for each in figures(run.report) if each.metric == "energy_j" and each.per == "window time")
    assert float(found["value"][1]) == wanted.value


# OpenTelemetry


def received(body: bytes) -> dict[str, Any]:
    """Metric -> unit and data points, as the protocol's own message reads them."""
    module = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    message = module.ExportMetricsServiceRequest()
    message.ParseFromString(body)
    (resource,) = message.resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"] == (
        "joule-harness"
    )
    (scope,) = resource.scope_metrics
    return {metric.name: (metric.unit, list(metric.gauge.data_points)) for metric in scope.metrics}


def test_a_receiver_gets_each_figure_with_unit_method_and_time(
    kept: Kept, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
    run = kept("a", "b", ram=GONE)
    done = otlp.export(run, receiver.url, NoOptions())
    ((method, path, headers, body),) = receiver.asked
    assert (method, path, headers["x-token"]) == ("POST", "/v1/metrics", "abc")
    found = received(body)
    wanted = [figure for figure in figures(run.report) if figure.value is not None]
    ends = (".bound.low", ".bound.high", ".trials.least", ".trials.greatest")
    assert sum(len(points) for name, (_, points) in found.items() if not name.endswith(ends)) == len(wanted)
    unit, points = found["harness.trial_median.energy"]
    assert unit == "J"
    for point in points:
        said = {each.key: each.value.string_value for each in point.attributes}
        (figure,) = (
            each for each in wanted
            if each.metric == f"energy_j:{said['harness.scope']}" and each.point == said["harness.point"]
            and each.per == "window time"
        )  # fmt: skip
        assert point.as_double == figure.value
        assert said["harness.method"] == figure.label
        assert 1.7e18 < point.time_unix_nano < 1.701e18, "the time of the measurement"
    assert found["harness.run.duration"][0] == "s/{run}"
    assert any(GONE in line for line in done.left_out)
    otlp.export(run, receiver.url, NoOptions())
    assert receiver.asked[1][3] == body, "sent twice it is the same"


def test_the_sdk_prints_the_same_metrics(kept: Kept) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics.export")
    run = kept()
    stream = io.StringIO()
    sdk.ConsoleMetricExporter(out=stream).export(otlp.metrics_data(run))
    content = json.loads(stream.getvalue())
    metrics = content["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    (energy,) = (each for each in metrics if each["name"] == "harness.trial_median.energy.bound.low")
    assert energy["unit"] == "J"
    assert {point["attributes"].get("harness.scope", "") for point in energy["data"]["data_points"]} == {
        "", "n0/gpu:GPU-1", "n0/cpu-package:0",
    }  # fmt: skip


def test_a_receiver_that_does_not_take_it_is_said(
    kept: Kept, nobody: str, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    receiver.status = 400
    with pytest.raises(MeasurementError, match=r"the receiver did not take the \d+ points of run .*400"):
        otlp.export(kept(), receiver.url, NoOptions())
    monkeypatch.setattr(otlp, "TIMEOUT_S", 3.0)
    with pytest.raises(MeasurementError, match="Connection refused"):
        otlp.export(kept(), nobody, NoOptions())


# What is asked for before anything is sent


@pytest.mark.parametrize(
    ("export", "options", "extra", "module"),
    [
        (pushgateway.export, PushgatewayOptions(), "pushgateway", "prometheus_client"),
        (otlp.export, NoOptions(), "otel", "opentelemetry"),
        (mlflow_runs.export, MlflowOptions(), "mlflow", "mlflow"),
        (wandb_runs.export, WandbOptions(), "wandb", "wandb"),
    ],
    ids=["pushgateway", "otlp", "mlflow", "wandb"],
)
def test_without_its_library_an_export_says_how_to_install_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, export: Any, options: Any, extra: str, module: str
) -> None:
    def absent(name: str) -> Any:
        assert name.startswith(module)
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(needed, "import_module", absent)
    with pytest.raises(UsageError, match=rf"pip install 'joule-harness-exports\[{extra}\]'"):
        export(kept(), "http://127.0.0.1:9" if extra != "wandb" else "demo", options)


@pytest.mark.parametrize(
    ("export", "options"),
    [(pushgateway.export, PushgatewayOptions()), (otlp.export, NoOptions()), (mlflow_runs.export, MlflowOptions())],
    ids=["pushgateway", "otlp", "mlflow"],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(kept: Kept, export: Any, options: Any) -> None:
    with pytest.raises(UsageError, match="the address holds a secret") as refused:
        export(kept(), "https://me:hunter2@example.org/", options)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["localhost:9091", "ftp://host", "http://", "http://[::1"])
def test_an_address_that_is_no_url_is_refused(kept: Kept, address: str) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        pushgateway.export(kept(), address, PushgatewayOptions())
