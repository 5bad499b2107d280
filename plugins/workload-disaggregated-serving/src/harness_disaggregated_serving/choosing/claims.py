"""The published claims beside what a run's cells say, cell by cell, with what was assumed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from harness.quantity import Unavailable
from harness_disaggregated_serving.carbon.accounting import Accounting
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.profile_table import ProfileRow, ProfileTable
from harness_disaggregated_serving.choosing.scheduler import Candidate
from harness_disaggregated_serving.choosing.winners import INTENSITIES, Cell
from harness_disaggregated_serving.choosing.winners_table import GBIT, USUAL, markdown_row, state_of, varied
from harness_disaggregated_serving.configuration import Configuration

SAVED: Final = 0.406
"""Carbon saved against standard serving on the new GPU alone, at most: abstract of arXiv 2412.20322."""
ATTAINED: Final = 0.90
"""Share of the requests that met their targets, at least: the same abstract."""


def as_text(table: ProfileTable, cells: Sequence[Cell]) -> str:
    """Markdown: the claims beside the best of the cells, what was assumed, and every disaggregated cell."""
    told = [
        cell for cell in cells if cell.accounting is Accounting.RESERVED and (cell.new_years, cell.old_years) == USUAL
    ]
    pairs = [(cell, name, one) for cell in told for name, one in cell.considered.items() if _disaggregated(one)]
    names = varied(told)
    lines = [
        "# Published claims beside simulated cells",
        "",
        "Claims: abstract of arXiv 2412.20322. The cells are simulated with the assumptions below, none of which was",
        "chosen to come near the claims; the paper's own choices are not known. It is no reproduction.",
        "",
        "| | published | simulated here |",
        "|---|---|---|",
        f"| carbon saved against standalone | up to {SAVED:.1%} | {_best(pairs)} |",
        f"| requests that meet both targets | over {ATTAINED:.0%} | {_attaining(pairs)} |",
        "",
        "## Assumed",
        "",
        *_assumed(table, told),
        "",
        "## Cell by cell",
        "",
        f"Hardware charged for the whole window, {USUAL[0]:g} years for the new device and {USUAL[1]:g} for the old.",
        "In brackets: ends over all declared watts and embodied figures at once, and 95 % intervals over seeds.",
        "Target scale: by what both latency targets must be multiplied for nine of ten requests to meet them.",
        "",
    ]
    head = ["sizes", "QPS", "Gbit/s", *names, "configuration", "state", "attainment", "target scale"]
    head += [f"saving at {intensity:g} g/kWh" for intensity in INTENSITIES]
    head += [f"{SAVED:.1%} lies", "depends on"]
    lines += [markdown_row(head), "|---" * len(head) + "|"]
    rows = {_place(row): row for row in table.rows}
    for cell, name, one in pairs:
        conditions = dict(cell.conditions)
        row = rows.get((*_shape(one), cell.size, cell.qps, cell.bandwidth, cell.conditions))
        attained = "unavailable" if math.isnan(one.attainment) else f"{one.attainment:.1%}"
        scale = f"{row.scale_for(cell.slo, ATTAINED):.3g}" if row is not None and row.latencies else ""
        start = [cell.size, f"{cell.qps:g}", f"{cell.bandwidth * GBIT:g}", *(conditions[key] for key in names)]
        lines.append(markdown_row([*start, name, state_of(one), attained, scale, *_savings(cell, name)]))
    return "\n".join(lines) + "\n"


def _disaggregated(one: Candidate) -> bool:
    return Configuration(one.configuration).needs_old


def _shape(one: Candidate) -> tuple[object, ...]:
    return (one.configuration, one.old, one.settings)


def _place(row: ProfileRow) -> tuple[object, ...]:
    return (row.configuration, row.old, row.settings, row.size, row.qps, row.bandwidth, row.compared)


def _savings(cell: Cell, name: str) -> list[str]:
    found = cell.against.get(name)
    if found is None:
        return [*["none"] * len(INTENSITIES), "", ""]
    ranges = [one for one in found.savings if isinstance(one, SavingRange)]
    if any(one.value >= SAVED for one in ranges):
        where = "at or below the value"
    elif any(one.high >= SAVED for one in ranges):
        where = "within the ends"
    else:
        where = "above them"
    return [*map(str, found.savings), where, found.depends]


def _best(pairs: Iterable[tuple[Cell, str, Candidate]]) -> str:
    found = [
        (saving, intensity, cell, name)
        for cell, name, _ in pairs
        if name in cell.against
        for saving, intensity in zip(cell.against[name].savings, INTENSITIES, strict=True)
        if isinstance(saving, SavingRange)
    ]
    if not found:
        return "no feasible cell"
    saving, intensity, cell, name = max(found, key=lambda one: one[0].value)
    certain = sum(one[0].low > 0 for one in found)
    where = f"{name}, {cell.size}, QPS {cell.qps:g}, {cell.bandwidth * GBIT:g} Gbit/s, {intensity:g} g/kWh"
    return f"up to {saving} ({where}); {certain} of {len(found)} savings are above 0 whatever the declared numbers"


def _attaining(pairs: Sequence[tuple[Cell, str, Candidate]]) -> str:
    kept = sum(one.attainment >= ATTAINED and state_of(one) != "overloaded" for _, _, one in pairs)
    over = sum(state_of(one) == "overloaded" for _, _, one in pairs)
    return f"{kept} of {len(pairs)} disaggregated cells; {over} cannot hold their load"


def _assumed(table: ProfileTable, cells: Sequence[Cell]) -> list[str]:
    lines = [f"- model {table.key.model}, {table.key.dtype}; {table.key.engine}"]
    targets = sorted({f"TTFT {cell.slo.ttft_s:g} s, TPOT {cell.slo.tpot_s:g} s" for cell in cells})
    lines.append(f"- latency targets: {'; '.join(targets)}")
    constant = {name: value for cell in cells for name, value in cell.conditions}
    lines += [f"- {name}: {value}" for name, value in constant.items() if name not in varied(cells)]
    seen = {}
    for row in table.rows:
        for device in row.devices:
            seen[device.role, device.name] = device
    for (role, name), device in sorted(seen.items()):
        watts = ", ".join(f"{phase} {value:g} ({low:g} to {high:g})" for phase, low, value, high in device.watts)
        lines.append(f"- {role} device {name}, W: {watts or 'measured'}")
        weight = device.embodied()
        if not isinstance(weight, Unavailable):
            ends = f"{weight.low_kg:g} to {weight.high_kg:g}"
            lines.append(f"- {name}, embodied: {weight.kg:g} kg ({ends}), {weight.provenance}: {weight.source}")
    return lines
