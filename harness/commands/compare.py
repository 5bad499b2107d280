"""`harness compare A B`: the command line and the tables of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.comparing.compare import Compared, ComparedPoint
    from harness.records.summary import CrossCheck, Summary
    from harness.reporting.tables import Section

NOT_PAIRS = (
    "Change of the second against the first: each end of an interval errs in 5 % of comparisons, as far as "
    "the noise between trials goes. Two runs are no pairs: what drifted between them is in the change. "
    "Many metrics are compared here; the adjusted p-values of --details allow for that."
)


def compare(
    first: Annotated[str, typer.Argument(help="Folder or URL of a run or record to compare with.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Folder or URL of a run or record to compare.", show_default=False)],
    *,
    metric: Annotated[
        list[str] | None, typer.Option(help="Show this metric only; may be repeated.", show_default=False)
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Also p-values, trials and methods.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Compares two runs: how each metric changed, with its interval; it judges nothing."""
    import json

    from rich.console import Console

    from harness.comparing.compare import compare as compared
    from harness.comparing.compare import to_json
    from harness.reporting.terminal import plain, print_section
    from harness.storing.places import run_folder

    found = compared(run_folder(first), run_folder(second), metric or ())
    if as_json:
        typer.echo(json.dumps(to_json(found), indent=1))
        return
    console = Console()
    for point in found.points:
        for section in sections(point, details=details):
            print_section(console, section)
            console.print()
    for note in found.notes:
        console.print(plain(f"note: {note}"))
    console.print(plain(NOT_PAIRS, "dim"))


def sections(point: ComparedPoint, *, details: bool) -> Iterator[Section]:
    """Tables of one point: the changes, the details if wanted, the cross-check meters if there are any."""
    from harness.reporting.tables import Section, Table

    changes = [[str(each.metric), interval(each), *_sides(each), each.conclusion] for each in point.metrics]
    yield Section(
        title=point.name,
        table=Table(("metric", "change", "first", "second", "conclusion"), changes),
        paragraphs=tuple(f"note: {note}" for note in point.notes),
    )
    if details:
        adjusted = point.adjusted
        rows = [
            [
                str(each.metric),
                "-" if each.p_value is None else f"{each.p_value:.3g}",
                "-" if each.p_value is None else f"{adjusted[str(each.metric)]:.3g}",
                f"{each.first.n} and {each.second.n}",
                " / ".join(dict.fromkeys(_method(side) for side in (each.first, each.second))),
            ]
            for each in point.metrics
        ]
        yield Section(title="Details", table=Table(("metric", "p", "p adjusted", "trials", "methods"), rows))
    if any(point.checks):
        yield Section(
            title="Primary meters and cross-checks",
            table=Table(("scope", "primary", "cross-check", "first", "second"), _checks(*point.checks)),
        )


def interval(each: Compared) -> str:
    """The change with its interval first: `+1.2 % to +3.4 % (+2.1 %)`."""
    found = each.interval
    if found is None:
        return "-"
    amounts = [each.first.value, each.second.value]
    unit = next((amount.unit for amount in amounts if amount.kind == "amount"), "")
    low, high, estimate = (_change(value, "" if each.ratio else unit) for value in found)
    return (
        f"({estimate})" if not math.isfinite(each.effect.low if each.effect else 0) else f"{low} to {high} ({estimate})"
    )


def _change(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:+.4g} {unit}" if unit else f"{100 * value:+.3g} %"


def _sides(each: Compared) -> list[str]:
    from harness.units import si

    values = [side.value for side in (each.first, each.second)]
    return [
        si(value.value, "" if value.unit == "1" else value.unit) if value.kind == "amount" else "-" for value in values
    ]


def _method(summary: Summary) -> str:
    return summary.composition or (summary.label.value if summary.label else "none")


def _checks(first: Sequence[CrossCheck], second: Sequence[CrossCheck]) -> list[list[str]]:
    """One row a scope and pair of meters: how far the cross-check lay from the primary meter in each run."""
    sides = [{(check.scope, check.primary, check.check): check for check in side} for side in (first, second)]
    return [
        [*key, *(_difference(side.get(key)) for side in sides)]
        for key in dict.fromkeys(key for s in sides for key in s)
    ]


def _difference(check: CrossCheck | None) -> str:
    if check is None:
        return "not read"
    return check.note if check.difference is None else f"{100 * check.difference:+.3g} %"
