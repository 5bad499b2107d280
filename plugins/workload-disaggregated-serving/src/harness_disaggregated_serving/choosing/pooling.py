"""Tables put together: seeds into one row each, conditions apart, and what a request takes of each device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileKey, ProfileRow, ProfileTable


def pool(tables: Iterable[ProfileTable]) -> list[ProfileTable]:
    """Tables that differ in their seed alone as one each, whose rows are sums over seeds and keep their parts."""
    groups: dict[ProfileKey, dict[tuple[object, ...], list[ProfileRow]]] = {}
    for table in sorted(tables, key=lambda one: one.key.seed):
        cells = groups.setdefault(replace(table.key, seed=0), {})
        for row in table.rows:
            cells.setdefault(row.cell, []).append(row)
    return [ProfileTable(key, tuple(_pooled(rows) for rows in cells.values())) for key, cells in groups.items()]


def _pooled(rows: list[ProfileRow]) -> ProfileRow:
    first = rows[0]
    if len(rows) == 1:
        return first
    failures, loads = [row.failure for row in rows if row.failure], [row.overloaded for row in rows if row.overloaded]
    if failures:
        return replace(first, failure=failures[0], devices=(), latencies=(), attainment=None)
    devices = [summed(same) for same in zip(*(row.devices for row in rows), strict=True)]
    known = [row.attainment for row in rows if row.attainment is not None]
    return replace(
        first,
        devices=tuple(devices),
        latencies=tuple(pair for row in rows for pair in row.latencies),
        requests=sum(row.requests for row in rows),
        needed_bandwidth=max(row.needed_bandwidth for row in rows),
        attainment=sum(known) / len(known) if known else None,
        overloaded=loads[0] if loads else "",
        parts=tuple(rows),
    )


def by_conditions(table: ProfileTable) -> dict[tuple[tuple[str, str], ...], ProfileTable]:
    """A table for each set of conditions, the new device among them: only rows of one are compared."""
    found: dict[tuple[tuple[str, str], ...], list[ProfileRow]] = {}
    for row in table.rows:
        found.setdefault(row.compared, []).append(row)
    return {conditions: ProfileTable(table.key, tuple(rows)) for conditions, rows in found.items()}


def a_request(row: ProfileRow) -> tuple[ProfiledDevice, ...]:
    """What each held device does for one request, idle time included."""
    return scaled(row.devices, 1 / row.requests) if row.requests else ()


def scaled(devices: Sequence[ProfiledDevice], factor: float) -> tuple[ProfiledDevice, ...]:
    """The same devices for so many times the work."""
    return tuple(
        replace(
            device,
            energy_busy_j=device.energy_busy_j * factor,
            energy_idle_j=device.energy_idle_j * factor,
            busy_s=device.busy_s * factor,
            reserved_s=device.reserved_s * factor,
            phases=tuple((phase, seconds * factor) for phase, seconds in device.phases),
        )
        for device in devices
    )


def added(one: Sequence[ProfiledDevice], two: Sequence[ProfiledDevice]) -> tuple[ProfiledDevice, ...]:
    """The work of both, by role and device."""
    found: dict[tuple[str, str], ProfiledDevice] = {}
    for device in (*one, *two):
        key = (device.role, device.name)
        other = found.get(key)
        found[key] = device if other is None else summed([other, device])
    return tuple(found.values())


def summed(same: Sequence[ProfiledDevice]) -> ProfiledDevice:
    """One device's work in several streams."""
    phases: dict[str, float] = {}
    for device in same:
        for phase, seconds in device.phases:
            phases[phase] = phases.get(phase, 0.0) + seconds
    return replace(
        same[0],
        phases=tuple(phases.items()),
        energy_busy_j=math.fsum(device.energy_busy_j for device in same),
        energy_idle_j=math.fsum(device.energy_idle_j for device in same),
        busy_s=math.fsum(device.busy_s for device in same),
        reserved_s=math.fsum(device.reserved_s for device in same),
    )
