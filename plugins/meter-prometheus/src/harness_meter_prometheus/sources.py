"""Where series come from: the API of a Prometheus server, the page of an exporter, TensorRT-LLM's endpoint."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from harness import MeasurementError
from harness.remote import Access, Server
from harness_meter_prometheus.presets import Row

_SELECTOR: Final = re.compile(r"[a-zA-Z_:][\w:]*\s*(?:\{[^{}]*\})?")
"""A metric's name with or without labels: its samples can be asked for one by one."""
LOOK_BACK: Final = "10m"
USUAL_INTERVAL_S: Final = 15.0
"""Where no two samples tell the interval: the one of Prometheus' example configuration."""
SCRAPE_S: Final = 0.5
"""Where the server does not say how long a scrape takes."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series, right now.

    Attributes:
        labels: without the metric's name.
        value: as it is shown.
        stamp: time of the sample by the server's clock, which tells samples apart; None where none is shown.
    """

    labels: Mapping[str, str]
    value: float
    stamp: float | None = None


class Source(Protocol):
    """Something that shows series."""

    interval_s: float
    """How often a value can change at most; 0 for one that is current in each answer."""
    late_s: float
    """From the moment a value is true of until an answer shows it, beyond the exporter's own lag."""

    def series(self, row: Row) -> Sequence[Series]:
        """What a row shows now; raises MeasurementError."""

    def facts(self) -> Mapping[str, object]:
        """For the record."""

    def close(self) -> None:
        """Ends the connection."""


def matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether labels are as wanted, each by its value or a pattern with `*`."""
    return all(fnmatch.fnmatchcase(labels.get(name, ""), pattern) for name, pattern in wanted.items())


class Page:
    """An exporter's page in Prometheus' text format."""

    interval_s = 0.0
    late_s = 0.0

    def __init__(self, url: str, access: Access, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
        self._server = Server(f"{parts.scheme}://{parts.netloc}", access, timeout_s=timeout_s)
        self._text: str | None = None

    def refresh(self) -> None:
        """Reads the page anew; all rows come from one reading."""
        self._text = self._server.get(self._path, accept="text/plain;version=0.0.4").decode("utf-8", "replace")

    def series(self, row: Row) -> Sequence[Series]:
        """Samples of the row's metric. Only its lines are parsed: a node's page has tens of thousands."""
        from prometheus_client.parser import text_string_to_metric_families

        assert self._text is not None
        name = re.escape(row.metric)
        lines = re.findall(rf"^{name}(?:\{{|[ \t]).*$", self._text, re.MULTILINE)
        try:
            families = list(text_string_to_metric_families("\n".join([*lines, ""])))
        except ValueError as error:
            raise MeasurementError(
                f"{self._server.url}{self._path} is not in Prometheus' text format: {error}"
            ) from None
        samples = [sample for family in families for sample in family.samples if sample.name == row.metric]
        return [Series(dict(sample.labels), sample.value) for sample in samples]

    def facts(self) -> Mapping[str, object]:
        """Its address."""
        return {"exporter": f"{self._server.url}{self._path}"}

    def close(self) -> None:
        """Ends the connection."""
        self._server.close()


class Energy:
    """TensorRT-LLM's `/energy_metrics`: joules since the server began to count, of all its devices."""

    interval_s = 0.0
    late_s = 0.0

    def __init__(self, url: str, access: Access, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._path = parts.path if parts.path.strip("/") else "/energy_metrics"
        self._server = Server(f"{parts.scheme}://{parts.netloc}", access, timeout_s=timeout_s)

    def series(self, row: Row) -> Sequence[Series]:
        """One series without labels."""
        answer = self._server.json(self._path)
        value = answer.get(row.metric) if isinstance(answer, Mapping) else None
        if not isinstance(value, int | float):
            raise MeasurementError(f"{self._server.url}{self._path} holds no {row.metric}: {str(answer)[:80]}")
        return [Series({}, float(value))]

    def facts(self) -> Mapping[str, object]:
        """Its address."""
        return {"exporter": f"{self._server.url}{self._path}"}

    def close(self) -> None:
        """Ends the connection."""
        self._server.close()


class Api:
    """A Prometheus server's API, or that of anything that speaks it.

    Of a plain selector the samples themselves are asked for, with the times of their scrapes, which tell one from the
    next; of an expression only its value now, which is as old as the oldest sample in it.

    Args:
        url: of the server.
        access: how it knows who asks.
        timeout_s: longest time for an answer.
        interval_s: of its scrapes; None to find out.
    """

    def __init__(self, url: str, access: Access, timeout_s: float, interval_s: float | None) -> None:
        self._server = Server(url, access, timeout_s=timeout_s)
        self._stated_s = interval_s
        self.interval_s = interval_s or USUAL_INTERVAL_S
        self.late_s = SCRAPE_S
        self._seen = "stated" if interval_s else "assumed"

    def look(self, row: Row) -> None:
        """Finds out how often the row's series are scraped, and how long that takes."""
        if not selects(row.metric):
            self.late_s = self.interval_s + SCRAPE_S
            return
        found = self._query(f"{selector(row)}[{LOOK_BACK}]")
        steps = [after[0] - before[0] for each in found for before, after in pairwise(each.get("values", ()))]
        if steps and self._stated_s is None:
            self.interval_s, self._seen = median(steps), "seen"
        target = {
            name: found[0]["metric"][name] for name in ("job", "instance") if found and name in found[0]["metric"]
        }
        if target:
            with suppress(MeasurementError, LookupError, ValueError):
                scrapes = self._query(f"max_over_time(scrape_duration_seconds{_braces(target)}[{LOOK_BACK}])")
                self.late_s = 2 * max(float(each["value"][1]) for each in scrapes)

    def _query(self, query: str) -> list[Any]:
        answer = self._server.json("/api/v1/query", {"query": query})
        if not isinstance(answer, Mapping) or answer.get("status") != "success":
            raise MeasurementError(f"{self._server.url} does not answer as Prometheus does: {str(answer)[:120]}")
        data = answer.get("data", {})
        if data.get("resultType") not in {"vector", "matrix"}:
            raise MeasurementError(f"{query!r} is a {data.get('resultType')}; it has to give series")
        return list(data["result"])

    def series(self, row: Row) -> Sequence[Series]:
        """The row's series, each with its newest sample."""
        if selects(row.metric):
            back_ms = math.ceil(1000 * (3 * self.interval_s + self.late_s))
            found = [(each["metric"], each["values"][-1]) for each in self._query(f"{selector(row)}[{back_ms}ms]")]
            return [Series(_named(labels), float(value), float(at)) for labels, (at, value) in found]
        values = [(each["metric"], each["value"][1]) for each in self._query(row.metric)]
        return [Series(_named(labels), float(value)) for labels, value in values]

    def facts(self) -> Mapping[str, object]:
        """Its address, the scrape interval and where that is from."""
        return {
            "server": self._server.url,
            "interval_s": self.interval_s,
            "interval_is": self._seen,
            "late_s": self.late_s,
        }

    def close(self) -> None:
        """Ends the connection."""
        self._server.close()


def selects(query: str) -> bool:
    """Whether a query is a plain selector, whose samples can be asked for one by one."""
    return _SELECTOR.fullmatch(query.strip()) is not None


def selector(row: Row) -> str:
    """A row's metric with the labels that it asks for; patterns are left to `matches`."""
    exact = {name: value for name, value in row.match.items() if not set(value) & set("*?[")}
    metric = row.metric.strip()
    return metric if not exact or metric.endswith("}") else f"{metric}{_braces(exact)}"


def _braces(labels: Mapping[str, str]) -> str:
    quoted = (name + '="' + value.replace("\\", r"\\").replace('"', r"\"") + '"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _named(labels: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in labels.items() if name != "__name__"}
