"""What the commands share: their arguments, the plugins with a warning for a broken one, the report after a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from harness.errors import UsageError, printable

if TYPE_CHECKING:
    from harness.discovery.registry import Registry

DEFAULT_STORE: Final = "reports"

SHOWN: Final = {"traceback": False}
"""Whether `--traceback` was given: what an error or a library has to say beyond the message."""

SuiteFiles = Annotated[list[Path], typer.Argument(help="Suite files.", show_default=False)]
RunFolders = Annotated[
    list[str], typer.Argument(help="Run folders, or the URL of a store, a / and a run.", show_default=False)
]
StorePlace = Annotated[str, typer.Option(help="Folder or URL that runs are kept in.")]
Wait = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Give up after so long (10min) waiting for a device that another run holds; 0 for not waiting at all.",
        show_default=False,
    ),
]
Details = Annotated[bool, typer.Option("--details", help="All tables, readings and conditions below the overview.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Only points whose label holds this text or fits this pattern; may be repeated.",
        show_default=False,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(min=1, help="Trials of each point, in place of what the suites say.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def echo(text: object = "", *, err: bool = False) -> None:
    """Prints a line for people: what is not the harness's own text in it cannot steer their terminal."""
    # Not click's: to a stream of ASCII it writes UTF-8.
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def warn_unread(faults: Iterable[str]) -> None:
    """Names on standard error what of a store could not be read and is left out of what is shown."""
    for fault in faults:
        echo(f"warning: not read and left out: {fault}; `harness store check` says more", err=True)


def loaded_registry() -> Registry:
    """The plugins; a broken one is named on standard error and left out."""
    from harness.discovery.registry import load_plugins

    return without_broken(load_plugins())


def without_broken(registry: Registry) -> Registry:
    """The plugins as they are, a broken one named on standard error."""
    for broken in registry.broken:
        echo(
            f"warning: plugin {broken.name!r} of {broken.distribution} {broken.version} is left out: {broken.error}",
            err=True,
        )
    return registry


def waiting_s(text: str | None) -> float | None:
    """The seconds of `--wait`; None where it was not given, which waits without end.

    Raises:
        UsageError: it is no time.
    """
    from harness.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(error.message, where="--wait", accepted=error.accepted) from None


def render(folders: list[Path], *, details: bool = False) -> None:
    """Shows runs on the terminal."""
    from rich.console import Console

    from harness.reporting import render_terminal

    console = Console()
    for folder in folders:
        render_terminal(console, folder, details=details)
