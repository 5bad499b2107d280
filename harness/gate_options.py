"""`harness gate` and `harness calibrate` on the command line: their options. Nothing heavy is imported until called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

SuiteFiles = Annotated[list[Path], typer.Argument(help="Suite files.", show_default=False)]
Store = Annotated[Path, typer.Option(help="Folder that runs are kept in.")]
Seed = Annotated[int, typer.Option(help="Seed of the order of points and inside pairs.")]

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
PairsAtMost = Annotated[int, typer.Option(help="Pairs of trials at most; looked at after a third, two thirds, all.")]
Budget = Annotated[float | None, typer.Option(help="Minutes; no new round begins later.", min=0, show_default=False)]
AllowWeak = Annotated[
    bool, typer.Option("--allow-weak", help="Measure although the calibration says that the tolerance is too small.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write JSON.", show_default=False)]
JUnitFile = Annotated[Path | None, typer.Option(help="Also write JUnit XML.", show_default=False)]
SummaryFile = Annotated[
    Path | None,
    typer.Option(help="Also write Markdown; it is appended to $GITHUB_STEP_SUMMARY anyway.", show_default=False),
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
    seed: Seed = 0,
    store: Store = Path("reports"),
    allow_weak: AllowWeak = False,
    json_file: JsonFile = None,
    junit: JUnitFile = None,
    summary: SummaryFile = None,
) -> None:
    """Measures base and head in interleaved pairs and fails when head is worse than the suites' rules allow."""
    from harness import gate_command as gates
    from harness import gate_output as output
    from harness.gate import looks_for
    from harness.progress import Progress
    from harness.sides import INSTALL

    gates.load(suites)
    looks_for(pairs)
    with (
        Progress() as progress,
        gates.sides(
            base=base,
            head=head,
            base_python=base_python,
            head_python=head_python,
            install=install or INSTALL,
            tell=lambda text: progress.tell({"type": "note", "text": text}),
        ) as made,
    ):
        result, folder = gates.run(
            made,
            suites,
            store,
            pairs=pairs,
            budget_s=None if budget is None else 60 * budget,
            seed=seed,
            watcher=progress.tell,
            allow_weak=allow_weak,
        )
    for line in output.lines(result, folder):
        typer.echo(line)
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    output.write(
        result,
        folder,
        json_file=json_file,
        junit_file=junit,
        summary=summary,
        step_summary=Path(step_summary) if step_summary else None,
    )
    raise typer.Exit(int(result.verdict.exit_code))


def calibrate(
    suites: SuiteFiles,
    *,
    jobs: Annotated[int, typer.Option(help="Jobs of base against base.")] = 20,
    pairs: Annotated[int, typer.Option(help="Pairs of each job; a gate may measure more.")] = 36,
    python: Annotated[
        str | None, typer.Option(help="Interpreter of the environment; this one if not named.", show_default=False)
    ] = None,
    seed: Seed = 0,
    store: Store = Path("reports"),
) -> None:
    """Runs base against base by the gate's rule: how often it is wrong on this runner, and what it can find."""
    from harness import calibrate_command as calibrations
    from harness.errors import ExitCode
    from harness.progress import Progress

    with Progress() as progress:
        report, path = calibrations.run(
            suites, store, jobs=jobs, pairs=pairs, python=python, seed=seed, watcher=progress.tell
        )
    for line in calibrations.lines(report, path):
        typer.echo(line)
    raise typer.Exit(int(ExitCode.MEASUREMENT if report.broken else ExitCode.OK))
