"""`harness gate`: the command line of the gate; what it measures and decides lies in `gate`, `pairs` and `sides`."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness import record, suite
from harness.errors import UsageError
from harness.gate import Gate, Result, looks_for, to_json
from harness.pairs import Pairs
from harness.plan import Point
from harness.registry import Registry
from harness.run import Watcher, new_run_id
from harness.sides import BASE, HEAD, Side, Tell, installed, revisions, same_points
from harness.suite import Suite
from harness.verdict import Judged, Verdict

CONTROL: Final = """\
suite: control
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: 1}
warm_up: {max_seconds: 1}
cases:
  - workload: spin
    options: {iterations: 20000}
    functional_units: {item: {sum: items}}
"""
"""Measured in every round on both sides; no change can touch it, so if it moves the runner did."""
CONTROL_LABEL: Final = "control: spin"
GATE: Final = "gate.json"


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
            raise UsageError("two environments are compared, or two revisions", accepted="--base REF, or --base-python")
        yield {BASE: installed(BASE, base_python), HEAD: installed(HEAD, head_python or sys.executable)}
        return
    if base is None:
        raise UsageError("nothing to compare with", accepted="--base REF, --base-python PYTHON or --baseline NAME")
    with revisions(Path.cwd(), {BASE: base, HEAD: head}, install, tell) as made:
        yield made


def points_of(made: Mapping[str, Side], files: Sequence[Path]) -> tuple[list[tuple[Point, Point]], list[str]]:
    """Points of both sides, matched, and what a reader must know about the rest."""
    matched: list[tuple[Point, Point]] = []
    notes: list[str] = []
    for file in files:
        base, base_skipped = made[BASE].plan(file)
        head, head_skipped = made[HEAD].plan(file)
        pairs, odd = same_points(base, head)
        matched += pairs
        notes += [f"{label}: only one side has it" for label in odd]
        notes += [f"{label}: skipped: {reason}" for label, reason in {**base_skipped, **head_skipped}.items()]
    return matched, notes


def load(files: Sequence[Path]) -> list[Suite]:
    """The suites, each with rules to judge by; raises UsageError where one has none."""
    loaded = [suite.load(file) for file in files]
    for each in loaded:
        if not each.gate:
            raise UsageError("the suite has no `gate:` section", where=each.file, accepted="a list of rules")
    return loaded


def run(
    made: Mapping[str, Side],
    files: Sequence[Path],
    store: Path,
    registry: Registry,
    *,
    pairs: int,
    budget_s: float | None,
    seed: int,
    watcher: Watcher,
) -> tuple[Result, Path]:
    """Measures both sides and judges them; returns the result and the folder that holds all of it.

    Raises:
        UsageError: no rule, too few pairs, an unknown metric, or no point that both sides have.
        MeasurementError: scoring or costing failed.
    """
    started = time.monotonic()
    loaded = load(files)
    looks = looks_for(pairs)
    folder = store / new_run_id(["gate", *(each.suite for each in loaded)])
    matched, notes = points_of(made, files)
    if not matched:
        raise UsageError("base and head have no point in common", hint="; ".join(notes))
    folder.mkdir(parents=True)
    control = folder / "control.yaml"
    control.write_text(CONTROL, encoding="utf-8")
    matched += points_of(made, [control])[0]
    result = Gate(
        rules={each.suite: each.gate for each in loaded},
        pairs=Pairs(folder, made, matched, seed=seed, watcher=watcher, command=["harness", *sys.argv[1:]]),
        looks=looks,
        deadline_s=math.inf if budget_s is None else started + budget_s,
        control=CONTROL_LABEL,
        direction=directions(registry),
        notes=notes,
    ).run()
    revision = {name: side.revision for name, side in made.items()}
    record.write_json(
        folder / GATE, {**to_json(result), "revisions": revision, "suites": [each.file for each in loaded]}
    )
    return result, folder


def directions(registry: Registry) -> dict[str, bool | None]:
    """Column -> whether higher is better, as workloads and scorers declare it."""
    specs = [offer.spec for kind in ("workload", "scorer") for offer in registry.offers(kind).values()]
    return {column.name: column.higher_is_better for spec in specs for column in spec.columns}


def lines(result: Result, folder: Path) -> Iterator[str]:
    """The result for a terminal: the verdict, then each cell with its interval first."""
    yield f"{str(result.verdict).upper()}" + (f": {result.reason}" if result.reason else "")
    n, alpha = result.looks[-1]
    yield f"{n} pairs, each bound at an error rate of {alpha:g}; look {len(result.looks)}"
    for judged in result.judged:
        yield f"  {judged.verdict!s:<13} {judged.cell.name}: {change(judged)}"
    if result.control is not None:
        yield f"  control moved by {result.control:+.1%}"
    for note in result.notes:
        yield f"  note: {note}"
    yield f"records: {folder}"


def change(judged: Judged) -> str:
    """What a cell found, in words: the change with its interval and what is allowed."""
    found = judged.effect
    if found is None:
        return judged.reason
    why = f" ({judged.reason})" if judged.verdict is Verdict.INCONCLUSIVE else ""
    if judged.cell.limit:
        return f"{found.estimate:+.4g} beyond the limit, from {found.low:+.4g} to {found.high:+.4g}{why}"
    estimate, low, high = found.ratio
    allowed = math.expm1(judged.cell.margin)
    upper = "unknown" if high == math.inf else f"{high:+.1%}"
    return f"worse by {estimate:+.1%}, from {low:+.1%} to {upper}; allowed {allowed:+.1%}{why}"


def write_json(path: Path, folder: Path) -> None:
    """Copies the gate's JSON to where the user wants it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads((folder / GATE).read_text(encoding="utf-8")), indent=1), encoding="utf-8")
