"""The place that the options describe: its factors, with substitutes only where the options ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from harness.errors import UsageError
from harness.impact import Factor
from harness.quantity import Unavailable
from harness_meter_scarf.place import aware, basins, generation, sites
from harness_meter_scarf.place.options import (
    AwareOptions,
    DeclaredNumber,
    DeclaredVolume,
    MixEwif,
    Ratio,
    SiteOptions,
    StressOptions,
    TwoBasinOptions,
)
from harness_meter_scarf.place.sites import Kind, Site, SiteFactor
from harness_meter_scarf.stress.factor import Missing
from harness_meter_scarf.stress.ratio import BASELINE_YEAR, Basin, Category, Cell, annual
from harness_meter_scarf.water import EWIF_WORLD_L_PER_KWH, Ranged

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A factor in use, with what a reader must know about it."""

    factor: SiteFactor
    flags: tuple[str, ...] = ()

    def described(self, name: str, unit: str) -> Factor:
        """As the record keeps it."""
        said = f"counts {self.factor.kind}"
        kind = f"; {said}" if self.factor.kind and said not in self.factor.source else ""
        ranged = self.factor.range
        confidence = f"; confidence {self.factor.confidence}" if self.factor.confidence else ""
        return Factor(
            name=name,
            value=self.factor.range.value,
            unit=unit,
            source=f"{self.factor.source}{kind}{confidence}",
            licence=self.factor.licence,
            date=self.factor.date,
            id=f"{name}:{self.factor.id}",
            low=None if ranged.low == ranged.high else ranged.low,
            high=None if ranged.low == ranged.high else ranged.high,
        )


def site(given: SiteOptions) -> Site:
    """The site with what the suite replaces."""
    base = sites.find(given.row) if given.row is not None else Site(id=given.id or "", name=given.id or "")
    changes: dict[str, object] = {}
    if given.pue is not None:
        changes["pue"] = _declared(given.pue, "pue")
    if given.wue_onsite is not None:
        changes["wue_onsite"] = _declared(given.wue_onsite, "wue_onsite")
    if isinstance(given.ewif, DeclaredVolume):
        changes["ewif"] = _declared(given.ewif, "ewif")
    if given.time_zone is not None:
        changes["time_zone"] = given.time_zone.value
    if given.pfaf_id is not None:
        changes |= {"pfaf_id": given.pfaf_id.value, "pfaf_source": given.pfaf_id.source}
    return replace(base, **changes) if changes else base  # type: ignore[arg-type]


def _declared(given: DeclaredNumber, name: str) -> SiteFactor:
    kind: Kind | str = given.kind if isinstance(given, DeclaredVolume) else ""
    return SiteFactor(
        range=given.range(),
        source=f"declared: {given.source}",
        kind=kind,  # type: ignore[arg-type]
        licence=given.licence,
        date=given.date,
        id=given.id or f"declared:{name}={given.value!r}:{given.source}",
    )


def pue(place: Site) -> Found | Unavailable:
    """The site's PUE."""
    return Found(factor=place.pue) if place.pue is not None else Unavailable(f"no PUE is known for {place.id!r}")


def wue_onsite(place: Site) -> Found | Unavailable:
    """The site's on-site water; never a substitute."""
    if place.wue_onsite is None:
        return Unavailable(f"no on-site WUE is known for {place.id!r}")
    flags: tuple[str, ...] = ()
    if place.wue_onsite.confidence == "L":
        flags = (f"on-site WUE of low confidence: {place.wue_onsite.source}",)
    if place.id.startswith("mixed-"):
        flags += ("mixed row: PUE of one operator, WUE of another",)
    return Found(factor=place.wue_onsite, flags=flags)


def ewif(place: Site, given: SiteOptions | None, *, missing: Missing) -> Found | Unavailable:
    """The water of the site's electricity; the world figure under `missing: fallback` only."""
    if given is not None and isinstance(given.ewif, MixEwif):
        return _of_mix(given.ewif)
    if place.ewif is not None and not place.ewif.is_world_fallback:
        flags = (f"EWIF of low confidence: {place.ewif.source}",) if place.ewif.confidence == "L" else ()
        return Found(factor=place.ewif, flags=flags)
    if missing == "strict":
        return Unavailable(f"no EWIF is known for {place.id!r}; `missing: fallback` takes the world figure")
    world = SiteFactor(
        range=Ranged.of(EWIF_WORLD_L_PER_KWH),
        source="fallback: world figure of EcoLogits 0.11.3",
        confidence="L",
        kind="consumption",
        licence="EcoLogits: code MPL-2.0, method CC BY-SA 4.0",
        id=f"ecologits-0.11.3:world={EWIF_WORLD_L_PER_KWH!r}",
    )
    return Found(factor=world, flags=(f"partial: EWIF of {place.id!r} replaced by the world figure",))


def _of_mix(given: MixEwif) -> Found | Unavailable:
    mixed = generation.of_mix(given.mix, in_mwh=given.unit == "MWh")
    if isinstance(mixed, Unavailable):
        return mixed
    left_out = f"; left out: {', '.join(mixed.left_out)}" if mixed.left_out else ""
    defaults = f"; cooling not stated: {', '.join(mixed.defaults)}" if mixed.defaults else ""
    flag = f"EWIF of a generation mix: coverage {mixed.coverage:.4g}{left_out}{defaults}"
    source = f"declared: {given.source}; fuels: {generation.FILE.name}, Macknick et al. 2012, medians"
    factor = SiteFactor(
        range=Ranged.of(mixed.l_per_kwh, mixed.low, mixed.high),
        source=source,
        kind="consumption",
        licence=given.licence,
        date=given.date,
        id=given.id or f"mix:{mixed.l_per_kwh!r}",
    )
    return Found(factor=factor, flags=(flag,))


def basin(
    place: Site, declared: StressOptions | None, file: Path | str | None, *, missing: Missing, accept_conflict: bool
) -> Basin | Category | Unavailable:
    """The basin that is declared or in a file for the site, else the category of its province, else why there is none.

    Args:
        place: the site.
        declared: its stress as the suite declares it.
        file: table of basins.
        missing: whether the category may stand for a basin that the file lacks.
        accept_conflict: whether a category that its sources contradict is taken.
    """
    if declared is not None:
        return declared_basin(declared, place.id)
    if file is not None:
        loaded = basins.load(file)
        for name in (place.pfaf_id, place.id):
            if name in loaded.by_pfaf or name in loaded.by_site:
                return loaded.find(name)
        if missing == "strict":
            return Unavailable(f"{loaded.name} has no basin for site {place.id!r}")
    return category(place, accept_conflict=accept_conflict)


def category(place: Site, *, accept_conflict: bool) -> Category | Unavailable:
    """The category of the site's province, unless its sources contradict each other."""
    known = place.category
    if known.value is None:
        return Unavailable(f"no water stress is known for {place.id!r}: {known.source or 'no basin and no category'}")
    if known.confidence == "L" and not accept_conflict:
        return Unavailable(f"conflicting sources: {known.source}; `accept_conflict: true` takes category {known.value}")
    return known


def plants_basin(given: TwoBasinOptions, file: Path | str | None) -> Basin | Category:
    """The basin of the power plants, as extension two-basin gives it: declared, or a row of the file."""
    if given.stress is not None:
        return declared_basin(given.stress, "plants")
    assert file is not None
    assert given.basin is not None
    return basins.load(file).find(given.basin)


def declared_basin(given: StressOptions, label: str) -> Basin | Category:
    """A basin from what the suite declares."""
    source = f"declared: {given.source}"
    if given.category is not None:
        return Category(value=given.category, source=source, confidence="")
    months = tuple(_cell(each) for each in given.monthly)
    baseline = _cell(given.annual)
    if given.annual is None and given.demand:
        baseline = annual(months, given.demand)
        source += "; year: mean of the months weighted by their demand"
    years: dict[str, dict[int, Cell]] = {scenario: {BASELINE_YEAR: baseline} for scenario in ("bau", "opt", "pes")}
    for scenario, future in given.future.items():
        years[scenario] |= {year: _cell(each) for year, each in future.items()}
    return Basin(
        label=label,
        baseline=baseline,
        months=months,
        years=years,
        source=source,
        licence=given.licence,
        date=given.date,
        id=given.id or f"declared:{label}:{given.source}",
        simulated=given.simulated,
    )


def _cell(given: Ratio | None) -> Cell:
    return Cell() if given is None else Cell(given.value, None, given.low, given.high)


def characterisation(asked: AwareOptions | None, location: str) -> tuple[aware.Characterisation, Ranged] | Unavailable:
    """The AWARE factor asked for, of a place, with its range."""
    if asked is None:
        return Unavailable("not asked for: `aware: true`")
    if asked.cf is not None:
        given = asked.cf
        own = aware.Characterisation(
            given.value, f"declared: {given.source}", given.licence, given.date, given.id or f"declared:{given.value!r}"
        )
        return own, given.range()
    if not location:
        return Unavailable("AWARE: no location is given for an own site")
    found = aware.of_file(asked.file, location) if asked.file is not None else aware.of_package(location, asked.method)
    return found if isinstance(found, Unavailable) else (found, Ranged.of(found.value))


def guarded(look_up: Callable[[], T]) -> T | Unavailable:
    """What a look-up finds, or its error as a reason: a file that changed loses no record."""
    try:
        return look_up()
    except UsageError as error:
        return Unavailable(str(error))
