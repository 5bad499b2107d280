"""`harness baseline save|list|show|rm`: the command line of stored baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.console import echo

if TYPE_CHECKING:
    from harness.gating.baseline import KeptMetric, KeptPoint
    from harness.reporting.tables import Section

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Keeps what runs measured as baselines for `harness gate`."
)

Name = Annotated[str, typer.Argument(help="Name of the baseline.", show_default=False)]
Store = Annotated[str, typer.Option(help="Folder or URL that holds `baselines/`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]

STORE = "reports"


@app.command()
def save(
    name: Name,
    runs: Annotated[list[str], typer.Argument(help="Run folders, or their URLs.", show_default=False)],
    *,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="What the runner must agree in later, in place of the usual keys; may be repeated."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a baseline of this name.")] = False,
    store: Store = STORE,
) -> None:
    """Saves the trials of finished runs as a baseline; several runs on several days make a better one."""
    from harness.gating import baseline
    from harness.records.paths import BASELINES
    from harness.records.trials import RUNNER_KEYS
    from harness.storing.places import open_store, run_folder

    made = baseline.build(name, [run_folder(run) for run in runs], keys or RUNNER_KEYS)
    kept = open_store(store)
    path = baseline.save(kept.fetch_kept(BASELINES), made, replace=replace)
    kept.send(path)
    echo(f"baseline {name}: {len(made.points)} points, {made.trials} trials: {path}")
    for point in made.points:
        if point.left_out:
            echo(f"left out: {point.left_out} trials of {point.suite}: {point.label} are not valid", err=True)


@app.command("list")
def list_(*, store: Store = STORE, as_json: AsJson = False) -> None:
    """Lists the stored baselines."""
    import json

    from harness.gating import baseline
    from harness.records.paths import BASELINES
    from harness.storing.places import open_store

    kept = open_store(store)
    folder = kept.fetch_kept(BASELINES)
    found = [baseline.load(folder, name) for name in baseline.names(folder)]
    if as_json:
        rows = [
            {"name": each.name, "saved_utc": each.saved_utc, "points": len(each.points), "trials": each.trials}
            for each in found
        ]
        echo(json.dumps(rows, indent=1))
        return
    for each in found:
        echo(f"{each.name:<24} {each.saved_utc}  {len(each.points)} points, {each.trials} trials")
    if not found:
        echo(f"no baseline is saved under {kept.shown}/{BASELINES}")


@app.command()
def show(name: Name, *, store: Store = STORE, as_json: AsJson = False) -> None:
    """Shows a baseline: where it comes from, and each metric with its trials."""
    import json

    from rich.console import Console

    from harness.gating import baseline
    from harness.records.files import adapter
    from harness.records.paths import BASELINES
    from harness.reporting.terminal import print_section
    from harness.storing.places import open_store

    found = baseline.load(open_store(store).fetch_kept(BASELINES), name)
    if as_json:
        echo(json.dumps(adapter(baseline.Baseline).dump_python(found, mode="json"), indent=1))
        return
    echo(f"{found.name}: saved {found.saved_utc} from {', '.join(found.runs)}")
    for key in found.keys:
        echo(f"  {key}: {json.dumps(found.fingerprint.get(key))}")
    console = Console()
    for point in found.points:
        print_section(console, section(point))


COLUMNS = ("metric", "median", "trials", "method", "bound", "gate")


def section(point: KeptPoint) -> Section:
    """One point's metrics; a metric that no trial has says why."""
    from harness.reporting.tables import Section, Table
    from harness.reporting.wording import counted

    left_out = f"; {counted(point.left_out, 'trial')} not valid and left out" if point.left_out else ""
    factors = (f"factors: {', '.join(point.factors)}",) if point.factors else ()
    return Section(
        title=f"{point.suite}: {point.label} ({counted(len(point.trials), 'trial')}{left_out})",
        table=Table(COLUMNS, [_row(metric) for metric in point.metrics]),
        paragraphs=factors,
    )


def _row(kept: KeptMetric) -> list[str]:
    from harness.quantity import Amount
    from harness.records.summary import summarise
    from harness.reporting.wording import bound, interval, label
    from harness.units import si

    found = summarise(kept.values)
    if not isinstance(found.value, Amount):
        return [str(kept.metric), "-", "", "", "", found.value.reason]
    unit = "" if found.value.unit == "1" else found.value.unit
    return [
        str(kept.metric),
        si(found.value.value, unit),
        interval(found, unit),
        label(found),
        bound(found, unit),
        kept.ungated or "yes",
    ]


@app.command()
def rm(name: Name, *, store: Store = STORE) -> None:
    """Deletes a baseline."""
    from harness.gating import baseline
    from harness.records.paths import BASELINES
    from harness.storing.places import open_store

    kept = open_store(store)
    path = baseline.remove(kept.fetch_kept(BASELINES), name)
    kept.send(path)
    echo(f"removed: {path}")
