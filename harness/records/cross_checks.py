"""How the other meters of a scope differ from the primary one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from harness.quantity import Amount
from harness.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """A second meter of a scope against its primary one, over all trials.

    Attributes:
        scope: what both read.
        primary: meter that counts; empty where none does.
        check: the other meter.
        difference: median over trials of (check - primary) / primary; None where it has no value.
        spread: least and greatest of them.
        n: trials in which both read.
        note: why there is no difference; empty where there is one.
    """

    scope: str
    primary: str
    check: str
    difference: float | None
    spread: tuple[float, float] | None
    n: int
    note: str = ""


def cross_checks(records: Iterable[Record]) -> list[CrossCheck]:
    """Non-primary readings against the primary one of their scope: joules of the windows that both read, per trial."""
    found: dict[tuple[str, str, str], list[float]] = {}
    notes: dict[tuple[str, str, str], str] = {}
    for finished in records:
        windows = [reading for reading in finished.measurement.readings if reading.span == "window"]
        primary = {(r.scope, r.window): r for r in windows if r.primary}
        sums: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        for reading in windows:
            if reading.primary:
                continue
            base = primary.get((reading.scope, reading.window))
            key = (reading.scope, base.meter if base else "", reading.meter)
            found.setdefault(key, [])
            if base is None:
                notes[key] = "no primary meter reads this scope"
            elif not isinstance(base.value, Amount):
                notes[key] = f"primary: {base.value.reason}"
            elif not isinstance(reading.value, Amount):
                notes[key] = reading.value.reason
            else:
                sums.setdefault(key, []).append((base.value.value, reading.value.value))
        for key, pairs in sums.items():
            of_primary = math.fsum(pair[0] for pair in pairs)
            if of_primary == 0:
                notes[key] = "the primary meter read 0 J"
            else:
                found[key].append((math.fsum(pair[1] for pair in pairs) - of_primary) / of_primary)
    return [
        CrossCheck(
            scope=key[0],
            primary=key[1],
            check=key[2],
            difference=statistics.median(values) if values else None,
            spread=(min(values), max(values)) if values else None,
            n=len(values),
            note=notes.get(key, ""),
        )
        for key, values in found.items()
    ]
