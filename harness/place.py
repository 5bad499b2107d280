"""A place that work runs at, or is costed at: what its electricity and its cooling cost, each number with its source.

The core holds no table: plugins give places (`harness_places`), planning puts one together from what they know, and
impact meters take it as their option `place`. What nobody knows of a place is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from harness.errors import UsageError, did_you_mean
from harness.options import Intensity, Options, WaterPerKwh

FACTORS: Final = ("grid", "pue", "wue_onsite", "ewif")
"""Fields of a place that are factors."""
_FILLED: Final = (*FACTORS, "time_zone", "pfaf_id")
_NO_SOURCE: Final = "declared, no source given"


class PlaceFactor(Options):
    """A number of a place, with where it comes from.

    Attributes:
        value: the number; its unit is that of the field that it is given for.
        low: lower end of its own range; none if not given.
        high: upper end of its own range; none if not given.
        source: publication or operator, and what it counts.
        kind: what litres count, `consumption` or `withdrawal`; empty for anything else.
        confidence: how sure the source is, in its own words; empty where it does not say.
        licence: of the data.
        date: of the data, ISO 8601 or a year.
        id: stable identity, so that two records can tell whether they used the same factor.
    """

    value: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    source: str = _NO_SOURCE
    kind: str = ""
    confidence: str = ""
    licence: str = ""
    date: str = ""
    id: str = ""

    @model_validator(mode="after")
    def _holds(self) -> PlaceFactor:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"the range {low:g}..{high:g} does not hold the value {self.value:g}")
        return self


class GridFactor(PlaceFactor):
    """Carbon intensity of electricity, location-based.

    Attributes:
        value: gCO2e/kWh, or a number with its unit, such as `0.518 kg/kWh`.
    """

    value: Annotated[Intensity, Field(ge=0, allow_inf_nan=False)]


class PueFactor(PlaceFactor):
    """Power usage effectiveness.

    Attributes:
        value: energy of the facility over that of its IT equipment; a ratio from 1 to 10.
    """

    value: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)]


class WaterFactor(PlaceFactor):
    """Litres per kWh.

    Attributes:
        value: L/kWh, or a number with its unit, such as `1800 mL/kWh`.
    """

    value: Annotated[WaterPerKwh, Field(ge=0, allow_inf_nan=False)]


class PlaceText(Options):
    """A name that belongs to a place, with where that is from.

    Attributes:
        value: the name.
        source: who says so.
    """

    value: Annotated[str, Field(min_length=1)]
    source: str = _NO_SOURCE


def _short(value: object) -> object:
    return value if isinstance(value, dict | PlaceFactor | PlaceText) else {"value": value}


def _by_key(value: Any) -> Any:
    return None if value is None else value.model_dump(mode="json", exclude_defaults=True)


_FACTOR_SCHEMA: Final = WithJsonSchema({"type": ["number", "string", "object"]})
"""Short: the factors of places in full would make up a tenth of a suite's schema."""
_TEXT_SCHEMA: Final = WithJsonSchema({"type": ["string", "object"]})
_Grid = Annotated[GridFactor, BeforeValidator(_short), _FACTOR_SCHEMA]
_Pue = Annotated[PueFactor, BeforeValidator(_short), _FACTOR_SCHEMA]
_Water = Annotated[WaterFactor, BeforeValidator(_short), _FACTOR_SCHEMA]
_Text = Annotated[PlaceText, BeforeValidator(_short), _TEXT_SCHEMA]


class Place(Options):
    """A place; what is not known of it is left out.

    Attributes:
        name: as it was asked for, or of an own place.
        base: a known place whose values are taken where none is given here.
        row: what it was found as: a row of a plugin's table.
        country: ISO 3166 alpha-3 code; empty where none is known.
        grid: carbon intensity of its electricity; gCO2e/kWh, or `{value, low, high, source, licence, date, id}`.
        pue: PUE, energy of the facility over that of its IT equipment; likewise.
        wue_onsite: WUE_on, water used on site; L per kWh of IT energy; likewise, also with `kind: withdrawal`.
        ewif: WUE_off, water used to generate its electricity; L/kWh; likewise.
        time_zone: IANA name of its zone, such as `America/Phoenix`.
        pfaf_id: HydroBASINS level-6 basin that it lies in, six digits in quotes.
        latitude: degrees north; of the site, for its basin.
        longitude: degrees east.
        flags: what a reader must know of it.
    """

    name: str = ""
    base: str | None = None
    row: str = ""
    country: str = ""
    grid: _Grid | None = None
    pue: _Pue | None = None
    wue_onsite: _Water | None = None
    ewif: _Water | None = None
    time_zone: _Text | None = None
    pfaf_id: _Text | None = None
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    flags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Place:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("give `latitude` and `longitude`, both or neither")
        own = [name for name in (*_FILLED, "latitude") if getattr(self, name) is not None]
        if not (self.name or self.base or own):
            raise ValueError("a place is empty; accepted: `base`, a known place, or own values")
        return self

    @property
    def label(self) -> str:
        """For people: the name, and what it was found as where that is another."""
        name = self.name or self.row or "an own place"
        return name if self.row in ("", name) else f"{name} ({self.row})"

    def filled(self, other: Place) -> Place:
        """This place, with the other's values where it has none, and the flags of both."""
        gained = {name: getattr(other, name) for name in _FILLED if getattr(self, name) is None}
        gained |= {name: getattr(self, name) or getattr(other, name) for name in ("row", "country")}
        gained["flags"] = tuple(dict.fromkeys((*self.flags, *other.flags)))
        return self.model_copy(update=gained)

    def flagged(self, *flags: str) -> Place:
        """This place, and more that a reader must know."""
        return self.model_copy(update={"flags": tuple(dict.fromkeys((*self.flags, *flags)))})

    def as_options(self) -> dict[str, Any]:
        """As JSON values: what a record keeps, and what is read back."""
        return self.model_dump(mode="json", exclude_defaults=True)


PlaceOption = Annotated[
    Place | None,
    PlainSerializer(_by_key, return_type=dict[str, Any] | None, when_used="json"),
    WithJsonSchema({"type": ["string", "object", "null"]}),
]
"""Type of an impact meter's option `place`: what planning resolved, as a record keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSpec:
    """The plugin spec of a table of places.

    Attributes:
        name: of the table, for messages.
        summary: one line: what it knows.
        find: `(name, known)` -> a place, or None. With `known` None it looks a name up, in any case of letters; with a
            place that another table has found it adds what it knows of it. Raises UsageError for an ambiguous name.
        names: the names that can be asked for, for did-you-mean.
        order: tables are asked in rising order; the more exact ones first.
    """

    name: str
    summary: str
    find: Callable[[str, Place | None], Place | None]
    names: Callable[[], Iterable[str]]
    order: int = 10


def resolve(asked: str | Place, tables: Iterable[PlaceSpec]) -> Place:
    """The place that a name or own values stand for, put together from what each table knows.

    Args:
        asked: a name, or own values, which go before those of the tables.
        tables: what plugins give.

    Raises:
        UsageError: no table has the name, or it is ambiguous.
    """
    ordered = sorted(tables, key=lambda table: (table.order, table.name))
    if isinstance(asked, Place):
        if asked.base is not None:
            base = resolve(asked.base, ordered)
            own = asked.model_copy(update={"base": None, "name": asked.name or base.name})
            return own.filled(base)
        return asked
    name = " ".join(asked.split())
    found: Place | None = None
    first: PlaceSpec | None = None
    for table in ordered:
        found = table.find(name, None)
        if found is not None:
            first = table
            break
    if found is None:
        known = [each for table in ordered for each in table.names()]
        raise UsageError(
            f"there is no place {name!r}",
            accepted=f"one of {len(known)} names such as {', '.join(known[:3])}, or own values"
            if known
            else "own values",
            hint=did_you_mean(name, known),
        )
    found = found.model_copy(update={"name": found.name or name})
    for table in ordered:
        if table is not first:
            more = table.find(name, found)
            found = found if more is None else found.filled(more)
    return found
