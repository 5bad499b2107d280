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
    StorePlace,
    SuiteFiles,
    Wait,
    echo,
    loaded_registry,
    render,
    waiting_s,
)
from harness.errors import ExitCode, MeasurementError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.discovery.registry import Registry
    from harness.planning.point import Plan, Point
    from harness.planning.suite import Suite
    from harness.running.executor_choice import Chosen, Wish
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


def plan(suites: SuiteFiles, *, as_json: AsJson = False, no_skips: NoSkips = False, require: Require = 0) -> None:
    """Shows what a run would do: points, trials, and what is skipped and why."""
    from harness.machine.provenance import provenance
    from harness.planning.named_offers import fetch_key, offers_of
    from harness.planning.suite import load_all
    from harness.running.executor_choice import choose

    registry = loaded_registry()
    loaded = load_all(suites)
    planned = _plan(loaded, registry, choose(loaded, registry))
    if as_json:
        content = {
            "points": [point.to_json() for point in planned.points],
            "skipped": [skipped.to_json() for skipped in planned.skipped],
            "offers": {point.id: offers_of(point, registry) for point in planned.points},
            "provenance": provenance([suite.file for suite in loaded], registry.sources),
            "fetch": {point.id: fetch_key(point, registry) for point in planned.points},
            "directions": registry.directions(
                [("workload", point.workload) for point in planned.points]
                + [("scorer", scorer.name) for point in planned.points for scorer in point.scorers]
            ),
        }
        echo(json.dumps(content, indent=1, default=str))
    else:
        _show(planned)
    skips = [skipped.to_json() for skipped in planned.skipped]
    failed = [f"{each['label']}: {each['reason']}" for each in skips if each.get("failed")]
    if failed:
        raise MeasurementError("; ".join(failed))
    Demands(none_skipped=no_skips, points=require).check(skips, len(planned.points))


def _show(planned: Plan) -> None:
    from harness.running.expected_time import between, run_cost

    for point in planned.points:
        echo(f"{point.id}  {point.suite}: {point.label}  x {between(point.at_least, point.trials)}")
    for skipped in planned.skipped:
        word = "failed" if skipped.failed else "skipped"
        echo(f"{word:<12}  {skipped.point.suite}: {skipped.point.label}: {skipped.reason}")
    fewest, most = (sum(each) for each in ([p.at_least for p in planned.points], [p.trials for p in planned.points]))
    echo(
        f"{len(planned.points)} points, {between(fewest, most)} trials, {len(planned.skipped)} skipped; "
        f"{run_cost(planned.points)}"
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
) -> None:
    """Measures the points of suites and prints the report."""
    from harness.planning.suite import load_all
    from harness.running.executor_choice import Wish
    from harness.storing.places import open_store

    registry = loaded_registry()
    wish = Wish(executor, tuple(executor_option or ()), jobs, waiting_s(wait))
    kept = open_store(store)
    loaded = load_all(suites or [])
    begun = None if resume is None else _resumed(kept, resume, loaded, changed, wish, registry)
    demands = Demands(none_skipped=no_skips, points=require)
    if begun is None:
        begun = _begun(kept, loaded, seed, wish, registry, demands)
    _drive(*begun, registry, demands)


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


def _begun(kept: Store, loaded: Sequence[Suite], seed: int, wish: Wish, registry: Registry, demands: Demands) -> Begun:
    """A new run."""
    from harness.machine.provenance import provenance
    from harness.planning.secrecy import command_line
    from harness.running.executor_choice import choose
    from harness.running.run_folder import create

    if not loaded:
        raise UsageError("nothing to run", accepted="suite files, or --resume with a run folder")
    executors = choose(loaded, registry, wish)
    planned = _plan(loaded, registry, executors)
    demands.check([skipped.to_json() for skipped in planned.skipped], len(planned.points))  # before hours of measuring
    files = [suite.file for suite in loaded]
    folder = create(
        kept.folder,
        planned,
        files,
        command_line(),
        seed,
        executors=executors,
        provenance=provenance(files, registry.sources),
    )
    for skipped in planned.skipped:
        if not skipped.failed:
            echo(f"skipped: {skipped.point.suite}: {skipped.point.label}: {skipped.reason}", err=True)
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
    demands: Demands,
) -> None:
    from harness.commands.progress import Progress
    from harness.running.driver_lock import driven
    from harness.running.run import start
    from harness.running.run_folder import skips_of

    here = not all(executors[suite].spec(registry).remote for suite in executors)
    resume = f"harness run --resume {shlex.quote(kept.name_of(folder))}"
    with driven(folder), Progress(resume=resume) as progress, kept.sending(quiet=here) as uploads:
        uploads.push(folder)
        keep = kept_between(uploads.push, folder, executors)
        made = start(folder, points, seed, executors, registry, progress.tell, keep=keep)
        made.tally.failed += [f"{each['label']}: {each['reason']}" for each in skips_of(folder) if each.get("failed")]
        tally = made.execute()
        if tally.interrupted:
            uploads.hurry()
    for each in tally.skipped:
        echo(f"skipped: {each['label']}: {each['reason']}", err=True)
    if not points:
        echo("every point was skipped: nothing was measured")
    elif tally.measured or tally.kept:
        render([folder])
    for text in [*tally.failed, *tally.invalid, *uploads.faults]:
        echo(f"failed: {text}", err=True)
    echo(f"records: {kept.name_of(folder)}")
    if not tally.exit_code:
        demands.check(skips_of(folder), _points_with_records(folder))
    raise typer.Exit(int(tally.exit_code or (ExitCode.MEASUREMENT if uploads.faults else ExitCode.OK)))
