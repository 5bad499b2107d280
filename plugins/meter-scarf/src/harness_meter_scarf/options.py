"""What a suite may write under `scarf:`; the short form is `scarf: {site: aws-ohio}`."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness.errors import HarnessError, UsageError
from harness.options import Duration, Options, Share
from harness.place import PlaceOption
from harness.suite_paths import SuiteFile
from harness_meter_scarf.months import local_instant
from harness_meter_scarf.place import aware, basins, polygons, sites
from harness_meter_scarf.place.options import (
    AwareOptions,
    NotNegative,
    SiteOption,
    Sourced,
    StressOptions,
    TwoBasinOptions,
    refusal,
)
from harness_meter_scarf.stress.factor import Kind, Missing, StressRule, Years
from harness_meter_scarf.stress.ratio import BASELINE_YEAR, MILESTONES, NearExhausted, Scenario, weights
from harness_meter_scarf.water import Ranged


class DeclaredConsumption(Sourced):
    """Yearly water as an operator reports it, in place of energy: on-site alone, or a facility's total.

    Attributes:
        onsite_l_per_year: water used on site; litres per year of 365 days, charged by time; off-site water still
            comes from energy.
        total_l_per_year: water of the facility in all; litres per year of 365 days, charged by time; not split into
            on-site and off-site.
        low_l_per_year: lower end of the range of whichever is given; litres per year; no range if not given.
        high_l_per_year: upper end of that range, likewise.
    """

    onsite_l_per_year: NotNegative | None = None
    total_l_per_year: NotNegative | None = None
    low_l_per_year: NotNegative | None = None
    high_l_per_year: NotNegative | None = None

    @model_validator(mode="after")
    def _one(self) -> DeclaredConsumption:
        if (self.onsite_l_per_year is None) == (self.total_l_per_year is None):
            raise ValueError("give `onsite_l_per_year` or `total_l_per_year`, one of the two")
        value = self.onsite_l_per_year if self.total_l_per_year is None else self.total_l_per_year
        try:
            Ranged.of(value or 0.0, self.low_l_per_year, self.high_l_per_year)
        except UsageError as error:
            raise refusal(error) from None
        return self


_basin_at = lru_cache(maxsize=256)(polygons.basin_at)
"""The files are large, and options are read more than once."""


def _short_aware(value: object) -> object:
    if value is True:
        return {}
    return None if value is False else value


class EmbodiedOptions(Sourced):
    """Extension, not SCARF: water to make the device, after the GSF Software Water Intensity specification 0.1.0.

    Attributes:
        water_l: TW, water to make the device; litres.
        lifetime: EL, expected life of the device, such as `43800h`; each window is charged its own length of it.
        reserved: RR / ToR, share of the device's resources that is reserved; 0 to 1, or `50%`.
    """

    water_l: NotNegative
    lifetime: Annotated[Duration, Field(gt=0)]
    reserved: Annotated[Share, Field(ge=0, le=1)] = 1.0


class ScarfOptions(Options):
    """Options of the impact meter `scarf`.

    Attributes:
        site: b, the place that the work is costed at: the id of a shipped site (`harness sites` lists them), or a
            mapping; goes before `place`, and one of the two is needed.
        place: as the suite's `place`, which goes here.
        energy: what the energy readings cover: `it` the IT equipment, `facility` the whole facility, a wall meter
            of the hall for one.
        declared: yearly water as an operator reports it, in place of water from energy.
        mode: which stress the water is weighted with: `short` that of `t0` (WSF_short), `monthly` that of the
            months that the window covers, `long` the weighted mean of the `milestones` (WSF_long).
        month: one month, 1 to 12, whose stress counts for all of the work, in place of what `mode` short or monthly
            would take.
        start: cost as if the work had begun then: ISO 8601 in the site's local time, such as `2025-06-30T20:00`;
            when it ran if not given.
        gamma: discount rate per year of mode long, above -1: the lower, the more the later years count.
        scenario: WRI's scenario of the years to come: `bau` business as usual, `opt` optimistic, `pes` pessimistic.
        t0: the year whose stress mode short takes, and the present of mode long.
        milestones: T, the years of mode long; each needs a value in the file of `basins` or in `stress`.
        years: `milestones` weights these alone, `yearly` every year from `t0` to the last one, interpolated between
            them.
        before_t0: whether mode long accepts milestones before `t0`.
        missing: what a missing value does: `strict` gives none and says why; `fallback` takes the documented
            substitute (annual stress for a month, category of the province for a basin, world figure for EWIF) and
            flags it.
        near_exhausted: what WRI's code 9999, supply nearly used up, stands for: `refuse` gives no value,
            `wri-average` the ratio 2, `score-cap` 1.6.
        accept_conflict: whether a site's stress category is used although its sources contradict each other.
        basins: CSV file of basins that `harness scarf-aqueduct` wrote, or `made-up` for invented ones; without it
            and `stress` only the category of the site's province is known.
        polygons: GeoJSON, GeoPackage or shapefile of WRI's basins, for the one that a place's coordinates lie in.
        stress: stress of the site's basin as declared, in place of `basins`.
        aware: adds `aware_world_eq_l`, the water weighted by AWARE 2.0: `true`, or where its factor is from; none
            if not given.
        two_basin: extension, not SCARF: adds `awi_two_basin_adjusted_l`, off-site water weighted in the power
            plants' basin.
        embodied: extension, not SCARF: adds `water_embodied_l`, water to make the device.
        placement: `hypothetical` marks a result at a site where the work did not run.
    """

    site: SiteOption | None = None
    place: PlaceOption = None
    energy: Literal["it", "facility"] = "it"
    declared: DeclaredConsumption | None = None
    mode: Literal["short", "monthly", "long"] = "short"
    month: Annotated[int, Field(ge=1, le=12)] | None = None
    start: str | None = None
    gamma: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.03
    scenario: Scenario = "bau"
    t0: int = BASELINE_YEAR
    milestones: tuple[int, ...] = MILESTONES
    years: Years = "milestones"
    before_t0: bool = False
    missing: Missing = "strict"
    near_exhausted: NearExhausted = "refuse"
    accept_conflict: bool = False
    basins: Literal["made-up"] | SuiteFile | None = None
    polygons: SuiteFile | None = None
    stress: StressOptions | None = None
    aware: Annotated[AwareOptions | None, BeforeValidator(_short_aware, json_schema_input_type=bool | AwareOptions)] = (
        None
    )
    two_basin: TwoBasinOptions | None = None
    embodied: EmbodiedOptions | None = None
    placement: Literal["actual", "hypothetical"] = "actual"

    @field_validator("month", "t0", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"found {value}; accepted: a whole number")  # noqa: TRY004 - pydantic's contract
        return value

    @property
    def kind(self) -> Kind:
        """The form of the stress factor: `month` is one month for all of the work."""
        return "month" if self.month is not None else self.mode

    @property
    def stress_rule(self) -> StressRule:
        """Which stress the water is weighted with."""
        return StressRule(
            kind=self.kind,
            month=self.month,
            scenario=self.scenario,
            near_exhausted=self.near_exhausted,
            missing=self.missing,
            gamma=self.gamma,
            t0=self.t0,
            milestones=self.milestones,
            years=self.years,
            before_t0=self.before_t0,
        )

    @property
    def time_zone(self) -> str:
        """The site's IANA zone; empty where the place is not stated."""
        if self.site is None:
            return self.place.time_zone.value if self.place is not None and self.place.time_zone is not None else ""
        if self.site.time_zone is not None:
            return self.site.time_zone.value
        return sites.find(self.site.row).time_zone if self.site.row is not None else ""

    @model_validator(mode="after")
    def _somewhere(self) -> ScarfOptions:
        if self.site is None and self.place is None:
            raise ValueError("needs `site`, such as aws-ohio, or the suite's `place`")
        return self

    @model_validator(mode="after")
    def _time(self) -> ScarfOptions:
        if self.mode == "long" and self.month is not None:
            raise ValueError("there are no monthly projections: `month` does not go with mode long")
        if self.month is not None and self.start is not None:
            raise ValueError("give `month` or `start`, one of the two")
        try:
            if self.start is not None:
                self.start_utc_s()
            if self.mode == "long":
                weights(self.milestones, self.gamma, self.t0, before_t0=self.before_t0)
        except UsageError as error:
            raise refusal(error) from None
        if self.mode == "long" and self.years == "yearly" and min(self.milestones) < self.t0:
            raise ValueError("`years: yearly` starts at t0: milestones before it do not go with it")
        return self

    @model_validator(mode="after")
    def _basin(self) -> ScarfOptions:
        """A malformed or missing file is refused before the run."""
        if self.stress is not None and self.basins is not None:
            raise ValueError("give `stress` or `basins`, one of the two")
        if self.two_basin is not None and self.two_basin.basin is not None and self.basins is None:
            raise ValueError("`two_basin: {basin: ...}` needs the file of `basins`")
        if self.polygons is not None and not self.located:
            raise ValueError("`polygons` needs a `place` with `latitude` and `longitude`, and no `site`")
        try:
            if self.polygons is not None:
                self.pfaf_id()
            loaded = basins.load(self.basins) if self.basins is not None else None
            if loaded is not None and self.two_basin is not None and self.two_basin.basin is not None:
                loaded.find(self.two_basin.basin)
            if self.aware is not None and self.aware.file is not None:
                aware.of_file(self.aware.file, self.aware_location)
        except HarnessError as error:
            raise refusal(error) from None
        return self

    @property
    def located(self) -> bool:
        """Whether the place in use has coordinates."""
        return self.site is None and self.place is not None and self.place.latitude is not None

    def pfaf_id(self) -> str:
        """The basin that the place's coordinates lie in; raises UsageError for a file or a place without one."""
        assert self.polygons is not None
        assert self.place is not None
        assert self.place.latitude is not None
        assert self.place.longitude is not None
        return _basin_at(self.polygons, self.place.latitude, self.place.longitude)

    @property
    def aware_location(self) -> str:
        """The place whose AWARE factor is asked for."""
        if self.aware is not None and self.aware.location is not None:
            return self.aware.location
        if self.site is None:
            return self.place.country if self.place is not None else ""
        return sites.find(self.site.row).country if self.site.row is not None else ""

    def start_utc_s(self) -> float:
        """`start` as an instant; raises UsageError where it has neither an offset nor the site a time zone."""
        assert self.start is not None
        return local_instant(self.start, self.time_zone)
