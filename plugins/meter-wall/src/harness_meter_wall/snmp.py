"""Outlets of distribution units by SNMP, with pysnmp (extra `snmp`), which is imported when one is asked.

Sources: the makers' MIBs: APC PowerNet-MIB (rPDU2), Raritan PDU2-MIB, Eaton EATON-EPDU-MIB, Server Technology
Sentry3-MIB.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final, NamedTuple

from harness import MeasurementError
from harness_meter_wall import WallOptions

PORT: Final = 161


class Place(NamedTuple):
    """Where a maker keeps an outlet's number.

    Attributes:
        oid: with the outlet for `{outlet}`; `{unit}` is the first number of `1.3`, 1 where there is one only.
        unit: of one.
        scale: how many of `unit` one stands for.
    """

    oid: str
    unit: str
    scale: float = 1.0


POWER: Final = {
    "apc": Place("1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.{outlet}", "W"),
    "raritan": Place("1.3.6.1.4.1.13742.6.5.4.3.1.4.{unit}.{outlet}.5", "W"),
    "eaton": Place("1.3.6.1.4.1.534.6.6.7.6.5.1.3.{unit}.{outlet}", "W"),
    "servertech": Place("1.3.6.1.4.1.1718.3.2.3.1.14.{path}", "W"),
}
"""rPDU2OutletMeteredStatusPower, measurementsOutletSensorValue (activePower), outletWatts, outletPower."""
ENERGY: Final = {
    "apc": Place("1.3.6.1.4.1.318.1.1.26.9.4.3.1.11.{outlet}", "kWh", 0.1),
    "raritan": Place("1.3.6.1.4.1.13742.6.5.4.3.1.4.{unit}.{outlet}.8", "Wh"),
    "eaton": Place("1.3.6.1.4.1.534.6.6.7.6.5.1.4.{unit}.{outlet}", "Wh"),
}
RARITAN_DIGITS: Final = "1.3.6.1.4.1.13742.6.3.5.4.1.7.{unit}.{outlet}.{sensor}"
"""outletSensorDecimalDigits: Raritan's values are whole numbers of ten to the minus that."""


class Outlet:
    """One outlet, or one object."""

    def __init__(self, options: WallOptions) -> None:
        self._options = options
        self.unit: str
        self._digits: str | None = None
        self._scale = 1.0
        self._community = os.environ.get(options.community_env, "") if options.community_env else "public"
        if not self._community:
            raise MeasurementError(
                f"environment variable {options.community_env} is not set", hint=f"export {options.community_env}=..."
            )
        if options.oid is not None:
            self.unit, self._oid = str(options.unit), options.oid
            return
        assert options.pdu is not None
        assert options.outlet is not None
        places = ENERGY if options.source == "energy" else POWER
        if options.pdu not in places:
            raise MeasurementError(f"{options.pdu} counts no energy per outlet", accepted="source: power")
        place = places[options.pdu]
        unit, _, outlet = options.outlet.rpartition(".")
        parts = {"unit": unit or "1", "outlet": outlet, "path": options.outlet}
        self.unit, self._oid, self._scale = place.unit, place.oid.format(**parts), place.scale
        if options.pdu == "raritan":
            self._digits = RARITAN_DIGITS.format(**parts, sensor=self._oid.rpartition(".")[2])

    @property
    def digit(self) -> float:
        """SNMP shows whole numbers: so much is one of them, in `unit`."""
        return self._scale

    def ask(self) -> float:
        """The number; raises MeasurementError."""
        if self._digits is not None:
            self._scale, self._digits = 10.0 ** -self._get(self._digits), None
        return self._scale * self._get(self._oid)

    def _get(self, oid: str) -> float:
        try:
            from pysnmp.hlapi.v1arch import asyncio as snmp  # type: ignore[import-untyped]
        except ImportError:
            raise MeasurementError("SNMP needs pysnmp; `pip install 'joule-harness-meter-wall[snmp]'`") from None
        return asyncio.run(self._asked(snmp, oid))

    async def _asked(self, snmp: Any, oid: str) -> float:
        options = self._options
        host, _, port = (options.host or "").partition(":")
        dispatcher = snmp.SnmpDispatcher()
        try:
            target = await snmp.UdpTransportTarget.create(
                (host, int(port or PORT)), timeout=options.timeout / 2, retries=1
            )
            wanted = snmp.ObjectType(snmp.ObjectIdentity(oid))
            error, status, index, found = await snmp.get_cmd(
                dispatcher, snmp.CommunityData(self._community, mpModel=1), target, wanted
            )
        except OSError as failed:
            raise MeasurementError(f"{host}: {failed}") from failed
        finally:
            dispatcher.close()
        if error or status:
            raise MeasurementError(f"{host}: {error or f'{status.prettyPrint()} at {index}'}")
        value = found[0][1]
        try:
            return float(value)
        except (TypeError, ValueError):
            raise MeasurementError(
                f"{host} shows no number at {oid}: {value.prettyPrint() or type(value).__name__}"
            ) from None

    def close(self) -> None:
        """Each question has a socket of its own."""
