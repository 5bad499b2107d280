"""The impact meter `scarf`: energy of a window -> water, and water weighted by local stress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from harness.errors import HarnessError
from harness.impact import Costed, Factor, Impact, ImpactMeter
from harness.quantity import Amount, Method, Unavailable, Undefined, Value, total
from harness_meter_scarf.extensions import embodied_l, two_basin_l
from harness_meter_scarf.months import energy_shares, split
from harness_meter_scarf.options import ScarfOptions
from harness_meter_scarf.place import factors
from harness_meter_scarf.place.factors import Found
from harness_meter_scarf.place.known import site_of
from harness_meter_scarf.place.sites import Site
from harness_meter_scarf.stress.crossing import equal_gammas
from harness_meter_scarf.stress.factor import MonthWeights, stress_factor, years_of
from harness_meter_scarf.stress.ratio import Basin, Category, Wsf
from harness_meter_scarf.water import Ranged, offsite_l, onsite_l
from harness_meter_scarf.weighting import ADJUSTED, WORLD, adjusted, ratio_amount, simulated

SECONDS_PER_YEAR: Final = 365 * 24 * 3600.0
"""A year of 365 days, as declared yearly consumption is spread over time."""


@dataclass(slots=True)
class _Notes:
    """Factors and flags collected on the way."""

    factors: list[Factor] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    def found(self, found: Found, name: str, unit: str) -> None:
        """Keeps a factor with its flags."""
        self.factors.append(found.described(name, unit))
        self.flags.extend(found.flags)
        self.kinds |= {found.factor.kind} - {""}


def _reason(value: Unavailable | Undefined) -> str:
    return value.reason


def _guarded(energy: Value, formula: Callable[[Amount], Amount]) -> Value:
    """The formula's value, or why there is none: a reading outside its range gives no number and loses no record."""
    if not isinstance(energy, Amount):
        return energy
    try:
        return formula(energy)
    except HarnessError as error:
        return Unavailable(str(error))


def _sum(onsite: Value, offsite: Value) -> Value:
    if isinstance(onsite, Amount) and isinstance(offsite, Amount):
        return total([onsite, offsite])
    missing = {"on-site": onsite, "off-site": offsite}
    reasons = {name: value.reason for name, value in missing.items() if not isinstance(value, Amount)}
    return Unavailable("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


class ScarfMeter(ImpactMeter):
    """Applies one set of options; reads no clock and no device, tables once."""

    def __init__(self, options: ScarfOptions) -> None:
        self.options = options

    @cached_property
    def site(self) -> Site:
        """The place in use."""
        given = self.options.site
        if given is not None:
            return factors.site(given)
        assert self.options.place is not None
        site = site_of(self.options.place)
        if self.options.polygons is not None and not site.pfaf_id:
            code = self.options.pfaf_id()
            site = replace(site, pfaf_id=code, pfaf_source=f"coordinates in {self.options.polygons.name}")
        return site

    def apply(self, costed: Costed) -> Impact:
        """Water of one window: on-site, off-site, their sum; the stress factor; and their product where both are known.

        What is missing is Unavailable with its reason; litres stay where only the stress is missing.
        """
        notes = _Notes()
        energy = self._energy(costed, notes)
        onsite = self._onsite(energy, costed, notes)
        offsite = self._offsite(energy, notes)
        water = self._total(onsite, offsite, costed, notes)
        self._basis(notes)
        basin = factors.guarded(self._basin)
        stressed = self._stress(basin, costed, notes)
        made_up = isinstance(basin, Basin) and basin.simulated
        readings: dict[str, Value] = {
            "water_onsite_l": onsite,
            "water_offsite_l": offsite,
            "water_l": water,
            "wsf": stressed if isinstance(stressed, Unavailable) else ratio_amount(stressed, made_up=made_up),
            "awi_adjusted_l": self._awi(water, stressed, notes, made_up=made_up),
            "aware_world_eq_l": self._aware(water, notes),
            "awi_two_basin_adjusted_l": self._two_basin((onsite, offsite), stressed, costed, notes, made_up=made_up),
            "water_embodied_l": self._embodied(costed, notes),
        }
        if self.options.placement == "hypothetical" or self.options.month is not None or self.options.start is not None:
            notes.flags.append("placement: hypothetical")
        if self.options.site is None and self.options.place is not None:
            notes.flags.extend(self.options.place.flags)
        return Impact(
            readings=readings,
            factors=tuple(notes.factors),
            flags=tuple(dict.fromkeys(notes.flags)),
            basis=self._basis_of_numbers(),
        )

    def _basis_of_numbers(self) -> dict[str, str]:
        """What other impact meters of a record should rest on too."""
        site, options = self.site, self.options
        if options.month is not None:
            time = f"month {options.month}"
        else:
            time = options.start or ("when it ran" if options.mode == "monthly" else "")
        pue = "" if site.pue is None else repr(site.pue.range.value)
        basis = {"place": site.id, "country": site.country, "pue": pue, "time": time}
        return {key: value for key, value in basis.items() if value}

    def equal_at(
        self,
        option: str,
        reading: str,
        readings: tuple[Mapping[str, float], Mapping[str, float]],
        other: ImpactMeter,
        within: tuple[float, float],
    ) -> tuple[float, ...] | None:
        """Every gamma of a range at which the adjusted water impacts of two sites are equal, from their volumes.

        None for other options, readings and modes, and where a volume or a basin is not known.
        """
        if (option, reading) != ("gamma", "awi_adjusted_l") or not isinstance(other, ScarfMeter):
            return None
        volumes = [each.get("water_l") for each in readings]
        stress = [each.stress_by_year() for each in (self, other)]
        if None in volumes or None in stress or self.options.t0 != other.options.t0:
            return None
        if {self.options.mode, other.options.mode} != {"long"}:  # gamma weighs nothing else
            return None
        ours, theirs = (
            {year: volume * ratio for year, ratio in known.items()}
            for volume, known in zip(volumes, stress, strict=True)
            if volume is not None and known is not None
        )
        return equal_gammas(ours, theirs, t0=self.options.t0, low=within[0], high=within[1])

    def stress_by_year(self) -> dict[int, float] | None:
        """Ratio of every year that mode long weights; None where the site has no basin, or a year no value."""
        basin = factors.guarded(self._basin)
        if not isinstance(basin, Basin):
            return None
        found = years_of(basin, self.options.stress_rule)
        return None if isinstance(found, Unavailable) else dict(found)

    # Volume

    def _energy(self, costed: Costed, notes: _Notes) -> Value:
        read = {name: value for name, value in costed.energy.items() if isinstance(value, Amount)}
        energy: Value | None = costed.readings.get("energy_j")
        if energy is None:
            missing = [f"{name}: {_reason(v)}" for name, v in costed.energy.items() if not isinstance(v, Amount)]
            known = bool(read) and not missing
            energy = total(read.values()) if known else Unavailable("; ".join(missing) or "no energy was read")
        covered = sorted({name.partition("/")[2].partition(":")[0] for name in read})
        if covered and "host" not in covered and self.options.energy == "it":
            notes.flags.append(f"energy of {', '.join(covered)} alone: less than WUE's denominator, all IT equipment")
        return energy

    def _onsite(self, energy: Value, costed: Costed, notes: _Notes) -> Value:
        if self.options.declared is not None:
            return self._declared(self.options.declared.onsite_l_per_year, "onsite", costed, notes)
        wue = factors.wue_onsite(self.site)
        if isinstance(wue, Unavailable):
            return wue
        notes.found(wue, "wue_onsite", "L/kWh")
        factor = wue.factor.range
        if self.options.energy == "it":
            return _guarded(energy, lambda joules: onsite_l(joules, factor))
        pue = factors.pue(self.site)
        if isinstance(pue, Unavailable):
            return pue
        facility_pue = pue.factor.range
        return _guarded(energy, lambda joules: onsite_l(joules, factor, facility_pue))

    def _declared(self, l_per_year: float | None, part: str, costed: Costed, notes: _Notes) -> Value:
        """Declared yearly consumption x time; `part` is `onsite` or `total`."""
        given = self.options.declared
        assert given is not None
        if l_per_year is None:
            return Unavailable("a declared total of the facility is not split into on-site and off-site")
        name = f"declared_{part}"
        notes.factors.append(
            Factor(
                name=name,
                value=l_per_year,
                unit="L/year",
                source=f"declared: {given.source}",
                licence=given.licence,
                date=given.date,
                low=given.low_l_per_year,
                high=given.high_l_per_year,
                id=given.id or f"{name}={l_per_year!r}:{given.source}",
            )
        )
        notes.flags.append(f"{part} water: declared yearly consumption x time, not from energy")
        if not isinstance(costed.duration, Amount):
            return Unavailable(_reason(costed.duration))
        years = costed.duration_s / SECONDS_PER_YEAR
        ends = Ranged.of(l_per_year, given.low_l_per_year, given.high_l_per_year)
        return Amount.of(l_per_year * years, "L", Method.ESTIMATED, low=ends.low * years, high=ends.high * years)

    def _total(self, onsite: Value, offsite: Value, costed: Costed, notes: _Notes) -> Value:
        declared = self.options.declared
        if declared is not None and declared.total_l_per_year is not None:
            return self._declared(declared.total_l_per_year, "total", costed, notes)
        return _sum(onsite, offsite)

    def _offsite(self, energy: Value, notes: _Notes) -> Value:
        if self.options.declared is not None and self.options.declared.total_l_per_year is not None:
            return Unavailable("a declared total of the facility is not split into on-site and off-site")
        pue, ewif = (
            factors.pue(self.site),
            factors.guarded(lambda: factors.ewif(self.site, self.options.site, missing=self.options.missing)),
        )
        if isinstance(pue, Found):
            notes.found(pue, "pue", "1")
        if isinstance(ewif, Unavailable):
            return ewif
        notes.found(ewif, "ewif", "L/kWh")
        factor = ewif.factor.range
        if self.options.energy == "facility":
            return _guarded(energy, lambda joules: offsite_l(joules, factor, None))
        if isinstance(pue, Unavailable):
            return pue
        of_pue = pue.factor.range
        return _guarded(energy, lambda joules: offsite_l(joules, factor, of_pue))

    def _basis(self, notes: _Notes) -> None:
        """Flags a sum of consumption and withdrawal."""
        if len(notes.kinds) > 1:
            notes.flags.append("mixed basis: withdrawal and consumption are summed; withdrawal is an upper figure")

    # Stress

    def _basin(self) -> Basin | Category | Unavailable:
        asked = self.options
        return factors.basin(
            self.site, asked.stress, asked.basins, missing=asked.missing, accept_conflict=asked.accept_conflict
        )

    def _stress(
        self, basin: Basin | Category | Unavailable, costed: Costed, notes: _Notes, name: str = "wsf"
    ) -> Wsf | Unavailable:
        if isinstance(basin, Unavailable):
            return basin
        try:
            found = stress_factor(basin, self.options.stress_rule, lambda: self._months(costed))
        except HarnessError as error:
            return Unavailable(str(error))
        if isinstance(found, Unavailable):
            return found
        if isinstance(basin, Basin) and basin.simulated:
            found = replace(found, flags=(*found.flags, "simulated: made-up basin"))
        notes.flags.extend(found.flags)
        notes.factors.append(self._stress_factor(basin, found, name))
        return found

    def _stress_factor(self, basin: Basin | Category, found: Wsf, name: str) -> Factor:
        """The stress factor for the record; its id tells apart what must not be compared."""
        options = self.options
        years = f"{options.years} {' '.join(map(str, options.milestones))}"
        basis = {"short": f"t0 {options.t0}", "month": f"month {options.month}", "monthly": "by local month"}.get(
            options.kind, f"gamma {options.gamma!r}, t0 {options.t0}, {years}"
        )
        basis = f"{options.kind}, {options.scenario}, {basis}"
        if isinstance(basin, Category):
            known, licence, date, identity = basin.source, self.site.licence, "", f"category {basin.value}"
        else:
            known, licence, date, identity = basin.source, basin.licence, basin.date, basin.id
        by_pfaf = f"; basin {self.site.pfaf_id} by {self.site.pfaf_source}" if self.site.pfaf_id else ""
        return Factor(
            name=name,
            value=None if isinstance(basin, Category) else found.value,
            unit="1",
            source=f"{known}; {basis}{by_pfaf}",
            licence=licence,
            date=date,
            low=None if found.low == found.high else found.low,
            high=None if found.low == found.high else found.high,
            id=f"{name}:{self.site.id}:{identity}:{basis}",
            method=Method.SIMULATED if isinstance(basin, Basin) and basin.simulated else Method.ESTIMATED,
        )

    def _months(self, costed: Costed) -> MonthWeights | Unavailable:
        """The window's energy over the site's local months, scope by scope."""
        zone = self.site.time_zone
        if not zone:
            return Unavailable(f"no time zone is known for {self.site.id!r}: its local months cannot be told")
        if not isinstance(costed.duration, Amount):
            return Unavailable(_reason(costed.duration))
        start_s = costed.start_utc_s if self.options.start is None else self.options.start_utc_s()
        parts = split(start_s, start_s + costed.duration_s, zone)
        trace = costed.trace
        if self.options.start is not None:
            moved = start_s - costed.start_utc_s
            trace = replace(trace, utc_s=tuple(time_s + moved for time_s in trace.utc_s))
        joules: Mapping[str, float] = {
            name: value.value for name, value in costed.energy.items() if isinstance(value, Amount) and value.value > 0
        }
        whole = sum(joules.values())
        weights: tuple[dict[int, float], dict[int, float]] = ({}, {})
        for scope, energy in (joules or {"": 1.0}).items():
            shares, uniform = energy_shares(parts, trace, scope)
            placed = weights[uniform]
            for part, share in zip(parts, shares, strict=True):
                placed[part.month] = placed.get(part.month, 0.0) + share * energy / (whole or 1.0)
        return MonthWeights(*weights)

    def _awi(self, water: Value, stressed: Wsf | Unavailable, notes: _Notes, *, made_up: bool) -> Value:
        if not isinstance(water, Amount):
            return Unavailable(f"no water to weight: {_reason(water)}")
        if water.value == 0:
            nothing = water.times(0.0, ADJUSTED)  # no stress is looked up for nothing
            return nothing if water.low == water.high == 0 else replace(nothing, low=None, high=None)
        if isinstance(stressed, Unavailable):
            return stressed
        if not stressed.point:
            known = water.low is not None and water.high is not None
            bound = f"{water.low:.6g} to {water.high:.6g} L" if known else "not known"
            notes.flags.append(f"the interval of AWI is the category's alone; the water's own bound is {bound}")
        awi = adjusted(water, stressed)
        return simulated(awi) if made_up else awi

    # Beside it

    def _aware(self, water: Value, notes: _Notes) -> Value:
        found = factors.guarded(lambda: factors.characterisation(self.options.aware, self.options.aware_location))
        if isinstance(found, Unavailable):
            return found
        known, factor = found
        notes.factors.append(
            Factor(
                name="aware_cf",
                value=known.value,
                unit="L world-eq/L",
                source=known.source,
                licence=known.licence,
                date=known.date,
                id=f"aware_cf:{known.id}",
            )
        )
        if not isinstance(water, Amount):
            return Unavailable(f"no water to weight: {_reason(water)}")
        return water.times(factor.value, WORLD, low=factor.low, high=factor.high)

    def _two_basin(
        self, parts: tuple[Value, Value], stressed: Wsf | Unavailable, costed: Costed, notes: _Notes, *, made_up: bool
    ) -> Value:
        given = self.options.two_basin
        if given is None:
            return Unavailable("not asked for: extension `two_basin`")
        notes.flags.append("two-basin is an extension, not SCARF")
        basin = factors.guarded(lambda: factors.plants_basin(given, self.options.basins))
        plants = self._stress(basin, costed, notes, "wsf_plants")
        value = two_basin_l(parts, (stressed, plants))
        made_up = made_up or (isinstance(basin, Basin) and basin.simulated)
        return simulated(value) if made_up and isinstance(value, Amount) else value

    def _embodied(self, costed: Costed, notes: _Notes) -> Value:
        given = self.options.embodied
        if given is None:
            return Unavailable("not asked for: extension `embodied`")
        notes.flags.append("embodied water is an extension, not SCARF; it is in no other reading")
        notes.factors.append(
            Factor(
                name="embodied_water",
                value=given.water_l,
                unit="L",
                source=f"declared: {given.source}",
                licence=given.licence,
                date=given.date,
                id=given.id or f"embodied_water={given.water_l!r}:{given.source}",
                lifetime_s=given.lifetime,
            )
        )
        if not isinstance(costed.duration, Amount):
            return Unavailable(_reason(costed.duration))
        return embodied_l(given.water_l, costed.duration_s, given.lifetime, given.reserved)
