"""The command `harness sites`: the shipped sites, with every factor's source and confidence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from harness_meter_scarf.place.sites import Site, SiteFactor, find, shipped


def sites(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of sites to show in full; without one, all as a table.", show_default=False),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON, with source and confidence of every factor.")
    ] = False,
) -> None:
    """Lists the sites that meter scarf knows; with names, every factor of these with its source and confidence."""
    chosen = [find(name) for name in names] if names else list(shipped().values())
    if as_json:
        typer.echo(json.dumps([to_json(site) for site in chosen], indent=1, ensure_ascii=False))
    elif names:
        for site in chosen:
            typer.echo("\n".join(details(site)))
    else:
        typer.echo("\n".join(listing(chosen)))


def to_json(site: Site) -> dict[str, Any]:
    """A site as JSON values; what is not known is null."""
    return {
        "id": site.id,
        "name": site.name,
        "country": site.country or None,
        "time_zone": site.time_zone or None,
        "pue": _factor(site.pue),
        "wue_onsite_l_per_kwh": _factor(site.wue_onsite),
        "ewif_l_per_kwh": _factor(site.ewif),
        "grid_g_per_kwh": _factor(site.grid),
        "stress_category": {
            "value": site.category.value,
            "source": site.category.source or None,
            "confidence": site.category.confidence or None,
        },
        "licence_note": site.licence,
    }


def _factor(factor: SiteFactor | None) -> dict[str, Any] | None:
    if factor is None:
        return None
    return {
        "value": factor.range.value,
        "source": factor.source,
        "confidence": factor.confidence or None,
        "kind": factor.kind or None,
        "world_fallback": factor.is_world_fallback,
    }


LEGEND = (
    "H two sources agree or the primary table; M one source; L fallback, design value, area average or conflict;",
    "w counts withdrawal, not consumption; f world fallback; empty: not known. Sources:",
)


def listing(listed: Iterable[Site]) -> list[str]:
    """The sites as lines, each number with its confidence and the number of its source; then the sources."""
    sources: dict[str, int] = {}
    rows = [("site", "PUE", "WUE L/kWh", "EWIF L/kWh", "grid g/kWh", "stress category")]
    for site in listed:
        factors = (site.pue, site.wue_onsite, site.ewif, site.grid)
        pue, wue, ewif, grid = (_cell(factor, sources) for factor in factors)
        known = site.category
        category = "" if known.value is None else f"{known.value} {known.confidence} {_numbered(known.source, sources)}"
        rows.append((site.id, pue, wue, ewif, grid, category))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*lines, "", *LEGEND, *(f"[{number}] {source}" for source, number in sources.items())]


def _cell(factor: SiteFactor | None, sources: dict[str, int]) -> str:
    if factor is None:
        return ""
    marks = f"{factor.confidence}{'w' * (factor.kind == 'withdrawal')}{'f' * factor.is_world_fallback}"
    return " ".join(filter(None, (f"{factor.range.value:g}", marks, _numbered(factor.source, sources))))


def _numbered(source: str, sources: dict[str, int]) -> str:
    return f"[{sources.setdefault(source, len(sources) + 1)}]"


def details(site: Site) -> list[str]:
    """Every factor of a site with its source and confidence, as lines."""
    lines = [f"{site.id}: {site.name}", f"  country    {site.country}", f"  time zone  {site.time_zone or 'not known'}"]
    for label, unit, factor in (
        ("PUE", "", site.pue),
        ("WUE", " L/kWh", site.wue_onsite),
        ("EWIF", " L/kWh", site.ewif),
        ("grid", " g/kWh", site.grid),
    ):
        if factor is None:
            lines.append(f"  {label:<9}  not known")
            continue
        confidence = f", confidence {factor.confidence}" if factor.confidence else ""
        kind = f", counts {factor.kind}" if factor.kind else ""
        lines.append(f"  {label:<9}  {factor.range.value:g}{unit}{kind}{confidence}: {factor.source}")
    category = site.category
    if category.value is None:
        lines.append(f"  stress     not known{': ' if category.source else ''}{category.source}")
    else:
        lines.append(f"  stress     category {category.value}, confidence {category.confidence}: {category.source}")
    return [*lines, f"  licence    {site.licence}"]
