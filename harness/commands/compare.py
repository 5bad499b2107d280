"""`harness compare A B`; its tables are those that a report of both shows too."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.commands.console import echo


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
    from harness.reporting.comparison import NOT_PAIRS, sections
    from harness.reporting.terminal import plain, print_section
    from harness.storing.places import run_folder

    found = compared(run_folder(first), run_folder(second), metric or ())
    if as_json:
        echo(json.dumps(to_json(found), indent=1))
        return
    console = Console()
    for point in found.points:
        for section in sections(point, details=details):
            print_section(console, section)
            console.print()
    for note in found.notes:
        console.print(plain(f"note: {note}"))
    console.print(plain(NOT_PAIRS, "dim"))
