"""Whether the simulator predicts the pair runtime on this machine: `python benchmarks/greenllm_accuracy.py`, 6 minutes.

For each configuration, service times are read off two streams of their own and fitted on one half of the cells; the
other half gives the error. Then streams that the fit has not seen, of other requests at utilisations up to 0.7, run on
the pair, three times each, and in the simulator. Goal: medians of TTFT and TPOT within 10 % or twice the spread of the
repeated runs, whichever is more. Only a quiet machine says anything.

Utilisation is arrival rate x mean time that a request takes alone: what a device without batching would be busy.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load import arrivals
from harness_disaggregated_serving.runtime.driving import serve
from harness_disaggregated_serving.runtime.observing import decode_points, dispatch_s, prefill_points, transfer_points
from harness_disaggregated_serving.runtime.pair import Pair, PairOptions
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings
from harness_disaggregated_serving.simulator import setup as simulated
from harness_disaggregated_serving.simulator.calibration import Calibration, calibrate
from harness_disaggregated_serving.simulator.simulate import simulate

MODEL = {"layers": 6, "hidden": 256, "heads": 4, "kv_heads": 4, "draft_layers": 1, "context": 1024}
KV_BYTES = 2 * 6 * 4 * 64 * 4
REPEATS = 3
REQUESTS = 32
ALONE = 12
UTILISATIONS = (0.3, 0.5, 0.7)
CALIBRATED_AT = (0.35, 0.65)
GOAL = 0.10
QUIET = 0.5
VOCABULARY = 512


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Prompt and output lengths."""
    draw = random.Random(seed)
    return [(draw.randrange(32, 256), draw.randrange(8, 24)) for _ in range(count)]


def stream(utilisation: float, work_s: float, seed: int) -> list[arrivals.Request]:
    """Poisson arrivals of requests that take `work_s` each on the mean, alone."""
    gaps = random.Random(seed + 1)
    now, found = 0.0, []
    for prompt, output in sizes(REQUESTS, seed):
        now += gaps.expovariate(utilisation / work_s)
        found.append(arrivals.Request(now, prompt, output))
    return found


def requests(asked: Sequence[arrivals.Request], seed: int) -> list[PromptedRequest]:
    """The same requests with random tokens, as the pair takes them."""
    words = random.Random(seed)
    return [
        PromptedRequest(f"s{number}", at_s, [words.randrange(VOCABULARY) for _ in range(prompt)], output, number)
        for number, (at_s, prompt, output) in enumerate(asked)
    ]


def alone_s(pair: Pair, settings: Settings) -> float:
    """Mean time of a request that has the pair to itself."""
    times = []
    for prompt, output in sizes(ALONE, 1):
        (outcome,) = serve(pair, requests([arrivals.Request(0.0, prompt, output)], prompt), settings)
        times.append(outcome.token_s[-1])
    return statistics.fmean(times)


@dataclass(frozen=True)
class Cell:
    """A stream on the pair and in the simulator: medians over requests."""

    name: str
    measured: tuple[float, ...]
    simulated: float

    @property
    def middle(self) -> float:
        """The middle one of the repeated runs."""
        return statistics.median(self.measured)

    @property
    def spread(self) -> float:
        """Range of the repeated runs over their middle one."""
        return (max(self.measured) - min(self.measured)) / self.middle

    @property
    def error(self) -> float:
        """Of the simulator, relative to the middle run."""
        return (self.simulated - self.middle) / self.middle

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return abs(self.error) <= max(GOAL, 2 * self.spread)

    def __str__(self) -> str:
        return (
            f"| {self.name} | {1000 * self.middle:.2f} | {self.spread:.1%} | {1000 * self.simulated:.2f} "
            f"| {self.error:+.1%} | {'yes' if self.holds else 'NO'} |"
        )


def median_of(values: Sequence[float | None]) -> float:
    """Median of what is there."""
    return statistics.median(value for value in values if value is not None)


@dataclass(frozen=True)
class Fitted:
    """A configuration's service times, and what its messages add to a first token."""

    configuration: Configuration
    work_s: float
    calibration: Calibration
    dispatch_s: float


def fit(pair: Pair, configuration: Configuration) -> Fitted:
    """Reads service times off two streams."""
    settings = Settings(configuration=configuration)
    shared = configuration is Configuration.STANDALONE
    work_s = alone_s(pair, settings)
    runs = [
        serve(pair, requests(stream(utilisation, work_s, seed), seed), settings)
        for seed, utilisation in enumerate(CALIBRATED_AT, start=100)
    ]
    together = [one for run in runs for one in run]
    return Fitted(
        configuration,
        work_s,
        calibrate(
            prefill_points(together),
            [point for run in runs for point in decode_points(run, shared=shared)],
            () if shared else transfer_points(together),
        ),
        statistics.median(dispatch_s(run, shared=shared) for run in runs),
    )


def cells(pair: Pair, fitted: Fitted, utilisation: float, seed: int) -> list[Cell]:
    """One stream that nothing was fitted on: TTFT and TPOT."""
    asked = stream(utilisation, fitted.work_s, seed)
    settings = Settings(configuration=fitted.configuration)
    runs: list[list[Outcome]] = [serve(pair, requests(asked, seed), settings) for _ in range(REPEATS)]
    device = simulated.SimulatedDevice(name="this machine", target=fitted.calibration.costs)
    two = fitted.configuration is Configuration.DPD
    outcome = simulate(
        simulated.Setup(
            configuration=Configuration(fitted.configuration.value),
            new=device,
            old=device if two else None,
            link=fitted.calibration.link if two else None,
            kv_bytes_per_token=KV_BYTES,
            batching=simulated.Batching.ALTERNATING,
            calibration=fitted.calibration.label,
        ),
        asked,
        keep_rows=True,
    )
    of: dict[str, tuple[Callable[[Outcome], float | None], float]] = {
        # Every request reaches the device later by what its message takes, which changes nobody's turn.
        "TTFT": (lambda one: one.ttft_s, fitted.dispatch_s + median_of([row.ttft_s for row in outcome.rows])),
        "TPOT": (lambda one: one.tpot_s, median_of([row.tpot_s for row in outcome.rows])),
    }
    return [
        Cell(
            f"{fitted.configuration.value}, utilisation {utilisation:g}, {name}",
            tuple(median_of([read(one) for one in run]) for run in runs),
            predicted,
        )
        for name, (read, predicted) in of.items()
    ]


def main() -> None:
    """Prints held-out errors, the table and the verdict."""
    began = time.monotonic()
    if (load := os.getloadavg()[0]) > QUIET:
        print(f"load {load:.1f}: this machine is not quiet, and what follows says little")
    configurations = (Configuration.STANDALONE, Configuration.DPD)
    found: list[Cell] = []
    with Pair(PairOptions(model=MODEL), configurations) as pair:
        for configuration in configurations:
            serve(pair, requests([arrivals.Request(0.0, 64, 16)], 0), Settings(configuration=configuration))  # warm
            fitted = fit(pair, configuration)
            costs = fitted.calibration.costs
            print(f"\n{configuration.value}: {fitted.calibration.label}")
            print(f"{costs}, {fitted.calibration.link}, dispatch {1000 * fitted.dispatch_s:.2f} ms\n")
            print(
                "| cell | measured, ms | spread | simulated, ms | error | within the goal |\n|---|---|---|---|---|---|"
            )
            for seed, utilisation in enumerate(UTILISATIONS, start=200):
                for cell in cells(pair, fitted, utilisation, seed):
                    print(cell, flush=True)
                    found.append(cell)
    held = sum(cell.holds for cell in found)
    within = sum(abs(cell.error) <= GOAL for cell in found)
    print(
        f"\n{held} of {len(found)} cells hold, {within} of them within {GOAL:.0%} whatever the spread; "
        f"largest spread {max(cell.spread for cell in found):.0%}; {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
