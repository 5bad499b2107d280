"""The command `scarf-aqueduct`: takes the basins asked for out of a downloaded Aqueduct 4.0."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast

import typer

from harness.errors import HarnessError, UsageError
from harness_meter_scarf.place import aqueduct
from harness_meter_scarf.place.polygons import basin_at
from harness_meter_scarf.stress.ratio import Scenario

SCENARIOS = ("bau", "opt", "pes")


def run(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="WRI's CSV files as downloaded: baseline annual, baseline monthly, future annual.", show_default=False
        ),
    ],
    *,
    basins: Annotated[
        list[str] | None,
        typer.Option(
            help="SITE=PFAF_ID: a site and the six-digit code of its basin; may be repeated.", show_default=False
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="SITE=LAT,LON: a site by its coordinates, looked up in --polygons; may be repeated.",
            show_default=False,
        ),
    ] = None,
    polygons: Annotated[
        Path | None,
        typer.Option(
            help="Polygons of basins with pfaf_id: GeoJSON, GeoPackage or shapefile (WRI, HydroBASINS).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="CSV file to write, for option `basins` of scarf.", show_default=False)],
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="Scenario of the years to come: bau, opt or pes; may be repeated; bau if not given."),
    ] = None,
) -> None:
    """Writes a small CSV of basins from WRI Aqueduct 4.0 files (CC BY 4.0); give it to scarf as `basins`."""
    chosen = tuple(dict.fromkeys(scenario or ["bau"]))
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        raise UsageError(f"no scenario {unknown[0]!r}", accepted=", ".join(SCENARIOS))
    sites = placed(at or [], polygons)
    if basins or not sites:
        named = aqueduct.parse_basins(basins or [])
        twice = sorted(sites.keys() & named.keys())
        if twice:
            raise UsageError(f"site {twice[0]!r} is named twice", accepted="each site in --basins or in --at")
        sites |= named
    extracted = aqueduct.extract(files, sites.values(), cast("tuple[Scenario, ...]", chosen))
    try:
        out.write_text(aqueduct.written(sites, extracted, datetime.now(UTC).date()), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot be written: {error}", where=str(out)) from error
    for name, skipped in extracted.skipped.items():
        typer.echo(f"{name}: {skipped} rows without a six-digit code skipped", err=True)
    typer.echo(f"{len(sites)} basins: {out}")


def placed(texts: list[str], file: Path | None) -> dict[str, str]:
    """Site -> `pfaf_id` of `SITE=LAT,LON` texts; raises UsageError."""
    if bool(texts) != (file is not None):
        raise UsageError("--at and --polygons go together", accepted="--at SITE=LAT,LON --polygons FILE")
    found: dict[str, str] = {}
    for text in texts:
        site, equals, place = (part.strip() for part in text.partition("="))
        try:
            latitude, longitude = map(float, place.split(","))
        except ValueError:
            latitude = longitude = float("nan")
        if not (equals and site) or latitude != latitude or site in found:  # noqa: PLR0124 - not a number
            raise UsageError(
                f"{text!r} does not name a place", accepted="SITE=LAT,LON in degrees, each site once: dc1=33.45,-112.07"
            )
        assert file is not None
        found[site] = basin_at(file, latitude, longitude)
    return found


def main() -> None:
    """Entry point of the console script; `harness scarf-aqueduct` is the same."""
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(run)
    try:
        application()
    except HarnessError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(int(error.exit_code)) from None
