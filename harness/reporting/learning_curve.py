"""What work that learns had spent when it was how good: quality between windows over joules, seconds and steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.quantity import Amount
from harness.records.record import Record
from harness.records.summary import RunReport, summarise
from harness.reporting import charts
from harness.reporting.blocks import Block, Chart
from harness.reporting.charts import Line
from harness.reporting.same_work import RANKED_AS
from harness.reporting.tables import Section, Table
from harness.reporting.wording import counted, interval, ranged
from harness.sample import disjoint
from harness.statistics.intervals import NAME
from harness.units import si

STEPS: Final = "steps"
"""Name that a workload gives the count of what it did, among what it says of its quality."""
LOSS: Final = "loss"
"""What a quality ends in of which less is better."""
SPENT: Final = (("energy_j", "energy", "J"), ("duration_s", "time", "s"), (STEPS, STEPS, ""))
LEAST: Final = 2
"""Windows that make a curve."""
TOGETHER: Final = 8
"""Points in one drawing: as many as there are colours."""
SHARES: Final = (0.25, 0.5, 1.0)
"""Shares of the most energy that a trial spent, at which the points are compared."""


@dataclass(frozen=True, slots=True)
class After:
    """Where the work stood after a window.

    Attributes:
        spent: what had been spent until then, by name; without what is not known.
        quality: what the workload said of it, by name.
    """

    spent: Mapping[str, float]
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """How a trial went, from window to window.

    Attributes:
        number: of its point in the tables.
        label: of its point.
        trial: its number.
        after: where the work stood after each window.
        targets: quality -> what the option `target_<quality>` asks for.
        kind: what curves have to agree in to be drawn together: workload and what it says that it may be ranked with,
            targets, how joules were obtained.
    """

    number: int
    label: str
    trial: int
    after: Sequence[After]
    targets: Mapping[str, float]
    kind: tuple[object, ...]

    def best(self, name: str) -> float:
        """The best quality after any window."""
        return (min if name.endswith(LOSS) else max)(each.quality[name] for each in self.after if name in each.quality)

    def reached(self, name: str) -> int | None:
        """The first window after which the target was met; None where it was not, or there is none."""
        target = self.targets.get(name)
        if target is None:
            return None
        sign = -1.0 if name.endswith(LOSS) else 1.0
        told = [(place, each.quality[name]) for place, each in enumerate(self.after) if name in each.quality]
        return next((place for place, value in told if sign * value >= sign * target), None)


def afters(record: Record) -> list[After]:
    """Every window of a trial that says how good the work was after it, with all spent in windows until then."""
    measurement = record.measurement
    if len(measurement.validation) != len(measurement.windows):
        return []
    scopes = {name: scope for meter in measurement.meters for name, scope in meter.scopes.items()}
    read: dict[int, dict[str, float | None]] = {}
    for reading in measurement.readings:
        if reading.primary and reading.span == "window":
            joules = reading.value.value if isinstance(reading.value, Amount) else None
            read.setdefault(reading.window, {})[reading.scope] = joules
    found, energy_j, duration_s = [], 0.0, 0.0
    known = bool(read)
    for span, said in zip(measurement.windows, measurement.validation, strict=True):
        here = read.get(span.window, {})
        summed = [here[name] for name in disjoint([name for name in here if name in scopes], scopes)]
        known = known and bool(summed) and None not in summed
        energy_j += sum(joules for joules in summed if joules is not None)
        duration_s += span.duration_s
        spent = {"duration_s": duration_s, **({"energy_j": energy_j} if known else {})}
        if STEPS in said:
            spent[STEPS] = said[STEPS]
        found.append(After(spent, {name: value for name, value in said.items() if name != STEPS}))
    return found


def curve(number: int, label: str, record: Record) -> Curve:
    """The curve of a trial of a point with that number and label."""
    measurement, after = record.measurement, afters(record)
    options = measurement.point.get("options", {})
    targets = {
        name: float(target)
        for name in dict.fromkeys(name for each in after for name in each.quality)
        if isinstance(target := options.get(f"target_{name}"), int | float)
    }
    methods = {
        each.value.label.value
        for each in measurement.readings
        if each.primary and each.span == "window" and isinstance(each.value, Amount)
    }
    ranked_as = str(measurement.workload.get(RANKED_AS, ""))
    kind = (measurement.point.get("workload"), ranked_as, tuple(sorted(targets.items())), tuple(sorted(methods)))
    return Curve(number, label, measurement.trial, after, targets, kind)


def block(report: RunReport) -> Block | None:
    """The curves of all points that have some, drawn together where they are of one kind; None where none has."""
    kinds: dict[tuple[object, ...], list[Curve]] = {}
    for number, point in enumerate(report.points, start=1):
        for record in point.records:
            if (found := curve(number, point.label, record)).after:
                kinds.setdefault(found.kind, []).append(found)
    kinds = {kind: curves for kind, curves in kinds.items() if any(_learns(each) for each in curves)}
    drawn = [each for curves in kinds.values() for part in _parts(curves) for each in _charts(part)]
    rows = [
        _row(each, name)
        for curves in kinds.values()
        for name in _names(curves)
        for each in curves
        if any(name in after.quality for after in each.after)
    ]
    if not rows:
        return None
    head = ["point", "trial", "quality", "best", "target", "reached after"]
    return Block(
        anchor="learning",
        title="Quality over what was spent for it",
        intro=(
            "Each mark is a window's end; a line is a trial, its colour the point. A ring is where a trial reached its "
            "target first. What was spent between windows, to judge, is left out."
        ),
        charts=drawn,
        sections=[
            *(section for curves in kinds.values() if (section := same_energy(curves)) is not None),
            Section("Each trial", Table(head, rows)),
        ],
    )


def _learns(found: Curve) -> bool:
    """Whether it is of work that goes on from window to window: several of them, or a target to reach."""
    return len(found.after) >= LEAST or bool(found.targets)


def _names(curves: Sequence[Curve]) -> list[str]:
    return list(dict.fromkeys(name for each in curves for after in each.after for name in after.quality))


def _parts(curves: Sequence[Curve]) -> Iterator[list[Curve]]:
    """So many points together as there are colours; trials too short for a curve are left out."""
    long = [each for each in curves if len(each.after) >= LEAST]
    numbers = list(dict.fromkeys(each.number for each in long))
    for first in range(0, len(numbers), TOGETHER):
        some = numbers[first : first + TOGETHER]
        yield [each for each in long if each.number in some]


def _charts(curves: Sequence[Curve]) -> Iterator[Chart]:
    points = {each.number: each.label for each in curves}
    colours = {number: place for place, number in enumerate(points)}
    legend = [(f"fill{colours[number] % 8}", f"#{number} {label}") for number, label in points.items()]
    for name in _names(curves):
        for key, word, unit in SPENT:
            whole = [
                each for each in curves if all(key in after.spent and name in after.quality for after in each.after)
            ]
            if not whole:
                continue
            lines = [
                Line(
                    f"#{each.number} {each.label}, trial {each.trial}",
                    colours[each.number],
                    [(after.spent[key], after.quality[name]) for after in each.after],
                    each.reached(name),
                )
                for each in whole
            ]
            target = whole[0].targets.get(name)
            title = f"{name} over {word}"
            if len(points) == 1:
                title += f": {legend[0][1]}"
            says = _says(whole, name, target)
            drawing = charts.learning(lines, ((word, unit), name), title, says, target)
            apart = " Points may sum other parts in their loss." if name.endswith(LOSS) and len(points) > 1 else ""
            yield Chart(drawing, f"{title}. {says}.{apart}", legend)


def _says(curves: Sequence[Curve], name: str, target: float | None) -> str:
    trials = counted(len(curves), "trial")
    if target is not None:
        met = sum(each.reached(name) is not None for each in curves)
        return f"{trials}; {met} reached {name} {target:g}"
    word, best = ("least", min) if name.endswith(LOSS) else ("at most", max)
    return f"{trials}, {name} {word} {best(each.best(name) for each in curves):.3g}"


def same_energy(curves: Sequence[Curve]) -> Section | None:
    """What the points of one kind reached for the same energy: after the last window that did not spend more.

    Work that ended before, as at its target, keeps what it had reached. None for fewer than two points, and where
    energy is not known.
    """
    if len({each.number for each in curves}) < 2 or any("energy_j" not in each.after[-1].spent for each in curves):
        return None
    budgets = [share * max(each.after[-1].spent["energy_j"] for each in curves) for share in SHARES]
    names = [name for name in _names(curves) if not name.endswith(LOSS)]  # a loss of other parts is another quantity
    rows = []
    for number, label in {each.number: each.label for each in curves}.items():
        of_point = [each for each in curves if each.number == number]
        cells = [_at(of_point, name, budget) for name in names for budget in budgets]
        rows.append([f"#{number} {label}", str(len(of_point)), *cells])
    head = ["point", "n", *(f"{name} for {si(budget, 'J')}" for name in names for budget in budgets)]
    note = (
        f"Medians of n trials [{NAME}], each after its last window that had not spent more; (ended): all trials had "
        "ended by then, and keep what they had reached."
    )
    return Section("For the same energy", Table(head, rows), paragraphs=[note]) if names else None


def _at(curves: Sequence[Curve], name: str, budget: float) -> str:
    found, ended = [], True
    for each in curves:
        within = [after for after in each.after if after.spent["energy_j"] <= budget * (1 + 1e-9)]
        if not within:
            return "no window ended before"
        if name not in within[-1].quality:
            return "not told"
        found.append(Amount.exact(within[-1].quality[name], "1"))
        ended = ended and each.after[-1].spent["energy_j"] < budget
    summary = summarise(found)
    both = f"({interval(summary, '')})" if len(found) == 2 else ""
    return " ".join(filter(None, (ranged(summary, ""), both, "(ended)" if ended else "")))


def _row(found: Curve, name: str) -> list[str]:
    """Of one trial: its best, the target that its option `target_<quality>` sets, and what had been spent there."""
    target, place = found.targets.get(name), found.reached(name)
    crossing = "" if target is None else "not reached" if place is None else _spent(found.after[place])
    told = "" if target is None else f"{target:g}"
    return [f"#{found.number} {found.label}", str(found.trial), name, f"{found.best(name):.4g}", told, crossing]


def _spent(after: After) -> str:
    told = [si(after.spent[key], unit) for key, _, unit in SPENT[:2] if key in after.spent]
    return ", ".join([*told, *([f"{after.spent[STEPS]:g} steps"] if STEPS in after.spent else [])])
