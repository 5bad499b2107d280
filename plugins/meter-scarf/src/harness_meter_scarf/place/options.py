"""What a suite may write about a place: its factors, its basin, each with its source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.errors import HarnessError, UsageError
from harness.options import Options, WaterPerKwh
from harness.suite_paths import SuiteFile
from harness.units import parse_share, parse_volume_per_kwh
from harness_meter_scarf.months import zone
from harness_meter_scarf.place import aware, generation, sites
from harness_meter_scarf.place.sites import Kind
from harness_meter_scarf.stress.ratio import BINS, Cell, Scenario, annual, checked_raw
from harness_meter_scarf.water import PUE_RANGE, Ranged

Source = Annotated[str, Field(min_length=1, pattern=r"\S")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def refusal(error: HarnessError) -> ValueError:
    """The error as pydantic reports one."""
    return ValueError(str(error))


class Sourced(Options):
    """Something a user declares; without a source it is refused.

    Attributes:
        source: who says so, and where; kept with the factor.
        licence: licence of the data; kept with the factor.
        date: ISO 8601 date of the data or of its retrieval; kept with the factor.
        id: name that tells this factor from others when results are compared; made from value and source if empty.
    """

    source: Source
    licence: str = ""
    date: str = ""
    id: str = ""


class DeclaredNumber(Sourced):
    """A declared number with its own range.

    Attributes:
        value: the number; at least 0; its unit is that of the option that it is given for.
        low: lower end of the number's own range; same unit; no range if not given.
        high: upper end of the number's own range; same unit; no range if not given.
    """

    value: NotNegative
    low: NotNegative | None = None
    high: NotNegative | None = None

    @model_validator(mode="after")
    def _holds(self) -> DeclaredNumber:
        try:
            self.range()
        except UsageError as error:
            raise refusal(error) from None
        return self

    def range(self) -> Ranged:
        """The number and its range."""
        return Ranged.of(self.value, self.low, self.high)


_PueRatio = Annotated[float, Field(ge=PUE_RANGE[0], le=PUE_RANGE[1], allow_inf_nan=False)]


class DeclaredPue(DeclaredNumber):
    """A power usage effectiveness: a ratio of at least 1, never a percentage.

    Attributes:
        value: PUE, energy of the facility over that of its IT equipment; a ratio from 1 to 10.
        low: lower end of the ratio's own range; no range if not given.
        high: upper end of the ratio's own range; no range if not given.
    """

    value: _PueRatio
    low: _PueRatio | None = None
    high: _PueRatio | None = None


def _volume_end(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_volume_per_kwh(value)
    except UsageError as error:
        raise refusal(error) from None


VolumeEnd = Annotated[NotNegative, BeforeValidator(_volume_end, json_schema_input_type=float | str)]
Volume = Annotated[WaterPerKwh, Field(ge=0, allow_inf_nan=False)]


class DeclaredVolume(DeclaredNumber):
    """Litres per kWh, and whether they count water consumed or water withdrawn.

    Attributes:
        value: litres per kWh, or a number with its unit, such as `1800 mL/kWh`; at least 0; one above 50 is refused
            with a question.
        low: lower end of its own range.
        high: upper end of its own range.
        kind: what the litres count: `consumption`, water that does not come back, or `withdrawal`, all that is
            taken; a sum of both is flagged.
    """

    value: Volume
    low: VolumeEnd | None = None
    high: VolumeEnd | None = None
    kind: Kind = "consumption"


def _share(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_share(value)
        except UsageError as error:
            raise refusal(error) from None
    return value


_Generation = Annotated[float, BeforeValidator(_share, json_schema_input_type=float | str), NotNegative]


class MixEwif(Sourced):
    """EWIF from a generation mix: fuel -> share (0.3 or 30%), or fuel -> MWh with `unit: MWh`.

    Attributes:
        mix: generation by fuel, as shares (`0.3`, `30%`) that sum to 1 within 1 %, or MWh; plain names as EIA, ENTSO-E
            and Ember have them (`gas`, `coal`, `Wind Onshore`), which stand for the commonest form with the range of
            all, or rows of `data/ewif_fuel.csv` (`coal/once-through`). A fuel without a known value is left out and
            named.
        unit: unit of the numbers of `mix`.
    """

    mix: dict[str, _Generation] = Field(min_length=1)
    unit: Literal["share", "MWh"] = "share"

    @model_validator(mode="after")
    def _fuels(self) -> MixEwif:
        above = [fuel for fuel, share in self.mix.items() if share > 1 and self.unit == "share"]
        if above:
            raise ValueError(f"the share of {above[0]!r} is above 1; accepted: 0 to 1, 30%, or `unit: MWh`")
        try:
            generation.of_mix(self.mix, in_mwh=self.unit == "MWh")
        except UsageError as error:
            raise refusal(error) from None
        return self


def _iana(name: str) -> str:
    try:
        zone(name)
    except UsageError as error:
        raise refusal(error) from None
    return name


class DeclaredZone(Sourced):
    """An IANA time zone.

    Attributes:
        value: name of the zone, such as `America/Phoenix`.
    """

    value: Annotated[str, AfterValidator(_iana)]


class DeclaredBasin(Sourced):
    """A HydroBASINS level-6 basin by its Pfafstetter code.

    Attributes:
        value: the code, six digits in quotes.
    """

    value: Annotated[str, Field(pattern=r"^\d{6}$")]


class SiteOptions(Options):
    """A site: a row of the shipped table by `row`, or an own one by `id`; each field may be replaced.

    Attributes:
        row: id of a shipped site; `harness sites` lists them.
        id: name of an own site, which has no row.
        pue: PUE, energy of the facility over that of its IT equipment; multiplies off-site water only.
        wue_onsite: WUE_on, water used on site, for cooling; L per kWh of IT energy.
        ewif: WUE_off, water used to generate electricity (also EWIF, EWF); L/kWh, or a generation mix.
        time_zone: zone of the site, whose calendar months count.
        pfaf_id: basin that the site lies in, looked up in the file of `basins`.
    """

    row: str | None = None
    id: Source | None = None
    pue: DeclaredPue | None = None
    wue_onsite: DeclaredVolume | None = None
    ewif: DeclaredVolume | MixEwif | None = None
    time_zone: DeclaredZone | None = None
    pfaf_id: DeclaredBasin | None = None

    @model_validator(mode="after")
    def _known(self) -> SiteOptions:
        if (self.row is None) == (self.id is None):
            raise ValueError("give either `row`, a shipped site, or `id`, the name of an own one")
        if self.row is not None:
            try:
                sites.find(self.row)
            except UsageError as error:
                raise refusal(error) from None
        elif self.id in sites.shipped():
            raise ValueError(f"{self.id!r} is a shipped site: give it as `row`")
        return self


def _short_site(value: object) -> object:
    return {"row": value} if isinstance(value, str) else value


SiteOption = Annotated[SiteOptions, BeforeValidator(_short_site, json_schema_input_type=str | SiteOptions)]


class Ratio(Options):
    """A stress ratio with its own range, or one of WRI's codes -9999 and 9999.

    Attributes:
        value: WS, demand over supply of a basin: a raw ratio of at least 0, never a score; -9999 for no data, 9999
            for supply nearly used up.
        low: lower end of the ratio's own range; no range if not given.
        high: upper end of the ratio's own range; no range if not given.
    """

    value: float
    low: NotNegative | None = None
    high: NotNegative | None = None

    @model_validator(mode="after")
    def _is_ratio(self) -> Ratio:
        try:
            checked_raw(self.value)
            if self.low is not None or self.high is not None:
                Ranged.of(self.value, self.low, self.high)
        except UsageError as error:
            raise refusal(error) from None
        return self


def _short_ratio(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true/false is no ratio")  # noqa: TRY004 - pydantic's contract
    return {"value": value} if isinstance(value, int | float) else value


RatioOption = Annotated[Ratio, BeforeValidator(_short_ratio, json_schema_input_type=float | Ratio)]


class StressOptions(Sourced):
    """Declared stress of one basin: raw ratios, never scores, or a category alone.

    Attributes:
        annual: WS of the baseline year, 2019; a ratio.
        monthly: WS of January to December of the baseline years; twelve ratios, null for a missing one.
        demand: gross demand of January to December, in any unit; weights `monthly` where `annual` is not given.
        future: WS of later years: scenario (`bau`, `opt`, `pes`), year, ratio.
        category: WRI's stress category of a province, 0 (low) to 4 (extremely high), -1 for arid with low use;
            gives an interval without a point value.
        simulated: whether the basin is made up; its results are marked `simulated`.
    """

    annual: RatioOption | None = None
    monthly: list[RatioOption | None] = Field(default_factory=list)
    demand: list[NotNegative] = Field(default_factory=list)
    future: dict[Scenario, dict[int, RatioOption]] = Field(default_factory=dict)
    category: int | None = None
    simulated: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_scores(cls, value: object) -> object:
        scores = [str(key) for key in value if "score" in str(key)] if isinstance(value, dict) else []
        if scores:
            raise ValueError(f"{scores[0]} is a score of 0 to 5; accepted: raw ratios of withdrawal to supply")
        return value

    @model_validator(mode="after")
    def _complete(self) -> StressOptions:
        if self.monthly and len(self.monthly) != 12:
            raise ValueError(f"`monthly` has {len(self.monthly)} values; accepted: 12, with null for a missing one")
        if self.demand:
            try:
                annual([Cell() if each is None else Cell(each.value) for each in self.monthly], self.demand)
            except UsageError as error:
                raise refusal(error) from None
        ratios = self.annual is not None or bool(self.monthly) or bool(self.future)
        if ratios == (self.category is not None):
            raise ValueError("give ratios (annual, monthly, future) or a category, one of the two")
        if self.category is not None and self.category not in BINS:
            raise ValueError(f"category is {self.category}; accepted: {', '.join(map(str, BINS))}")
        return self


class AwareOptions(Options):
    """Where the AWARE 2.0 factor comes from: a number, a CSV file, or the package `edges`.

    Attributes:
        cf: CF, the characterisation factor as a number; L world-eq per L, 0.1 to 100.
        file: CSV file with the columns `location` and `cf`.
        location: place in the file or the package; the site's country if not given, which an own site does not
            have.
        method: file of the package `edges` that the factor is read from, where neither `cf` nor `file` is given.
    """

    cf: DeclaredNumber | None = None
    file: SuiteFile | None = None
    location: Source | None = None
    method: str = "AWARE 2.0_Country_all_yearly.json"

    @model_validator(mode="after")
    def _one(self) -> AwareOptions:
        if self.cf is not None and self.file is not None:
            raise ValueError("give `cf` or `file`, one of the two")
        if self.cf is not None:
            try:
                for value in (self.cf.range().low, self.cf.value, self.cf.range().high):
                    aware.checked(value)
            except UsageError as error:
                raise refusal(error) from None
        return self


class TwoBasinOptions(Options):
    """Extension, not SCARF: the basin of the power plants, which never defaults to the site's.

    Attributes:
        basin: basin of the power plants, by site or `pfaf_id` in the file of `basins`.
        stress: the stress of that basin, declared.
    """

    basin: Source | None = None
    stress: StressOptions | None = None

    @model_validator(mode="after")
    def _given(self) -> TwoBasinOptions:
        if (self.basin is None) == (self.stress is None):
            raise ValueError("the plants' basin must be given: `basin`, or `stress`, one of the two")
        return self
