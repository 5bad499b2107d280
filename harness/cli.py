"""The `harness` command. Everything heavier than the command line itself is imported when a command is called."""

from __future__ import annotations

import copy
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from harness.commands import baseline, store
from harness.commands.compare import compare
from harness.commands.console import SHOWN, echo, loaded_registry
from harness.commands.doctor import doctor
from harness.commands.export import export
from harness.commands.gate import calibrate, gate
from harness.commands.history import history
from harness.commands.init import init
from harness.commands.measure import measure
from harness.commands.new import new
from harness.commands.plugin_commands import summaries
from harness.commands.plugins import plugins
from harness.commands.query import query
from harness.commands.recost import recost
from harness.commands.report import report
from harness.commands.run import plan, run
from harness.commands.schema import schema
from harness.commands.score import score
from harness.commands.signals import heed_signals
from harness.commands.site import site
from harness.commands.streams import make_lasting, unwritten
from harness.errors import ExitCode, HarnessError, of_machine

NAME: Final = "harness"
NAMES: Final = {name: name for name in (NAME, "joule-harness")}
"""Names that the command is installed under."""
_WHOLE: Final = 10_000
"""Characters of a summary that is not cut."""


class PluginGroup(TyperGroup):
    """Looks for a sub-command among the plugins when the core has none of that name."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's command, else the plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        offer = loaded_registry().find("command", cmd_name)
        if offer is None:
            return None
        loaded = offer.spec.load()
        if not isinstance(loaded, typer.Typer):
            application = typer.Typer(add_completion=False)
            application.command(name=cmd_name, help=offer.spec.summary)(loaded)
            loaded = application
        loaded.rich_markup_mode = None  # one look of all commands
        return typer.main.get_command(loaded)

    def list_commands(self, ctx: Any) -> list[str]:
        """The core's commands, then those of the plugins."""
        own = super().list_commands(ctx)
        return own + [name for name in summaries() if name not in own]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Every command with the first sentence of its help, whole; imports no plugin."""
        own = super().list_commands(ctx)
        rows = [
            (name, command.get_short_help_str(limit=_WHOLE))
            for name in own
            if (command := super(PluginGroup, self).get_command(ctx, name)) is not None and not command.hidden
        ]
        added = [(name, said) for name, said in summaries().items() if name not in own]
        for title, listed in (("Commands", rows), ("Commands of plugins", added)):
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)


app = typer.Typer(
    name="harness",
    cls=PluginGroup,
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measures what machine-learning work costs in time, energy, carbon and water, per functional unit.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show tracebacks of errors, and what libraries print.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    SHOWN["traceback"] = show_traceback


for _command in (
    measure, init, plan, run, report, site, query, export, gate, calibrate,
    compare, history, score, recost, plugins, new, schema, doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(baseline.app, name="baseline")
app.add_typer(store.app, name="store")


def main() -> NoReturn:
    """Entry point of the console script: turns every outcome into the exit code that says so."""
    make_lasting()
    heed_signals()
    code = _code(sys.argv[1:])
    fault = unwritten()
    if fault is not None:
        _say(f"error: the standard output cannot be written: {fault.strerror}")
        code = code or ExitCode.MEASUREMENT
        unwritten()
    raise SystemExit(int(code))


def _code(arguments: list[str]) -> int:
    """Calls the command; its exit code, which is 1 for a regression alone."""
    try:
        command: Any = typer.main.get_command(_needed(arguments))
        name = NAMES.get(Path(sys.argv[0]).stem, NAME)
        # Not `app()`: its own handler ends a broken pipe, a click error and Ctrl-C at a prompt with code 1.
        command._main_shell_completion({}, name)  # noqa: SLF001 - what `app()` would do first
        with command.make_context(name, arguments) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except _CLICK_ERROR as error:
        error.show()
        return ExitCode.USAGE
    except HarnessError as error:
        _say(f"error: {error}")
        return _traced(error.exit_code)
    except (KeyboardInterrupt, EOFError, typer.Abort):
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return _ended(ended.code)
    except MemoryError:
        _say("error: this machine has too little memory left")
        return _traced(ExitCode.MEASUREMENT)
    except Exception as error:  # noqa: BLE001 - whatever it is, it has no exit code of its own
        if isinstance(error, OSError) and (said := of_machine(error)):
            _say(f"error: {said}")
            return _traced(ExitCode.MEASUREMENT)
        _say(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a fault of the harness or of a plugin, not a regression. `harness --traceback ...` shows where."
        )
        return _traced(ExitCode.INTERNAL)
    return ExitCode.OK


def _needed(arguments: list[str]) -> typer.Typer:
    """The command line with the one command that is called, where that is known: typer takes its time for each."""
    called = [info for info in app.registered_commands if [getattr(info.callback, "__name__", "")] == arguments[:1]]
    if not called:
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = called, []
    return alone


_CLICK_ERROR: Final[Any] = typer.BadParameter.__mro__[2]
"""click's base of what is wrong with a command line; newer versions of typer bring a click of their own."""


def _ended(code: object) -> int:
    """The exit code of a plugin's command that ended the interpreter by itself: no 1, which is a regression."""
    if code is None or (isinstance(code, int) and code != ExitCode.REGRESSED):
        return int(code or ExitCode.OK)
    if isinstance(code, str):
        _say(code)
    return ExitCode.MEASUREMENT


def _traced(code: int) -> int:
    """Shows where an error was raised, if that was asked for; returns its exit code."""
    if SHOWN["traceback"]:
        traceback.print_exc()
    return code


def _say(text: str) -> None:
    echo(text, err=True)


if __name__ == "__main__":
    main()
