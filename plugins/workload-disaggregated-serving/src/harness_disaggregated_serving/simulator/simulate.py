"""Runs one simulation and makes its outcome: times, energy of every held device, attainment. All of it simulated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.quantity import Undefined
from harness_disaggregated_serving.carbon.power import split
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.arrivals import Request
from harness_disaggregated_serving.load.slo import Slo
from harness_disaggregated_serving.simulator import batched, independent, quick_rounds
from harness_disaggregated_serving.simulator.rounds import Rounds
from harness_disaggregated_serving.simulator.setup import LABEL, Batching, Setup, SimulatedDevice
from harness_disaggregated_serving.simulator.tally import Busy, DeviceOutcome, Flight, Sketch, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulation says. Times in s on the simulated clock, energies in J.

    Attributes:
        configuration: which.
        calibration: `uncalibrated`, or what the service times were fitted on.
        arrived: requests that came; each one finished or was rejected.
        finished: requests that have all their tokens.
        rejected: requests that could never be served, by reason.
        attainment: share of the requests that arrived which met both targets; Undefined without targets or requests.
        served_tokens: output tokens of those.
        window_s: from the first arrival to the last completion.
        devices: every device that was held.
        ttft: times to first token.
        tpot: times per output token, of requests with two or more.
        rows: every finished request, where they were kept.
    """

    configuration: Configuration
    calibration: str
    first_token: str
    arrived: int
    finished: int
    rejected: Mapping[str, int]
    attainment: float | Undefined
    prompt_tokens: int
    output_tokens: int
    served_tokens: int
    window_s: float
    devices: tuple[DeviceOutcome, ...]
    ttft: Sketch
    tpot: Sketch
    bytes_sent: int
    bytes_returned: int
    rounds: int
    proposed: int
    accepted: int
    link_busy_s: float
    rows: tuple[Flight, ...] = ()
    label: str = LABEL

    @property
    def energy_j(self) -> float:
        """Energy of all held devices over the window."""
        return math.fsum(device.energy_j for device in self.devices)

    @property
    def needed_bandwidth(self) -> float:
        """Mean bytes per second that the link had to carry over the window."""
        return self.bytes_sent / self.window_s if self.window_s > 0 else 0.0


def simulate(
    setup: Setup,
    incoming: Iterable[Request],
    *,
    slo: Slo | None = None,
    keep_rows: bool = False,
    quick: bool = True,
) -> Outcome:
    """Simulates a stream of requests in order of arrival; memory does not grow with their number unless rows are kept.

    What waits is kept, so it does grow where a device is overloaded. Speculation has two paths with the same results:
    `quick`, where the set-up allows it, and one event at a time, which tests hold it against.

    Raises ValueError where arrivals go backwards in time.
    """
    tally = Tally(slo=slo, keep_rows=keep_rows)
    if setup.configuration.speculates:
        if quick and quick_rounds.can(setup):
            quick_rounds.serve(setup, incoming, tally)
        else:
            Rounds(setup, tally).run(incoming)
    elif setup.batching is not Batching.NONE:
        batched.serve(setup, incoming, tally)
    else:
        independent.serve(setup, incoming, tally)
    tally.flush()
    window_s = tally.last_completion_s - tally.first_arrival_s if tally.finished else 0.0
    return Outcome(
        configuration=setup.configuration,
        calibration=setup.calibration,
        first_token=setup.first_token.value,
        arrived=tally.arrived,
        finished=tally.finished,
        rejected=dict(tally.rejected),
        attainment=_attainment(tally),
        prompt_tokens=tally.prompt_tokens,
        output_tokens=tally.output_tokens,
        served_tokens=tally.served_tokens,
        window_s=window_s,
        devices=tuple(_device(role, device, tally.busy[role], window_s) for role, device in setup.devices.items()),
        ttft=tally.ttft,
        tpot=tally.tpot,
        bytes_sent=tally.bytes_sent,
        bytes_returned=tally.bytes_returned,
        rounds=tally.rounds,
        proposed=tally.proposed,
        accepted=tally.accepted,
        link_busy_s=tally.link_busy_s,
        rows=tuple(tally.rows),
    )


def _attainment(tally: Tally) -> float | Undefined:
    if tally.slo is None:
        return Undefined("no latency targets were given")
    return tally.served / tally.arrived if tally.arrived else Undefined("no request arrived")


def _device(role: str, device: SimulatedDevice, busy: Busy, window_s: float) -> DeviceOutcome:
    """Energy = idle watts over the window + what each phase draws above them while it lasts."""
    phases = split(busy.loads)
    busy_s = min(math.fsum(phases.values()), window_s)  # sums of intervals round
    energy = math.fsum(seconds * device.power_w(phase) for phase, seconds in phases.items())
    return DeviceOutcome(
        role=role,
        name=device.name,
        busy_s=busy_s,
        reserved_s=window_s,
        busy_by_phase=phases,
        energy_busy_j=energy,
        energy_idle_j=device.idle_w * (window_s - busy_s),
    )
