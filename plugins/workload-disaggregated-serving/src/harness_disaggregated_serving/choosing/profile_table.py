"""The profiler's data: one row a cell of the grid configuration x devices x size x QPS x bandwidth. Immutable.

A row keeps raw joules, times and latencies, so that another intensity, lifetime, embodied table, accounting or latency
target is arithmetic on stored rows and never a rerun. A cell that failed keeps its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.quantity import Unavailable
from harness_disaggregated_serving.carbon import embodied
from harness_disaggregated_serving.carbon.accounting import Accounting, Footprint, HeldDevice, footprint
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

    @property
    def energy_j(self) -> float:
        """Both parts."""
        return self.energy_busy_j + self.energy_idle_j


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
        return (self.configuration, self.new, self.old, self.prompt_tokens, self.qps, self.bandwidth)

    def attained(self, slo: Slo) -> float:
        """Share of the requests that met both targets."""
        if self.latencies:
            return sum(slo.met(ttft, tpot) for ttft, tpot in self.latencies) / len(self.latencies)
        return self.attainment or 0.0

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
            row = embodied.find(device.embodied_id)
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
    return {"key": asdict(key), "row": asdict(row)}


def row_from_json(content: Mapping[str, Any]) -> tuple[ProfileKey, ProfileRow]:
    """The inverse of `row_to_json`; raises UsageError on content of another form."""
    try:
        row = dict(content["row"])
        row["latencies"] = tuple((ttft, tpot) for ttft, tpot in row["latencies"])
        row["devices"] = tuple(ProfiledDevice(**device) for device in row["devices"])
        return ProfileKey(**content["key"]), ProfileRow(**row)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"no profile row: {error!r}", accepted="what this plugin wrote") from None


def read_rows(paths: Iterable[Path]) -> ProfileTable:
    """A table from files of one row each; raises UsageError where there is none, or where their keys differ."""
    table: ProfileTable | None = None
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from None
        key, row = row_from_json(content)
        table = (table or ProfileTable(key, ())).with_rows(key, [row])
    if table is None:
        raise UsageError("no profile row was found", accepted="a run of a workload that writes them")
    return table
