"""`harness greenllm sweep RUN` and `harness greenllm table RUN`: what stored runs say about configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from harness.errors import UsageError
from harness_disaggregated_serving.choosing import comparison
from harness_disaggregated_serving.choosing.claims import as_text as claims_text
from harness_disaggregated_serving.choosing.profile_table import ProfileTable
from harness_disaggregated_serving.choosing.winners import YEARS, Cell, sweep
from harness_disaggregated_serving.choosing.winners_chart import as_svg
from harness_disaggregated_serving.choosing.winners_table import as_csv, as_text
from harness_disaggregated_serving.commands.choose import choose_command, tables_of_run
from harness_disaggregated_serving.load.slo import SLOS, Slo, parsed

ROW_FILE: Final = "profile_row.json"
TABLE_FILE: Final = "greenllm-winners.md"
CHART_FILE: Final = "greenllm-winners.svg"
CLAIMS_FILE: Final = "greenllm-claims.md"
CELLS_FILE: Final = "greenllm-cells.csv"
PANELS: Final = 200
"""Cells that a chart shows; more are told by the table alone."""

app = typer.Typer(
    help="Carbon-aware disaggregated serving, after the published abstracts of GreenLLM with our own carbon model."
)
app.command("choose")(choose_command)


@app.callback()
def greenllm() -> None:
    """Decisions from stored profiles; nothing is run again."""


def pooled(run: Path) -> list[ProfileTable]:
    """The tables of a run, seeds together; raises UsageError where it left no rows."""
    tables = tables_of_run(run)
    if not tables:
        raise UsageError("no profile row was found", where=str(run), accepted="a run of a workload that writes them")
    return tables


def cells_of(run: Path, slo: Slo | None = None) -> list[tuple[ProfileTable, list[Cell]]]:
    """Every table of a run with its cells."""
    return [(table, sweep(table, slo, YEARS)) for table in pooled(run)]


def _notes(table: ProfileTable, slo: Slo | None) -> list[str]:
    seeds = max(len(row.parts or (row,)) for row in table.rows)
    methods = ", ".join(sorted({row.method for row in table.rows}))
    targets = "those of the suite" if slo is None else f"TTFT {slo.ttft_s:g} s, TPOT {slo.tpot_s:g} s"
    key = table.key
    return [
        f"{methods}: model {key.model}, {key.dtype}, {key.engine}, {seeds} seed{'s' if seeds > 1 else ''}",
        f"latency targets: {targets}; the embodied carbon of host processors and memory is not included",
        "after the published abstracts, with our own carbon and break-even model",
    ]


def write_sweep(run: Path, slo: Slo | None = None) -> tuple[Path, Path]:
    """Writes tables and chart into the run's folder; raises UsageError where the run left no rows.

    The latency targets are the suite's unless `slo` says others. Each model, engine and data type has its own table.
    """
    texts, claims, rows, drawn = [], [], "", ""
    for table, cells in cells_of(run, slo):
        methods = ", ".join(sorted({row.method for row in table.rows}))
        title = f"What configurations save, {methods}: {table.key.model}"
        texts.append(as_text(cells, title=title, notes=_notes(table, slo)))
        claims.append(claims_text(table, cells))
        found = as_csv(cells, methods)
        rows += found if not rows else found.partition("\n")[2]
        drawn = drawn or as_svg(cells[:PANELS], title=title)
    text, chart = run / TABLE_FILE, run / CHART_FILE
    text.write_text("\n".join(texts), encoding="utf-8")
    chart.write_text(drawn, encoding="utf-8")
    (run / CELLS_FILE).write_text(rows, encoding="utf-8")
    (run / CLAIMS_FILE).write_text("\n".join(claims), encoding="utf-8")
    return text, chart


@app.command("sweep")
def sweep_command(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)],
    slo: Annotated[
        str,
        typer.Option(
            help="Latency targets that a request has to meet: a name "
            f"({', '.join(SLOS)}) or ttft=2s,tpot=100ms; those of the suite if not given."
        ),
    ] = "",
) -> None:
    """Prints what configurations save, and writes tables and chart into the run's folder."""
    if not run.is_dir():
        raise UsageError(f"{run} is not a folder", accepted="the folder of a run")
    text, chart = write_sweep(run, parsed(slo) if slo else None)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"every cell: {run / CELLS_FILE}\nbeside the published claims: {run / CLAIMS_FILE}\nchart: {chart}")


@app.command("table")
def table_command(run: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)]) -> None:
    """Prints attainment, energy by role, carbon and saving of each configuration, and writes greenllm-table.md."""
    text = comparison.write_table(run) if run.is_dir() else None
    if text is None:
        raise UsageError(f"{run} holds no finished trial of workload greenllm", accepted="the folder of such a run")
    typer.echo(text, nl=False)
