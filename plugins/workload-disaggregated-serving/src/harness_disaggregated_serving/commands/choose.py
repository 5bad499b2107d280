"""`harness greenllm choose`: which configuration serves a load with least carbon, how surely, and when that changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from harness.errors import ExitCode, UsageError, did_you_mean
from harness.quantity import Unavailable, Undefined
from harness.units import parse_share
from harness_disaggregated_serving.carbon.accounting import SECONDS_PER_YEAR, Accounting
from harness_disaggregated_serving.choosing.choice import Change, Choice, choose
from harness_disaggregated_serving.choosing.interval import SavingRange
from harness_disaggregated_serving.choosing.pooling import by_conditions, pool
from harness_disaggregated_serving.choosing.profile_files import read_profiles
from harness_disaggregated_serving.choosing.profile_table import ProfileTable, read_tables
from harness_disaggregated_serving.choosing.recorded import charged, factors_of, pair_tables
from harness_disaggregated_serving.choosing.scheduler import Candidate, Demand
from harness_disaggregated_serving.choosing.winners import short
from harness_disaggregated_serving.load.lengths import APPLICATIONS, application
from harness_disaggregated_serving.load.slo import SLOS, Slo, parsed
from harness_disaggregated_serving.simulator.profiles import profile
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S

NEIGHBOURS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Rates that are simulated, as multiples of the one that is asked for: where the choice changes with it."""


def tables_of_run(run: Path) -> list[ProfileTable]:
    """The profile tables of a run, of simulated cells and of real pairs, seeds together, charged as its records are."""
    files = sorted(run.glob("*/profile_row.json"))
    tables = []
    for file in files:
        for table in read_tables([file]):
            factors = factors_of(file.parent)
            tables.append(ProfileTable(table.key, tuple(charged(row, factors) for row in table.rows)))
    return pool([*tables, *pair_tables(run)])


def one_table(tables: list[ProfileTable], where: str) -> ProfileTable:
    """The only table of comparable rows; raises UsageError where there are none or several."""
    found = [part for table in tables for part in by_conditions(table).values()]
    if len(found) != 1:
        what = f"{len(found)} sets of rows that cannot be compared with each other" if found else "no profile"
        raise UsageError(f"found {what}", where=where, accepted="one model, new device and set of conditions")
    return found[0]


def load_profiles(path: Path) -> ProfileTable:
    """Profiles of a run's folder or of a CSV file."""
    return one_table(tables_of_run(path), str(path)) if path.is_dir() else read_profiles(path)


def as_text(table: ProfileTable, choice: Choice) -> str:
    """The answer for people."""
    chosen, demand = choice.chosen, choice.demand
    methods = ", ".join(sorted({row.method for row in table.rows}))
    load = f"{demand.qps:g} requests/s of {demand.size}"
    targets = f"TTFT {demand.slo.ttft_s:g} s, TPOT {demand.slo.tpot_s:g} s"
    charged_by = f"{demand.intensity:g} g/kWh, {demand.accounting.value} accounting"
    lines = [f"{load}, {targets}, {charged_by}; profiles: {methods}", ""]
    if isinstance(chosen, Unavailable):
        return "\n".join([*lines, f"no answer: {chosen.reason}", *_considered(choice)]) + "\n"
    if choice.decision.infeasible:
        lines.append(f"nothing is feasible; {chosen.name} comes nearest with {chosen.attainment:.1%} of the requests")
    else:
        lines.append(f"run {chosen.name}")
    lines += [
        f"  saves {_told(choice.saving)} against standalone",
        f"  margin over {choice.runner_up or 'the next best'}: {_told(choice.margin)}",
    ]
    if isinstance(choice.saving, SavingRange) and choice.saving.notes:
        lines.append(f"  depends on {choice.saving.notes}")
    lines += [f"  {line}" for line in choice.theory]
    lines.append(f"by intensity: {'; '.join(map(str, choice.intensities)) or 'nothing is feasible'}")
    lines += [
        f"by life of the {role} device: {_changes(changes, 'years') or 'no change between 1 and 15 years'}"
        for role, changes in choice.lifetimes.items()
    ]
    rates = sorted({row.qps for row in table.rows})
    between = f"no change from {rates[0]:g} to {rates[-1]:g} requests/s"
    lines.append(f"by rate: {_changes(choice.rates, 'requests/s, or before it') or between}")
    return "\n".join([*lines, *_considered(choice)]) + "\n"


def _told(found: SavingRange | Undefined) -> str:
    if isinstance(found, Undefined):
        return f"undefined: {found.reason}"
    sure = "" if found.told else ", so its sign is not certain"
    return f"{found} ({found.seeds} seed{'s' if found.seeds > 1 else ''}{sure})"


def _changes(changes: tuple[Change, ...], unit: str) -> str:
    return "; ".join(
        f"{one.below or 'nothing'} becomes {one.above or 'nothing'} at {one.at:.3g} {unit}" for one in changes
    )


def _considered(choice: Choice) -> list[str]:
    lines = ["", "considered:"]
    for one in sorted(choice.decision.considered, key=_order):
        told = one.rejected  # what cannot serve the load has no carbon to compare
        if not told and not isinstance(one.cost, Unavailable):
            told = f"feasible, {one.attainment:.1%} of the requests; {one.cost.total_g:.4g} g a request"
        lines.append(f"  {short(one)}: {told}")
    return lines


def _order(one: Candidate) -> tuple[bool, float]:
    return bool(one.rejected), one.total_g


def _devices(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if len(found) < 2:
        raise UsageError(f"devices {text!r}", accepted="the new device and at least one old: A100-40GB,T4")
    for name in found:
        profile(name)
    return found


def _lives(text: str) -> dict[str, float]:
    try:
        new, old = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"lifetimes {text!r}", accepted="years of the new and of the old device: 5,7") from None
    if not (0 < new < math.inf and 0 < old < math.inf):
        raise UsageError(f"lifetimes {text!r}", accepted="two finite numbers of years above 0: 5,7")
    return {"new": new * SECONDS_PER_YEAR, "old": old * SECONDS_PER_YEAR}


def _share(text: str) -> float:
    """The share of `--attainment`."""
    try:
        share = parse_share(text)
    except UsageError:
        share = math.nan
    if not 0 < share <= 1:
        hint = f"{text} as a percentage is {text}%" if math.isfinite(share) and 1 < share <= 100 else ""
        accepted = "a share of the requests, above 0 and up to 1: 0.9 or 90%"
        raise UsageError(f"attainment {text!r}", where="--attainment", accepted=accepted, hint=hint)
    return share


def _finite(option: str, value: float, accepted: str, *, zero: bool = False) -> None:
    if not (0 < value < math.inf or (zero and value == 0)):
        raise UsageError(f"found {value:g}", where=option, accepted=f"a finite number of {accepted}")


def covered(table: ProfileTable, sizes: str, qps: float) -> None:
    """Raises UsageError where no row of a table can speak for a demand; it names those that are there."""
    named = {row.size for row in table.rows}
    if sizes not in named:
        accepted = ", ".join(sorted(named))
        raise UsageError(f"no profile of sizes {sizes!r}", accepted=accepted, hint=did_you_mean(sizes, named))
    rates: dict[str, list[float]] = {}
    for row in table.rows:
        if row.size == sizes:
            name = f"{row.configuration} on {row.new}" + (f" and {row.old}" if row.old else "")
            rates.setdefault(name, []).append(row.qps)
    if not any(min(found) <= qps <= max(found) for found in rates.values()):
        told = (f"{name} at {', '.join(f'{rate:g}' for rate in sorted(set(found)))}" for name, found in rates.items())
        raise UsageError(
            f"no configuration is profiled at {qps:g} requests/s of {sizes}",
            where="--qps",
            accepted=f"a rate between those of one configuration: {'; '.join(told)}",
        )


def _simulated(
    devices: list[str], sizes: str, qps: float, bandwidth_gbit_s: float, slo: Slo, seeds: int
) -> ProfileTable:
    """Profiles at the rate that is asked for and around it; raises UsageError for what no configuration can hold."""
    from harness_disaggregated_serving.simulator.grid import hold, profiled

    application(sizes)
    common: dict[str, Any] = {
        "sizes": sizes,
        "link": {"bandwidth_gbit_s": bandwidth_gbit_s},
        "slo": {"ttft": slo.ttft_s, "tpot": slo.tpot_s},
        "most_requests": 4000,
    }
    hold(devices, common, qps, slo)
    return profiled(devices, [qps * factor for factor in NEIGHBOURS], common, seeds)


def choose_command(
    *,
    qps: Annotated[float, typer.Option(help="Requests per second.", show_default=False)],
    grid: Annotated[float, typer.Option(help="Grid intensity in g/kWh.", show_default=False)],
    sizes: Annotated[
        str, typer.Option(help=f"Request sizes: {', '.join(APPLICATIONS)}, or those that the profiles name.")
    ] = "chat",
    slo: Annotated[str, typer.Option(help=f"Latency targets: {', '.join(SLOS)}, or ttft=2s,tpot=100ms.")] = "longbench",
    devices: Annotated[
        str,
        typer.Option(
            help="The new device and old ones, by packaged profile: A100-40GB,V100-16GB,T4. Not used with --profiles."
        ),
    ] = "A100-40GB,V100-16GB,T4",
    bandwidth: Annotated[float, typer.Option(help="Between the devices, in Gbit/s.")] = 16.0,
    profiles: Annotated[
        Path | None,
        typer.Option(help="Folder of a run or a CSV file with profiles; simulated here if not given."),
    ] = None,
    lifetimes: Annotated[str, typer.Option(help="Years of the new and of the old device.")] = "5,7",
    accounting: Annotated[
        Accounting, typer.Option(help="Which time hardware is charged for: all that it is held for, or busy time.")
    ] = Accounting.RESERVED,
    attainment: Annotated[
        str, typer.Option(help="Share of the requests that must meet both targets: 0.9 or 90%.")
    ] = "0.9",
    seeds: Annotated[
        int, typer.Option(min=1, help="Streams of requests that each cell is simulated for. Not used with --profiles.")
    ] = 3,
) -> None:
    """Says which configuration to run, how much it saves, with what margin, and when that changes."""
    targets, share, lives = parsed(slo), _share(attainment), _lives(lifetimes)
    _finite("--qps", qps, "requests/s above 0")
    _finite("--bandwidth", bandwidth, "Gbit/s above 0")
    _finite("--grid", grid, "g/kWh, 0 or more", zero=True)
    if profiles is not None:
        table = load_profiles(profiles)
    else:
        table = _simulated(_devices(devices), sizes, qps, bandwidth, targets, seeds)
    covered(table, sizes, qps)
    demand = Demand(
        prompt_tokens=1,
        size=sizes,
        qps=qps,
        slo=targets,
        bandwidth=bandwidth * BYTES_PER_S_PER_GBIT_S,
        intensity=grid,
        lifetimes_s=lives,
        accounting=accounting,
        attainment=share,
    )
    found = choose(table, demand)
    typer.echo(as_text(table, found), nl=False)
    if isinstance(found.chosen, Unavailable):
        raise typer.Exit(int(ExitCode.MEASUREMENT))
