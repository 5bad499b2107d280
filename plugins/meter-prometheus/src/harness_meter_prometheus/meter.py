"""The meter `prometheus`: series become scopes, samples become readings of `harness.polling`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from harness import MeasurementError, MeterContext, Method, Scope, Unavailable, now_ns
from harness.interpolation import Polled, Shown
from harness.polling import PolledMeter
from harness.sensor import PowerSensor
from harness_meter_prometheus import PrometheusOptions
from harness_meter_prometheus.presets import PRESETS, UNITS, Row
from harness_meter_prometheus.sources import Api, Energy, Page, Series, Source, matches

SOONEST_S: Final = 0.1
LATEST_S: Final = 1.0
"""Bounds of how often is asked where nobody says it; a tenth of the scrape interval lies between."""
MOST_SCOPES: Final = 256
"""More series than any machine has devices, and any suite means."""


class PrometheusMeter(PolledMeter):
    """Reads a Prometheus server or an exporter, by a thread of its own.

    Args:
        options: of the meter.
        clock: monotonic nanoseconds.
        threaded: False leaves polling to who calls `poll`.
    """

    def __init__(self, options: PrometheusOptions, *, clock: Callable[[], int] = now_ns, threaded: bool = True) -> None:
        super().__init__(options.poll or LATEST_S, clock=clock, threaded=threaded)
        self._options = options
        self._rows = [_as_told(row, options) for row in _rows(options)]
        self._source: Source | None = None
        self._names: dict[str, tuple[Row, Mapping[str, str]]] = {}
        self._told: dict[str, object] = {}

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable] | Unavailable:
        """Asks for the series that there are; each that matches is a scope."""
        self._names = {}
        try:
            source = self._connected()
            shown = [(row, each) for row in self._rows for each in self._series(source, row)]
        except MeasurementError as error:
            return Unavailable(str(error))
        if self._options.poll is None:
            self.poll_s = min(max(source.interval_s / 10 or LATEST_S, SOONEST_S), LATEST_S)
        local = {device.parent or device.uuid for device in context.devices}
        ours = [(row, each) for row, each in shown if each.labels.get("UUID") in local]
        found: dict[str, Polled | Unavailable] = {}
        for row, each in ours or shown:
            name = f"{self._options.node or context.node}/{_name(row, each.labels)}"
            labels = {key: value for key, value in each.labels.items() if key not in row.summed}
            known = self._names.get(name)
            if known is None:
                self._names[name] = (row, labels)
                found[name] = self._polled(source, row, each.labels, local)
            elif known[0] is not row or (known[1] != labels and not row.listed_again):
                return Unavailable(f"two series are called {name}; tell them apart by match, or by labels in scope")
        if not found:
            wanted = ", ".join(row.metric for row in self._rows)
            return Unavailable(f"no series of {wanted} with {dict(self._rows[0].match) or 'any labels'}")
        if len(found) > MOST_SCOPES:
            return Unavailable(f"{len(found)} series match; choose by match, at most {MOST_SCOPES}")
        self._told = {**source.facts(), "series": {name: dict(labels) for name, (_, labels) in self._names.items()}}
        return found

    def _connected(self) -> Source:
        options = self._options
        if options.server is not None:
            api = Api(options.server, options, options.timeout, options.interval)
            self._source = api
            for row in self._rows[:1]:
                api.look(row)
            return api
        assert options.exporter is not None
        kind = Energy if options.preset == "tensorrt-llm" else Page
        self._source = kind(options.exporter, options, options.timeout)
        return self._source

    def _series(self, source: Source, row: Row) -> Iterator[Series]:
        if isinstance(source, Page) and row is self._rows[0]:
            source.refresh()
        yield from (each for each in source.series(row) if matches(each.labels, row.match))

    def _polled(self, source: Source, row: Row, labels: Mapping[str, str], local: set[str]) -> Polled:
        options, (counts, _) = self._options, UNITS[row.unit]
        uuid = labels.get("UUID")
        update_s = source.interval_s or max(self.poll_s, 0.0 if counts else row.lag_s)
        late_s = source.late_s + (row.lag_s if counts or source.interval_s else 0.0)
        sensor = PowerSensor(
            update_s=update_s, window_s=row.averaging_s, gain=row.gain or 0.0, offset_w=row.offset_w,
            limit_w=options.max_power_w, note=row.note,
        )  # fmt: skip
        scope = Scope(
            method=row.method,
            tick_s=update_s + late_s if counts else None,
            gain=row.gain,
            gain_class=row.gain_class,
            offset_w=row.offset_w,
            max_power_w=options.max_power_w,
            sensor=None if counts else sensor,
            device=uuid if uuid in local else None,
            note="; ".join(filter(None, (row.metric, row.note))),
        )
        return Polled(scope=scope, counts=counts, update_s=update_s, late_s=late_s)

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        """Every series once; parts of one are added."""
        assert self._source is not None
        found: dict[str, Shown | Unavailable] = {}
        parts: dict[str, list[Series]] = {}
        node = next(iter(self._names), "/").partition("/")[0]
        for row in self._rows:
            for each in self._series(self._source, row):
                parts.setdefault(f"{node}/{_name(row, each.labels)}", []).append(each)
        for name, (row, _) in self._names.items():
            of_it = parts.get(name, [])
            if row.listed_again:  # one that ended is shown for a while beside the one that goes on
                of_it = sorted(of_it, key=lambda each: each.stamp or 0.0)[-1:]
            value = math.fsum(each.value for each in of_it) * UNITS[row.unit][1]
            if not of_it:
                found[name] = Unavailable(f"{row.metric}: the series is gone")
            else:
                stamps = tuple(each.stamp for each in of_it)
                found[name] = Shown(value, None if None in stamps else stamps)
        return found

    def hang_up(self) -> None:
        """Ends the connection."""
        if self._source is not None:
            self._source.close()

    def facts(self) -> Mapping[str, object]:
        """Address, series, scrape interval, and how polling went."""
        return {**self._told, **super().facts()}


def _rows(options: PrometheusOptions) -> tuple[Row, ...]:
    if options.preset is not None:
        return PRESETS[options.preset]
    assert options.query is not None
    assert options.unit is not None
    counts = UNITS[options.unit][0]
    return (
        Row(
            metric=options.query,
            unit=options.unit,
            scope="host",
            method=Method.COUNTER if counts else Method.INTEGRATED,
        ),
    )


def _as_told(row: Row, options: PrometheusOptions) -> Row:
    """A row with what the suite says of it."""
    return replace(
        row,
        match={**row.match, **options.match},
        scope=options.scope or row.scope,
        method=Method(options.method) if options.method else row.method,
        lag_s=row.lag_s if options.lag is None else options.lag,
        averaging_s=row.averaging_s if options.averaging is None else options.averaging,
        gain=row.gain if options.gain is None else options.gain,
        offset_w=row.offset_w if options.offset_w is None else options.offset_w,
    )


def _name(row: Row, labels: Mapping[str, str]) -> str:
    """A scope's name, labels filled in; raises MeasurementError for one that the series lacks."""

    def filled(match: re.Match[str]) -> str:
        if match[1] not in labels:
            raise MeasurementError(
                f"a series of {row.metric} has no label {match[1]!r}", accepted=", ".join(sorted(labels)) or "none"
            )
        return re.sub(r"[^\w.:@-]", "-", labels[match[1]])

    return re.sub(r"\{(\w+)\}", filled, row.scope)
