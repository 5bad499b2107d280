"""What is asked, and how well it measures by its data sheet.

Each class says what it shows (`unit`), how well (`Sheet`), and answers `ask` with one number. Sources: Shelly's API
documentation (Gen 1 `/status`, `/meter/0`; Gen 2 `Switch.GetStatus`, `PM1.GetStatus`, `EM.GetStatus`), Tasmota's
"Commands" and "JSON Status Responses", DMTF's DSP8010 schemas Power, PowerControl and EnvironmentMetrics, the DCMI
specification 1.5 with ipmitool's `lib/ipmi_dcmi.c`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from harness import MeasurementError
from harness.remote import Server
from harness_meter_wall import WallOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What a data sheet states, and what is assumed where it is silent.

    Attributes:
        accuracy: greatest proportional error.
        offset_w: half a digit of its power.
        update_s: how often its power is renewed.
        averaging_s: what its power averages over.
        energy_s: how often its counter is renewed.
        step_j: what its counter counts in, where the device itself does not tell.
        note: whose numbers these are.
    """

    accuracy: float | None
    offset_w: float
    update_s: float
    averaging_s: float
    energy_s: float
    step_j: float
    note: str


SHEETS: Final[Mapping[str, Sheet]] = {
    "shelly": Sheet(
        accuracy=0.01, offset_w=0.05, update_s=1.0, averaging_s=1.0, energy_s=60.0, step_j=3.6,
        note="data sheets of Shelly's metering plugs and relays: ±1 %; that they renew every second is assumed",
    ),
    "tasmota": Sheet(
        accuracy=0.03, offset_w=0.5, update_s=1.0, averaging_s=1.0, energy_s=60.0, step_j=3600.0,
        note="data sheets of HLW8012 and BL0937: 2 to 3 % once calibrated; that it renews every second is Tasmota's",
    ),
    "json": Sheet(
        accuracy=None, offset_w=0.0, update_s=1.0, averaging_s=1.0, energy_s=1.0, step_j=0.0,
        note="nothing is known of it but what the suite says",
    ),
    "redfish": Sheet(
        accuracy=0.05, offset_w=0.5, update_s=10.0, averaging_s=1.0, energy_s=60.0, step_j=3600.0,
        note="power supplies' PMBus meters: 1 to 5 %; how often a service processor asks them is assumed",
    ),
    "ipmi": Sheet(
        accuracy=0.05, offset_w=0.5, update_s=1.0, averaging_s=1.0, energy_s=1.0, step_j=0.0,
        note="power supplies' PMBus meters: 1 to 5 %; averaged over the sampling period that DCMI states",
    ),
    "snmp": Sheet(
        accuracy=0.01, offset_w=0.5, update_s=3.0, averaging_s=1.0, energy_s=3.0, step_j=3600.0,
        note="metered outlets: ±1 % (class 1 of IEC 62053-21); that they renew every 3 s is assumed",
    ),
}  # fmt: skip

TO_SI: Final[Mapping[str, float]] = {
    "W": 1.0, "mW": 1e-3, "kW": 1e3, "J": 1.0, "Wh": 3600.0, "kWh": 3.6e6, "Wmin": 60.0,
}  # fmt: skip
"""Watts or joules in one of each unit."""
COUNTS: Final = frozenset({"J", "Wh", "kWh", "Wmin"})


class Asked(Protocol):
    """A device that answers with one number."""

    unit: str

    @property
    def digit(self) -> float:
        """Least step of the number, in `unit`; 0 where it is as the data sheet of the kind says."""

    def ask(self) -> float:
        """The number in `unit`; raises MeasurementError."""

    def close(self) -> None:
        """Ends the connection."""


def found_at(answer: Any, field: str) -> float:
    """A number in JSON, such as `meters[0].power`; raises MeasurementError where there is none."""
    value = answer
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError):
            raise MeasurementError(f"the answer has no {field!r}: {str(answer)[:100]}") from None
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MeasurementError(f"{field} is {value!r:.60}, not a number")
    return float(value)


class _Http:
    """What is asked over HTTP."""

    digit = 0.0

    def __init__(self, options: WallOptions, unit: str) -> None:
        assert options.url is not None
        self.unit = unit
        self.server = Server(options.url, options, timeout_s=options.timeout)

    def close(self) -> None:
        """Ends the connection."""
        self.server.close()


class Json(_Http):
    """Any page with a number in it."""

    def __init__(self, options: WallOptions) -> None:
        super().__init__(options, options.unit or "W")
        self._path, self._field = options.path or "", options.field or ""

    def ask(self) -> float:
        """The number at the field."""
        return found_at(self.server.json(self._path), self._field)


class Shelly(_Http):
    """A Shelly; `/shelly` says which generation, and the first component that answers is taken."""

    def __init__(self, options: WallOptions) -> None:
        self._energy, self._channel = options.source == "energy", options.channel
        super().__init__(options, "Wh" if self._energy else "W")
        self._how: tuple[str, str] | None = None

    def ask(self) -> float:
        """Its power or its counter."""
        if self._how is None:
            self._how = self._found()
        path, field = self._how
        answer = self.server.json(path)
        if isinstance(answer, Mapping) and answer.get("is_valid") is False:
            raise MeasurementError("the device says that its reading is not valid")
        return found_at(answer, field)

    def _found(self) -> tuple[str, str]:
        about = self.server.json("/shelly")
        channel = self._channel
        if not isinstance(about, Mapping) or about.get("gen", 1) == 1:
            return self._of_the_first(channel)
        field = "aenergy.total" if self._energy else "apower"
        ways = [
            (f"/rpc/Switch.GetStatus?id={channel}", field),
            (f"/rpc/PM1.GetStatus?id={channel}", field),
            (f"/rpc/EMData.GetStatus?id={channel}", "total_act")
            if self._energy
            else (f"/rpc/EM.GetStatus?id={channel}", "total_act_power"),
        ]
        return self._first(ways)

    def _of_the_first(self, channel: int) -> tuple[str, str]:
        """Generation 1 counts watt-minutes in `meters` and watt-hours in `emeters`, whose digits are assumed."""
        way = self._first(
            [
                (f"/meter/{channel}", "total" if self._energy else "power"),
                (f"/emeter/{channel}", "total" if self._energy else "power"),
                ("/status", f"meters[{channel}].{'total' if self._energy else 'power'}"),
            ]
        )
        if self._energy:
            self.unit, self.digit = ("Wh", 0.1) if way[0].startswith("/emeter") else ("Wmin", 1.0)
        return way

    def _first(self, ways: Sequence[tuple[str, str]]) -> tuple[str, str]:
        said: list[str] = []
        for path, field in ways:
            try:
                found_at(self.server.json(path), field)
            except MeasurementError as error:
                said.append(str(error))
                continue
            return path, field
        raise MeasurementError(f"no meter on channel {self._channel}: {'; '.join(said)}")


class Tasmota(_Http):
    """A plug with Tasmota; one with several outlets answers with a list."""

    def __init__(self, options: WallOptions) -> None:
        self._energy, self._channel = options.source == "energy", options.channel
        super().__init__(options, "kWh" if self._energy else "W")

    def ask(self) -> float:
        """Its power or its total."""
        answer = self.server.json("/cm?cmnd=Status%208")
        for top in ("StatusSNS", "StatusPWR"):
            energy = answer.get(top, {}).get("ENERGY", answer.get(top)) if isinstance(answer, Mapping) else None
            name = "Total" if self._energy else "Power"
            if isinstance(energy, Mapping) and name in energy:
                several = isinstance(energy[name], list)
                return found_at(energy, f"{name}[{self._channel}]" if several else name)
        raise MeasurementError(f"{self.server.url} shows no ENERGY: {str(answer)[:100]}")


class Redfish(_Http):
    """A service processor's chassis: EnvironmentMetrics where it has them, else PowerControl."""

    def __init__(self, options: WallOptions) -> None:
        self._energy, self._channel, self._chassis = options.source == "energy", options.channel, options.path
        super().__init__(options, "kWh" if self._energy else "W")
        self._how: tuple[str, str] | None = None

    def ask(self) -> float:
        """Its power or its counter."""
        if self._how is None:
            self._how = self._found()
        path, field = self._how
        return found_at(self.server.json(path), field)

    def _found(self) -> tuple[str, str]:
        said: list[str] = []
        for chassis in [self._chassis] if self._chassis else self._members():
            metrics = f"{chassis}/EnvironmentMetrics"
            ways = [(metrics, "PowerWatts.Reading", "W")]
            ways += [(f"{chassis}/Power", f"PowerControl[{self._channel}].PowerConsumedWatts", "W")]
            if self._energy:
                ways = [(metrics, "EnergyJoules.Reading", "J"), (metrics, "EnergykWh.Reading", "kWh")]
            for path, field, unit in ways:
                try:
                    found_at(self.server.json(path), field)
                except MeasurementError as error:
                    said.append(str(error))
                    continue
                self.unit = unit
                return path, field
        raise MeasurementError(f"no chassis shows it: {'; '.join(said)}", hint="name one by path")

    def _members(self) -> list[str]:
        answer = self.server.json("/redfish/v1/Chassis")
        members = answer.get("Members", []) if isinstance(answer, Mapping) else []
        found = [str(each["@odata.id"]).rstrip("/") for each in members if isinstance(each, Mapping)]
        if not found:
            raise MeasurementError(f"{self.server.url} lists no chassis")
        return found


class Ipmi:
    """A service processor by `ipmitool dcmi power reading`."""

    unit = "W"
    digit = 1.0

    def __init__(self, options: WallOptions) -> None:
        self._command = ["ipmitool"]
        self._environment = dict(os.environ)
        self._timeout_s = options.timeout
        self.averaging_s: float | None = None
        if options.host is not None:
            self._command += ["-I", "lanplus", "-H", options.host]
            if options.username is not None:
                # -E: the password from IPMI_PASSWORD, so that it stands on no command line
                self._command += ["-U", options.username, "-E"]
                self._environment["IPMI_PASSWORD"] = options.password()
        self._command += ["dcmi", "power", "reading"]

    def ask(self) -> float:
        """Instantaneous power."""
        try:
            done = subprocess.run(
                self._command, env=self._environment, capture_output=True, text=True, timeout=self._timeout_s,
                check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise MeasurementError("ipmitool is not installed; `sudo apt-get install ipmitool`") from None
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"ipmitool took more than {self._timeout_s:g} s") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().partition("\n")[0]
            raise MeasurementError(
                f"ipmitool: {said}; for the machine's own processor: `sudo modprobe -a ipmi_devintf ipmi_si`, and "
                """`echo 'KERNEL=="ipmi*", MODE="0666"' | sudo tee /etc/udev/rules.d/70-ipmi.rules`"""
            )
        shown = re.search(r"Instantaneous power reading\s*:\s*(\d+)\s*Watts", done.stdout)
        if shown is None:
            raise MeasurementError(f"ipmitool shows no power: {done.stdout.strip()[:100]}")
        state = re.search(r"Power reading state is\s*:\s*(\w+)", done.stdout)
        if state is not None and state[1] != "activated":
            raise MeasurementError(f"the service processor's power reading is {state[1]}")
        period = re.search(r"Sampling period\s*:\s*0*(\d+)\s*Seconds", done.stdout)
        self.averaging_s = float(period[1]) if period is not None and int(period[1]) > 0 else None
        return float(shown[1])

    def close(self) -> None:
        """Nothing is held."""


def device(options: WallOptions) -> Asked:
    """What the options ask."""
    if options.kind == "snmp":
        from harness_meter_wall.snmp import Outlet

        return Outlet(options)
    kinds: dict[str, Callable[[WallOptions], Asked]] = {
        "shelly": Shelly,
        "tasmota": Tasmota,
        "json": Json,
        "redfish": Redfish,
        "ipmi": Ipmi,
    }
    return kinds[options.kind](options)
