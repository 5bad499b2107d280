"""How often the bound of an energy holds the truth, by kind of sensor, load and window: the table `docs/sensors.md`.

    python benchmarks/sensor_study.py            writes the page; some minutes
    python benchmarks/sensor_study.py --check    says whether the code that the table rests on has changed since

Simulated accelerators are read through the meters, edges and arithmetic that measure, by a clock that goes when it is
told to. What is known of a sensor is never what the simulation was told: it is the class of a product, or a meter card
that the self-test made of the device.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import itertools
import math
import random
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from harness_meter_nvml.sensors import Register, power_sensor

from harness.backend import Device
from harness.builtin.simulated import SimulatedLoad, SimulatedMeter
from harness.builtin.simulated_accelerator import SimulatedAccelerator, attach, detach
from harness.builtin.simulated_sensor import SimulatedSensor
from harness.diagnosing.card_test import run_card
from harness.machine.meter_card import MeterCard
from harness.measuring.channel import Channel
from harness.measuring.meters import Edge, Meters
from harness.measuring.opening import by_card
from harness.meter import MeterContext
from harness.quantity import Amount, Method
from harness.sample import Scope
from harness.sensor import PowerSensor
from harness.testing import FakeClock
from harness.units import nanoseconds, seconds

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/sensors.md"
UUID = "SIM-study"
SCOPE = f"n0/gpu:{UUID}"
LIMIT_W = 400.0
IDLE_W = 50.0
SAMPLE_S = 0.1
BEFORE_S = 12.0
LENGTHS_S = (0.5, 2.0, 30.0)
LOADS = ("constant", "step up", "step down", "square", "square in step", "bursts")
IN_STEP = (0.2, 0.25, 0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0, 3.0)
"""Periods of a square wave that are small ratios of the update period, in update periods."""
WANTED = 0.95
EXTRA = 0.02
"""Under constant load, from 2 s, the half-width is at most that of the sensor's class and so much of the value."""
KNOWLEDGE = ("class", "card", "card by reference")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of sensor, and the product whose class it is taken for.

    Attributes:
        sensor: what the simulation is told.
        tick_s: update period.
        product: name that the class is looked up by.
        register: likewise.
    """

    sensor: SimulatedSensor
    tick_s: float
    product: str
    register: Register = "instant"

    def class_sensor(self) -> PowerSensor:
        """What is known without a card."""
        return power_sensor(self.product, self.register, LIMIT_W)


def _power(window_s: float | None = None, lag_s: float = 0.0, part_of_time: float | None = None) -> SimulatedSensor:
    return SimulatedSensor(source="power", window_s=window_s, lag_s=lag_s, part_of_time=part_of_time)


KINDS: dict[str, Kind] = {
    "25 of 100 ms": Kind(_power(0.025), 0.1, "NVIDIA A100-SXM4-80GB"),
    "average over 1 s": Kind(_power(1.0), 0.1, "NVIDIA GeForce RTX 3090", "usage"),
    "late by 0.5 s": Kind(_power(lag_s=0.5), 0.1, "an unknown card"),
    "instant at 10 Hz": Kind(_power(), 0.1, "NVIDIA GeForce RTX 3090"),
    "update 20 ms": Kind(_power(), 0.02, "Tesla P100-PCIE-16GB"),
    "update 300 ms": Kind(_power(), 0.3, "an unknown card"),
    "counter": Kind(SimulatedSensor(), 0.1, "NVIDIA GeForce RTX 4090"),
    "counter late by 0.5 s": Kind(SimulatedSensor(lag_s=0.5), 0.1, "an unknown card"),
    "counter of 25 in 100 ms": Kind(SimulatedSensor(window_s=0.025), 0.1, "NVIDIA A100-SXM4-80GB"),
}
ERRORS: tuple[tuple[float, float], ...] = ((0.13, 0.0), (-0.13, 0.0), (0.07, 0.0), (0.0, 0.05), (0.0, -0.05))
"""Gain error, and offset as a share of the limit: those of the devices of a study."""


@contextmanager
def clock_of_meters(clock: FakeClock) -> Iterator[None]:
    """Puts a clock in the place of the one that meters are read by, and of sleeping, wherever it is imported."""
    patched: object = SimpleNamespace(sleep=clock.sleep, time=lambda: 0.0, monotonic=lambda: clock.s)
    modules = [module for name, module in sys.modules.items() if name.startswith("harness.measuring.")]
    kept = [
        (module, {name: vars(module)[name] for name in ("now_ns", "time") if name in vars(module)})
        for module in modules
    ]
    for module, own in kept:
        vars(module).update({name: {"now_ns": clock, "time": patched}[name] for name in own})
    try:
        yield
    finally:
        for module, own in kept:
            vars(module).update(own)


def accelerator(
    kind: Kind, errors: tuple[float, float], busy_w: float, clock: FakeClock, phase: float
) -> SimulatedAccelerator:
    """A simulated device; `phase` of its update period has gone at its start."""
    gain_error, offset = errors
    sensor = replace(kind.sensor, offset_w=offset * LIMIT_W)
    return SimulatedAccelerator(
        IDLE_W, busy_w, kind.tick_s, gain_error, UUID, clock, phase_s=phase * kind.tick_s, sensor=sensor
    )


def described(kind: Kind) -> Scope:
    """A scope as a meter describes it that knows the class of its product, and nothing of the simulation."""
    known = kind.class_sensor()
    counter = kind.sensor.source == "counter"
    if counter:
        known = replace(known, update_s=0.1, window_s=known.seen * 0.1, part_of_time=None)
    return Scope(
        method=Method.COUNTER if counter else Method.INTEGRATED,
        tick_s=0.1 if counter else None,
        max_power_w=LIMIT_W,
        sensor=known,
        device=UUID,
    )


@functools.cache
def card_of(name: str, errors: tuple[float, float], *, reference: bool) -> MeterCard:
    """The card that the self-test makes of a device of this kind; with its true energy as a reference, or without."""
    clock = FakeClock()
    device = accelerator(KINDS[name], errors, 300.0, clock, 0.37)
    attach(device)

    class Switched(SimulatedLoad):
        def true_joules(self):
            return super().true_joules() if reference else None

    try:
        meter = SimulatedMeter()
        meter.open(MeterContext(devices=(Device(kind="gpu", uuid=UUID, name="simulated"),)))
        load, what = Switched(device), described(KINDS[name])
        return run_card(meter, SCOPE, load, clock, clock.advance, 0.1, name="simulated", what=what)
    finally:
        detach(UUID)


def scopes_of(name: str, errors: tuple[float, float]) -> dict[str, Scope]:
    """A scope by what is known of its sensor."""
    known = described(KINDS[name])
    cards = {"card": False, "card by reference": True}
    return {
        "class": known,
        **{how: by_card(known, card_of(name, errors, reference=reference)) for how, reference in cards.items()},
    }


def switched(
    rng: random.Random, load: str, tick_s: float, begin_s: float, length_s: float
) -> tuple[list[tuple[float, bool]], float | None]:
    """Moments and levels of a load (whether busy), and its period where it has one."""
    end_s = begin_s + length_s + 4.0
    start_s = begin_s - BEFORE_S + 0.5
    if load == "constant":
        return [(start_s, True)], None
    if load in {"step up", "step down"}:
        at_s = rng.uniform(begin_s - 1.0, begin_s + length_s + 0.5)
        return [(start_s, load == "step down"), (at_s, load == "step up")], None
    found, now_s = [], start_s
    if load == "bursts":
        burst_s, pause_s = rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.5)
        while now_s < end_s:
            for busy, mean_s in ((False, pause_s), (True, burst_s)):
                found.append((now_s, busy))
                now_s += rng.expovariate(1 / mean_s)
        return found, None
    ratio = rng.choice(IN_STEP) if load == "square in step" else rng.uniform(0.2, 3.0)
    period_s, duty = ratio * tick_s, 0.5 if load == "square in step" else rng.uniform(0.3, 0.7)
    now_s += rng.random() * period_s
    while now_s < end_s:
        found += [(now_s, True), (now_s + duty * period_s, False)]
        now_s += period_s
    return found, period_s


@dataclass(slots=True)
class Tally:
    """What a cell has seen.

    Attributes:
        windows: how many.
        inside: how many bounds held the truth; Unavailable is a miss.
        widths: half-widths over the value.
        excess: half-widths over the value, beyond the sensor's own error.
        reasons: why there was no energy.
    """

    windows: int = 0
    inside: int = 0
    widths: list[float] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, value: object, truth_j: float, length_s: float, sensor: PowerSensor | None) -> None:
        """One window."""
        self.windows += 1
        if not isinstance(value, Amount) or value.low is None or value.high is None:
            reason = str(getattr(value, "reason", "no bound"))
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            return
        self.inside += value.low <= truth_j <= value.high
        half_j, mean_w = (value.high - value.low) / 2, value.value / length_s
        self.widths.append(half_j / value.value if value.value else math.inf)
        own_j = sensor.error_w(mean_w) * length_s if sensor is not None else 0.0
        self.excess.append((half_j - own_j) / value.value if value.value else math.inf)

    @property
    def coverage(self) -> float:
        """Share of windows whose bound held the truth."""
        return self.inside / self.windows


Span = Literal["window", "mark"]
Key = tuple[str, str, float, Span, str]
"""Sensor, load, length in seconds, span, what is known."""


def window(rng: random.Random, name: str, load: str, length_s: float, cell: dict[tuple[Span, str], Tally]) -> None:
    """One window with a mark in it, through meters that know the class, the card, and the card by a reference."""
    kind, errors, clock = KINDS[name], rng.choice(ERRORS), FakeClock(rng.randrange(10**9, 10**10))
    scopes = scopes_of(name, errors)
    device = accelerator(kind, errors, LIMIT_W * rng.uniform(0.5, 1.0), clock, rng.random())
    begin_s = clock.s + BEFORE_S
    plan, period_s = switched(rng, load, kind.tick_s, begin_s, length_s)
    for moment, busy in plan:
        (device.busy if busy else device.idle)(nanoseconds(moment))
    attach(device)
    try:
        with clock_of_meters(clock):
            channels = []
            for how, scope in scopes.items():
                meter = SimulatedMeter()
                meter.open(MeterContext(devices=(Device(kind="gpu", uuid=UUID, name="simulated"),)))
                channels.append(Channel(name=how, asked=True, meter=meter, scopes={SCOPE: scope}))
            meters = Meters(channels)
            _sample(meters, clock, begin_s, rng)
            opened = meters.opening(align=True)
            clock.advance(rng.uniform(0.0, 0.01))
            mark = meters.opening(align=False)
            _sample(meters, clock, seconds(mark.ns) + length_s, rng)
            marked = meters.closing(align=False)
            closed = meters.closing(align=True)
            _sample(meters, clock, seconds(closed.ns) + max(channel.settle_s for channel in channels), rng)
            _tally(meters, device, (opened, closed), "window", period_s, cell)
            _tally(meters, device, (mark, marked), "mark", period_s, cell)
    finally:
        detach(UUID)


def _sample(meters: Meters, clock: FakeClock, until_s: float, rng: random.Random) -> None:
    """What the sampling thread does until a moment, up to a tenth late each time."""
    while clock.s < until_s:
        clock.advance(max(1e-6, min(SAMPLE_S * rng.uniform(1.0, 1.1), until_s - clock.s)))
        for channel in meters.channels:
            channel.follow(channel.read())


def _tally(
    meters: Meters,
    device: SimulatedAccelerator,
    edges: tuple[Edge, Edge],
    span: Span,
    period_s: float | None,
    cell: dict[tuple[Span, str], Tally],
) -> None:
    opened, closed = edges
    truth_j = device.true_joules(closed.ns) - device.true_joules(opened.ns)
    for channel, reading in zip(meters.channels, meters.energies(*edges, span, period_s=period_s), strict=True):
        tally = cell.setdefault((span, channel.name), Tally())
        tally.add(reading.value, truth_j, seconds(closed.ns - opened.ns), channel.scopes[SCOPE].sensor)


def cells(name: str, load: str, length_s: float, windows: int, seed: int = 0) -> dict[Key, Tally]:
    """The cells of one kind of sensor, load and length: windows and marks, by what is known."""
    rng = random.Random(f"{seed} {name} {load} {length_s}")
    found: dict[tuple[Span, str], Tally] = {}
    for _ in range(windows):
        window(rng, name, load, length_s, found)
    return {(name, load, length_s, span, how): tally for (span, how), tally in found.items()}


def study(
    windows: int,
    *,
    kinds: Iterable[str] = tuple(KINDS),
    loads: Iterable[str] = LOADS,
    lengths_s: Iterable[float] = LENGTHS_S,
    seed: int = 0,
    workers: int = 1,
) -> dict[Key, Tally]:
    """All cells."""
    found: dict[Key, Tally] = {}
    each = list(itertools.product(kinds, loads, lengths_s))
    if workers == 1:
        parts: Iterable[dict[Key, Tally]] = (cells(*what, windows, seed) for what in each)
        for part in parts:
            found |= part
        return found
    with ProcessPoolExecutor(workers) as pool:
        waiting = [pool.submit(cells, *what, windows, seed) for what in each]
        for done in waiting:
            found |= done.result()
    return found


def faults(found: dict[Key, Tally]) -> list[str]:
    """Cells whose bound holds too seldom, or is too wide under constant load."""
    said = []
    for key, tally in found.items():
        name, load, length_s, span, how = key
        where = f"{name}, {load}, {length_s:g} s, {span}, {how}"
        if tally.coverage < WANTED:
            said.append(f"{where}: {tally.coverage:.1%} of {tally.windows} {tally.reasons or ''}".rstrip())
        if load == "constant" and length_s >= 2 and not name.startswith("counter"):
            wide = max(tally.excess, default=math.inf)
            if wide > EXTRA:
                said.append(f"{where}: half-width {wide:.1%} beyond the sensor's own")
    return said


# The page

NOTE = "<!-- Written by benchmarks/sensor_study.py, which writes it anew; `--check` says whether it is stale. -->\n\n"
RESTS_ON = (
    "harness/sensor.py",
    "harness/measuring/sampled.py",
    "harness/measuring/edges.py",
    "harness/measuring/alignment.py",
    "harness/measuring/opening.py",
    "harness/builtin/simulated_sensor.py",
    "harness/builtin/simulated_accelerator.py",
    "harness/diagnosing/power_test.py",
    "harness/diagnosing/reference.py",
    "harness/diagnosing/response.py",
    "harness/diagnosing/self_test.py",
    "plugins/meter-nvml/src/harness_meter_nvml/sensors.py",
    "benchmarks/sensor_study.py",
)
"""Code that the table is a result of."""


def code_digest(root: Path = ROOT) -> str:
    """Digest of that code without its comments and docstrings: words may change, and the table stays."""
    found = hashlib.sha256()
    for name in RESTS_ON:
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [each for each in body if not _words(each)] or [ast.Pass()]  # type: ignore[attr-defined]
        found.update(ast.dump(tree).encode())
    return found.hexdigest()[:16]


def _words(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def page(found: dict[Key, Tally], windows: int) -> str:
    """The table as Markdown: a row for each sensor, load and length; windows and marks together by what is known."""
    text = (
        f"{NOTE}<!-- code {code_digest()} -->\n\n# Sensors: how often a bound holds the truth\n\n"
        f"{windows} windows a cell of random phase, power and error (a gain up to ±13 %, or an offset up to 5 % of the "
        "limit), read ten times a second by the code that measures. A cell holds the share of windows whose bound "
        "contains the true energy (no energy counts as a miss), then the median half-width of the bound. `class`: only "
        "the product is known. `card`: times from the meter card that the self-test made of the device. "
        "`by reference`: "
        "gain and offset from it too. Each is given for measured windows, then for `mark` spans.\n\n"
        f"{len(found)} cells; the least share is {min(tally.coverage for tally in found.values()):.1%}.\n\n"
    )
    for name, kind in KINDS.items():
        rows = {key[1:3] for key in found if key[0] == name}
        if not rows:
            continue
        known = f"`{kind.product}`, {kind.register}" if "unknown" not in kind.product else "that of an unknown card"
        text += f"## {name}\n\nClass: {known}.\n\n"
        head = ["load", "length", *(f"{how}, {span}" for how in KNOWLEDGE for span in ("window", "mark"))]
        text += f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n"
        for load, length_s in itertools.product(LOADS, LENGTHS_S):
            if (load, length_s) in rows:
                shown = [
                    _shown(found[name, load, length_s, span, how])
                    for how in KNOWLEDGE
                    for span in ("window", "mark")
                    if (name, load, length_s, span, how) in found
                ]
                text += f"| {load} | {length_s:g} s | {' | '.join(shown)} |\n"
        text += "\n"
    return text.rstrip() + "\n"


def _shown(tally: Tally) -> str:
    width = f", ±{statistics.median(tally.widths):.0%}" if tally.widths else ""
    return f"{tally.coverage:.0%}{width}"


def stale() -> str:
    """Why the page is to be written anew; empty if it is not."""
    if not PAGE.is_file():
        return f"{PAGE.relative_to(ROOT)} is not there"
    if f"<!-- code {code_digest()} -->" not in PAGE.read_text(encoding="utf-8"):
        return f"{PAGE.relative_to(ROOT)} is of other code: `python benchmarks/sensor_study.py` writes it anew"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the page is stale")
    parser.add_argument("--windows", type=int, default=100, help="windows of each cell")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    asked = parser.parse_args(arguments)
    if asked.check:
        why = stale()
        print(why or "not stale")
        return int(bool(why))
    found = study(asked.windows, workers=asked.workers)
    PAGE.write_text(page(found, asked.windows), encoding="utf-8")
    said = faults(found)
    print(*said, f"{len(found)} cells, {len(said)} do not hold", sep="\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
