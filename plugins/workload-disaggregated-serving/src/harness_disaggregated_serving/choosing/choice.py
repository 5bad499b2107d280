"""Which configuration to run, how much it saves, how surely, and at which intensity, lifetime and rate that changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.quantity import Unavailable, Undefined
from harness_disaggregated_serving.carbon.accounting import (
    SECONDS_PER_YEAR,
    longer_new_life_helps,
    saving_from_ratios,
    saving_grows_with_intensity,
)
from harness_disaggregated_serving.choosing.interval import SavingRange, saving_range
from harness_disaggregated_serving.choosing.profile_table import ProfileTable
from harness_disaggregated_serving.choosing.scheduler import (
    BASELINE,
    Candidate,
    Decision,
    Demand,
    decide,
    flip_intensity,
)
from harness_disaggregated_serving.choosing.winners import Range, envelope, line_of, short

LIVES: Final = (1.0, 15.0)
"""Lifetimes in years between which a change of the choice is looked for."""
STEPS: Final = 28
"""Steps of that search, before each change is narrowed down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A place where the choice changes.

    Attributes:
        at: the value, in the unit of what varies.
        below: what is chosen below it.
        above: what is chosen above it.
    """

    at: float
    below: str
    above: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An answer.

    Attributes:
        demand: what was asked.
        decision: the rules' answer, with all that was considered.
        saving: of the chosen one against standalone; Undefined where standalone is not feasible or is chosen.
        margin: of the chosen one against the next best; Undefined where nothing else is feasible.
        runner_up: the next best; empty where there is none.
        intensities: which emits least at which grid intensity.
        lifetimes: changes by role and lifetime in years.
        rates: changes by requests per second, among those that were profiled.
        theory: what the closed forms say of the chosen one, for people.
    """

    demand: Demand
    decision: Decision
    saving: SavingRange | Undefined
    margin: SavingRange | Undefined
    runner_up: str
    intensities: tuple[Range, ...]
    lifetimes: dict[str, tuple[Change, ...]]
    rates: tuple[Change, ...]
    theory: tuple[str, ...]

    @property
    def chosen(self) -> Candidate | Unavailable:
        """What to run."""
        return self.decision.chosen


def choose(table: ProfileTable, demand: Demand) -> Choice:
    """Answers a demand from a table of one set of conditions; raises UsageError for an impossible demand."""
    decision = decide(table, demand)
    chosen = decision.chosen
    feasible = [one for one in decision.considered if not one.rejected]
    base = next((one for one in feasible if one.configuration == BASELINE), None)
    others = [one for one in feasible if isinstance(chosen, Candidate) and one.name != chosen.name]
    second = min(others, key=lambda one: one.total_g, default=None)
    lines = {short(one): line for one in feasible if (line := line_of(one)) is not None}
    return Choice(
        demand=demand,
        decision=decision,
        saving=_against(chosen, base, "standalone is not feasible here"),
        margin=_against(chosen, second, "nothing else is feasible here"),
        runner_up=second.name if second else "",
        intensities=envelope(lines),
        lifetimes={role: _lives(table, demand, role) for role in ("new", "old")},
        rates=_rates(table, demand),
        theory=_theory(chosen, base),
    )


def _against(chosen: Candidate | Unavailable, other: Candidate | None, otherwise: str) -> SavingRange | Undefined:
    if isinstance(chosen, Unavailable):
        return Undefined(chosen.reason)
    if other is None:
        return Undefined(otherwise)
    if other.name == chosen.name:
        return Undefined("it is the baseline")
    return saving_range(chosen.terms, other.terms)


def name_of(decision: Decision) -> str:
    """What a decision says to run; empty where nothing is feasible."""
    chosen = decision.chosen
    return short(chosen) if isinstance(chosen, Candidate) and not decision.infeasible else ""


def _lives(table: ProfileTable, demand: Demand, role: str) -> tuple[Change, ...]:
    def at(years: float) -> str:
        lives = {**demand.lifetimes_s, role: years * SECONDS_PER_YEAR}
        return name_of(decide(table, replace(demand, lifetimes_s=lives)))

    low, high = LIVES
    return _changes(at, [low + (high - low) * step / STEPS for step in range(STEPS + 1)])


def _changes(at: Callable[[float], str], points: Sequence[float]) -> tuple[Change, ...]:
    """Where a choice changes between neighbouring points, narrowed down by halving."""
    found = []
    names = [at(point) for point in points]
    for place in range(len(points) - 1):
        before, after = names[place], names[place + 1]
        if before == after:
            continue
        low, high = points[place], points[place + 1]
        for _ in range(12):
            middle = (low + high) / 2
            if at(middle) == before:
                low = middle
            else:
                high = middle
        found.append(Change(at=high, below=before, above=after))
    return tuple(found)


def _rates(table: ProfileTable, demand: Demand) -> tuple[Change, ...]:
    """Changes between neighbouring profiled rates; where between them is not known."""
    points = sorted({row.qps for row in table.rows if not demand.size or row.size == demand.size})
    names = [name_of(decide(table, replace(demand, qps=point))) for point in points]
    return tuple(
        Change(at=points[place + 1], below=names[place], above=names[place + 1])
        for place in range(len(points) - 1)
        if names[place] != names[place + 1]
    )


def _theory(chosen: Candidate | Unavailable, base: Candidate | None) -> tuple[str, ...]:
    """What the closed forms say: the ratios behind the saving, and which way it moves."""
    if isinstance(chosen, Unavailable) or base is None or base.name == chosen.name:
        return ()
    if isinstance(chosen.cost, Unavailable) or isinstance(base.cost, Unavailable):
        return ()
    if isinstance(chosen.energy_j, Unavailable) or isinstance(base.energy_j, Unavailable):
        return ()
    energy, embodied = chosen.energy_j / base.energy_j, chosen.cost.embodied_g / base.cost.embodied_g
    weight = base.cost.embodied_g / base.cost.total_g
    saved = saving_from_ratios(energy, embodied, weight)
    ratios = f"energy ratio e {energy:.3f}, embodied ratio m {embodied:.3f}, embodied share w {weight:.2%}"
    lines = [f"{ratios}: S = 1 - [(1 - w) e + w m] = {saved:+.1%}"]
    grows = saving_grows_with_intensity(energy, embodied)
    if grows is not None:
        lines.append(f"a dirtier grid {'raises' if grows else 'lowers'} the saving ({'m > e' if grows else 'm < e'})")
    even = flip_intensity(chosen, base)
    if even is not None:
        lines.append(f"it breaks even with standalone at {even:.3g} g/kWh")
    if base.new_charged_s > 0 and chosen.new_charged_s > 0:
        helps = longer_new_life_helps(base.new_charged_s, chosen.new_charged_s, base.cost.total_g, chosen.cost.total_g)
        lines.append(f"a longer life of the new device {'raises' if helps else 'lowers'} the saving")
    return tuple(lines)
