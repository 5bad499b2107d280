"""The figures of all runs as files for other tools: CSV of the functional units, Parquet of everything."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from harness.records.metric import base_name
from harness.records.summary import RunReport
from harness.reporting.figures import COLUMNS, figures
from harness.reporting.tables import csv_cells
from harness.storing.views import database, quoted

CSV: Final = "data/units.csv"
PARQUET: Final = "data/figures.parquet"
OF_RUN: Final = ("suite", "started_utc", "device")
"""Columns beside those of `harness report --format csv`."""
_KINDS: Final = {
    "value": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "least": "DOUBLE", "greatest": "DOUBLE",
    "n": "BIGINT", "trials": "BIGINT", "valid": "BOOLEAN",
}  # fmt: skip


class Tables:
    """Writes the tables run by run.

    Args:
        folder: of the site.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / CSV).parent.mkdir()
        self._lines = folder / f"{PARQUET}.partial"
        self._rows = self._lines.open("w", encoding="utf-8")
        self._csv = (folder / CSV).open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._csv, lineterminator="\n")
        self._writer.writerow([*OF_RUN, *COLUMNS])

    def __enter__(self) -> Self:
        return self

    def rows(
        self, report: RunReport, started_utc: str, devices: Mapping[str, str]
    ) -> list[tuple[dict[str, Any], bool]]:
        """The figures of a run, each with whether it is a cost or the rate of a functional unit.

        Args:
            report: of the run.
            started_utc: when it began.
            devices: of its points, by id.
        """
        suites = {point.id: point.suite for point in report.points}
        units = set(report.unit_names)
        return [
            (
                {
                    "suite": suites[figure.point_id],
                    "started_utc": started_utc,
                    "device": devices[figure.point_id],
                    **{name: getattr(figure, name) for name in COLUMNS},
                },
                figure.per in units and base_name(figure.metric) == figure.metric,
            )
            for figure in figures(report)
        ]

    def add(self, rows: Sequence[tuple[dict[str, Any], bool]]) -> None:
        """Writes the figures of a run."""
        for row, of_unit in rows:
            self._rows.write(json.dumps({**row, "composition": json.dumps(row["composition"])}) + "\n")
            if of_unit:
                text = "; ".join(f"{method}={share:.6g}" for method, share in row["composition"].items())
                self._writer.writerow(csv_cells({**row, "composition": text}.values()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._csv.close()
        if kind is None:
            self._to_parquet()
        self._lines.unlink()

    def _to_parquet(self) -> None:
        kinds = ", ".join(f"{name}: '{_KINDS.get(name, 'VARCHAR')}'" for name in (*OF_RUN, *COLUMNS))
        with closing(database([self._folder])) as made:
            made.execute("SET threads = 1")  # the order of the rows, and so the file, does not depend on the machine
            made.execute(
                f"COPY (SELECT * FROM read_json({quoted(self._lines.resolve())}, format = 'newline_delimited', "  # noqa: S608
                f"columns = {{{kinds}}})) TO ? (FORMAT parquet, COMPRESSION zstd)",
                [str((self._folder / PARQUET).resolve())],
            )
