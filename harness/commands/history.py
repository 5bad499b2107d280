"""`harness history METRIC`: the command line, the sparklines and the table of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.console import echo, warn_unread

if TYPE_CHECKING:
    from harness.comparing.history import MetricSeries
    from harness.reporting.tables import Section


def history(
    metric: Annotated[str, typer.Argument(help="Name of the metric, such as energy_j or ttft_s.p95.")],
    *,
    per: Annotated[str | None, typer.Option(help="Functional unit.", show_default=False)] = None,
    point: Annotated[str, typer.Option(help="Only points whose suite or label contains this text.")] = "",
    min_size: Annotated[int, typer.Option(help="Runs on either side of a change point, at least.")] = 5,
    store: Annotated[str, typer.Option(help="Folder or URL that runs are kept in.")] = "reports",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Shows how a metric went over the runs of a store, and where it changed; fails nothing."""
    import json

    from rich.console import Console

    from harness.comparing.history import history as over_time
    from harness.comparing.history import to_json
    from harness.records.metric import Metric
    from harness.reporting.terminal import plain, print_section
    from harness.storing.places import open_store

    found = over_time(open_store(store), Metric(metric, per), only=point, min_size=min_size)
    warn_unread(found.unread)
    if as_json:
        echo(json.dumps(to_json(found), indent=1))
        return
    console = Console()
    labels = {each.key.id: each.key.point for each in found.series}
    for series in found.series:
        shared = list(labels.values()).count(series.key.point) > 1
        print_section(console, section(series, min_size, with_id=shared))
        console.print()
    for note in found.notes:
        console.print(plain(f"note: {note}", "dim"))


def section(series: MetricSeries, min_size: int, *, with_id: bool = False) -> Section:
    """One series: sparkline, what it is of, and its change points.

    Args:
        series: the one.
        min_size: runs on either side of a change point.
        with_id: whether the point's id is said: other options, meters or windows stood under the same label.
    """
    from harness.comparing.history import sparkline
    from harness.executor import FORK
    from harness.reporting.tables import Item, Section, Table
    from harness.reporting.wording import counted
    from harness.units import si

    key, entries = series.key, series.entries
    values = [entry.value for entry in entries]
    unit = "" if key.unit == "1" else key.unit
    described = [*key.cards, *(f"driver {driver}" for driver in key.drivers), *key.methods, *key.factors]
    described += [f"point {key.id}"] if with_id else []
    described += ["forked processes"] if key.start == FORK else []
    rows = [
        [
            entries[change.index].started_utc[:19],
            entries[change.index].run,
            si(change.before, unit),
            si(change.after, unit),
            f"{change.after / change.before - 1:+.1%}" if change.before > 0 else "-",
            f"{change.p_value:.2g}",
        ]
        for change in series.changes
    ]
    quiet = "no change point"
    if len(entries) < 2 * min_size:
        quiet = f"too short for a change point: {counted(len(entries), 'run')}, at least {2 * min_size} are needed"
    return Section(
        title=f"{key.point} ({counted(len(entries), 'run')} since {entries[0].started_utc[:10]})",
        table=Table(("from", "run", "before", "after", "change", "p"), rows) if rows else None,
        items=[
            Item("of", ", ".join(described)),
            Item(
                f"{si(min(values), unit)} to {si(max(values), unit)}",
                sparkline(values, [change.index for change in series.changes]),
            ),
        ],
        paragraphs=() if rows else (quiet,),
    )
