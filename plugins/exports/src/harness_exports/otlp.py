"""OpenTelemetry: every figure of a run as a gauge over OTLP/HTTP."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import harness
from harness import Exported, Figure, LoadedRun, MeasurementError, NoOptions, figures
from harness_exports.cells import PER, left_out, span_ms
from harness_exports.needed import library, web_address

PATH: Final = "/v1/metrics"
TIMEOUT_S: Final = 10.0
_SUFFIXES: Final = re.compile(r"_(?:j|s|g|l|w)$")


def export(run: LoadedRun, target: str, _options: NoOptions) -> Exported:
    """Sends all figures as one request; headers and certificates are those of `OTEL_EXPORTER_OTLP_*`.

    A point of data bears the time at which its point was measured, not that of the export: sent twice it is the same.

    Raises:
        MeasurementError: the receiver did not take it.
    """
    address = web_address(target, "set OTEL_EXPORTER_OTLP_HEADERS")
    if urlsplit(address).path in {"", "/"}:
        address = address.rstrip("/") + PATH
    exporter_module = library("opentelemetry.exporter.otlp.proto.http.metric_exporter", "otel")
    data = metrics_data(run)
    said = _Said()
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(said)
    exporter = exporter_module.OTLPMetricExporter(endpoint=address, timeout=TIMEOUT_S)
    try:
        done = exporter.export(data)
    finally:
        exporter.shutdown()
        logger.removeHandler(said)
        logger.propagate = before
    number = sum(len(metric.data.data_points) for metric in _metrics(data))
    if done.name != "SUCCESS":
        why = "; ".join(said.complaints) or "no reason was given"
        raise MeasurementError(f"the receiver did not take the {number} points of run {run.name}: {why}", where=address)
    return Exported(
        sent=f"{number} points of {len(list(_metrics(data)))} metrics to {address}",
        left_out=left_out(run),
    )


class _Said(logging.Handler):
    """Keeps what the exporter complained of, each once."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.complaints[record.getMessage().partition(", retrying in")[0]] = None


def _metrics(data: Any) -> Iterator[Any]:
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def metrics_data(run: LoadedRun) -> Any:
    """The run as `MetricsData` of the SDK, for any of its exporters.

    Metrics are `harness.trial_median.energy` (J), `harness.token.energy` (J/{token}), ...; `.bound.low`, `.bound.high`,
    `.trials.least` and `.trials.greatest` stand beside them. Attributes hold run, point, scope, statistic and method.
    """
    sdk = library("opentelemetry.sdk.metrics.export", "otel")
    resources = library("opentelemetry.sdk.resources", "otel")
    scopes = library("opentelemetry.sdk.util.instrumentation", "otel")
    times = {point.id: tuple(ms * 1_000_000 for ms in span_ms(point)) for point in run.points}
    points: dict[tuple[str, str], list[Any]] = {}
    for figure in figures(run.report):
        for suffix, value in _values(figure):
            begun_ns, ended_ns = times[figure.point_id]
            points.setdefault((_name(figure) + suffix, _unit(figure)), []).append(
                sdk.NumberDataPoint(
                    attributes=_attributes(figure), start_time_unix_nano=begun_ns, time_unix_nano=ended_ns, value=value
                )
            )
    metrics = [
        sdk.Metric(name=name, description="median over the trials, or an end of it", unit=unit, data=sdk.Gauge(listed))
        for (name, unit), listed in points.items()
    ]
    resource = resources.Resource(
        {"service.name": "joule-harness", "service.version": harness.__version__, "harness.run": run.name}
    )
    scope = scopes.InstrumentationScope("harness_exports", harness.__version__)
    inner = sdk.ScopeMetrics(scope=scope, metrics=metrics, schema_url="")
    return sdk.MetricsData([sdk.ResourceMetrics(resource=resource, scope_metrics=[inner], schema_url="")])


def _values(figure: Figure) -> Iterator[tuple[str, float]]:
    ends = {
        "": figure.value,
        ".bound.low": figure.low,
        ".bound.high": figure.high,
        ".trials.least": figure.least,
        ".trials.greatest": figure.greatest,
    }
    yield from ((suffix, value) for suffix, value in ends.items() if value is not None)


def _name(figure: Figure) -> str:
    """The metric without its unit, which OpenTelemetry keeps beside the name."""
    per = re.sub(r"[^A-Za-z0-9_]", "_", PER.get(figure.per, figure.per))
    metric = re.split("[: ]", figure.metric, maxsplit=1)[0]
    return f"harness.{per}.{re.sub(r'[^A-Za-z0-9_.]', '_', _SUFFIXES.sub('', metric))}"


def _unit(figure: Figure) -> str:
    """A unit of UCUM: what is counted stands in braces, as in `J/{token}`."""
    known = {"J", "s", "g", "L", "W", "1", "Wh", "%", "Cel", "By"}
    return "/".join(part if part in known else f"{{{part}}}" for part in figure.unit.split("/")) if figure.unit else ""


def _attributes(figure: Figure) -> dict[str, str]:
    metric, _, scope = figure.metric.partition(":")
    told = {
        "harness.point": figure.point, "harness.point_id": figure.point_id, "harness.per": figure.per,
        "harness.scope": scope, "harness.statistic": metric.partition(" ")[2], "harness.method": figure.label,
        "harness.valid": str(figure.valid).lower(), "harness.note": figure.note,
        "harness.partly_missing": figure.reason,
    }  # fmt: skip
    return {name: text for name, text in told.items() if text}
