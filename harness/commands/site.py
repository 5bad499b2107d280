"""`harness site`: what is heavy is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.console import echo


def site(
    out: Annotated[Path, typer.Argument(help="Folder for the site: new, empty, or a site.", show_default=False)],
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...|STORE", help="Run folders or stores, or their URLs.", show_default=False),
    ],
    *,
    title: Annotated[str, typer.Option(help="Heading of the first page.")] = "Measured results",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also into a folder that holds something else; files of the same names are replaced."
        ),
    ] = False,
) -> None:
    """Makes a static site of runs: their pages, leaderboards, histories, badges and tables; it needs no server."""
    from harness.publishing.build import build
    from harness.reporting.wording import counted

    made = build(out, runs, title=title, force=force, tell=lambda text: echo(f"note: {text}", err=True))
    told = f"{counted(made.runs, 'run')}, {counted(made.pages, 'page')}, {made.bytes / 1e6:.3g} MB"
    echo(f"site: {made.folder / 'index.html'} ({told}{f'; {made.unread} not read' if made.unread else ''})")
