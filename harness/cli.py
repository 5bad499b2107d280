"""The `harness` command. Everything heavier than the command line itself is imported when a command is called."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.commands import baseline, store
from harness.commands.compare import compare
from harness.commands.console import loaded_registry
from harness.commands.doctor import doctor
from harness.commands.export import export
from harness.commands.gate import calibrate, gate
from harness.commands.history import history
from harness.commands.measure import measure
from harness.commands.new import new
from harness.commands.plugins import plugins
from harness.commands.query import query
from harness.commands.recost import recost
from harness.commands.report import report
from harness.commands.run import plan, run
from harness.commands.schema import schema
from harness.commands.score import score
from harness.errors import ExitCode, HarnessError


class PluginGroup(TyperGroup):
    """Looks for a sub-command among the plugins when the core has none of that name."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's command, else the plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        offer = loaded_registry().commands.get(cmd_name)
        if offer is None:
            return None
        loaded = offer.spec.load()
        if not isinstance(loaded, typer.Typer):
            application = typer.Typer(add_completion=False)
            application.command(name=cmd_name, help=offer.spec.summary)(loaded)
            loaded = application
        return typer.main.get_command(loaded)


app = typer.Typer(
    name="harness",
    cls=PluginGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measures what machine-learning work costs in time, energy, carbon and water, per functional unit. "
    "Plugins may add commands: `harness plugins` lists them.",
)

_STATE = {"traceback": False}


def _version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show tracebacks of errors.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    _STATE["traceback"] = traceback


for _command in (
    measure, plan, run, report, query, export, gate, calibrate,
    compare, history, score, recost, plugins, new, schema, doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(baseline.app, name="baseline")
app.add_typer(store.app, name="store")


def _fail(error: HarnessError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise SystemExit(int(error.exit_code))


def main() -> None:
    """Entry point of the console script: turns every outcome into the exit code that says so."""
    try:
        app()
    except HarnessError as error:
        if _STATE["traceback"]:
            raise
        _fail(error)
    except KeyboardInterrupt:
        raise SystemExit(int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(ExitCode.OK)) from None
    except Exception as error:
        if _STATE["traceback"]:
            raise
        typer.echo(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a fault of the harness or of a plugin, not a regression. `harness --traceback ...` shows where.",
            err=True,
        )
        raise SystemExit(int(ExitCode.INTERNAL)) from None


if __name__ == "__main__":
    main()
