"""Whether the simulator predicts the pair runtime on this machine: `python benchmarks/greenllm_accuracy.py`.

Service times are measured on a running pair and fitted on one half of the cells; the other half gives the error.
Then streams at utilisations up to 0.7 run on the pair, three times each, and in the simulator. Goal: medians of TTFT
and TPOT within 10 % or twice the spread of the repeated runs, whichever is more. Only a quiet machine says anything.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness_disaggregated_serving import arrivals
from harness_disaggregated_serving.calibration import (
    Calibration,
    DecodePoint,
    PrefillPoint,
    TransferPoint,
    calibrate,
)
from harness_disaggregated_serving.runtime.driving import serve
from harness_disaggregated_serving.runtime.pair import Pair, PairOptions
from harness_disaggregated_serving.runtime.requests import Configuration, Outcome, Request, Settings
from harness_disaggregated_serving.simulator import setup as simulated
from harness_disaggregated_serving.simulator.simulate import simulate

MODEL = {"layers": 6, "hidden": 256, "heads": 4, "kv_heads": 4, "draft_layers": 1, "context": 1024}
KV_BYTES = 2 * 6 * 4 * 64 * 4
PROMPTS = (8, 16, 32, 64, 96, 128, 192, 256, 320, 384)
BATCHES = (1, 2, 3, 4, 6, 8)
REPEATS = 3
REQUESTS = 40
UTILISATIONS = (0.3, 0.5, 0.7)
GOAL = 0.10
LAST_TOKENS = 12
VOCABULARY = 512


def request(name: str, at_s: float, prompt: int, output: int) -> Request:
    """A request with random tokens, the same for the same name."""
    words = random.Random(name)
    return Request(name, at_s, [words.randrange(VOCABULARY) for _ in range(prompt)], output, 1)


def prefill_points(pair: Pair) -> list[PrefillPoint]:
    """Requests alone: what the client sees of a prefill, messages included."""
    found = []
    for prompt in PROMPTS:
        times = [serve(pair, [request(f"p{prompt}", 0.0, prompt, 1)], Settings())[0].ttft_s for _ in range(5)]
        found.append(PrefillPoint((prompt,), statistics.median(each for each in times if each is not None)))
    return found


def decode_points(pair: Pair) -> list[DecodePoint]:
    """Steps of a full batch: the gaps between the last tokens of the request that ends first."""
    found = []
    for prompt in (16, 128, 320):
        for batch in BATCHES:
            output = batch + LAST_TOKENS + 4
            asked = [request(f"d{number}", 0.0, prompt, output) for number in range(batch)]
            first = serve(pair, asked, Settings())[0].token_s[-LAST_TOKENS:]
            gaps = [after - before for before, after in pairwise(first)]
            context = batch * (prompt + output - LAST_TOKENS // 2) - batch * (batch - 1) // 2
            found.append(DecodePoint(batch, context, statistics.median(gaps)))
    return found


def transfer_points(pair: Pair) -> list[TransferPoint]:
    """Caches of prompts sent alone."""
    found = []
    for prompt in PROMPTS:
        asked = [request(f"t{prompt}", 0.0, prompt, 3)]
        moved = [serve(pair, asked, Settings(configuration=Configuration.DPD))[0] for _ in range(5)]
        times = [one.transfer_s for one in moved if one.transfer_s]
        found.append(TransferPoint(moved[0].bytes_sent, statistics.median(times)))
    return found


@dataclass(frozen=True)
class Cell:
    """A stream on the pair and in the simulator: medians over requests."""

    name: str
    measured: tuple[float, ...]
    simulated: float

    @property
    def spread(self) -> float:
        """Range of the repeated runs over their middle one."""
        return (max(self.measured) - min(self.measured)) / statistics.median(self.measured)

    @property
    def error(self) -> float:
        """Of the simulator, relative to the middle run."""
        middle = statistics.median(self.measured)
        return (self.simulated - middle) / middle

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return abs(self.error) <= max(GOAL, 2 * self.spread)

    def __str__(self) -> str:
        middle = statistics.median(self.measured)
        verdict = "yes" if self.holds else "NO"
        return (
            f"| {self.name} | {1000 * middle:.2f} | {self.spread:.1%} | {1000 * self.simulated:.2f} "
            f"| {self.error:+.1%} | {verdict} |"
        )


def median_of(values: Sequence[float | None]) -> float:
    """Median of what is there."""
    return statistics.median(value for value in values if value is not None)


def cells(pair: Pair, fitted: Calibration, configuration: Configuration, utilisation: float) -> list[Cell]:
    """One stream: TTFT and TPOT."""
    sizes = random.Random(7)
    drawn = [(sizes.randrange(32, 256), sizes.randrange(8, 24)) for _ in range(REQUESTS)]
    work_s = statistics.fmean(
        fitted.costs.prefill.seconds(prompt, prompt**2) + fitted.costs.decode.seconds(output, 1, prompt)
        for prompt, output in drawn
    )
    gaps = random.Random(11)
    now, stream = 0.0, []
    for prompt, output in drawn:
        now += gaps.expovariate(utilisation / work_s)
        stream.append(arrivals.Request(now, prompt, output))
    settings = Settings(configuration=configuration)
    asked = [request(f"s{number}", *each) for number, each in enumerate(stream)]
    runs: list[list[Outcome]] = [serve(pair, asked, settings) for _ in range(REPEATS)]
    device = simulated.SimulatedDevice(name="this machine", target=fitted.costs)
    pair_of_two = configuration is Configuration.DPD
    outcome = simulate(
        simulated.Setup(
            configuration=simulated.Configuration(configuration.value),
            new=device,
            old=device if pair_of_two else None,
            link=fitted.link if pair_of_two else None,
            kv_bytes_per_token=KV_BYTES,
            batching=simulated.Batching.ITERATION,
            max_prefill_tokens=1,  # the runtime computes one prompt an iteration
            calibration=fitted.label,
        ),
        stream,
        keep_rows=True,
    )
    of: dict[str, tuple[Callable[[Outcome], float | None], float]] = {
        "TTFT": (lambda one: one.ttft_s, median_of([row.ttft_s for row in outcome.rows])),
        "TPOT": (lambda one: one.tpot_s, median_of([row.tpot_s for row in outcome.rows])),
    }
    return [
        Cell(
            f"{configuration.value}, utilisation {utilisation:g}, {name}",
            tuple(median_of([read(one) for one in run]) for run in runs),
            predicted,
        )
        for name, (read, predicted) in of.items()
    ]


def main() -> None:
    """Prints held-out errors and the table."""
    configurations = (Configuration.STANDALONE, Configuration.DPD)
    with Pair(PairOptions(model=MODEL), configurations) as pair:
        serve(pair, [request("warm", 0.0, 64, 16)], Settings())
        fitted = calibrate(prefill_points(pair), decode_points(pair), transfer_points(pair))
        print(fitted.label, "\n")
        print("| cell | measured, ms | spread | simulated, ms | error | within the goal |\n|---|---|---|---|---|---|")
        for configuration in configurations:
            for utilisation in UTILISATIONS:
                for cell in cells(pair, fitted, configuration, utilisation):
                    print(cell, flush=True)


if __name__ == "__main__":
    main()
