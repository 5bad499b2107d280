"""`harness gate` and `harness calibrate` on the command line: their options. Nothing heavy is imported until called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.console import Wait, echo, waiting_s
from harness.errors import ExitCode, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.gating.result import Result
    from harness.storing.store import Store as Kept

SuiteFiles = Annotated[list[Path], typer.Argument(help="Suite files.", show_default=False)]
Store = Annotated[str, typer.Option(help="Folder or URL that runs are kept in.")]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Seed of the order of points and inside pairs; drawn for each job, printed and kept if not set.",
        show_default=False,
    ),
]

Base = Annotated[str | None, typer.Option(help="Revision to compare with.", show_default=False)]
Head = Annotated[str, typer.Option(help="Revision to be judged.")]
BasePython = Annotated[
    str | None, typer.Option(help="Interpreter of an installed base, in place of --base.", show_default=False)
]
HeadPython = Annotated[
    str | None, typer.Option(help="Interpreter of an installed head; this one if not named.", show_default=False)
]
Install = Annotated[
    str | None,
    typer.Option(
        help="Shell command that installs a revision: {python}, {environment}, {worktree} and {revision} are "
        "filled in; it leaves an interpreter at {environment}/bin/python.",
        show_default=False,
    ),
]
PairsAtMost = Annotated[
    int, typer.Option(help="Pairs of trials at most; interim analyses after a third and two thirds.")
]
Budget = Annotated[
    float | None, typer.Option(help="Minutes after which no new round of pairs begins.", min=0, show_default=False)
]
AllowWeak = Annotated[
    bool, typer.Option("--allow-weak", help="Measure although the calibration says that the tolerance is too small.")
]
Stored = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Judge by a stored baseline instead; much weaker than pairs, and for one machine of your own.",
        show_default=False,
    ),
]
OfPytestBenchmark = Annotated[
    bool, typer.Option("--pytest-benchmark", help="Judge two JSON files of pytest-benchmark: base, then head.")
]
Tolerance = Annotated[float, typer.Option(help="With --pytest-benchmark: how much worse a time may be.", min=0)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write JSON.", show_default=False)]
JUnitFile = Annotated[Path | None, typer.Option(help="Also write JUnit XML.", show_default=False)]
SummaryFile = Annotated[
    Path | None,
    typer.Option(help="Also write Markdown; it is appended to $GITHUB_STEP_SUMMARY anyway.", show_default=False),
]

Site = Annotated[
    str | None,
    typer.Option(help="Address of a site of earlier results, which the Markdown links.", show_default=False),
]


def gate(
    suites: SuiteFiles,
    *,
    base: Base = None,
    head: Head = "HEAD",
    base_python: BasePython = None,
    head_python: HeadPython = None,
    install: Install = None,
    pairs: PairsAtMost = 36,
    budget: Budget = None,
    seed: Seed = None,
    store: Store = "reports",
    allow_weak: AllowWeak = False,
    wait: Wait = None,
    baseline: Stored = None,
    pytest_benchmark: OfPytestBenchmark = False,
    tolerance: Tolerance = 0.05,
    json_file: JsonFile = None,
    junit: JUnitFile = None,
    summary: SummaryFile = None,
    site: Site = None,
) -> None:
    """Measures base and head in interleaved pairs and fails when head is worse than the suites' rules allow."""
    from harness.gating import outputs
    from harness.gating.pytest_benchmark import judge_files
    from harness.records.paths import BASELINES, CALIBRATIONS
    from harness.storing.places import open_store

    _one_base(base, base_python, baseline, pytest_benchmark=pytest_benchmark)
    site = outputs.checked_site(site)
    kept = open_store(store)
    seed = _drawn(seed)
    folder: Path | None = None
    if pytest_benchmark:
        result = judge_files(suites, tolerance)
    elif baseline is not None:
        result, folder = _stored(suites, kept.fetch_kept(BASELINES), baseline, seed, waiting_s(wait))
    else:
        result, folder = _pairs(
            suites,
            kept.fetch_kept(CALIBRATIONS),
            {"base": base, "head": head, "base_python": base_python, "head_python": head_python},
            install,
            pairs=pairs,
            budget=budget,
            seed=seed,
            allow_weak=allow_weak,
            wait_s=waiting_s(wait),
        )
    for line in outputs.lines(result, folder):
        echo(line)
    faults = [_written(result, json_file, junit, summary, site)]
    if folder is not None:
        faults.append(_sent(kept, folder))
    for fault in filter(None, faults):
        echo(f"failed: {fault}", err=True)
    code = result.verdict.exit_code or (ExitCode.MEASUREMENT if any(faults) else ExitCode.OK)
    raise typer.Exit(int(code))


def _step_summary() -> Path | None:
    """The file that GitHub shows beside a job's steps; None elsewhere."""
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(named) if named else None


def _drawn(seed: int | None) -> int:
    """The seed, drawn for this job where none was given."""
    from harness.gating.pairs import draw_seed

    return draw_seed() if seed is None else seed


def _one_base(base: str | None, base_python: str | None, baseline: str | None, *, pytest_benchmark: bool) -> None:
    """Raises UsageError where head would be judged by several things."""
    given = {
        "--base": base is not None,
        "--base-python": base_python is not None,
        "--baseline": baseline is not None,
        "--pytest-benchmark": pytest_benchmark,
    }
    if sum(given.values()) > 1:
        raise UsageError(
            "--base, --base-python, --baseline and --pytest-benchmark are mutually exclusive",
            accepted="one of them",
            hint=f"given: {', '.join(name for name, here in given.items() if here)}",
        )


def _written(result: Result, json_file: Path | None, junit: Path | None, summary: Path | None, site: str | None) -> str:
    """Writes the result where it is wanted; returns why not, which comes too late to change the verdict."""
    from harness.gating import outputs

    try:
        outputs.write(
            result, json_file=json_file, junit_file=junit, summary=summary, step_summary=_step_summary(), site=site
        )
    except UsageError as error:
        return str(error)
    return ""


def _sent(store: Kept, folder: Path) -> str:
    """Sends a gate's records; returns why not all of them are where the store is, which changes no verdict."""
    try:
        store.send(folder)
    except HarnessError as error:
        return str(error)
    return ""


def _pairs(
    suites: list[Path],
    store: Path,
    compared: dict[str, Any],
    install: str | None,
    *,
    pairs: int,
    budget: float | None,
    seed: int,
    allow_weak: bool,
    wait_s: float | None,
) -> tuple[Result, Path]:
    from harness.commands.progress import Progress
    from harness.gating import job as gates
    from harness.gating.sides import INSTALL

    loaded = gates.load(suites)
    gates.enough(loaded, pairs)
    with (
        Progress() as progress,
        gates.sides(
            **compared,
            install=install or INSTALL,
            tell=lambda text: progress.tell({"type": "note", "text": text}),
        ) as made,
    ):
        return gates.run(
            made,
            loaded,
            store,
            pairs=pairs,
            budget_s=None if budget is None else 60 * budget,
            seed=seed,
            watcher=progress.tell,
            allow_weak=allow_weak,
            wait_s=wait_s,
        )


def _stored(suites: list[Path], store: Path, baseline: str, seed: int, wait_s: float | None) -> tuple[Result, Path]:
    from harness.commands.progress import Progress
    from harness.discovery.registry import load_plugins
    from harness.gating import stored

    with Progress() as progress:
        return stored.run(baseline, suites, store, load_plugins(), seed=seed, watcher=progress.tell, wait_s=wait_s)


def calibrate(
    suites: SuiteFiles,
    *,
    jobs: Annotated[int, typer.Option(help="Jobs of base against base at most.")] = 20,
    pairs: Annotated[int, typer.Option(help="Pairs of each job; a gate may measure more.")] = 12,
    budget: Annotated[
        str, typer.Option(help="Time after which no further job begins: 30m, 2h; at least 5 jobs are measured.")
    ] = "30m",
    python: Annotated[
        str | None, typer.Option(help="Interpreter of the environment; this one if not named.", show_default=False)
    ] = None,
    seed: Seed = None,
    store: Store = "reports",
    wait: Wait = None,
) -> None:
    """Runs base against base by the gate's rule: how often it is wrong on this runner, and what it can find."""
    from harness.commands.progress import Progress
    from harness.gating import calibration_job as calibrations
    from harness.records.paths import CALIBRATIONS
    from harness.storing.places import open_store
    from harness.units import parse_duration

    try:
        budget_s = parse_duration(budget)
    except ValueError as error:
        raise UsageError(f"--budget: {error}", accepted="a duration such as 30m or 2h") from None
    kept = open_store(store)
    folder = kept.fetch_kept(CALIBRATIONS)
    with Progress() as progress:
        report, path = calibrations.run(
            suites,
            folder,
            jobs=jobs,
            pairs=pairs,
            budget_s=budget_s,
            python=python,
            seed=_drawn(seed),
            watcher=progress.tell,
            wait_s=waiting_s(wait),
        )
    for line in calibrations.lines(report, path):
        echo(line)
    kept.send(path)
    raise typer.Exit(int(ExitCode.MEASUREMENT if report.broken else ExitCode.OK))
