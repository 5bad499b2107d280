"""`harness doctor`: what is heavy is imported when it is called."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.commands.console import DEFAULT_STORE, AsJson, StorePlace, echo, loaded_registry
from harness.commands.streams import captured


def doctor(
    *,
    as_json: AsJson = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Also make the card of each meter that reads.")
    ] = False,
    meter: Annotated[str | None, typer.Option("--meter", help="With --self-test: test this meter only.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="With --self-test: hold gain and offset against this meter, by its name or with its options as in a "
            "suite, such as 'wall: {kind: shelly, url: http://plug}'.",
        ),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check locks, workers, store, clock, disk and memory instead.")
    ] = False,
    store: StorePlace = DEFAULT_STORE,
) -> None:
    """Shows what can be measured on this machine, how, and why the rest cannot."""
    from rich.console import Console

    from harness.diagnosing import state, survey, survey_page
    from harness.storing.places import open_store

    if deep:
        raise typer.Exit(state.command(open_store(store).folder, as_json=as_json))
    if (meter or reference) and not self_test:
        raise typer.BadParameter("--meter and --reference are of the self-test: add --self-test")
    registry = loaded_registry()
    with captured():
        rows = survey.survey(registry, survey.devices_of(registry)) + survey.absent(registry)
    if as_json:
        echo(json.dumps(survey.to_json(rows), indent=1))
    else:
        survey_page.render(Console(), rows)
    if self_test:
        survey.self_test(Console(), registry, meter, reference)
