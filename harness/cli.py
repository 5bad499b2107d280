"""The `harness` command. Everything heavier than the command line itself is imported when a command is called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.commands import baseline as baseline_command
from harness.commands import compare as compare_command
from harness.commands import gate as gate_options
from harness.commands import history as history_command
from harness.commands import run as run_command
from harness.commands import store as store_command
from harness.commands.console import DEFAULT_STORE, AsJson, RunFolders, StorePlace, loaded_registry, render
from harness.commands.export import export
from harness.commands.query import query
from harness.commands.report import report
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

app.add_typer(baseline_command.app, name="baseline")
app.add_typer(store_command.app, name="store")
app.command()(compare_command.compare)
app.command()(history_command.history)

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


app.command()(run_command.plan)
app.command()(run_command.run)
app.command()(report)
app.command()(query)
app.command()(export)


app.command()(gate_options.gate)
app.command()(gate_options.calibrate)


@app.command()
def score(runs: RunFolders) -> None:
    """Scores and costs the stored outputs of runs again; the measurements are not touched."""
    from harness.running.run import finish
    from harness.running.run_folder import refuse_recosted
    from harness.storing.places import located

    for run in runs:
        store, folder = located(run)
        if not folder.is_dir():
            from harness.errors import UsageError

            raise UsageError("this is no run folder", where=str(folder))
        refuse_recosted(folder)
        fault = finish(folder, again=True)
        if fault:
            from harness.errors import MeasurementError

            raise MeasurementError(fault)
        store.send(folder, replace=True)
        typer.echo(f"scored: {store.name_of(folder)}")


@app.command()
def recost(
    runs: RunFolders,
    *,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="METER.OPTION=VALUE", help="Option of an impact meter.")
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="METER.OPTION=A,B,1..9", help="Options side by side, in one table.")
    ] = None,
    store: StorePlace = DEFAULT_STORE,
    form: Annotated[str, typer.Option("--format", help="Of the table: terminal, csv, md or json.")] = "terminal",
    output: Annotated[Path | None, typer.Option(help="File for the table.", show_default=False)] = None,
) -> None:
    """Costs finished runs again with other factors: new records, or one table of a sweep; nothing is measured."""
    from harness.commands import recost as command
    from harness.errors import UsageError
    from harness.storing.places import open_store, run_folder
    from harness.storing.url import command_line

    registry = loaded_registry()
    kept, folders = open_store(store), [run_folder(run) for run in runs]
    wanted = command.combinations(settings or [], sweep or [], registry)
    if sweep:
        for line in command.write_table(folders, wanted, registry, form, output):
            typer.echo(line, err=output is None)
        return
    if output is not None or form != "terminal":
        raise UsageError("--format and --output are for the table of a sweep", accepted="--sweep")
    made = command.write_records(folders, wanted, registry, kept.folder, command_line())
    render(made)
    for folder in made:
        kept.send(folder)
        typer.echo(f"records: {kept.name_of(folder)}")


@app.command()
def plugins(
    name: Annotated[
        str | None, typer.Argument(help="Show this one with its options, columns and units.", show_default=False)
    ] = None,
    *,
    as_json: AsJson = False,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask each backend and meter, with default options, if it works.")
    ] = True,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Hold an offer, or all of a distribution, to its contract.", show_default=False
        ),
    ] = None,
) -> None:
    """Lists what the installed plugins offer and what works here, and plugins that do not load."""
    from harness.commands import plugins as command

    registry = loaded_registry()
    if check is not None:
        if name is not None:
            raise typer.BadParameter("NAME and --check are mutually exclusive")
        said, code = command.check(registry, check, as_json=as_json)
        typer.echo("\n".join(said))
        raise typer.Exit(int(code))
    if name is not None:
        from harness.commands.plugin_page import page

        typer.echo(page(registry, name, probe=probe, as_json=as_json))
        return
    rows = command.listed(registry, probe=probe)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for line in command.lines(rows):
            typer.echo(line)
        for conflict in registry.conflicts:
            typer.echo(f"conflict: {conflict}", err=True)
    if registry.broken:
        raise typer.Exit(int(ExitCode.MEASUREMENT))


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="workload, backend, meter or executor.", show_default=False)],
    name: Annotated[str, typer.Argument(help="What suites will call it.", show_default=False)],
    *,
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path(),
) -> None:
    """Writes the package of a first plugin, with its test."""
    from harness.commands import new as command

    for line in command.new(kind, name, folder, loaded_registry()):
        typer.echo(line)


@app.command()
def schema() -> None:
    """Prints the JSON Schema of suites, the installed plugins' options included."""
    from harness.planning.json_schema import json_schema

    typer.echo(json.dumps(json_schema(loaded_registry()), indent=1))


@app.command()
def doctor(
    *,
    as_json: AsJson = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Also make the card of each meter that reads.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Look at locks, workers, store, clock, disk and memory instead.")
    ] = False,
    store: StorePlace = DEFAULT_STORE,
) -> None:
    """Shows what can be measured on this machine, how, and why the rest cannot."""
    from rich.console import Console

    from harness.diagnosing import survey as doctors

    if deep:
        from harness.diagnosing import state as deep_doctor
        from harness.storing.places import open_store

        raise typer.Exit(deep_doctor.command(open_store(store).folder, as_json=as_json))

    registry = loaded_registry()
    rows = doctors.survey(registry, doctors.devices_of(registry))
    if as_json:
        typer.echo(json.dumps(doctors.to_json(rows), indent=1))
    else:
        doctors.render(Console(), rows)
    if self_test:
        doctors.self_test(Console(), registry)


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
