"""Carbon-aware disaggregated serving, after the published abstracts of GreenLLM with our own carbon model.

Adds workloads `greenllm`, `greenllm-simulated`, `greenllm-online`, `serve-endpoint`, `serve-bench` and command
`greenllm`. Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Column, CommandSpec, FunctionalUnit, Method, Unavailable, Workload, WorkloadSpec, hookimpl
from harness.errors import HarnessError
from harness.suite_paths import OptionFault, looks_like_a_path, missing
from harness_disaggregated_serving.endpoint.bench_options import BenchOptions
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.endpoint.options import check as check_endpoint
from harness_disaggregated_serving.load.slo import targets
from harness_disaggregated_serving.online.options import OnlineOptions
from harness_disaggregated_serving.runtime.options import FolderModel, PairRunOptions
from harness_disaggregated_serving.simulator.options import SimulatedOptions

REQUEST_COLUMNS = (
    Column("arrival_s", "s", "scheduled arrival of the request, from the start of the stream"),
    Column("prompt_tokens", "1", "tokens of the prompt"),
    Column("output_tokens", "1", "generated tokens", higher_is_better=True),
    Column("ttft_s", "s", "from arrival to the first token", higher_is_better=False),
    Column("tpot_s", "s", "(last token - first) / (output tokens - 1)", higher_is_better=False),
    Column("latency_s", "s", "from arrival to the last token", higher_is_better=False),
    Column("queue_s", "s", "from arrival to the start of the prefill", higher_is_better=False),
    Column("transfer_s", "s", "from sending to the arrival of the last byte, waits for the link included"),
    Column(
        "bytes_sent", "B", "sent to the decoding device (dpd), or from draft to target (dsd)", higher_is_better=False
    ),
    Column("bytes_returned", "B", "sent back from target to draft (dsd)", higher_is_better=False),
    Column("rounds", "1", "speculative rounds: proposals of the draft, judged together"),
    Column("proposed_tokens", "1", "tokens that the draft proposed for the request"),
    Column("accepted_tokens", "1", "proposed tokens that the target kept", higher_is_better=True),
    Column("meets_slo", "1", "1 where both latency targets of option `slo` are met, else 0", higher_is_better=True),
)
"""Columns of every serving workload here: one row a request."""

ONLINE_COLUMNS = (
    Column("at_s", "s", "begin of the interval, from the start of the day"),
    Column("offered_qps", "1/s", "requests per second that are due in the interval"),
    Column("intensity_g_per_kwh", "1", "grid intensity in the interval, in g/kWh"),
    Column("requests", "1", "requests that are due in the interval", higher_is_better=True),
    Column("online_g", "g", "carbon of what the scheduler ran, start-up included", higher_is_better=False),
    Column("start_up_g", "g", "of it, carbon of a configuration that waited to take over", higher_is_better=False),
    Column("standalone_g", "g", "carbon of standalone in its place", higher_is_better=False),
    Column("cheapest_g", "g", "carbon of the cheapest feasible configuration, without hysteresis"),
    Column("switched", "1", "1 where another configuration took over, else 0"),
    Column("infeasible", "1", "1 where no configuration held the load within its targets, else 0"),
)
"""Columns of `greenllm-online`: one row an interval of the day."""

ENDPOINT_COLUMNS = (
    Column("arrival_s", "s", "when the request was due, from the start of the stream"),
    Column("turn", "1", "which turn of its conversation, from 0"),
    Column("prompt_tokens", "1", "tokens of the prompt, as the server counts them"),
    Column("output_tokens", "1", "generated tokens, as the server counts them", higher_is_better=True),
    Column("ttft_s", "s", "from scheduled arrival to the first token", higher_is_better=False),
    Column("ttft_sent_s", "s", "from sending to the first token", higher_is_better=False),
    Column("tpot_s", "s", "(last chunk - first) / tokens after the first chunk", higher_is_better=False),
    Column("itl_mean_s", "s", "mean time between the request's chunks", higher_is_better=False),
    Column("itl_p50_s", "s", "median time between the request's chunks", higher_is_better=False),
    Column("itl_p95_s", "s", "95th percentile of the time between the request's chunks", higher_is_better=False),
    Column("itl_p99_s", "s", "99th percentile of the time between the request's chunks", higher_is_better=False),
    Column("latency_s", "s", "from scheduled arrival to the last token", higher_is_better=False),
    Column("latency_sent_s", "s", "from sending to the last token", higher_is_better=False),
    Column("normalised_latency_s", "s", "latency from scheduled arrival / output tokens", higher_is_better=False),
    Column("queue_s", "s", "from scheduled arrival to sending", higher_is_better=False),
    Column("chunks", "1", "chunks with text, reasoning or a tool call"),
    Column("first_chunk_tokens", "1", "tokens of the first chunk"),
    Column("meets_slo", "1", "1 where both latency targets of option `slo` are met, else 0", higher_is_better=True),
    Column("in_steady", "1", "1 where the request was due in the steady span, else 0"),
    Column("steady_tokens", "1", "generated tokens that came in the steady span", higher_is_better=True),
    Column("max_qps", "1/s", "greatest rate that met the targets, as `search` found it", higher_is_better=True),
    Column("server_running", "1", "requests in service, as the engine last said before the arrival"),
    Column("server_waiting", "1", "requests in the queue, as the engine last said before the arrival"),
    Column("server_cache_use", "1", "share of the KV cache in use, as the engine last said before the arrival"),
    Column("client_cpu_per_chunk_s", "s", "processor time of the client a chunk, over the window"),
)
"""Columns of `serve-endpoint`; docs/serving-metrics.md defines them beside other tools' metrics."""

BENCH_COLUMNS = ("prompt_tokens", "output_tokens", "ttft_s", "tpot_s", "latency_s", "meets_slo")
"""What other tools tell of a request; their times count from sending."""

FUNCTIONAL_UNITS = {
    "token": FunctionalUnit.of("output_tokens"),
    "good_token": FunctionalUnit.of("output_tokens", {"ttft_s": "<= 15", "tpot_s": "<= 0.15"}),
    "served_request": FunctionalUnit.of("meets_slo"),
}
ENDPOINT_UNITS = {**FUNCTIONAL_UNITS, "steady_token": FunctionalUnit("steady_tokens", span="steady")}


def _units_by(
    options: SimulatedOptions | PairRunOptions | EndpointOptions | BenchOptions,
) -> Mapping[str, FunctionalUnit]:
    """A good token meets the latency targets that the suite sets."""
    slo = targets(options.slo)
    where = {"ttft_s": f"<= {slo.ttft_s!r}", "tpot_s": f"<= {slo.tpot_s!r}"}
    return {"good_token": FunctionalUnit.of("output_tokens", where)}


def _check_endpoint(options: EndpointOptions, _folder: Path) -> Iterator[OptionFault]:
    """Files that are not there."""
    yield from check_endpoint(options)


def _check(options: SimulatedOptions | PairRunOptions, _folder: Path) -> Iterator[OptionFault]:
    """A trace that is not there, and saved models that are not there."""
    if options.trace is not None:
        yield from missing("trace", options.trace)
    if isinstance(options, PairRunOptions) and isinstance(options.model, FolderModel):
        for source in filter(None, (options.model.target, options.model.draft)):
            if looks_like_a_path(source):
                yield from missing("model", source, folder=True)


def _simulated(options: SimulatedOptions) -> Workload:
    from harness_disaggregated_serving.simulator.workload import Simulated

    return Simulated(options)


def _probe_simulated(options: SimulatedOptions) -> Unavailable | None:
    from harness_disaggregated_serving.simulator.workload import probe

    return probe(options)


def _pair(options: PairRunOptions) -> Workload:
    from harness_disaggregated_serving.runtime.workload import GreenLlm

    return GreenLlm(options)


def _probe_pair(options: PairRunOptions) -> Unavailable | None:
    if options.cluster is None and {options.new.device, options.old.device} == {"cpu"}:
        return None  # nothing to ask a framework for
    from harness_disaggregated_serving.runtime.workload import probe

    return probe(options)


def _bench(options: BenchOptions) -> Workload:
    from harness_disaggregated_serving.endpoint.bench import ServeBench

    return ServeBench(options)


def _endpoint(options: EndpointOptions) -> Workload:
    from harness_disaggregated_serving.endpoint.workload import ServeEndpoint

    return ServeEndpoint(options)


def _online(options: OnlineOptions) -> Workload:
    from harness_disaggregated_serving.online.workload import Online

    return Online(options)


def _check_online(options: OnlineOptions, _folder: Path) -> Iterator[OptionFault]:
    """Files that are not there, that cannot be read as what they are, or that do not fit each other."""
    found = {name: path for name in ("day", "profiles") if (path := getattr(options, name)) is not None}
    faults = [fault for name, path in found.items() for fault in missing(name, path)]
    yield from faults or _read_online(options)


def _read_online(options: OnlineOptions) -> Iterator[OptionFault]:
    from harness_disaggregated_serving.choosing.profile_files import read_profiles
    from harness_disaggregated_serving.online.day import read_day

    rates, name = options.rates, "profiles"
    try:
        if options.profiles is not None:
            rows = [row for row in read_profiles(Path(options.profiles)).rows if row.size == options.sizes]
            rates = tuple(row.qps for row in rows)
            if not rows:
                yield OptionFault("sizes", f"{options.profiles} has no profile of {options.sizes!r}")
                return
        name = "day"
        beyond = [] if options.day is None else [moment.qps for moment in read_day(Path(options.day))]
        beyond = [qps for qps in beyond if not min(rates) <= qps <= max(rates)]
    except HarnessError as error:
        yield OptionFault(name, str(error))
        return
    if beyond:
        accepted = f"rates within the profiles: {min(rates):g} to {max(rates):g}"
        yield OptionFault("day", f"the day has {beyond[0]:g} requests/s", accepted)


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """`greenllm`, `greenllm-simulated`, `greenllm-online`, `serve-endpoint` and `serve-bench`."""
    yield WorkloadSpec(
        name="greenllm-online",
        modelled=True,
        fork_safe=True,
        summary="simulated: a day of grid intensity and load, replayed by the scheduler with switching and hysteresis",
        factory=_online,
        columns=tuple(replace(column, method=Method.SIMULATED) for column in ONLINE_COLUMNS),
        functional_units={"request": FunctionalUnit.of("requests")},
        options=OnlineOptions,
        check=_check_online,
    )
    yield WorkloadSpec(
        name="greenllm",
        summary="disaggregated serving by a real pair of processes: whole, prefill/decode or draft/verify",
        factory=_pair,
        columns=REQUEST_COLUMNS,
        functional_units=FUNCTIONAL_UNITS,
        units_by=_units_by,
        options=PairRunOptions,
        check=_check,
        probe=_probe_pair,
    )
    yield WorkloadSpec(
        name="greenllm-simulated",
        modelled=True,
        fork_safe=True,
        summary="simulated: disaggregated serving on a pair of device profiles, one point of the grid",
        factory=_simulated,
        columns=tuple(replace(column, method=Method.SIMULATED) for column in REQUEST_COLUMNS),
        functional_units=FUNCTIONAL_UNITS,
        units_by=_units_by,
        options=SimulatedOptions,
        check=_check,
        probe=_probe_simulated,
    )

    yield WorkloadSpec(
        name="serve-endpoint",
        summary="requests to any server of the OpenAI API, whose energy is charged",
        factory=_endpoint,
        columns=ENDPOINT_COLUMNS,
        functional_units=ENDPOINT_UNITS,
        units_by=_units_by,
        options=EndpointOptions,
        check=_check_endpoint,
    )

    yield WorkloadSpec(
        name="serve-bench",
        summary="vllm bench serve, guidellm or aiperf, with the server's energy over its run",
        factory=_bench,
        columns=tuple(column for column in ENDPOINT_COLUMNS if column.name in BENCH_COLUMNS),
        functional_units=FUNCTIONAL_UNITS,
        units_by=_units_by,
        options=BenchOptions,
    )


def _greenllm() -> Any:
    from harness_disaggregated_serving.commands.sweep import app

    return app


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """`harness greenllm`."""
    yield CommandSpec(
        name="greenllm", summary="which serving configuration emits least, from stored profiles", load=_greenllm
    )


@hookimpl
def harness_run_finished(run: Mapping[str, object], folder: Path) -> None:  # noqa: ARG001 - the hook's signature
    """Writes tables and chart beside the trials of a run that left profile rows or ran a pair."""
    if any(folder.glob("*/profile_row.json")):
        from harness_disaggregated_serving.commands.sweep import write_sweep

        write_sweep(folder)
    days = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/greenllm-online.md"))]
    if days:
        (folder / "greenllm-online.md").write_text("\n".join(days), encoding="utf-8")
    from harness import recorded_trials

    if next(recorded_trials(folder), None) is not None:
        import sys

        from harness_disaggregated_serving.choosing.comparison import write_table

        sys.stderr.write(write_table(folder) or "")
