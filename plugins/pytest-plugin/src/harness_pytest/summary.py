"""The table of energy that stands below pytest-benchmark's table of times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.units import si

COLUMNS: Final = ("Name", "Energy/call", "Bound", "Method", "Carbon/call", "Calls", "Flags")


def lines(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table; where nothing reads, one warning in its place."""
    if all(info.get("energy_j") is None for info in measured.values()):
        reasons = dict.fromkeys(str(info.get("energy_j_unavailable")) for info in measured.values())
        yield f"warning: no energy was read: {'; '.join(reasons)}"
        return
    rows = [COLUMNS, *(_row(name, info) for name, info in measured.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    lost = {name: info["energy_j_unavailable"] for name, info in measured.items() if info.get("energy_j") is None}
    yield from (f"{name}: {reason}" for name, reason in lost.items())


def _row(name: str, info: Mapping[str, Any]) -> tuple[str, ...]:
    energy, carbon = info.get("energy_j"), info.get("carbon_g")
    return (
        name,
        "none" if energy is None else si(energy, "J"),
        "" if energy is None else _bound(info["energy_j_low"], info["energy_j_high"]),
        str(info.get("energy_j_method", "")),
        "none" if carbon is None else si(carbon, "g"),
        str(info.get("energy_calls", "")),
        ", ".join(info.get("energy_flags", ())),
    )


def _bound(low: float | None, high: float | None) -> str:
    return "not known" if low is None or high is None else f"{si(low, 'J')} to {si(high, 'J')}"
