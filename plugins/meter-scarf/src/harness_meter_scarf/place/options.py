"""What a suite may write about a place: its factors, its basin, each with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.units import parse_share
from harness_meter_scarf.months import zone
from harness_meter_scarf.place import aware, generation, sites
from harness_meter_scarf.place.sites import Kind
from harness_meter_scarf.stress.ratio import BINS, Scenario, checked_raw
from harness_meter_scarf.water import PUE_RANGE, Ranged

Source = Annotated[str, Field(min_length=1, pattern=r"\S")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def refusal(error: HarnessError) -> ValueError:
    """The error as pydantic reports one."""
    return ValueError(str(error))


class Sourced(Options):
    """Something a user declares; without a source it is refused."""

    source: Source
    licence: str = ""
    date: str = ""
    id: str = ""


class DeclaredNumber(Sourced):
    """A declared number with its own range."""

    value: NotNegative
    low: NotNegative | None = Field(None, description="lower end of the number's own range")
    high: NotNegative | None = Field(None, description="upper end of it")

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
    """A power usage effectiveness: a ratio of at least 1, never a percentage."""

    value: _PueRatio
    low: _PueRatio | None = None
    high: _PueRatio | None = None


class DeclaredVolume(DeclaredNumber):
    """Litres per kWh, and whether they count water consumed or water withdrawn."""

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
    """EWIF from a generation mix: fuel -> share (0.3 or 30%), or fuel -> MWh with `unit: MWh`."""

    mix: dict[str, _Generation] = Field(min_length=1)
    unit: Literal["share", "MWh"] = "share"

    @model_validator(mode="after")
    def _fuels(self) -> MixEwif:
        above = [fuel for fuel, share in self.mix.items() if share > 1 and self.unit == "share"]
        if above:
            raise ValueError(f"the share of {above[0]!r} is above 1; accepted: 0 to 1, 30%, or `unit: MWh`")
        try:
            generation.of_mix(self.mix, generation.fuels())
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
    """An IANA time zone."""

    value: Annotated[str, AfterValidator(_iana)]


class DeclaredBasin(Sourced):
    """A HydroBASINS level-6 basin by its Pfafstetter code."""

    value: Annotated[str, Field(pattern=r"^\d{6}$")]


class SiteOptions(Options):
    """A site: a row of the shipped table by `row`, or an own one by `id`; each field may be replaced."""

    row: str | None = Field(None, description="id of a shipped site; `harness sites` lists them")
    id: Source | None = Field(None, description="name of an own site, where there is no row")
    pue: DeclaredPue | None = None
    wue_onsite: DeclaredVolume | None = Field(None, description="L per kWh of IT energy")
    ewif: DeclaredVolume | MixEwif | None = Field(None, description="L per kWh of electricity, or a generation mix")
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
    """A stress ratio with its own range, or one of WRI's codes -9999 and 9999."""

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
    """Declared stress of one basin: raw ratios, never scores, or a category alone."""

    annual: RatioOption | None = Field(None, description="ratio of the baseline year")
    monthly: list[RatioOption | None] = Field(default_factory=list, description="ratios of January to December")
    future: dict[Scenario, dict[int, RatioOption]] = Field(default_factory=dict, description="scenario, year, ratio")
    category: int | None = Field(None, description="WRI's category of a province, -1 to 4: gives an interval only")
    simulated: bool = Field(default=False, description="the basin is made up")

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
        ratios = self.annual is not None or bool(self.monthly) or bool(self.future)
        if ratios == (self.category is not None):
            raise ValueError("give ratios (annual, monthly, future) or a category, one of the two")
        if self.category is not None and self.category not in BINS:
            raise ValueError(f"category is {self.category}; accepted: {', '.join(map(str, BINS))}")
        return self


class AwareOptions(Options):
    """Where the AWARE 2.0 factor comes from: a number, a CSV file, or the package `edges`."""

    cf: DeclaredNumber | None = Field(None, description="L world-eq per L, 0.1 to 100")
    file: Path | None = Field(None, description="CSV file: location, cf")
    location: Source | None = Field(None, description="place in the file or package; the site's country by default")
    method: str = Field("AWARE 2.0_Country_all_yearly.json", description="file of the package `edges`")

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
    """Extension, not SCARF: the basin of the power plants, which never defaults to the site's."""

    basin: Source | None = Field(None, description="site or pfaf_id in the file of `basins`")
    stress: StressOptions | None = None

    @model_validator(mode="after")
    def _given(self) -> TwoBasinOptions:
        if (self.basin is None) == (self.stress is None):
            raise ValueError("the plants' basin must be given: `basin`, or `stress`, one of the two")
        return self
