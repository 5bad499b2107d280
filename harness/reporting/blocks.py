"""The parts that only the HTML page knows: blocks of charts, results with marks, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.quantity import Amount
from harness.records.summary import Summary
from harness.reporting.sidecars import Image
from harness.reporting.tables import Section
from harness.reporting.wording import base_unit, bound, interval, label
from harness.units import si


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with what it shows.

    Attributes:
        svg: the element.
        caption: what it shows, in words.
        legend: (class of the style sheet, name) of its colours; empty where the block's legend holds.
    """

    svg: str
    caption: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class FigureCell:
    """A result: the number, how it was obtained, its two intervals; or what is missing and why."""

    text: str
    value: float | None = None
    method: str = ""
    bound: str = ""
    spread: str = ""
    note: str = ""

    @classmethod
    def of(cls, summary: Summary | None, name: str) -> FigureCell:
        """From a summary of a metric per `name`."""
        if summary is None:
            return cls("unavailable", note="not among the results of this point")
        value = summary.value
        if not isinstance(value, Amount):
            return cls(value.kind, note=value.reason)
        unit = base_unit(value, name)
        lacking = f"{summary.n} of {summary.trials} trials: {'; '.join(summary.missing)}"
        return cls(
            text=si(value.value, unit),
            value=value.value,
            method=label(summary),
            bound=bound(summary, unit),
            spread=interval(summary, unit),
            note="; ".join(
                text for text in (summary.composition, lacking if summary.n < summary.trials else "") if text
            ),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """A row of a table of results: number and label of the point, warnings, trials, cells."""

    number: int
    label: str
    marks: Sequence[str]
    n: int
    cells: Sequence[FigureCell]


@dataclass(frozen=True, slots=True)
class Results:
    """The table of a functional unit; with a title where the unit has several, each of other points."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Result]
    notes: Sequence[str] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images that the workload of a trial wrote."""

    label: str
    images: Sequence[Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A titled part of the page.

    Attributes:
        anchor: its name in addresses.
        title: its heading.
        intro: how to read it.
        findings: sentences that say what was found.
        downloads: (file name, address with the content) of what may be saved.
        results: tables of results.
        charts: drawings.
        legend: colours of all drawings.
        sections: tables, items and paragraphs as the other layouts show them; their titles are headings below.
        pictures: images.
        folded: whether the charts are folded away behind their number.
    """

    anchor: str
    title: str
    intro: str = ""
    findings: Sequence[str] = ()
    downloads: Sequence[tuple[str, str]] = ()
    results: Sequence[Results] = ()
    charts: Sequence[Chart] = ()
    legend: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()
    pictures: Sequence[Pictures] = ()
    folded: bool = False
