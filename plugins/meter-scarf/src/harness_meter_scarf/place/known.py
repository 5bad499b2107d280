"""The shipped sites as places of the harness: by id, and by the names that clouds give their regions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from harness.place import GridFactor, Place, PlaceFactor, PlaceText, PueFactor, WaterFactor
from harness_meter_scarf.place import sites
from harness_meter_scarf.place.sites import Kind, Site, SiteFactor
from harness_meter_scarf.stress.ratio import NOT_KNOWN
from harness_meter_scarf.water import Ranged

_Factor = TypeVar("_Factor", bound=PlaceFactor)
_TABLE: Final = f"{sites.FILE.name}"


def _as(kind: type[_Factor], factor: SiteFactor | None) -> _Factor | None:
    if factor is None:
        return None
    ranged = factor.range
    exact = ranged.low == ranged.high
    return kind(
        value=ranged.value,
        low=None if exact else ranged.low,
        high=None if exact else ranged.high,
        source=factor.source,
        kind=factor.kind,
        confidence=factor.confidence,
        licence=factor.licence,
        date=factor.date,
        id=factor.id,
    )


def place_of(site: Site, name: str) -> Place:
    """A site as a place; a world figure that stands for a missing EWIF is left out."""
    ewif = None if site.ewif is not None and site.ewif.is_world_fallback else site.ewif
    source = f"{_TABLE}, {site.id}"
    return Place(
        name=name,
        row=site.id,
        country=site.country,
        grid=_as(GridFactor, site.grid),
        pue=_as(PueFactor, site.pue),
        wue_onsite=_as(WaterFactor, site.wue_onsite),
        ewif=_as(WaterFactor, ewif),
        time_zone=PlaceText(value=site.time_zone, source=source) if site.time_zone else None,
    )


def find(name: str, known: Place | None) -> Place | None:
    """A shipped site, or for a country that another table found the EWIF that all its sites share."""
    if known is not None:
        return _added(known)
    found = sites.named(name)
    return None if found is None else place_of(found, name)


def _added(known: Place) -> Place | None:
    """The sites of a country or zone, named; and its EWIF, where it is a country with one figure."""
    inside = [site for site in sites.shipped().values() if site.country == known.country != ""]
    if not inside:
        return None
    listed = ", ".join(site.id for site in inside[:6]) + (", ..." if len(inside) > 6 else "")
    flag = f"no on-site water and no PUE are known for {known.label}; sites in {known.country}: {listed}"
    figures = {site.ewif.range.value: site for site in inside if site.ewif and not site.ewif.is_world_fallback}
    one = next(iter(figures.values())) if len(figures) == 1 else None
    return Place(
        name=known.name, flags=(flag,), country=known.country, ewif=_as(WaterFactor, one.ewif) if one else None
    )


def names() -> Iterable[str]:
    """Ids of the sites, and names of clouds' regions."""
    return [*sites.shipped(), *sites.aliases()]


def site_of(place: Place) -> Site:
    """What the meter costs at a place: its factors, and the stress category of the site that it was found as."""
    row = sites.shipped().get(place.row)
    return Site(
        id=place.row or place.name or "an own place",
        name=place.name,
        country=place.country,
        time_zone=place.time_zone.value if place.time_zone else "",
        pue=_from(place.pue, "pue"),
        wue_onsite=_from(place.wue_onsite, "wue_onsite"),
        ewif=_from(place.ewif, "ewif"),
        category=row.category if row else NOT_KNOWN,
        pfaf_id=place.pfaf_id.value if place.pfaf_id else "",
        pfaf_source=f"declared: {place.pfaf_id.source}" if place.pfaf_id else "",
        licence=row.licence if row else "",
    )


def _from(factor: PlaceFactor | None, name: str) -> SiteFactor | None:
    if factor is None:
        return None
    kind: Kind | str = ("withdrawal" if factor.kind == "withdrawal" else "consumption") if name != "pue" else ""
    return SiteFactor(
        range=Ranged.of(factor.value, factor.low, factor.high),
        source=factor.source,
        confidence=factor.confidence,
        kind=kind,  # type: ignore[arg-type]
        licence=factor.licence,
        date=factor.date,
        id=factor.id or f"declared:{name}={factor.value!r}:{factor.source}",
    )
