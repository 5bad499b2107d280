"""The command `harness grid`: what a place's intensity would be now, by which source, with its date."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from harness import find_place
from harness.errors import MeasurementError, UsageError
from harness.impact import EnergyTrace
from harness.quantity import Unavailable
from harness_meter_fuel.grid import Grid, GridOption, GridOptions, of_place, resolve


def grid(
    place: Annotated[
        str | None,
        typer.Argument(
            help="As a suite writes it: USA, USA/indiana, gcp/us-central1, a file; with --file, a zone of the file.",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option(help="CSV or JSON file of an intensity, as its publisher offers it.")
    ] = None,
    emissions: Annotated[str | None, typer.Option(help="lifecycle or direct, where the file holds both.")] = None,
    start: Annotated[str | None, typer.Option(help="Time of the file that is meant; now if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Prints the carbon intensity that a run of now would be costed with, its source and its date."""
    said = known(place, file, emissions, start)
    if as_json:
        typer.echo(json.dumps(said, indent=1, ensure_ascii=False))
        return
    low, high = said["low"], said["high"]
    span = f" ({low:g} to {high:g})" if low is not None and high is not None and low < high else ""
    typer.echo(f"{said['g_per_kwh']:g} g/kWh{span}")
    typer.echo(f"source  {said['source']}")
    typer.echo(f"date    {said['date'] or 'not stated'}")
    for key, label in (("licence", "licence"), ("pue", "PUE"), ("wue_l_per_kwh", "WUE")):
        if said[key]:
            typer.echo(f"{label:<7} {said[key]}")
    for flag in said["flags"]:
        typer.echo(f"note    {flag}")


def known(place: str | None, file: Path | None, emissions: str | None, start: str | None) -> dict[str, Any]:
    """What `described` says of the grid that the command line stands for, or of a place that any plugin knows.

    Raises:
        UsageError: there is no such grid and no such place.
        MeasurementError: a table or a file is missing.
    """
    named = place is not None and not (file or emissions or start) and "/" not in place
    try:
        found = resolve(chosen(place, file, emissions, start))
    except UsageError:
        if not named:
            raise
        found = Unavailable("no grid is called so")
    if not isinstance(found, Unavailable):
        return described(found, time.time())
    if not named:
        raise MeasurementError(found.reason)
    at = find_place(place)
    found = of_place(at)
    if isinstance(found, Unavailable):
        raise MeasurementError(f"no grid intensity is known for {at.label}")
    row = [] if at.row in ("", at.name) else [f"found as {at.row}"]
    return {
        **described(found, time.time()),
        "pue": None if at.pue is None else at.pue.value,
        "wue_l_per_kwh": None if at.wue_onsite is None else at.wue_onsite.value,
        "flags": [*row, *found.flags],
    }


def chosen(place: str | None, file: Path | None, emissions: str | None, start: str | None) -> GridOptions:
    """The options of `grid` that the command line stands for; raises UsageError as a suite's would."""
    value: Any = place
    if file is not None:
        value = {"file": str(file), "zone": place or ""}
    elif place is None:
        raise UsageError("no place is given", accepted="a place such as USA or USA/indiana, or --file FILE [ZONE]")
    more = {key: given for key, given in (("emissions", emissions), ("start", start)) if given}
    adapter: TypeAdapter[GridOptions] = TypeAdapter(GridOption)
    try:
        options = adapter.validate_python(value)
        return adapter.validate_python({**options.model_dump(exclude_unset=True), **more}) if more else options
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def described(found: Grid, now_s: float) -> dict[str, Any]:
    """The intensity of an instant as JSON values; what is not known is null.

    Args:
        found: the grid.
        now_s: the instant, seconds since the Unix epoch.
    """
    value, low, high, flags = found.factor.value, found.low, found.high, list(found.flags)
    if found.series is not None:
        now = found.series.intensity(now_s, 1.0, EnergyTrace(), "")
        value, low, high = now.g_per_kwh, now.low, now.high
        if now.past:
            flags.insert(0, f"of a past time: {now.past}")
    return {
        "g_per_kwh": value,
        "low": low,
        "high": high,
        "source": found.factor.source,
        "date": found.factor.date,
        "licence": found.factor.licence,
        "pue": found.pue,
        "wue_l_per_kwh": found.wue_l_per_kwh,
        "id": found.factor.id,
        "flags": flags,
    }
