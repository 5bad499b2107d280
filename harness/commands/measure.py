"""`harness measure -- COMMAND`: any command, measured; what is heavy is imported when it is called."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.console import DEFAULT_STORE, StorePlace, Wait, echo, waiting_s, without_broken
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.session.commands import Asked


Words = Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND ARGS", help="The command.", show_default=False)]
Texts = Annotated[
    list[str] | None,
    typer.Option("--command", metavar="TEXT", help="A command as one text; repeat to compare.", show_default=False),
]
UnitText = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=AMOUNT",
        help="What a run does: images=1000, images=/regex with (one group)/, tokens=json:path.in.output.",
        show_default=False,
    ),
]
MeterTexts = Annotated[
    list[str] | None,
    typer.Option(metavar="METER", help="A meter, 'tdp: {watts: 65}'; auto if none.", show_default=False),
]
Grid = Annotated[
    str | None, typer.Option(metavar="GRID", help="Grid of meter fuel, for carbon: FRA.", show_default=False)
]
Site = Annotated[str | None, typer.Option(metavar="SITE", help="Site of meter scarf, for water.", show_default=False)]
At = Annotated[
    str | None, typer.Option(metavar="PLACE", help="Place, for carbon and water: us-east-1.", show_default=False)
]
Idle = Annotated[
    str | None, typer.Option(metavar="TIME", help="Read idle power for so long before each run.", show_default=False)
]
Shown = Annotated[
    bool | None,
    typer.Option(
        "--show-output/--hide-output", help="Output of the commands; shown for a single run.", show_default=False
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write JSON too; - for standard output.", show_default=False),
]


def measure(
    words: Words = None,
    *,
    command: Texts = None,
    shell: Annotated[bool, typer.Option("--shell", help="Let /bin/sh read each --command.")] = False,
    repeat: Annotated[int, typer.Option(min=1, max=10_000, help="Measured runs of each command.")] = 1,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="Runs of each before, which do not count.")] = 0,
    unit: UnitText = None,
    meter: MeterTexts = None,
    grid: Grid = None,
    site: Site = None,
    place: At = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Backend whose devices are read: torch for its GPU.")
    ] = "host",
    idle: Idle = None,
    show_output: Shown = None,
    ignore_failure: Annotated[
        bool, typer.Option("--ignore-failure", help="Go on after a run that fails, and exit with 0.")
    ] = False,
    json_file: JsonFile = None,
    store: StorePlace = DEFAULT_STORE,
    wait: Wait = None,
) -> None:
    """Measures any command: time, CPU time, memory, energy, carbon and water, per run and per unit of work."""
    from harness.session.commands import Asked
    from harness.session.meters import with_place
    from harness.units import parse_duration

    if bool(words) == bool(command):
        found = "one command is given twice" if words else "there is nothing to measure"
        raise UsageError(found, accepted="-- COMMAND ARGS, or --command TEXT")
    if shell and words:
        raise UsageError("--shell reads a text", accepted="--shell --command TEXT")
    to_stdout = json_file is not None and str(json_file) == "-"
    if to_stdout and show_output:
        raise UsageError("both the JSON and the command's output would go to standard output", accepted="--json FILE")
    if json_file is not None and not to_stdout and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise UsageError(f"{json_file} cannot be written", where="--json", accepted="a file in a folder that is there")
    listed: list[str | list[str]] = [words] if words else [*(command or ())]
    asked = Asked(
        commands=listed,
        shell=shell,
        repeat=repeat,
        warm_up=warm_up,
        unit=_unit(unit),
        meters=with_place(meter or [], grid=grid, site=site, place=place, where="--meter"),
        backend=backend,
        idle_s=parse_duration(idle) if idle else 0.0,
        shown=len(listed) * repeat == 1 and not to_stdout if show_output is None else show_output,
        goes_on=ignore_failure,
        wait_s=waiting_s(wait),
    )
    raise typer.Exit(_measured(asked, store, json_file))


def _measured(asked: Asked, store: str, json_file: Path | None) -> int:
    """Measures, says what was found; the exit code of the command, or ours."""
    from harness.session import answers
    from harness.session.commands import measure_commands
    from harness.session.meters import plugins_for
    from harness.storing.places import open_store

    registry = without_broken(plugins_for(asked.meters, asked.backend))
    kept = open_store(store)
    signal.signal(signal.SIGTERM, _interrupt)
    with kept.sending(quiet=True) as uploads:
        answer = measure_commands(asked, kept.folder, registry, lambda text: echo(text, err=True))
        uploads.push(answer.folder)
    to_stderr = asked.shown or str(json_file) == "-"
    for line in (*answers.lines(answer, idle=asked.idle_s > 0), *answers.comparison(answer)):
        echo(line, err=to_stderr)  # what the command prints, or the JSON, can be piped on
    for fault in (*answer.faults, *uploads.faults):
        echo(f"not valid: {fault}", err=True)
    echo(f"records: {kept.name_of(answer.folder)}", err=to_stderr)
    if json_file is not None:
        content = json.dumps(answers.to_json(answer), indent=1)
        if str(json_file) == "-":
            echo(content)
        else:
            json_file.write_text(content + "\n", encoding="utf-8")
    if answer.failed and not asked.goes_on:
        return answer.failed
    return int(ExitCode.MEASUREMENT if answer.faults or uploads.faults else ExitCode.OK)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _unit(text: str | None) -> tuple[str, float | Mapping[str, str]] | None:
    """`images=1000`, `images=/did (.*)/` or `images=json:did.images`. Raises UsageError."""
    if text is None:
        return None
    name, equals, amount = text.partition("=")
    accepted = "NAME=AMOUNT: images=1000, images=/did (\\d+)/, images=json:did.images"
    if not equals or not name.replace("_", "").replace("-", "").isalnum() or name == "run" or not amount:
        raise UsageError(f"{text!r} is no unit", where="--unit", accepted=accepted)
    if amount.startswith("json:"):
        return name, {"json": amount.removeprefix("json:")}
    if len(amount) > 1 and amount.startswith("/") and amount.endswith("/"):
        return name, {"regex": amount[1:-1]}
    try:
        return name, float(amount)
    except ValueError:
        raise UsageError(f"{amount!r} is no amount", where="--unit", accepted=accepted) from None
