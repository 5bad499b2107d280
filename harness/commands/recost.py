"""What `harness recost` does with its arguments, once they are parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.costing.recost import columns_of, points_of, rows, write_runs
from harness.costing.settings import Combinations, parse_set, parse_sweep
from harness.costing.sweep_ranking import Ranking
from harness.discovery.registry import Registry
from harness.errors import UsageError, did_you_mean
from harness.reporting.sweep_table import FORMATS, opened


def combinations(fixed: Sequence[str], swept: Sequence[str], registry: Registry) -> Combinations:
    """What the arguments of `--set` and `--sweep` span; raises UsageError."""
    if not fixed and not swept:
        raise UsageError("nothing to change", accepted="--set METER.OPTION=VALUE or --sweep METER.OPTION=A,B,C")
    return Combinations([parse_set(text) for text in fixed], [parse_sweep(text) for text in swept], registry)


def write_table(
    runs: Sequence[Path], wanted: Combinations, registry: Registry, form: str, output: Path | None
) -> list[str]:
    """Writes the table of a sweep; returns the ranking where the table does not hold it.

    Raises:
        UsageError: an unknown format, no run folder, an option refused.
        MeasurementError: a record that cannot be read.
    """
    if form not in FORMATS:
        raise UsageError(
            f"{form!r} is no format of a table", accepted=", ".join(FORMATS), hint=did_you_mean(form, FORMATS)
        )
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(output.parent), accepted="a folder that exists")
    points = [point for of_run in points_of(runs).values() for point in of_run]
    columns = columns_of(points, wanted, registry)
    ranking = Ranking(wanted, columns)
    with opened(output, sys.stdout) as stream:
        table = FORMATS[form](stream, wanted, columns)
        for row in rows(runs, wanted, columns):
            ranking.add(row)
            table.add(row)
        conclusions = ranking.lines()
        table.finish(conclusions)
    return conclusions if output is not None or form == "csv" else []


def write_records(
    runs: Sequence[Path], wanted: Combinations, registry: Registry, store: Path, command: Sequence[str]
) -> list[Path]:
    """Writes a new run for each run, with records that name their parents; returns their folders."""
    points = points_of(runs)
    columns_of([point for of_run in points.values() for point in of_run], wanted, registry)
    return write_runs(points, store, wanted, registry, command)
