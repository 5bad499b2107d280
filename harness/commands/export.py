"""`harness export`: what is heavy is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.console import echo
from harness.errors import UsageError, did_you_mean


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or its URL.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    *,
    form: Annotated[str, typer.Option("--to", help="pytest-benchmark, openmetrics or model-card.")],
) -> None:
    """Writes a run's results for another tool."""
    from harness.records.files import write_output
    from harness.records.summary import load
    from harness.reporting.export import FORMATS
    from harness.storing.places import run_folder

    if form not in FORMATS:
        raise UsageError(
            f"{form!r} is not an export format", accepted=", ".join(FORMATS), hint=did_you_mean(form, FORMATS)
        )
    if not file.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(file.parent), accepted="a folder that exists")
    write_output(file, FORMATS[form](load(run_folder(run))).encode())
    echo(f"exported: {file}")
