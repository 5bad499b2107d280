"""Plugin: the meter `prometheus`: joules and watts of a Prometheus server, or of an exporter asked directly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from harness import Duration, Meter, MeterSpec, Share, hookimpl
from harness.remote import Access, checked_url

Preset = Literal[
    "dcgm",
    "dcgm-power",
    "kepler-node",
    "kepler-pod",
    "kepler-container",
    "kepler-0.9-node",
    "kepler-0.9-container",
    "scaphandre",
    "scaphandre-process",
    "node-exporter-rapl",
    "tensorrt-llm",
]


class PrometheusOptions(Access):
    """Options of the meter `prometheus`.

    Attributes:
        server: address of a Prometheus server, such as `http://prometheus:9090`; or `exporter`, not both.
        exporter: address of an exporter's page, such as `http://node:9400/metrics`.
        preset: metric, unit, labels and error of a known exporter, in place of `query` and `unit`.
        query: with `server` a PromQL expression, best a plain selector, whose samples are told apart; with `exporter`
            the name of a metric.
        unit: what it shows: a counter of `J`, `mJ`, `uJ`, `Wh` or `kWh`, or a power in `W`, `mW` or `uW`.
        match: labels that a series must have, each with its value or a pattern such as `web-*`.
        scope: name of a series' scope, labels in braces, such as `pod:{namespace}.{pod}`; that of the preset, or
            `host`, if not given.
        node: machine that the scopes lie on, where it is not the one that the harness runs on, such as `server`.
        interval: scrape interval of the server; what its samples show if not given.
        lag: greatest age of a value when the exporter is asked, in s: how often it renews its values; that of the
            preset, or 0, if not given.
        poll: how often server or exporter is asked; a tenth of the scrape interval, at least every second, if not
            given.
        averaging: what a power reading averages over; 0 for an instant value.
        gain: greatest proportional error of the meter behind the metric; that of the preset if not given, and without
            either no bound is stated.
        offset_w: greatest constant error of that meter, in W; that of the preset, or 0, if not given.
        max_power_w: most that one series can show, in W: joules beyond it are not counted.
        method: how the source obtains the values: `counter`, `integrated`, `wall` or `estimated`; that of the preset if
            not given, else `counter` for a counter and `integrated` for a power.
        timeout: longest time for an answer; no window waits for it.
    """

    server: str | None = None
    exporter: str | None = None
    preset: Preset | None = None
    query: str | None = None
    unit: Literal["J", "mJ", "uJ", "Wh", "kWh", "W", "mW", "uW"] | None = None
    match: dict[str, str] = Field(default_factory=dict)
    scope: str | None = None
    node: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    interval: Annotated[Duration, Field(gt=0)] | None = None
    lag: Annotated[Duration, Field(ge=0)] | None = None
    poll: Annotated[Duration, Field(gt=0)] | None = None
    averaging: Annotated[Duration, Field(ge=0)] | None = None
    gain: Annotated[Share, Field(ge=0, lt=1)] | None = None
    offset_w: NonNegativeFloat | None = None
    max_power_w: PositiveFloat | None = None
    method: Literal["counter", "integrated", "wall", "estimated"] | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 5.0

    @field_validator("server", "exporter")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return None if value is None else checked_url(value)

    @model_validator(mode="after")
    def _one_source(self) -> PrometheusOptions:
        if (self.server is None) == (self.exporter is None):
            raise ValueError("give the address of a server or of an exporter, and not both")
        if (self.preset is None) == (self.query is None):
            raise ValueError("give a preset, or a query with its unit")
        if (self.query is None) != (self.unit is None):
            raise ValueError("a query needs its unit, and a preset has its own")
        if self.preset == "tensorrt-llm" and self.exporter is None:
            raise ValueError("TensorRT-LLM is asked directly: give its address as exporter")
        return self


def _create(options: PrometheusOptions) -> Meter:
    from harness_meter_prometheus.meter import PrometheusMeter

    return PrometheusMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `prometheus`."""
    return [
        MeterSpec(
            name="prometheus",
            summary="joules or watts of a Prometheus server or an exporter, this machine's or another's",
            factory=_create,
            options=PrometheusOptions,
            example='prometheus: {server: "http://prometheus:9090", preset: dcgm}',
            fork_safe=True,
        )
    ]
