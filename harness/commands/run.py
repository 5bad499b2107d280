"""`harness plan` and `harness run`: what is heavy is imported when they are called."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.console import (
    DEFAULT_STORE,
    AsJson,
    Details,
    Only,
    StorePlace,
    SuiteFiles,
    Trials,
    Wait,
    echo,
    loaded_registry,
    render,
    waiting_s,
)
from harness.errors import ExitCode, MeasurementError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.discovery.registry import Registry
    from harness.planning.point import Plan, Point
    from harness.planning.suite import Suite
    from harness.running.executor_choice import Chosen, Wish
    from harness.running.fail_fast import Rule
    from harness.storing.store import Push, Store

NoSkips = Annotated[bool, typer.Option("--no-skips", help="Fail, with exit code 3, where a point is skipped.")]
Require = Annotated[
    int, typer.Option(metavar="N", min=0, help="Fail, with exit code 3, where fewer points than this can be measured.")
]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a continuous integration insists on, so that nothing measured is no success."""

    none_skipped: bool
    points: int

    def check(self, skips: Sequence[Mapping[str, Any]], points: int) -> None:
        """Raises MeasurementError, with what was skipped and why, where a demand is not met."""
        why = "; ".join(f"{each['label']}: {each['reason']}" for each in skips) or "nothing was skipped"
        if self.none_skipped and skips:
            raise MeasurementError(f"{len(skips)} skipped, and --no-skips allows none: {why}")
        if points < self.points:
            raise MeasurementError(f"{points} of the {self.points} points that --require asks for; skipped: {why}")


def _points_with_records(folder: Path) -> int:
    from harness.records.files import recorded_trials

    return len({trial.name.rpartition("-t")[0] for trial in recorded_trials(folder)})


def _plan(suites: Sequence[Suite], registry: Registry, executors: Mapping[str, Chosen]) -> Plan:
    from harness.planning.probe import plan_probed

    remote = [suite for suite, chosen in executors.items() if chosen.spec(registry).remote]
    return plan_probed(suites, registry, remote=remote)


def _skipped_lines(planned: Plan) -> Iterator[str]:
    """The points that cannot run here, by the reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for skipped in planned.skipped:
        word = "failed" if skipped.failed else "skipped"
        by_reason.setdefault((word, skipped.reason), []).append(f"{skipped.point.suite}: {skipped.point.label}")
    for (word, reason), labels in by_reason.items():
        yield f"{word}: {len(labels)} x {reason}" if len(labels) > 1 else f"{word}: {reason}"
        yield from (f"    {label}" for label in labels)


def plan(
    suites: SuiteFiles,
    *,
    only: Only = None,
    trials: Trials = None,
    as_json: AsJson = False,
    no_skips: NoSkips = False,
    require: Require = 0,
) -> None:
    """Shows what a run would do: points, trials, and what is skipped and why."""
    from harness.costing.asking import asked, check
    from harness.machine.provenance import provenance
    from harness.planning.named_offers import fetch_key, offers_of
    from harness.planning.probe import loaded
    from harness.planning.selection import selected
    from harness.running.executor_choice import choose
    from harness.running.expected_time import to_fetch, told_first

    registry = loaded_registry()
    loaded_suites = loaded(suites, registry)
    executors = choose(loaded_suites, registry)
    planned = selected(_plan(loaded_suites, registry, executors), only or (), trials)
    check(asked(loaded_suites), planned.points, registry)
    here = [point for point in planned.points if not executors[point.suite].spec(registry).remote]
    wanted = to_fetch(here, registry)
    if as_json:
        content = {
            "points": [point.to_json() for point in planned.points],
            "skipped": [skipped.to_json() for skipped in planned.skipped],
            "warnings": list(_warnings(planned)),
            "offers": {point.id: offers_of(point, registry) for point in planned.points},
            "provenance": provenance([suite.file for suite in loaded_suites], registry.sources),
            "fetch": {point.id: fetch_key(point, registry) for point in planned.points},
            "to_fetch": [{"what": each.what, "seconds": each.seconds} for each in wanted],
            "directions": registry.directions(
                [("workload", point.workload) for point in planned.points]
                + [("scorer", scorer.name) for point in planned.points for scorer in point.scorers]
            ),
        }
        echo(json.dumps(content, indent=1, default=str))
    else:
        _show(planned)
        if wanted:
            echo(told_first(wanted))
        for line in _gate_lines(loaded_suites, planned):
            echo(line)
    skips = [skipped.to_json() for skipped in planned.skipped]
    failed = [f"{each['label']}: {each['reason']}" for each in skips if each.get("failed")]
    if failed:
        raise MeasurementError("; ".join(failed))
    Demands(none_skipped=no_skips, points=require).check(skips, len(planned.points))


def _gate_lines(suites: Sequence[Suite], planned: Plan) -> Iterator[str]:
    """What a gate by the rules of these suites takes; nothing where they have none."""
    if not any(suite.gate for suite in suites):
        return
    from harness.gating.cells import Rules
    from harness.gating.gate import least_pairs
    from harness.reporting.wording import counted

    cells = Rules({suite.suite: suite.gate for suite in suites}).most_cells(planned.points)
    yield f"gate: {counted(cells, 'comparison')} and limits; harness gate takes at least {least_pairs(cells)} pairs"


def _warnings(planned: Plan) -> Iterator[str]:
    """What suites ask for and cannot have, each once."""
    yield from dict.fromkeys(f"warning: {point.suite}: {said}" for point in planned.points for said in point.warnings())


def _show(planned: Plan) -> None:
    from harness.reporting.wording import counted
    from harness.running.expected_time import between, run_cost

    for point in planned.points:
        on = f" on {', '.join(str(each['uuid']) for each in point.devices)}" if len(point.devices) > 1 else ""
        echo(f"{point.id}  {point.suite}: {point.label}  x {between(point.at_least, point.trials)}{on}")
    for line in [*_skipped_lines(planned), *_warnings(planned)]:
        echo(line)
    fewest, most = (sum(each) for each in ([p.at_least for p in planned.points], [p.trials for p in planned.points]))
    echo(
        f"{counted(len(planned.points), 'point')}, {between(fewest, most)} {'trial' if most == 1 else 'trials'}, "
        f"{len(planned.skipped)} skipped; {run_cost(planned.points)}"
    )


def run(
    suites: Annotated[list[Path] | None, typer.Argument(help="Suite files.", show_default=False)] = None,
    *,
    store: StorePlace = DEFAULT_STORE,
    resume: Annotated[
        str | None, typer.Option(help="Run to continue; only what is missing is run.", show_default=False)
    ] = None,
    changed: Annotated[
        str, typer.Option(help="If suites plan other points than --resume: refuse, keep its plan, or begin a new run.")
    ] = "refuse",
    executor: Annotated[
        str, typer.Option(metavar="NAME", help="Executor of all trials, in place of what the suites say.")
    ] = "",
    executor_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the executor; may be repeated.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Trials side by side, of workloads that model their hardware; others run alone.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the order of trials.")] = 0,
    no_skips: NoSkips = False,
    require: Require = 0,
    wait: Wait = None,
    only: Only = None,
    trials: Trials = None,
    fail_fast: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What failed trials end: a point whose first two crash alike (point), the run (run), nothing (never).",
        ),
    ] = "point",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only failures and the report.")
    ] = False,
    details: Details = False,
) -> None:
    """Measures the points of suites and prints the report."""
    from harness.planning.probe import loaded
    from harness.running.executor_choice import Wish
    from harness.storing.places import open_store

    registry = loaded_registry()
    wish = Wish(executor, tuple(executor_option or ()), jobs, waiting_s(wait))
    kept = open_store(store)
    if resume is not None and (only or trials is not None):
        raise UsageError("--only and --trials choose from a new plan", accepted="them, or --resume, which has its own")
    demands = Demands(none_skipped=no_skips, points=require)
    manner = Manner(_rule(fail_fast), demands, only or (), trials, quiet=quiet, details=details)
    loaded_suites = loaded(suites or [], registry)
    begun = None if resume is None else _resumed(kept, resume, loaded_suites, changed, wish, registry)
    if begun is None:
        begun = _begun(kept, loaded_suites, seed, wish, registry, manner)
    _drive(*begun, registry, manner)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run goes on and what it shows.

    Attributes:
        fail_fast: what failed trials end.
        demands: what a continuous integration insists on.
        only: patterns of the points that are wanted; all where there are none.
        trials: of each point, in place of what the suites say.
        quiet: whether no progress is shown.
        details: whether the report is shown with all its tables.
    """

    fail_fast: Rule
    demands: Demands
    only: Sequence[str] = ()
    trials: int | None = None
    quiet: bool = False
    details: bool = False


def _rule(text: str) -> Rule:
    from harness.running.fail_fast import Rule

    try:
        return Rule(text)
    except ValueError:
        raise UsageError(f"found {text!r}", where="--fail-fast", accepted=", ".join(Rule)) from None


Begun = tuple["Store", Path, "Sequence[Point]", int, "Mapping[str, Chosen]"]
"""Store, folder, points, seed and executors of a run."""


def _resumed(
    kept: Store, resume: str, loaded: Sequence[Suite], changed: str, wish: Wish, registry: Registry
) -> Begun | None:
    """An earlier run to go on with; None where the suites have changed and a new one is to begin."""
    from harness.running.resume import resumed
    from harness.running.run_folder import executors_of, planned_points
    from harness.storing.places import to_resume

    kept, folder = to_resume(kept, resume)
    executors = wish.over([point.suite for point in planned_points(folder)], executors_of(folder, registry), registry)
    planned = _plan(loaded, registry, executors) if loaded else None
    found = resumed(folder, planned, changed)
    return None if found is None else (kept, folder, *found, executors)


def _begun(kept: Store, loaded: Sequence[Suite], seed: int, wish: Wish, registry: Registry, manner: Manner) -> Begun:
    """A new run."""
    from harness.costing.asking import asked, check
    from harness.machine.provenance import provenance
    from harness.planning.secrecy import command_line
    from harness.planning.selection import selected
    from harness.running.executor_choice import choose
    from harness.running.run_folder import create

    if not loaded:
        raise UsageError("nothing to run", accepted="suite files, or --resume with a run folder")
    executors = choose(loaded, registry, wish)
    planned = selected(_plan(loaded, registry, executors), manner.only, manner.trials)
    # Before hours of measuring.
    manner.demands.check([skipped.to_json() for skipped in planned.skipped], len(planned.points))
    questions = asked(loaded)
    check(questions, planned.points, registry)
    files = [suite.file for suite in loaded]
    folder = create(
        kept.folder,
        planned,
        files,
        command_line(),
        seed,
        executors=executors,
        provenance=provenance(files, registry.sources),
        questions=questions,
    )
    for line in [*_skipped_lines(planned), *_warnings(planned)]:
        echo(line, err=True)
    return kept, folder, planned.points, seed, executors


def kept_between(push: Push, run: Path, executors: Mapping[str, Chosen]) -> Push:
    """What a run tells of its folders: each trial's; only its own where a measured trial may begin beside sending."""
    from harness.running.executor_choice import LOCAL

    if not any(each.name == LOCAL and each.options.get("jobs", 1) > 1 for each in executors.values()):
        return push
    return lambda folder: push(folder) if folder == run else None


def _drive(
    kept: Store,
    folder: Path,
    points: Sequence[Point],
    seed: int,
    executors: Mapping[str, Chosen],
    registry: Registry,
    manner: Manner,
) -> None:
    from harness.commands.progress import Progress
    from harness.running.driver_lock import driven
    from harness.running.expected_time import total_s
    from harness.running.fail_fast import FailFast
    from harness.running.run import start
    from harness.running.run_folder import skips_of

    here = not all(executors[suite].spec(registry).remote for suite in executors)
    resume = f"harness run --resume {shlex.quote(kept.name_of(folder))}"
    shown = Progress(expected_s=total_s(points), quiet=manner.quiet, resume=resume)
    with driven(folder), shown as progress, kept.sending(quiet=here) as uploads:
        uploads.push(folder)
        fail_fast = FailFast(manner.fail_fast)
        keep = kept_between(uploads.push, folder, executors)
        made = start(folder, points, seed, executors, registry, progress.tell, keep=keep, fail_fast=fail_fast)
        made.tally.failed += [f"{each['label']}: {each['reason']}" for each in skips_of(folder) if each.get("failed")]
        tally = made.execute()
        if tally.interrupted:
            uploads.hurry()
    for each in tally.skipped:
        echo(f"skipped: {each['label']}: {each['reason']}", err=True)
    if not points:
        echo("every point was skipped: nothing was measured")
    elif tally.measured or tally.kept:
        render([folder], details=manner.details)
    for text in [*progress.untold([*tally.failed, *tally.invalid]), *uploads.faults]:
        echo(f"failed: {text}", err=True)
    echo(f"records: {kept.name_of(folder)}")
    if not tally.exit_code:
        manner.demands.check(skips_of(folder), _points_with_records(folder))
    raise typer.Exit(int(tally.exit_code or (ExitCode.MEASUREMENT if uploads.faults else ExitCode.OK)))
