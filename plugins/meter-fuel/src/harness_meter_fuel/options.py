"""What a suite may write under `fuel:`; the short form is `fuel: {grid: USA}`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from harness.errors import HarnessError, did_you_mean
from harness.options import Options, Share
from harness.place import PlaceOption
from harness.quantity import Unavailable
from harness.suite_paths import SuiteFile
from harness.units import parse_duration
from harness_meter_fuel import act, carbon, embodied
from harness_meter_fuel.files import devices
from harness_meter_fuel.grid import Grid, GridOption, GridOptions, Source, of_place, resolve
from harness_meter_fuel.hardware import naming
from harness_meter_fuel.hardware.own import MadeOf
from harness_meter_fuel.profiles import PROFILES, Profile, ProfileName

_YEARS: Final = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(y|year|years)\s*")


def _refusal(error: HarnessError) -> ValueError:
    return ValueError(str(error))


def _checked(check: Callable[[float], float]) -> AfterValidator:
    """Refuses a number outside its range with the message of the formula's own guard."""

    def validate(value: float) -> float:
        try:
            return check(value)
        except HarnessError as error:
            raise _refusal(error) from None

    return AfterValidator(validate)


def _lifetime(value: object) -> object:
    accepted = "a duration with its unit, such as 7y (of 365 days) or 43800h"
    if not isinstance(value, str):
        raise ValueError(f"lifetime {value!r} has no unit; accepted: {accepted}")  # noqa: TRY004 - pydantic's contract
    years = _YEARS.fullmatch(value)
    try:
        seconds = float(years.group(1)) * carbon.SECONDS_PER_YEAR if years else parse_duration(value)
        return carbon.checked_lifetime_s(seconds)
    except HarnessError as error:
        raise ValueError(f"{error.message}; accepted: {accepted}") from None


Lifetime = Annotated[
    float,
    BeforeValidator(_lifetime, json_schema_input_type=str),
    PlainSerializer("{!r}s".format, return_type=str, when_used="json"),  # a record's options are read back
]
"""Seconds, written as `7y` (years of 365 days) or as any duration with a unit; a bare number is refused."""
ScopeKind = Literal["gpu", "cpu", "dram", "host", "module", "process", "declared"]
_UnitShare = Annotated[Share, Field(ge=0, le=1)]


class PueOptions(Options):
    """A power usage effectiveness with its source.

    Attributes:
        value: PUE, energy of the facility over that of its IT equipment; a ratio from 1 to 10; multiplies
            operational carbon only.
        source: where the ratio is from; without it a ratio other than 1 is flagged `pue without a source`.
    """

    value: Annotated[float, _checked(carbon.checked_pue)]
    source: str = ""


def _short_pue(value: object) -> object:
    return {"value": value} if isinstance(value, int | float | str) else value


Pue = Annotated[PueOptions, BeforeValidator(_short_pue, json_schema_input_type=float | PueOptions)]


class ActOptions(Options):
    """A device as ACT (ISCA 2022) counts it; without `area_cm2` memory and packages alone.

    Attributes:
        area_cm2: area of all logic dies together; cm2; 0 counts no logic.
        node_nm: process node of the logic: 28, 20, 14, 10, 8, 7, 5 or 3 nm; needed where there is logic.
        packages: integrated circuits with a package of their own; each adds 0.150 kg.
        memory: GB by technology: `LPDDR4`, `DDR4 10 nm`, `NAND TLC v3`. ACT has none for HBM and GDDR: name a
            stand-in, which is recorded.
        fab_g_per_kwh: CI_fab, carbon intensity of the fab's electricity; g/kWh; ACT's 583 (Taiwan) if not given.
        fab_yield: Y, share of the logic dies that are good; above 0, up to 1; ACT's 0.875 if not given.
    """

    area_cm2: float = Field(0.0, ge=0, allow_inf_nan=False)
    node_nm: int | None = None
    packages: int = Field(1, ge=0)
    memory: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    fab_g_per_kwh: float | None = Field(None, ge=0, allow_inf_nan=False)
    fab_yield: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _known(self) -> ActOptions:
        try:
            self.kg()
        except HarnessError as error:
            raise _refusal(error) from None
        return self

    def kg(self) -> float:
        """Embodied carbon in kg; raises UsageError for an unknown node or memory."""
        return act.device_kg(
            self.area_cm2,
            self.node_nm,
            packages=self.packages,
            memory=self.memory,
            fab_g_per_kwh=self.fab_g_per_kwh,
            fab_yield=self.fab_yield,
        )

    def __str__(self) -> str:
        logic = [f"{self.area_cm2:g} cm2 at {self.node_nm} nm"] if self.area_cm2 else []
        parts = [*logic, *(f"{size:g} GB of {name}" for name, size in self.memory.items())]
        return f"ACT (ISCA 2022), {', '.join(parts)}, {self.packages} packages"


class OwnEmbodied(Options):
    """An own embodied figure, per device or per GB, never without a source: a number, ACT's formula or an estimate.

    Attributes:
        kg: M, embodied carbon as a number; kg CO2e per device, per GB for `dram`.
        act: the same by ACT's formula, from dies, memory and packages.
        made_of: the same as an estimate with an interval, as table `estimate` has it, of a device that it lacks.
        file: the same out of a CSV file: Boavizta's device footprints (total without the share of use) or Cloud
            Carbon Footprint's embodied coefficients of instances; known by its columns.
        product: the product or instance type that is meant in `file`.
        source: who says so, and where; kept with the factor; with `file` the file says so.
        lifetime: LT, service life over which this figure is spread, such as `5y`; the meter's `lifetime` if not
            given.
    """

    kg: float | None = Field(None, ge=0, allow_inf_nan=False)
    act: ActOptions | None = None
    made_of: MadeOf | None = None
    file: SuiteFile | None = None
    product: str = ""
    source: str = ""
    lifetime: Lifetime | None = None

    @model_validator(mode="after")
    def _one_of(self) -> OwnEmbodied:
        if sum(each is not None for each in (self.kg, self.act, self.made_of, self.file)) != 1:
            raise ValueError("give exactly one of kg and act and made_of and file")
        if (self.file is None) == bool(self.product.strip()):
            raise ValueError("`file` goes with `product`, the name of the device in it")
        if self.file is None and not self.source.strip():
            raise ValueError("an own figure needs its `source`: who says so, and where")
        try:
            assert self.figure_kg >= 0
        except HarnessError as error:
            raise _refusal(error) from None
        return self

    @property
    def figure_kg(self) -> float:
        """The number, or what ACT's formula, the estimate or the file gives."""
        if self.kg is not None:
            return self.kg
        if self.made_of is not None:
            return self.made_of.estimate.kg
        if self.file is not None:
            return devices.footprint(self.file, self.product).kg
        assert self.act is not None
        return self.act.kg()

    @property
    def provenance(self) -> str:
        """Where it is from, as the record keeps it."""
        if self.file is not None:
            named = devices.footprint(self.file, self.product).source
            return f"{named}; {self.source.strip()}" if self.source.strip() else named
        formula = self.act or (self.made_of and self.made_of.estimate.source)
        return f"declared in the suite: {self.source}" + (f"; {formula}" if formula else "")

    @property
    def interval_kg(self) -> tuple[float, float] | tuple[None, None]:
        """The ends of the estimate; None where it is none."""
        found = self.made_of.estimate if self.made_of is not None else None
        return (None, None) if found is None else (found.low_kg, found.high_kg)


class HostOptions(Options):
    """The host around the accelerators, as far as it is charged.

    Attributes:
        cpu: product name of its processors, looked up in the embodied table; the one that the backend reports if
            not given.
        cpus: processors (sockets) of the host.
        dram_gb: memory of the whole host, in GB; what the backend reports if not given.
        gpus: accelerators in one host, used or not; `accelerators used / gpus` hosts are charged, a fraction or more
            than one; whole ones, as many as were seen, if not given.
        whole_hosts: whether hosts are charged whole, also where some of their accelerators are free.
        ssd_gb: storage of one host, in GB; needs a row for `ssd` in the embodied table or in `embodied`.
        parts: other parts of one host by name, and how many of each, such as `{chassis: 1}`; each needs a row in the
            embodied table or in `embodied`.
    """

    cpu: Source | None = None
    cpus: int = Field(1, ge=1)
    dram_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    gpus: int | None = Field(None, ge=1)
    whole_hosts: bool = False
    ssd_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    parts: dict[Source, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)


class FuelOptions(Options):
    """Options of the impact meter `fuel`.

    Attributes:
        profile: which constants are fixed: `custom` none; `fuel-paper` and `fuel-code` the grid (518 g/kWh), the
            PUE (1), the embodied table with its lifetime, and the host's energy share (1), after FUEL, from
            secondary sources.
        grid: CI, carbon intensity of the electricity: a number of gCO2e/kWh, `USA`, `USA/indiana`,
            `gcp/us-central1`, or a mapping; that of `place` if not given; profile `custom` needs one of the two.
        pue: PUE, energy of the facility over that of its IT equipment: a ratio from 1 to 10, or a mapping with its
            source; that of `place`, else 1, if not given. Multiplies operational carbon only.
        place: as the suite's `place`, which goes here; `grid` and `pue` go before it.
        lifetime: LT, service life over which embodied carbon is spread: `7y` (years of 365 days), `43800h`; that of
            the embodied table if not given.
        embodied_table: table with M, the embodied carbon of devices: `fuel`, `llmcarbon`, `ecologits-0.9.1`,
            `ecologits-0.11.3`; or `estimate` (published figures, and estimates as intervals for other devices) and
            `chien-hotcarbon-2023`, which need a `lifetime`; `fuel` if not given.
        embodied: own figures that go before the table's, by kind (`cpu`, `gpu`, `dram`) or product name.
        devices: stand-ins: a kind, UUID or product name, and the product that it is costed as; the record is
            flagged.
        host: the host around the accelerators, whose processors and memory are charged too.
        scopes: kinds of energy that are charged, such as `[gpu, cpu, dram]`; one that was not read marks the result
            incomplete; all that were read if not given.
        host_embodied_share: share of the embodied carbon of each host's parts that is charged; 0 to 1, or `50%`;
            hosts as accelerators need them (`host.gpus`) if not given.
        host_energy_share: share of the energy of each host's processors and memory that is charged; 0 to 1, or `50%`;
            hosts as accelerators need them (`host.gpus`) if not given.
    """

    profile: ProfileName = "custom"
    grid: GridOption | None = None
    place: PlaceOption = None
    pue: Pue | None = None
    lifetime: Lifetime | None = None
    embodied_table: str | None = None
    embodied: dict[str, OwnEmbodied] = Field(default_factory=dict)
    devices: dict[str, Source] = Field(default_factory=dict)
    host: HostOptions = HostOptions()
    scopes: tuple[ScopeKind, ...] | None = Field(None, min_length=1)
    host_embodied_share: _UnitShare | None = None
    host_energy_share: _UnitShare | None = None

    @property
    def fixed(self) -> Profile | None:
        """The fixed profile; None for `custom`."""
        return PROFILES.get(self.profile)

    @property
    def table(self) -> str:
        """Name of the embodied table in use."""
        return self.fixed.embodied_table if self.fixed else self.embodied_table or "fuel"

    @model_validator(mode="after")
    def _profile(self) -> FuelOptions:
        if self.fixed is None:
            if self.grid is None and self.place is None:
                raise ValueError("needs `grid`, such as USA, USA/indiana or a number of g/kWh, or the suite's `place`")
            return self
        free = ("grid", "pue", "lifetime", "embodied_table", "embodied", "host_energy_share", "scopes")
        changed = [name for name in free if getattr(self, name) not in (None, {})]
        if changed:
            raise ValueError(f"profile {self.profile} fixes {', '.join(changed)}; use profile custom to choose them")
        return self

    @model_validator(mode="after")
    def _names(self) -> FuelOptions:
        known = embodied.tables()
        if self.table in embodied.WITHDRAWN:
            raise ValueError(f"no embodied table {self.table!r}: {embodied.WITHDRAWN[self.table]}")
        if self.table not in known:
            hint = did_you_mean(self.table, known)
            raise ValueError(f"no embodied table {self.table!r}; accepted: {', '.join(known)} {hint}".rstrip())
        untimed = [row.device for row in known[self.table] if row.lifetime_s is None]
        if untimed and self.lifetime is None:
            raise ValueError(f"embodied table {self.table!r} states no lifetime: give `lifetime`, such as 7y")
        products = [*self.embodied, *embodied.products(self.table)]
        for name in self.devices.values():
            if not any(naming.same_product(product, name) for product in products):
                hint = did_you_mean(name, products)
                listed = (
                    ", ".join(products) if self.table != embodied.ESTIMATE else "what `harness embodied --all` lists"
                )
                raise ValueError(f"no embodied row for device {name!r}; accepted: {listed} {hint}".rstrip())
        return self

    @model_validator(mode="after")
    def _place(self) -> FuelOptions:
        """A misspelt place or a malformed series is refused before the run; tables not installed are not an error."""
        if self.grid is not None:
            try:
                resolve(self.grid)
            except HarnessError as error:
                raise _refusal(error) from None
        return self

    def intensity(self) -> Grid | Unavailable:
        """The grid in use, or Unavailable; raises UsageError as `grid.resolve` does."""
        if self.fixed is not None:
            fixed = GridOptions(
                g_per_kwh=self.fixed.grid_g_per_kwh, source=self.fixed.source, id=f"{self.profile}:grid"
            )
            return resolve(fixed)
        if self.grid is not None:
            return resolve(self.grid)
        assert self.place is not None
        return of_place(self.place)
