"""What `harness gate` does with its arguments; what it measures and decides lies in `gate`, `pairs` and `sides`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.discovery.registry import load_plugins
from harness.errors import HarnessError, MeasurementError, UsageError
from harness.gating.calibration import Report, report
from harness.gating.calibration_store import find, revision, runner_of
from harness.gating.cells import Rules
from harness.gating.gate import Gate, least_pairs, looks_for
from harness.gating.pairs import Pairs
from harness.gating.result import Result
from harness.gating.sides import BASE, HEAD, Planned, Side, Tell, installed, revisions, same_points
from harness.gating.verdict import CellKey
from harness.planning import matrix, suite
from harness.planning.point import Point
from harness.planning.probe import plan_probed
from harness.planning.secrecy import command_line
from harness.planning.suite import Suite
from harness.records.metric import Metric
from harness.running.executor_choice import LOCAL
from harness.running.expected_time import expected
from harness.running.run import Watcher
from harness.running.run_folder import new_run_id

CONTROL: Final = """\
suite: control
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: 1}
warm_up: {max_seconds: 5, max_iterations: 200, tolerance: 20%}
cases:
  - workload: spin
    options: {iterations: 100000}
    functional_units: {item: {sum: items}}
"""
"""Measured in every round under both names, on base's environment; if it moves, the runner did.

An iteration is longer than a slice of the scheduler; one of a few milliseconds varies on any busy machine.
"""


_MOST_KEYS: Final = 3
"""A rule has no more cells on a point: a comparison, a floor and a ceiling."""


@contextmanager
def sides(
    *,
    base: str | None,
    head: str,
    base_python: str | None,
    head_python: str | None,
    install: str,
    tell: Tell,
) -> Iterator[dict[str, Side]]:
    """Both sides as the command line names them: two revisions, or two installed environments.

    Raises:
        UsageError: neither, or both, are named.
    """
    if base_python is not None or head_python is not None:
        if base is not None or base_python is None:
            raise UsageError(
                "--base compares two revisions and --base-python two environments: name one of them, "
                "and --head-python only with --base-python",
                accepted="--base REF [--head REF], or --base-python PYTHON [--head-python PYTHON]",
            )
        yield {BASE: installed(BASE, base_python), HEAD: installed(HEAD, head_python or sys.executable)}
        return
    if base is None:
        raise UsageError(
            "the gate needs something to compare with",
            accepted="--base REF, --base-python PYTHON, --baseline NAME or --pytest-benchmark",
        )
    with revisions(Path.cwd(), {BASE: base, HEAD: head}, install, tell) as made:
        yield made


def load(files: Sequence[Path]) -> list[Suite]:
    """The suites; raises UsageError where one has no rules, judges a metric twice, shares its name, or runs elsewhere.

    Only the executor `local` gates: pairs of trials compare two versions on one machine, one beside the other.
    """
    loaded = suite.load_all(files)
    for each in loaded:
        if not each.gate:
            raise UsageError("the suite has no `gate:` section", where=each.file, accepted="a list of rules")
        if each.executor is not None and each.executor.name != LOCAL:
            raise each.document.error(
                ("executor",),
                f"the gate cannot use the executor {each.executor.name!r}",
                accepted=LOCAL,
                hint="leave it out of the suite and name it where it is to be used: harness run --executor",
            )
        judged = [(rule.metric, rule.per, rule.at_least, rule.at_most) for rule in each.gate]
        for index, one in enumerate(judged):
            if one in judged[:index]:
                raise each.document.error(("gate", index), f"{Metric(one[0], one[1])} is judged twice")
        if sum(other.suite == each.suite for other in loaded) > 1:
            raise UsageError(f"two suites are named {each.suite!r}", where=each.file, accepted="a name for each")
    return loaded


def enough(loaded: Sequence[Suite], pairs: int) -> None:
    """Raises UsageError where so few pairs cannot fail a gate of these suites, before any side is installed.

    Only few pairs take a plan, and it is that of this environment: where it lacks a plugin, the sides' own plan tells.
    """
    combinations = ((len(each.gate), matrix.size(case.matrix, case.include)) for each in loaded for case in each.cases)
    if pairs >= least_pairs(sum(_MOST_KEYS * rules * points for rules, points in combinations)):
        return
    looks_for(pairs)
    try:
        points = plan_probed(loaded, load_plugins()).points
    except HarnessError:
        return
    looks_for(pairs, Rules({each.suite: each.gate for each in loaded}).most_cells(points))


@dataclass(frozen=True, slots=True)
class Matched:
    """What both sides plan.

    Attributes:
        points: matched, base first.
        control: the control workload's point.
        rules: what is judged.
        notes: what a reader must know about points that are not compared.
        planned: what each side plans.
    """

    points: list[tuple[Point, Point]]
    control: list[Point]
    rules: Rules
    notes: list[str]
    planned: Mapping[str, Planned]

    @property
    def heads(self) -> list[Point]:
        """The points as head plans them."""
        return [head for _, head in self.points]

    @property
    def margins(self) -> dict[CellKey, float]:
        """The tolerances of every comparison that there can be."""
        return self.rules.margins(self.heads)


def match(made: Mapping[str, Side], loaded: Sequence[Suite], control: Path) -> Matched:
    """Plans suites on both sides and matches their points.

    Raises:
        UsageError: the suites are wrong on both sides, or there is no point in common.
        MeasurementError: one side cannot plan what the other one can.
    """
    files = [Path(each.file) for each in loaded]
    control.write_text(CONTROL, encoding="utf-8")
    base = made[BASE].plan([*files, control])
    try:
        head = made[HEAD].plan(files)
    except UsageError as error:
        raise MeasurementError(f"head cannot plan what base can: {error.message}", where=error.where) from None
    points, odd = same_points([point for point in base.points if point.suite != "control"], head.points)
    notes = [f"{label}: only one side has it" for label in odd]
    notes += [f"{label}: skipped: {reason}" for label, reason in {**base.skipped, **head.skipped}.items()]
    if not points:
        raise MeasurementError("base and head have no point in common", hint="; ".join(notes))
    rules = Rules({each.suite: each.gate for each in loaded}, _directions(base, head))
    notes += rules.unjudged([point for _, point in points])
    control_points = [point for point in base.points if point.suite == "control"]
    return Matched(points, control_points, rules, notes, {BASE: base, HEAD: head})


def _directions(base: Planned, head: Planned) -> dict[str, bool | None]:
    """Column -> whether higher is better; head may not turn a direction that base declares."""
    declared = {name: known for name, known in base.directions.items() if known is not None}
    return {**head.directions, **declared}


def cost(matched: Matched, looks: Sequence[tuple[int, float]]) -> str:
    """What the pairs of a gate will take, in words: up to the first analysis and up to the last."""
    points = [base for base, _ in matched.points] + matched.control
    return expected(points, [(2 * looks[0][0], 2 * looks[-1][0])] * len(points))


def calibrated(store: Path, matched: Matched, suites: Sequence[str], pairs: int) -> tuple[Report | None, str]:
    """What the runner's calibration says of this gate, or why none holds."""
    points = [base for base, _ in matched.points]
    wanted = revision(points, matched.rules.by_suite)
    calibration, why = find(store, suites, runner_of(points), wanted, pairs)
    if calibration is None:
        return None, why
    found = report(calibration, calibration.known(matched.margins))
    return found, found.broken


def refuse_weak(found: Report, pairs: int) -> None:
    """Raises UsageError for tolerances that lie below what this runner can tell from nothing."""
    weak = [cell for cell in found.cells if cell.weak(pairs)]
    if not weak:
        return
    needed = [cell.pairs_needed for cell in weak]
    enough = max((number for number in needed if number is not None), default=None)
    texts = [
        f"{cell.key}: a tolerance of {math.expm1(cell.margin):.1%} is below what {cell.pairs} pairs show here "
        f"({math.expm1(cell.mde_0):.1%} in 80 % of jobs, standard error {math.expm1(cell.standard_error):.1%})"
        for cell in weak
    ]
    raise UsageError(
        "; ".join(texts),
        accepted="a larger tolerance" + ("" if None in needed or enough is None else f", or about {enough} pairs"),
        hint="--allow-weak measures all the same",
    )


def run(
    made: Mapping[str, Side],
    loaded: Sequence[Suite],
    store: Path,
    *,
    pairs: int,
    budget_s: float | None,
    seed: int,
    watcher: Watcher,
    allow_weak: bool = False,
    wait_s: float | None = None,
) -> tuple[Result, Path]:
    """Measures both sides by the suites that `load` gave and judges them; returns the result and its folder.

    Raises:
        UsageError: too few pairs, an unknown metric, or a tolerance that the calibration refuses.
        DeviceHeldError: another run held a device for as long as this one would wait.
        MeasurementError: one side cannot plan, no point is common, or scoring or costing failed.
    """
    started = time.monotonic()
    folder = store / new_run_id(["gate", *(each.suite for each in loaded)])
    folder.mkdir(parents=True)
    matched = match(made, loaded, folder / "control.yaml")
    looks = looks_for(pairs, matched.rules.most_cells(matched.heads))
    watcher({"type": "note", "text": f"{looks[0][0]} to {looks[-1][0]} pairs: {cost(matched, looks)}; seed {seed}"})
    found, why = calibrated(store, matched, [each.suite for each in loaded], pairs)
    if found is not None and not allow_weak:
        refuse_weak(found, pairs)
    required = any(each.calibration == "required" for each in loaded)
    result = Gate(
        rules=matched.rules,
        pairs=Pairs(
            folder,
            made,
            matched.points,
            control=matched.control,
            planned=matched.planned,
            seed=seed,
            watcher=watcher,
            rounds=pairs,
            command=command_line(),
            wait_s=wait_s,
            energy=matched.rules.energy,
        ),
        looks=looks,
        deadline_s=math.inf if budget_s is None else started + budget_s,
        control_bounds=found.control if found else None,
        uncalibrated=why if required else "",
        notes=[*matched.notes, *_about(found, why, required=required)],
    ).run()
    result = replace(
        result,
        seed=seed,
        revisions={name: side.revision for name, side in made.items()},
        suites=[each.file for each in loaded],
    )
    result.write(folder)
    return result, folder


def _about(found: Report | None, why: str, *, required: bool) -> list[str]:
    """What the calibration says, for the notes."""
    notes = []
    if why:
        notes.append(f"not calibrated ({'so a pass does not count' if required else 'the suite asks for none'}): {why}")
    if found is not None:
        notes.append(f"calibrated: without a change {found.alarms} jobs failed and {found.clean} passed")
        notes += [
            f"{cell.key}: finds +{math.expm1(cell.mde):.1%} in 80 % of jobs, and +{math.expm1(cell.mde_0):.1%} at "
            "tolerance 0"
            for cell in found.cells
        ]
    return notes
