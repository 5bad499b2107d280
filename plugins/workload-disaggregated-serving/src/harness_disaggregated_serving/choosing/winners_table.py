"""The tables of a sweep: Markdown for people, a CSV file with every cell, keyed by all that varied in the run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from harness_disaggregated_serving.carbon.accounting import Accounting
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.scheduler import BASELINE, Candidate
from harness_disaggregated_serving.choosing.steady import NOT_JUDGED, OVERLOADED
from harness_disaggregated_serving.choosing.winners import INTENSITIES, Cell

GBIT: Final = 8 / 1e9
"""Gbit/s of a byte per second."""
USUAL: Final = (5.0, 7.0)
"""Lifetimes that savings are told for: new, old; the others are in the CSV file and in the table of ranges."""
METHOD: Final = "simulated"


def varied(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Names of the conditions of which the cells have several."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for name, value in cell.conditions:
            values.setdefault(name, set()).add(value)
    return tuple(name for name, found in values.items() if len(found) > 1)


def _place(cell: Cell, names: Iterable[str]) -> list[str]:
    conditions = dict(cell.conditions)
    extras = [conditions.get(name, "") for name in names]
    return [cell.size, f"{cell.qps:g}", f"{cell.bandwidth * GBIT:g}", *extras]


def _attained(one: Candidate) -> str:
    if math.isnan(one.attainment):
        return "unavailable"
    error = "" if not math.isfinite(one.error) else f" ± {one.error:.1%}"
    return f"{one.attainment:.1%}{error}"


def state_of(one: Candidate) -> str:
    """`feasible`, or in a word why not."""
    if not one.rejected:
        return "feasible"
    return next((state for state in (OVERLOADED, NOT_JUDGED) if one.rejected.startswith(state)), "not feasible")


def as_text(cells: Sequence[Cell], *, title: str, notes: Sequence[str] = (), years: tuple[float, float] = USUAL) -> str:
    """Markdown: what each configuration saves in each cell, then who emits least by intensity and lifetime."""
    names = varied(cells)
    told = [cell for cell in cells if (cell.new_years, cell.old_years) == years] or list(cells)
    busy = {_key(cell): cell for cell in told if cell.accounting is Accounting.BUSY}
    lines = [f"# {title}", "", *(f"- {note}" for note in notes), *_legend(years), ""]
    grids = [f"saving at {intensity:g} g/kWh" for intensity in INTENSITIES]
    head = ["sizes", "QPS", "Gbit/s", *names, "configuration", "state", "attainment"]
    head += [*grids, f"the same by busy time at {INTENSITIES[1]:g}", "pays", "depends on"]
    lines += [markdown_row(head), "|---" * len(head) + "|"]
    for cell in told:
        if cell.accounting is Accounting.RESERVED:
            for name, one in cell.considered.items():
                lines.append(
                    markdown_row([*_place(cell, names), name, state_of(one), _attained(one), *_saved(cell, busy, name)])
                )
    lines += ["", "## Least carbon at the declared values, by lifetime", ""]
    head = ["sizes", "QPS", "Gbit/s", *names, "accounting", "new, old", "least", "least, spec-local left out"]
    lines += [markdown_row(head), "|---" * len(head) + "|"]
    for cell in cells:
        won = ["; ".join(map(str, ranges)) or "none is feasible" for ranges in (cell.ranges, cell.published)]
        lives = f"{cell.new_years:g}, {cell.old_years:g}"
        lines.append(markdown_row([*_place(cell, names), cell.accounting.value, lives, *won]))
    reasons: dict[str, None] = {}
    for cell in cells:
        for name, reason in cell.rejected.items():
            extras = "".join(f", {value}" for value in _place(cell, names)[3:])
            place = f"{cell.size}, QPS {cell.qps:g}, {cell.bandwidth * GBIT:g} Gbit/s{extras}"
            reasons[f"- {name} ({place}): {reason}"] = None
    if reasons:
        lines += ["", "## Not feasible", "", *sorted(reasons)]
    return "\n".join(lines) + "\n"


def _legend(years: tuple[float, float]) -> list[str]:
    return [
        "- saving: share of standalone's carbon a finished request, hardware charged for the whole window",
        "- in brackets: its ends over all declared watts and embodied figures at once, and 95 % intervals over seeds",
        f"- lifetimes of new and old device: {years[0]:g} and {years[1]:g} years, where no other are told",
        "- depends on: the declared numbers that move the saving most, each alone, with the saving at its ends",
        "- a cell that misses its targets or cannot hold its load shows no saving",
    ]


def _key(cell: Cell) -> tuple[object, ...]:
    return (cell.size, cell.qps, cell.bandwidth, cell.conditions, cell.new_years, cell.old_years)


def _saved(cell: Cell, busy: Mapping[tuple[object, ...], Cell], name: str) -> list[str]:
    if name == BASELINE:
        return ["baseline", *[""] * (len(INTENSITIES) + 2)]
    found = cell.against.get(name)
    if found is None:
        rejected = cell.considered[name].rejected
        why = "none: " + (state_of(cell.considered[name]) if rejected else "standalone is not feasible")
        return [why, *[""] * (len(INTENSITIES) + 2)]
    other = busy[_key(cell)].against.get(name) if _key(cell) in busy else None
    return [
        *map(str, found.savings),
        str(other.savings[1]) if other is not None else "",
        found.pays,
        found.depends or "no declared number moves it by a point",
    ]


def markdown_row(values: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(values) + " |"


COLUMNS: Final = (
    "method", "sizes", "qps", "gbit_per_s", "conditions", "ttft_target_s", "tpot_target_s", "configuration", "old",
    "settings", "accounting", "new_years", "old_years", "state", "attainment", "attainment_half_width", "intensity",
    "saving", "saving_low", "saving_high", "seeds", "depends_on", "reason",
)  # fmt: skip
"""Of the CSV file."""


def as_csv(cells: Sequence[Cell], method: str = METHOD) -> str:
    """Every cell, configuration, accounting, lifetime and intensity, one a line; savings of none are empty."""
    written = io.StringIO()
    writer = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        for name, one in cell.considered.items():
            against = cell.against.get(name)
            common = {
                "method": method,
                "sizes": cell.size,
                "qps": f"{cell.qps:g}",
                "gbit_per_s": f"{cell.bandwidth * GBIT:g}",
                "conditions": _pairs(cell.conditions),
                "ttft_target_s": f"{cell.slo.ttft_s:g}",
                "tpot_target_s": f"{cell.slo.tpot_s:g}",
                "configuration": one.configuration,
                "old": one.old,
                "settings": _pairs(one.settings),
                "accounting": cell.accounting.value,
                "new_years": f"{cell.new_years:g}",
                "old_years": f"{cell.old_years:g}",
                "state": state_of(one),
                "attainment": "" if math.isnan(one.attainment) else f"{one.attainment:.4f}",
                "attainment_half_width": f"{one.error:.4f}" if math.isfinite(one.error) else "",
                "reason": one.rejected,
            }
            for number, intensity in enumerate(INTENSITIES):
                told = against.savings[number] if against is not None else None
                writer.writerow({**common, "intensity": f"{intensity:g}", **_numbers(told)})
    return written.getvalue()


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in pairs)


def _numbers(told: object) -> dict[str, str]:
    if not isinstance(told, SavingRange):
        return {}
    return {
        "saving": f"{told.value:.4f}",
        "saving_low": f"{told.low:.4f}",
        "saving_high": f"{told.high:.4f}",
        "seeds": f"{told.seeds}",
        "depends_on": told.notes,
    }
