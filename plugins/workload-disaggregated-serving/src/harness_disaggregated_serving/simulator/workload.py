"""Workload `greenllm-simulated`: one cell of the grid, simulated. Every number it writes is simulated.

A window is one simulation, as long as the simulated clock says. Its device rows hold simulated seconds, so
`declared_power` turns them into simulated joules; the time that the simulation took on this machine is kept apart.
Beside its rows a trial leaves `profile_row.json`, from which a sweep over intensity and lifetimes is made without
another run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Final

from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.carbon.power import ANY, IDLE
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileKey, ProfileRow, row_to_json
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import AllAtOnce, Arrivals, Constant, Poisson, Request, requests, trace
from harness_disaggregated_serving.load.lengths import application
from harness_disaggregated_serving.load.slo import Slo, targets
from harness_disaggregated_serving.simulator.cell import Rule, Settled, settle
from harness_disaggregated_serving.simulator.options import DeviceOptions, LinkOptions, SimulatedOptions
from harness_disaggregated_serving.simulator.profiles import profile
from harness_disaggregated_serving.simulator.setup import (
    LABEL,
    Batching,
    FirstToken,
    Link,
    Setup,
    SimulatedDevice,
    Speculation,
)
from harness_disaggregated_serving.simulator.tally import DeviceOutcome, Flight
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S, MODELS, ModelShape, Wire

PROFILE_ROW: Final = "profile_row.json"
"""Name of a trial's side-car."""


def models_on(options: SimulatedOptions, role: str) -> tuple[ModelShape, ...]:
    """The models whose weights and caches a device holds."""
    target, draft = options.target, MODELS[options.draft]
    if options.configuration == "spec-local":
        return (target, draft)
    return (draft,) if role == "old" and options.configuration == "dsd" else (target,)


def device_of(options: SimulatedOptions, role: str) -> SimulatedDevice | Unavailable:
    """A device with its uncalibrated service times; Unavailable where its models do not fit."""
    declared: DeviceOptions = getattr(options, role)
    found = declared.profile()
    tokens = found.kv_tokens(*models_on(options, role))
    if isinstance(tokens, Unavailable):
        return Unavailable(f"{role} device: {tokens.reason}")
    watts = {phase: one.value for phase, one in declared.power().items()}
    idle_w, active_w = watts.pop(IDLE), watts.pop(ANY)
    return SimulatedDevice(
        name=declared.kind,
        target=found.costs(options.target),
        draft=found.costs(MODELS[options.draft]),
        active_w=active_w,
        idle_w=idle_w,
        phase_w={} if options.batching == "none" else watts,
        kv_tokens=tokens,
    )


def setup_of(options: SimulatedOptions) -> Setup | Unavailable:
    """What the options ask for; Unavailable where a model does not fit its device."""
    configuration = Configuration(options.configuration)
    new = device_of(options, "new")
    old = device_of(options, "old") if configuration.needs_old else None
    for device in (new, old):
        if isinstance(device, Unavailable):
            return device
    assert isinstance(new, SimulatedDevice)
    assert not isinstance(old, Unavailable)
    return Setup(
        configuration=configuration,
        new=new,
        old=old,
        link=Link(bandwidth=options.link.bandwidth_gbit_s * BYTES_PER_S_PER_GBIT_S, rtt_s=options.link.rtt),
        kv_bytes_per_token=MODELS[options.model].kv_bytes_per_token,
        speculation=Speculation(
            acceptance=options.positions,
            vocabulary=MODELS[options.model].vocabulary,
            wire=Wire(options.wire),
            seed=options.seed,
        ),
        first_token=FirstToken(options.first_token),
        batching=Batching(options.batching),
        max_batch=options.max_batch,
    )


def stream_of(options: SimulatedOptions, count: int) -> Sequence[Request]:
    """The first `count` requests, the same for every configuration with the same seed; all of a trace."""
    if options.trace is not None:
        return trace(Path(options.trace))
    process: dict[str, Arrivals] = {
        "poisson": Poisson(options.qps),
        "constant": Constant(options.qps),
        "all_at_once": AllAtOnce(),
    }
    return list(requests(process[options.arrivals], application(options.sizes), count, options.seed))


def rule_of(options: SimulatedOptions) -> Rule:
    """When a window is long enough; a trace has the length that it has."""
    most = 1 if options.trace is not None else max(options.requests, options.most_requests)
    return Rule(least=min(options.requests, most), most=most, precision=options.precision)


def probe(options: SimulatedOptions) -> Unavailable | None:
    """Why there is nothing to simulate: a model that does not fit is a result, told before any work."""
    found = setup_of(options)
    return found if isinstance(found, Unavailable) else None


def settings_of(options: SimulatedOptions) -> tuple[tuple[str, str], ...]:
    """What makes the configuration beside its devices, by name; part of a row's cell."""
    found: dict[str, str] = {}
    configuration = Configuration(options.configuration)
    found["quantization"] = "" if options.quantization == "none" else options.quantization
    if configuration.speculates:
        rates = options.positions
        found["gamma"] = f"{len(rates)}"
        found["acceptance"] = f"{rates[0]:g}" if len(set(rates)) == 1 else "/".join(f"{rate:g}" for rate in rates)
        found["draft"] = options.draft
    if configuration is Configuration.DSD:
        found["wire"] = options.wire
    if configuration.needs_old:
        found["rtt"] = "" if options.link.rtt == LinkOptions().rtt else f"{options.link.rtt:g} s"
        found["old watts"] = changed_watts(options.old)
        found["old embodied"] = options.old.embodied or ""
    return tuple((name, value) for name, value in found.items() if value)


def conditions_of(options: SimulatedOptions) -> tuple[tuple[str, str], ...]:
    """What is the same for every configuration that is compared, by name; part of a row's cell."""
    slo = targets(options.slo)
    return (
        ("batching", options.batching),
        ("first_token", options.first_token),
        ("max_batch", f"{options.max_batch}"),
        ("arrivals", "trace" if options.trace is not None else options.arrivals),
        ("requests", f"{options.requests} to {options.most_requests}, {options.precision:g}"),
        ("slo", f"{slo.ttft_s:g} s, {slo.tpot_s:g} s"),
        ("new watts", changed_watts(options.new) or "packaged"),
        *((("new speed", changed_speed(options.new)),) if changed_speed(options.new) else ()),
        ("new embodied", options.new.embodied or "of the profile"),
    )


def changed_watts(device: DeviceOptions) -> str:
    """Watts that are not the packaged ones, for people; empty where all are."""
    usual = DeviceOptions(kind=device.kind).power()
    changed = {name: one for name, one in device.power().items() if one != usual[name]}
    return ", ".join(
        f"{name} {one.value:g}" + (f" ({one.low:g} to {one.high:g})" if one.low < one.high else "")
        for name, one in changed.items()
    )


def changed_speed(device: DeviceOptions) -> str:
    """Peaks that are not the packaged ones, for people; empty where both are."""
    told = {"Tflop/s": device.fp16_tflops, "GB/s": device.memory_gb_per_s}
    return ", ".join(f"{value:g} {unit}" for unit, value in told.items() if value is not None)


def profile_row(options: SimulatedOptions, settled: Settled) -> ProfileRow:
    """The row of the profile table that a simulated cell gives."""
    outcome, slo = settled.outcome, targets(options.slo)
    pair = outcome.configuration.needs_old
    rejected = sum(outcome.rejected.values())
    steadiness = settled.steadiness
    return ProfileRow(
        configuration=options.configuration,
        new=options.new.kind,
        old=options.old.kind if pair else "",
        size=options.sizes if options.trace is None else f"trace {Path(options.trace).name}",
        prompt_tokens=longest_prompt(options),
        qps=options.qps,
        bandwidth=options.link.bandwidth_gbit_s * BYTES_PER_S_PER_GBIT_S if pair else None,
        needed_bandwidth=outcome.needed_bandwidth,
        requests=outcome.finished,
        latencies=(
            *((short(row.ttft_s), short(row.tpot_s)) for row in settled.kept),
            *(((None, None),) * rejected),
        ),
        devices=tuple(_profiled(getattr(options, device.role), device) for device in outcome.devices),
        method=LABEL,
        failure="" if outcome.finished else "no request finished: " + "; ".join(outcome.rejected),
        overloaded=steadiness.fault,
        settings=settings_of(options),
        conditions=conditions_of(options),
        slo=(slo.ttft_s, slo.tpot_s),
        warm_up=steadiness.warm_up,
    )


def short(seconds: float | None) -> float | None:
    """A time in six significant digits: what a table of many rows keeps of it."""
    return None if seconds is None else float(f"{seconds:.6g}")


def longest_prompt(options: SimulatedOptions) -> int:
    """The longest prompt that the size bucket stands for."""
    if options.trace is not None:
        return max(request.prompt_tokens for request in trace(Path(options.trace)))
    return application(options.sizes).longest_prompt


def _profiled(declared: DeviceOptions, device: DeviceOutcome) -> ProfiledDevice:
    return ProfiledDevice(
        role=device.role,
        name=device.name,
        energy_busy_j=device.energy_busy_j,
        energy_idle_j=device.energy_idle_j,
        busy_s=device.busy_s,
        reserved_s=device.reserved_s,
        embodied_id=declared.embodied or profile(device.name).embodied_id,
        phases=tuple(device.busy_by_phase.items()),
        watts=tuple((phase, one.low, one.value, one.high) for phase, one in declared.power().items()),
    )


class Simulated(Workload):
    """One cell of the grid."""

    def __init__(self, options: SimulatedOptions) -> None:
        self._options = options
        self._setup: Setup | None = None
        self._folder: Path | None = None
        self._settled: Settled | None = None

    def prepare(self, context: TrialContext) -> None:
        """Makes the set-up; raises MeasurementError where a model does not fit."""
        self._options = self._options.model_copy(update={"seed": self._options.seed + context.seed})
        found = setup_of(self._options)
        if isinstance(found, Unavailable):
            raise MeasurementError(found.reason)
        self._setup = found
        self._folder = context.folder

    def step(self, window: Window) -> None:
        """One simulation."""
        self.run(window)

    def run(self, window: Window) -> None:
        """One simulation fills a window, however long it takes here."""
        assert self._setup is not None
        options, slo = self._options, targets(self._options.slo)
        settled = settle(self._setup, lambda count: stream_of(options, count), slo, rule_of(options))
        self._settled, outcome = settled, settled.outcome
        for flight in outcome.rows:
            window.item(str(flight.number), status="ok", **_columns(flight, slo))
        done = {flight.number for flight in outcome.rows}
        for number in sorted(set(range(outcome.arrived)) - done):
            window.item(str(number), status="rejected")
        if outcome.window_s > 0:
            window.simulated_duration(outcome.window_s)
        for device in outcome.devices:
            window.device(
                device.name,
                role=device.role,
                busy_s=device.busy_s,
                reserved_s=device.reserved_s,
                stands_for=device.name,
                phases=device.busy_by_phase,
            )
        if window.index >= 0:
            self._keep(settled)

    def _keep(self, settled: Settled) -> None:
        assert self._folder is not None
        options = self._options
        key = ProfileKey(
            model=options.model,
            dtype="float16",
            engine=f"simulator, {options.batching} batching, {settled.outcome.calibration}",
            driver="none",
            link_kind="simulated",
            seed=options.seed,
        )
        content = row_to_json(key, profile_row(options, settled))
        (self._folder / PROFILE_ROW).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    def facts(self) -> Mapping[str, object]:
        """Labels, and what the simulated clock says as a whole."""
        if self._settled is None:
            return {"method": LABEL}
        outcome, (share, half) = self._settled.outcome, self._settled.attainment
        return {
            "method": LABEL,
            "calibration": outcome.calibration,
            "first_token": outcome.first_token,
            "host_included": False,
            "configuration": outcome.configuration.value,
            "simulated_window_s": outcome.window_s,
            "attainment": share,
            "attainment_half_width": half if isfinite(half) else None,
            "load": self._settled.steadiness.facts(),
            "rejected": dict(outcome.rejected),
            "needed_bandwidth_bytes_per_s": outcome.needed_bandwidth,
            "energy_j": {
                device.role: {"busy": device.energy_busy_j, "idle": device.energy_idle_j} for device in outcome.devices
            },
            "profiles": {
                device.role: {
                    "device": device.name,
                    "source": profile(device.name).source,
                    "confidence": profile(device.name).confidence,
                }
                for device in outcome.devices
            },
        }


def _columns(flight: Flight, slo: Slo) -> dict[str, float | None]:
    tpot_s = flight.tpot_s
    return {
        "arrival_s": flight.arrival_s,
        "prompt_tokens": flight.prompt,
        "output_tokens": flight.output,
        "ttft_s": flight.ttft_s,
        "tpot_s": None if tpot_s is None or isnan(tpot_s) else tpot_s,
        "latency_s": flight.end_s - flight.arrival_s,
        "queue_s": flight.started_s - flight.arrival_s,
        "transfer_s": flight.transfer_s,
        "bytes_sent": flight.bytes_sent,
        "bytes_returned": flight.bytes_returned,
        "rounds": flight.rounds,
        "proposed_tokens": flight.proposed,
        "accepted_tokens": flight.accepted,
        "meets_slo": float(slo.met(flight.ttft_s, tpot_s)),
    }
