"""The profiler's data: one row a cell of the grid configuration x devices x size x QPS x bandwidth. Immutable.

A row keeps raw joules, times and latencies, so that another intensity, lifetime, embodied table, accounting or latency
target is arithmetic on stored rows and never a rerun. A cell that failed keeps its reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness.units import kwh
from harness_disaggregated_serving.carbon import embodied
from harness_disaggregated_serving.carbon.accounting import Accounting, Footprint, HeldDevice, footprint
from harness_disaggregated_serving.carbon.embodied import EmbodiedRow
from harness_disaggregated_serving.carbon.power import IDLE
from harness_disaggregated_serving.choosing.interval import Ends, Terms
from harness_disaggregated_serving.choosing.steady import share_with_error
from harness_disaggregated_serving.load.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileKey:
    """What all rows of a table share; rows of another key are not comparable."""

    model: str
    dtype: str
    engine: str
    driver: str
    link_kind: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledDevice:
    """What a held device did in a cell: energy split into busy and idle, times, and its embodied row."""

    role: str
    name: str
    energy_busy_j: float
    energy_idle_j: float
    busy_s: float
    reserved_s: float
    embodied_id: str
    phases: tuple[tuple[str, float], ...] = ()
    """Busy seconds by phase and load, where they are known; they sum to `busy_s`."""
    watts: tuple[tuple[str, float, float, float], ...] = ()
    """Declared power by phase and of `idle`: low, value, high in W. Empty where the energy was measured."""
    embodied_kg: tuple[float, float, float] | None = None
    """Embodied carbon as a record or a user's file has it: low, value, high. It goes before `embodied_id`."""
    embodied_source: str = ""
    """Where `embodied_kg` comes from."""
    idle_w: float | None = None
    """Power in W while held and waiting, where it was measured; None where it was not, or is declared in `watts`."""

    def embodied(self) -> EmbodiedRow | Unavailable:
        """Embodied carbon of the device, or why it is not known."""
        if self.embodied_kg is None:
            return embodied.find(self.embodied_id)
        low, value, high = self.embodied_kg
        return EmbodiedRow(
            id=f"record:{self.name}",
            device=self.name,
            kg=value,
            low_kg=low,
            high_kg=high,
            provenance=embodied.Provenance.USER,
            source=self.embodied_source,
        )

    @property
    def energy_j(self) -> float:
        """Both parts."""
        return self.energy_busy_j + self.energy_idle_j

    def waiting_w(self) -> tuple[str, Ends]:
        """Power in W of the device while it waits to take over, at its ends, and the name of the number behind it.

        Declared idle power, else what was measured of idle. Where neither is known it draws no more than it did on
        average while it was held, idle and busy together: that is charged, and 0 is the low end.
        """
        declared = next((ends for phase, *ends in self.watts if phase == IDLE), None)
        if declared is not None:
            low, value, high = declared
            return f"{IDLE} watts of {self.name}", (low, value, high)
        if self.idle_w is not None:
            return f"measured idle watts of {self.name}", (self.idle_w,) * 3
        idle_s = self.reserved_s - self.busy_s
        if self.energy_idle_j > 0 and idle_s > 0:
            return f"measured idle watts of {self.name}", (self.energy_idle_j / idle_s,) * 3
        mean_w = self.energy_j / self.reserved_s if self.reserved_s > 0 else 0.0
        return f"start-up watts of {self.name}", (0.0, mean_w, mean_w)

    def energies_j(self) -> dict[str, Ends]:
        """Energy by the declared number that it is made of, at its ends; measured energy has none and no range."""
        watts = {phase: ends for phase, *ends in self.watts}
        if not watts:
            return {f"measured energy of {self.name}": (self.energy_j,) * 3}
        found: dict[str, Ends] = {}
        idle_s = max(0.0, self.reserved_s - self.busy_s)
        for phase, seconds in (*self.phases, (IDLE, idle_s)):
            name = f"{phase.partition('@')[0]} watts of {self.name}"
            low, value, high = found.get(name, (0.0, 0.0, 0.0))
            ends = watts[phase]
            found[name] = (low + seconds * ends[0], value + seconds * ends[1], high + seconds * ends[2])
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One cell.

    Attributes:
        configuration: `standalone`, `spec-local`, `dpd` or `dsd`.
        new: name of the new device.
        old: name of the old one; empty where none is held.
        size: name of the size bucket.
        prompt_tokens: longest prompt that the bucket stands for.
        qps: requests per second.
        bandwidth: bytes per second of the link; None where nothing crosses it.
        needed_bandwidth: bytes per second that had to cross it.
        requests: requests that finished.
        latencies: TTFT and TPOT of every request that arrived; None for what is missing.
        devices: what every held device did.
        method: `simulated`, or the weakest method of the energy.
        attainment: served share, for rows without latencies.
        failure: why the cell has no result; empty where it has.
        overloaded: why the load cannot be held, or cannot be told to be; empty where it is held. Such a cell shows no
            saving.
        settings: what else makes the configuration (`gamma`, `draft`), by name; part of the cell.
        conditions: what else was varied for all configurations alike, by name; only equal ones are compared.
        slo: latency targets of the run, TTFT and TPOT in s; None where it had none.
        warm_up: requests cut before attainment is counted; `latencies` do not hold them.
        parts: rows of single seeds that this one is the sum of.
    """

    configuration: str
    new: str
    old: str = ""
    size: str
    prompt_tokens: int
    qps: float
    bandwidth: float | None = None
    needed_bandwidth: float = 0.0
    requests: int = 0
    latencies: tuple[tuple[float | None, float | None], ...] = ()
    devices: tuple[ProfiledDevice, ...] = ()
    method: str = "simulated"
    attainment: float | None = None
    failure: str = ""
    overloaded: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    conditions: tuple[tuple[str, str], ...] = ()
    slo: tuple[float, float] | None = None
    warm_up: int = 0
    parts: tuple[ProfileRow, ...] = field(default=(), compare=False, repr=False)
    _attained: dict[Slo, tuple[float, float]] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.qps <= 0 or self.prompt_tokens < 1 or self.requests < 0 or self.needed_bandwidth < 0:
            raise UsageError(
                f"profile row of {self.configuration!r}: QPS {self.qps}, {self.prompt_tokens} prompt tokens, "
                f"{self.requests} requests, {self.needed_bandwidth} B/s",
                accepted="a rate above 0, at least 1 token, nothing negative",
            )
        if not self.failure and not (self.devices and (self.latencies or self.attainment is not None)):
            raise UsageError(
                f"profile row of {self.configuration!r} has neither a result nor a reason",
                accepted="devices with latencies or an attainment, or a failure",
            )

    @property
    def cell(self) -> tuple[object, ...]:
        """What makes the row unique in its table."""
        place = (self.configuration, self.new, self.old, self.size, self.prompt_tokens, self.qps, self.bandwidth)
        return (*place, self.settings, self.conditions)

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """What must be equal for two rows to be compared: the conditions and the new device."""
        return (*self.conditions, ("new device", self.new))

    def attained(self, slo: Slo) -> float:
        """Share of the requests that met both targets."""
        return self.attained_with_error(slo)[0]

    def attained_with_error(self, slo: Slo) -> tuple[float, float]:
        """Share of the requests that met both targets, and the half width of its 95 % interval (NaN if unknown)."""
        found = self._attained.get(slo)
        if found is None:
            found = (self.attainment or 0.0, math.nan)
            if self.latencies:
                found = share_with_error([slo.met(ttft, tpot) for ttft, tpot in self.latencies])
            self._attained[slo] = found
        return found

    def terms(self, intensity: float, lifetimes_s: Mapping[str, float], accounting: Accounting) -> tuple[Terms, ...]:
        """Carbon of a request by declared number, in g, of each seed; empty where an embodied figure is missing."""
        found = []
        for part in self.parts or (self,):
            terms: dict[str, Ends] = {}

            def add(name: str, ends: Ends, scale: float, into: dict[str, Ends] = terms) -> None:
                low, value, high = into.get(name, (0.0, 0.0, 0.0))
                into[name] = (low + ends[0] * scale, value + ends[1] * scale, high + ends[2] * scale)

            for device in part.devices:
                row = device.embodied()
                if isinstance(row, Unavailable) or not part.requests:
                    return ()
                for name, ends in device.energies_j().items():
                    add(name, ends, kwh(1.0) * intensity / part.requests)
                charged_s = device.busy_s if accounting is Accounting.BUSY else device.reserved_s
                share = charged_s / lifetimes_s[device.role] / part.requests * embodied.GRAMS_PER_KG
                add(f"embodied carbon of {device.name}", (row.low_kg, row.kg, row.high_kg), share)
            found.append(terms)
        return tuple(found)

    def charged_s(self, role: str, accounting: Accounting) -> float:
        """Seconds of a role's device that a request is charged for; 0 where it holds none."""
        spent = (
            device.busy_s if accounting is Accounting.BUSY else device.reserved_s
            for device in self.devices
            if device.role == role
        )
        return sum(spent) / self.requests if self.requests else 0.0

    def scale_for(self, slo: Slo, share: float) -> float:
        """By what the targets must be multiplied for a share of the requests to meet both; infinite where none does."""
        scales = sorted(
            math.inf if ttft is None or tpot is None else max(ttft / slo.ttft_s, tpot / slo.tpot_s)
            for ttft, tpot in self.latencies
        )
        return scales[math.ceil(share * len(scales)) - 1] if scales else math.nan

    @property
    def energy_per_request_j(self) -> float | Unavailable:
        """Energy of all held devices over the finished requests."""
        if self.requests == 0:
            return Unavailable(self.failure or "no request finished")
        return sum(device.energy_j for device in self.devices) / self.requests

    def cost(
        self, intensity: float, lifetimes_s: Mapping[str, float], accounting: Accounting
    ) -> Footprint | Unavailable:
        """Carbon of one request, charged for exactly the devices held. Lifetimes are by role."""
        if self.failure or self.requests == 0:
            return Unavailable(self.failure or "no request finished")
        held = []
        for device in self.devices:
            row = device.embodied()
            held.append(
                HeldDevice(
                    name=device.name,
                    energy_j=device.energy_j / self.requests,
                    busy_s=device.busy_s / self.requests,
                    reserved_s=device.reserved_s / self.requests,
                    embodied_g=row if isinstance(row, Unavailable) else row.grams,
                    lifetime_s=lifetimes_s[device.role],
                )
            )
        return footprint(held, intensity, accounting)


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """Rows of one key, one a cell."""

    key: ProfileKey
    rows: tuple[ProfileRow, ...]

    def __post_init__(self) -> None:
        seen: set[tuple[object, ...]] = set()
        for row in self.rows:
            if row.cell in seen:
                raise UsageError(f"two rows for grid point {row.cell}", accepted="one row for each")
            seen.add(row.cell)

    def with_rows(self, key: ProfileKey, rows: Iterable[ProfileRow]) -> ProfileTable:
        """A table with more rows; raises UsageError where they were measured under another key."""
        if key != self.key:
            changed = [name for name, value in asdict(key).items() if value != getattr(self.key, name)]
            raise UsageError(f"rows differ from the table in {', '.join(changed)}", accepted="rows of the same key")
        return ProfileTable(self.key, (*self.rows, *rows))


def row_to_json(key: ProfileKey, row: ProfileRow) -> dict[str, Any]:
    """A row with its key, as JSON values."""
    content = asdict(replace(row, parts=()))
    del content["parts"], content["_attained"]
    return {"key": asdict(key), "row": content}


def row_from_json(content: Mapping[str, Any]) -> tuple[ProfileKey, ProfileRow]:
    """The inverse of `row_to_json`; raises UsageError on content of another form."""
    try:
        row = dict(content["row"])
        row["latencies"] = tuple((ttft, tpot) for ttft, tpot in row["latencies"])
        row["devices"] = tuple(
            ProfiledDevice(
                **{
                    **device,
                    **{name: _pairs(device.get(name, ())) for name in ("phases", "watts")},
                    "embodied_kg": tuple(device["embodied_kg"]) if device.get("embodied_kg") else None,
                }
            )
            for device in row["devices"]
        )
        row |= {name: _pairs(row.get(name, ())) for name in ("settings", "conditions")}
        row["slo"] = None if row.get("slo") is None else tuple(row["slo"])
        return ProfileKey(**content["key"]), ProfileRow(**row)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"no profile row: {error!r}", accepted="what this plugin wrote") from None


def _pairs(rows: Iterable[Iterable[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in rows)


def read_tables(paths: Iterable[Path]) -> list[ProfileTable]:
    """Tables from files of one row each, one for every key in them."""
    found: dict[ProfileKey, list[ProfileRow]] = {}
    seen: set[object] = set()
    for path in paths:
        one = read_rows([path])
        for row in one.rows:
            if (one.key, row.cell) not in seen:  # the same seed can come of an option and of a trial
                seen.add((one.key, row.cell))
                found.setdefault(one.key, []).append(row)
    return [ProfileTable(key, tuple(rows)) for key, rows in found.items()]


def read_rows(paths: Iterable[Path]) -> ProfileTable:
    """A table from files of one row each; raises UsageError where there is none, or where their keys differ."""
    table: ProfileTable | None = None
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from None
        try:
            key, row = row_from_json(content)
        except UsageError as error:
            raise UsageError(str(error), where=str(path)) from None
        table = (table or ProfileTable(key, ())).with_rows(key, [row])
    if table is None:
        raise UsageError("no profile row was found", accepted="a run of a workload that writes them")
    return table
