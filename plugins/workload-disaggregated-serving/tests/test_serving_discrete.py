"""The pair runtime and the simulator are one queueing system: with known service times their times are equal.

The roles' own loop and duties run on a virtual clock, with engines that add a known time to it and compute nothing, so
that what is compared is who waits for whom, to the last digit and on any machine.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load import arrivals
from harness_disaggregated_serving.runtime.observing import decode_points, dispatch_s, prefill_points, transfer_points
from harness_disaggregated_serving.runtime.options import SeededModel
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings, Status
from harness_disaggregated_serving.simulator import setup as simulated
from harness_disaggregated_serving.simulator.calibration import calibrate
from harness_disaggregated_serving.simulator.costs import DecodeCost, PhaseCosts, PrefillCost
from harness_disaggregated_serving.simulator.simulate import simulate
from harness_disaggregated_serving.simulator.tally import Flight
from harness_disaggregated_serving.transport.faults import LinkClosed
from harness_disaggregated_serving.transport.link import Arrival, Message

if TYPE_CHECKING:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, Running


COSTS = PhaseCosts(PrefillCost(0.02, 4e-4, 1e-7), DecodeCost(0.012, 5e-6, 1e-3))
TINY = SeededModel(layers=1, hidden=16, heads=2, kv_heads=1, vocabulary=8, draft_layers=1)
COUNT = 60


@dataclass
class Clock:
    now: float = 0.0


def reckoner(clock: Clock) -> Engine:
    """An engine that takes the time that the simulator reckons with."""
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine
    from harness_disaggregated_serving.runtime.models import build_target

    class Reckoner(Engine):
        def prefill(self, sequence: Running) -> torch.Tensor:
            count = len(sequence.tokens)
            clock.now += COSTS.prefill.seconds(count, count**2)
            sequence.cache.length = count
            return torch.zeros(self.vocabulary)

        def advance(self, sequences: Sequence[Running]) -> list[torch.Tensor]:
            clock.now += COSTS.decode.seconds(1, len(sequences), sum(len(one.tokens) for one in sequences))
            for sequence in sequences:
                sequence.cache.length = len(sequence.tokens)
            return [torch.zeros(1, self.vocabulary) for _ in sequences]

    return Reckoner(build_target(TINY, torch.float32, torch.device("cpu")), 1)


@dataclass
class Said:
    """A link that keeps what is sent, with its time."""

    clock: Clock
    messages: list[tuple[float, str, Mapping[str, Any], int]] = field(default_factory=list)
    one_clock: bool = True

    def send(self, kind: str, fields: Mapping[str, Any], pieces: Sequence[Any] = ()) -> None:
        self.messages.append((self.clock.now, kind, fields, sum(memoryview(piece).nbytes for piece in pieces)))


@dataclass
class Coming:
    """An inbox whose messages arrive on the virtual clock; the client is gone after the last one was served."""

    clock: Clock
    client: Said
    waiting: list[tuple[float, Message]]

    def get(self, timeout_s: float | None = None) -> Arrival | None:
        if self.waiting and (timeout_s is None or self.waiting[0][0] <= self.clock.now):
            due, message = self.waiting.pop(0)
            self.clock.now = max(self.clock.now, due)
            return Arrival(self.client, message)  # type: ignore[arg-type]
        return Arrival(self.client, LinkClosed("done")) if timeout_s is None else None  # type: ignore[arg-type]


def serve(name: str, configuration: Configuration, coming: list[tuple[float, Message]]) -> tuple[Said, Said]:
    """Runs a role until it has served what comes; what it said to the client, and to the other role."""
    from harness_disaggregated_serving.runtime.desk import Desk
    from harness_disaggregated_serving.runtime.role import DUTIES, Role

    clock = Clock()
    engine = reckoner(clock)
    client, peer = Said(clock), Said(clock)
    role = object.__new__(Role)
    role._job = {"device": "cpu"}
    role._inbox = Coming(clock, client, coming)  # type: ignore[assignment]
    settings = Settings(configuration=configuration)
    role._desk = Desk(role=name, engines={"target": engine}, client=client, peer=peer, settings=settings)  # type: ignore[arg-type]
    role._duty = DUTIES[configuration, name](role._desk)
    role._ended = False
    role.run()
    return client, peer


def ask(number: int, request: arrivals.Request) -> tuple[float, Message]:
    fields = {"epoch": 0, "name": str(number), "output_tokens": request.output_tokens, "seed": number}
    body = memoryview(array("i", [1] * request.prompt_tokens)).cast("B")
    return request.arrival_s, Message("request", fields, body, 0.0)


def token_times(*links: Said) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for now, kind, fields, _ in sorted(
        (message for link in links for message in link.messages), key=lambda message: message[0]
    ):
        for name, _, tokens in fields["events"] if kind == "tokens" else ():
            found.setdefault(int(name), []).extend([now] * len(tokens))
    return found


def on_the_runtime(configuration: Configuration, asked: list[arrivals.Request]) -> dict[int, list[float]]:
    new, peer = serve("new", configuration, [ask(number, one) for number, one in enumerate(asked)])
    if configuration is Configuration.STANDALONE:
        return token_times(new)
    return token_times(new, serve("old", configuration, caches(peer))[0])


def caches(sent: Said) -> list[tuple[float, Message]]:
    return [(now, Message(kind, fields, memoryview(bytearray(size)), 0.0)) for now, kind, fields, size in sent.messages]


def stream(utilisation: float) -> list[arrivals.Request]:
    chance = random.Random(3)
    sizes = [(chance.randrange(16, 200), chance.randrange(1, 16)) for _ in range(COUNT)]
    work_s = statistics.fmean(
        COSTS.prefill.seconds(prompt, prompt**2) + COSTS.decode.seconds(output - 1, 1, prompt + 1)
        for prompt, output in sizes
    )
    now, found = 0.0, []
    for prompt, output in sizes:
        now += chance.expovariate(utilisation / work_s)
        found.append(arrivals.Request(now, prompt, output))
    return found


def in_the_simulator(
    configuration: Configuration, asked: list[arrivals.Request], rule: simulated.Batching
) -> list[Flight]:
    device = simulated.SimulatedDevice(name="reckoner", target=COSTS)
    two = configuration is Configuration.DPD
    setup = simulated.Setup(
        configuration=simulated.Configuration(configuration.value),
        new=device,
        old=device if two else None,
        link=simulated.Link(bandwidth=1.0) if two else None,  # nothing is sent: a token of cache has no bytes here
        batching=rule,
        max_prefill_tokens=1,
    )
    return sorted(simulate(setup, asked, keep_rows=True).rows, key=lambda row: row.number)


@pytest.mark.parametrize("utilisation", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("configuration", [Configuration.STANDALONE, Configuration.DPD])
def test_every_request_of_the_runtime_has_the_times_of_the_simulator(
    configuration: Configuration, utilisation: float
) -> None:
    asked = stream(utilisation)
    measured = on_the_runtime(configuration, asked)
    rows = in_the_simulator(configuration, asked, simulated.Batching.ALTERNATING)
    assert [len(measured[number]) for number in range(COUNT)] == [one.output_tokens for one in asked]
    assert [measured[number][0] for number in range(COUNT)] == pytest.approx([row.first_s for row in rows], rel=1e-9)
    assert [measured[number][-1] for number in range(COUNT)] == pytest.approx([row.end_s for row in rows], rel=1e-9)


def outcomes_of(configuration: Configuration, asked: list[arrivals.Request], late_s: float) -> list[Outcome]:
    """The stream as its client would see it, every request reaching the device so late."""
    shifted = [one._replace(arrival_s=one.arrival_s + late_s) for one in asked]
    new, peer = serve("new", configuration, [ask(number, one) for number, one in enumerate(shifted)])
    links = [new]
    if configuration is Configuration.DPD:
        links.append(serve("old", configuration, caches(peer))[0])
    begun = {int(fields["name"]): now for now, kind, fields, _ in new.messages if kind == "begun"}
    times = token_times(*links)
    found = []
    for number, one in enumerate(asked):
        request = PromptedRequest(str(number), one.arrival_s, [1] * one.prompt_tokens, one.output_tokens)
        outcome = Outcome(request, Status.FINISHED, attempts=1, begun_s=begun[number], token_s=times[number])
        outcome.bytes_sent, outcome.transfer_s = 1000 * one.prompt_tokens, 1e-6 * one.prompt_tokens
        found.append(outcome)
    return found


@pytest.mark.parametrize("configuration", [Configuration.STANDALONE, Configuration.DPD])
def test_a_streams_own_times_give_the_service_times_back(configuration: Configuration) -> None:
    shared = configuration is Configuration.STANDALONE
    outcomes = outcomes_of(configuration, stream(0.7), late_s=0.003)
    fitted = calibrate(prefill_points(outcomes), decode_points(outcomes, shared=shared), transfer_points(outcomes))
    for found, known in ((fitted.costs.prefill, COSTS.prefill), (fitted.costs.decode, COSTS.decode)):
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(known), rel=0.02)
    assert fitted.link is not None
    assert fitted.link.bandwidth == pytest.approx(1e9, rel=1e-6)
    assert dispatch_s(outcomes, shared=shared) == pytest.approx(0.003)
    assert max(error.worst for error in fitted.errors.values()) < 0.01


def test_a_device_that_was_never_idle_tells_no_dispatch() -> None:
    outcomes = outcomes_of(Configuration.STANDALONE, [arrivals.Request(0.0, 5, 5)] * 3, late_s=0.0)
    with pytest.raises(ValueError, match="found the device at work"):
        dispatch_s(outcomes, shared=True)


def test_prompts_first_is_another_system() -> None:
    """Where several prompts wait, the runtime decodes between them: the first tokens come later, the others sooner."""
    asked = stream(1.5)
    measured = on_the_runtime(Configuration.STANDALONE, asked)
    rows = in_the_simulator(Configuration.STANDALONE, asked, simulated.Batching.ITERATION)
    first = statistics.fmean(measured[number][0] - row.first_s for number, row in enumerate(rows))
    assert first > 0.02
