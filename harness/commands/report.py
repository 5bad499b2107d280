"""`harness report`: what is heavy is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.console import Details, echo


def report(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders, or the folder of one gate; or their URLs.", show_default=False)
    ],
    *,
    form: Annotated[str, typer.Option("--format", help="terminal, html, md, json or csv.")] = "terminal",
    output: Annotated[
        Path | None, typer.Option(help="File to write; a page goes into the run's folder.", show_default=False)
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    details: Details = False,
) -> None:
    """Shows runs, side by side where there are several, or a gate's verdict, from their records alone."""
    from harness.reporting.output import write
    from harness.storing.places import run_folder

    written = write([run_folder(run) for run in runs], form, output, show=show, details=details)
    if written is not None:
        echo(f"report: {written}")
