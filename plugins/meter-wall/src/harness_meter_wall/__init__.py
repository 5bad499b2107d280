"""Plugin: the meter `wall`: what a machine draws at its outlet, by a plug, a rack's outlet or its service processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from harness import Duration, Meter, MeterSpec, Share, hookimpl
from harness.remote import Access, checked_url

Kind = Literal["shelly", "tasmota", "json", "redfish", "ipmi", "snmp"]
Unit = Literal["W", "mW", "kW", "J", "Wh", "kWh", "Wmin"]


class WallOptions(Access):
    """Options of the meter `wall`.

    Attributes:
        kind: what is asked: a `shelly` of any generation, a plug with `tasmota`, any `json` over HTTP, a service
            processor by `redfish` or `ipmi`, or an outlet of a rack's distribution unit by `snmp`.
        url: address of a device that speaks HTTP, such as `http://192.168.1.20`.
        host: name or address of what is asked by IPMI or SNMP; the machine's own service processor, by IPMI, if not
            given.
        channel: outlet or meter of a device that has several, counted from 0.
        source: whether its `power` is read and integrated, or its counter of `energy`, which most count in steps of
            minutes or watt-hours.
        path: of `json`, the page; of `redfish`, the chassis, such as `/redfish/v1/Chassis/1`, found if not given.
        field: of `json`, where the number stands in the answer, such as `meters[0].power`.
        unit: of `json` and of an `oid`, what the number is in.
        outlet: of `snmp`, the outlet, as its maker numbers it: `3`, or `1.3` for the third of the first unit.
        pdu: of `snmp`, the maker of the distribution unit: `apc`, `raritan`, `eaton` or `servertech`.
        oid: of `snmp`, the object itself, in place of `pdu` and `outlet`.
        community_env: of `snmp`, environment variable with the community; `public` if not given.
        accuracy: greatest proportional error, the class that the data sheet states; that of the kind if not given.
        offset_w: greatest constant error, in W; half a digit of what the kind shows if not given.
        update: how often the device renews its reading; that of the kind if not given.
        averaging: what a power reading averages over; that of the kind if not given.
        poll: how often it is asked; half of `update`, between five times a second and every two, if not given.
        max_power_w: most that the outlet can carry, in W: what lies beyond is not counted.
        scope: what it covers, `host` for the whole machine; `rack:b3` or the like for more or less.
        node: machine that the scope lies on, where it is not the one that the harness runs on.
        timeout: longest time for an answer; no window waits for it.
    """

    kind: Kind
    url: str | None = None
    host: Annotated[str, Field(pattern=r"^[\w.:\[\]-]+$")] | None = None
    channel: Annotated[int, Field(ge=0)] = 0
    source: Literal["power", "energy"] = "power"
    path: Annotated[str, Field(pattern=r"^/")] | None = None
    field: str | None = None
    unit: Unit | None = None
    outlet: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] | None = None
    pdu: Literal["apc", "raritan", "eaton", "servertech"] | None = None
    oid: Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")] | None = None
    community_env: str | None = None
    accuracy: Annotated[Share, Field(ge=0, lt=1)] | None = None
    offset_w: NonNegativeFloat | None = None
    update: Annotated[Duration, Field(gt=0)] | None = None
    averaging: Annotated[Duration, Field(ge=0)] | None = None
    poll: Annotated[Duration, Field(gt=0)] | None = None
    max_power_w: PositiveFloat | None = None
    scope: Annotated[str, Field(pattern=r"^[\w.:@-]+$")] = "host"
    node: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 5.0

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return None if value is None else checked_url(value)

    @model_validator(mode="after")
    def _complete(self) -> WallOptions:
        if (self.url is not None) != (self.kind not in {"ipmi", "snmp"}):
            raise ValueError(f"{self.kind} is asked by {'host' if self.kind in {'ipmi', 'snmp'} else 'url'}")
        if self.kind == "json" and (self.field is None or self.unit is None):
            raise ValueError("json needs the field that the number stands in, and its unit")
        if self.kind == "snmp":
            named = self.pdu is not None and self.outlet is not None
            if self.host is None or named == (self.oid is not None):
                raise ValueError("snmp needs host, and pdu with outlet, or oid with unit")
            if self.oid is not None and self.unit is None:
                raise ValueError("an oid needs the unit that it shows")
        if self.kind == "ipmi" and self.source == "energy":
            raise ValueError("IPMI has no counter of energy")
        return self


def _create(options: WallOptions) -> Meter:
    from harness_meter_wall.meter import WallMeter

    return WallMeter(options)


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    """The meter `wall`."""
    return [
        MeterSpec(
            name="wall",
            summary="the whole machine at its outlet: Shelly, Tasmota, Redfish, IPMI, PDUs by SNMP, any JSON over HTTP",
            factory=_create,
            options=WallOptions,
            example='wall: {kind: shelly, url: "http://192.168.1.20"}',
            fork_safe=True,
        )
    ]
