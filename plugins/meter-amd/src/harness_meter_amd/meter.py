"""The meter `amd`: cumulative joules of the AMD GPUs that a workload uses, and of no others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil

from harness import Condition, Cumulative, Device, Meter, MeterContext, Method, Scope, Snapshot, Unavailable, now_ns
from harness.counter import CounterTrack, PowerIntegrator
from harness.hwmon import MICRO, find_registers, read_text
from harness.sensor import PowerSensor
from harness.units import seconds
from harness_meter_amd import AmdOptions
from harness_meter_amd.library import Library, LostError

POWER_HZ: Final = 10.0
TRIED_S: Final = 0.5
"""So long the accumulator is held against power before it is believed."""
AGREE: Final = 0.25
"""More than both sensors' errors together; an accumulator with a wrong resolution is off by much more."""
GAIN: Final = 0.10
OFFSET: Final = 0.05
"""No card was calibrated here, and AMD states no error: as an NVIDIA card that nobody calibrated; of the limit."""
TYPICAL_LIMIT_W: Final = 300.0
STILL_S: Final = 2.0
ADDRESS: Final = "PCI-"
"""A device without a UUID is named by its PCI address."""
_PAUSE_S: Final = 0.02


@dataclass(slots=True)
class _Card:
    """A card of the work.

    Attributes:
        uuid: `PCI-` and its address.
        watts: reads its power in watts; raises LostError.
        joules: reads its accumulator; None where there is none that is trusted.
        handle: of `amdsmi`; None where it is read from hwmon.
        limit_w: power cap.
        notes: what a reader should know.
        facts: for the record.
    """

    uuid: str
    watts: Callable[[], float]
    joules: Callable[[], float] | None = None
    handle: Any = None
    limit_w: float | None = None
    notes: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    track: CounterTrack | None = None
    power: PowerIntegrator | None = None
    shown_w: float | None = None


class AmdMeter(Meter):
    """Reads the energy accumulator, or integrates power where that is not to be trusted.

    Args:
        options: of the meter.
        clock_ns: monotonic clock.
        sleep: waits between the reads of the trial.
    """

    def __init__(
        self,
        options: AmdOptions,
        *,
        clock_ns: Callable[[], int] = now_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options, self._clock_ns, self._sleep = options, clock_ns, sleep
        self._library: Library | None = None
        self._cards: dict[str, _Card] = {}
        self._facts: dict[str, object] = {}
        self._pid = 0

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Finds the work's cards by their PCI addresses, and holds each accumulator against power for half a second."""
        self.close()
        self._cards, self._pid = {}, context.pid or os.getpid()
        devices: dict[str, list[Device]] = {}
        for device in context.devices:
            uuid = device.parent or device.uuid
            if device.kind == "gpu" and uuid.startswith(ADDRESS):
                devices.setdefault(uuid, []).append(device)
        if not devices and not context.every_device:
            return Unavailable("the workload uses no AMD device")
        why = self._connect()
        try:
            for address in self._library.handles() if self._library and context.every_device else ():
                devices.setdefault(f"{ADDRESS}{address}", [])
        except LostError as error:
            return Unavailable(str(error))
        if not devices:
            return Unavailable(f"AMD devices are not looked for: {why}" if why else "this machine has no AMD device")
        self._facts = {"source": self._options.source, "amdsmi": self._library.version if self._library else why}
        found: dict[str, Scope | Unavailable] = {}
        for uuid, parts in devices.items():
            name = f"{context.node}/gpu:{uuid}"
            try:
                card = self._by_library(uuid) if self._library else self._by_hwmon(uuid, why)
            except LostError as error:
                found[name] = Unavailable(str(error))
                continue
            if any(device.parent for device in parts) or card.facts.get("partition") not in {None, "", "SPX", "N/A"}:
                card.notes.append("the whole card: no hardware meters a partition")
            self._cards[name] = card
        self._try()
        for name, card in list(self._cards.items()):
            found[name] = self._scope(name, card)
        # Power is watched beside a counter too: the core holds the two against each other.
        self.sample_hz = POWER_HZ
        self.read()
        return found

    def _connect(self) -> str:
        try:
            self._library = Library()
        except LostError as error:
            return str(error)
        return ""

    def _by_library(self, uuid: str) -> _Card:
        library = self._library
        assert library is not None
        handles = library.handles()
        address = uuid.removeprefix(ADDRESS).lower()
        if address not in handles:
            raise LostError(f"amdsmi does not list {address}; it lists {', '.join(handles) or 'nothing'}")
        handle, product = handles[address], library.name(handles[address])
        card = _Card(uuid, lambda: library.watts(handle)[0], handle=handle, limit_w=library.limit_w(handle))
        card.facts = {"name": product, "partition": library.partition(handle), "power_limit_w": card.limit_w}
        try:
            card.facts["power_field"] = library.watts(handle)[1]
        except LostError as error:
            if "MI250" in product:
                raise LostError(
                    "this die of an MI250 reads 0: of a card's two dies the first reports for both; "
                    "let the work use both and read that one"
                ) from error
            raise
        if "MI250" in product:
            card.notes.append("both dies of the MI250")
        if self._options.source != "power":
            card.joules = lambda: library.joules(handle)
        return card

    def _by_hwmon(self, uuid: str, why: str) -> _Card:
        address = uuid.removeprefix(ADDRESS)
        try:
            registers = [each for each in find_registers(self._options.hwmon) if each.address == address.lower()]
        except OSError as error:
            raise LostError(f"{why}; no hwmon tree either: {error}") from None
        if not registers:
            raise LostError(
                f"{why}; hwmon does not list {address} either; of your ROCm's version: `pip install amdsmi`"
            )
        (register, *_) = registers
        file: Path = register.paths[0]

        def watts() -> float:
            try:
                return float(read_text(file)) * MICRO
            except (OSError, ValueError) as error:
                raise LostError(f"{file}: {error}") from error

        watts()
        return _Card(
            uuid, watts, limit_w=register.limit_w, notes=[f"hwmon, since {why}"], facts={"power_field": str(file)}
        )

    def _try(self) -> None:
        """Holds all accumulators against power at once: one that is off, or stands still, is not used."""
        tried = {name: card for name, card in self._cards.items() if card.joules is not None}
        if not tried:
            return
        lines: dict[str, list[tuple[float, float, float]]] = {name: [] for name in tried}
        began = self._clock_ns()
        while seconds(self._clock_ns() - began) <= TRIED_S:
            for name, card in tried.items():
                assert card.joules is not None
                try:
                    lines[name].append((seconds(self._clock_ns() - began), card.joules(), card.watts()))
                except LostError as error:
                    card.facts["counter_probe"] = str(error)
                    lines[name] = []
            self._sleep(_PAUSE_S)
        for name, card in tried.items():
            read = lines[name]
            counted_j = read[-1][1] - read[0][1] if read else 0.0
            drawn_j = sum((b[0] - a[0]) * (a[2] + b[2]) / 2 for a, b in pairwise(read))
            if read:
                card.facts["counter_probe"] = f"{counted_j:.3g} J where power comes to {drawn_j:.3g} J"
            if not drawn_j or abs(counted_j / drawn_j - 1) > AGREE:
                card.joules = None
                card.notes.append(f"the accumulator is not used: {card.facts.get('counter_probe', 'no reading')}")

    def _scope(self, name: str, card: _Card) -> Scope | Unavailable:
        options = self._options
        if card.joules is None and options.source == "counter":
            self._cards.pop(name)
            return Unavailable(f"no accumulator to be trusted: {card.facts.get('counter_probe', 'hwmon has none')}")
        gain = GAIN if options.gain is None else options.gain
        offset_w = OFFSET * (card.limit_w or TYPICAL_LIMIT_W) if options.gain is None else 0.0
        counts = card.joules is not None
        averaged = "average" in str(card.facts.get("power_field", "")).rpartition("/")[2]
        sensor = PowerSensor(
            update_s=options.tick if counts else 0.1, window_s=options.tick if counts else 1.0 if averaged else 0.1,
            gain=gain, offset_w=offset_w, lag_error_s=0.0 if counts else 0.5, limit_w=card.limit_w,
            note="no publication; taken as the worst that is published of GPUs",
        )  # fmt: skip
        if counts:
            card.track = CounterTrack(
                max_power_w=card.limit_w, tick_s=options.tick, gain=gain, offset_w=offset_w, longest_still_s=STILL_S
            )
        card.power = PowerIntegrator(1 / POWER_HZ, max_w=card.limit_w, gain=gain, offset_w=offset_w)
        return Scope(
            method=Method.COUNTER if counts else Method.INTEGRATED,
            tick_s=options.tick if counts else None,
            gain=gain,
            gain_class="amd",
            offset_w=offset_w,
            max_power_w=card.limit_w,
            sensor=sensor,
            device=card.uuid,
            note="; ".join(["energy accumulator" if counts else f"{card.facts['power_field']}", *card.notes]),
        )

    def read(self) -> Snapshot:
        """Reads every card, one after another."""
        began = self._clock_ns()
        joules = {name: self._one(card) for name, card in self._cards.items()}
        watts = {name: card.shown_w for name, card in self._cards.items()}
        return Snapshot(began, joules, self._clock_ns() - began, watts)

    def _one(self, card: _Card) -> Cumulative | Unavailable:
        assert card.power is not None
        moment, fault = self._clock_ns(), ""
        try:
            card.shown_w = card.watts()
        except LostError as error:
            card.shown_w, fault = None, str(error)
        integrated = card.power.update(moment, card.shown_w)
        if card.track is None or card.joules is None:
            return Unavailable(fault) if fault else integrated
        try:
            counted_j = card.joules()
        except LostError as error:
            card.track.update(moment, None, card.shown_w)
            return Unavailable(str(error))
        state = card.track.update(moment, counted_j, card.shown_w)
        if card.track.still_s(moment) > max(STILL_S, 20 * self._options.tick):
            return Unavailable(f"the energy accumulator has stood still for more than {STILL_S:g} s")
        return state

    def found(self) -> Mapping[str, Device]:
        """The cards that are read."""
        return {
            name: Device(kind="gpu", uuid=card.uuid, name=str(card.facts.get("name", "")))
            for name, card in self._cards.items()
        }

    def users(self) -> Mapping[str, Collection[int]]:
        """The processes of each card; a card whose driver does not say has none."""
        if self._library is None:
            return {}
        using = {name: self._library.processes(card.handle) for name, card in self._cards.items()}
        return {name: set[int]() if isinstance(pids, Unavailable) else pids for name, pids in using.items()}

    def conditions(self) -> Sequence[Condition]:
        """Throttling and foreign processes of the cards that are read."""
        if self._library is None:
            return ()
        found: list[Condition] = []
        for name, card in self._cards.items():
            held = self._library.violations(card.handle)
            if isinstance(held, Unavailable):
                found.append(Condition("throttle_unknown", name, held.reason))
            else:
                found += [Condition(kind, name, words, fails) for kind, words, fails in held]
            using = self._library.processes(card.handle)
            if isinstance(using, Unavailable):
                found.append(Condition("exclusive_unknown", name, using.reason))
            else:
                found += self._foreign(name, using)
        return found

    def _foreign(self, name: str, using: set[int]) -> list[Condition]:
        found: list[Condition] = []
        for pid in sorted(using):
            try:
                ours = pid == self._pid or any(each.pid == self._pid for each in psutil.Process(pid).parents())
            except psutil.Error:
                found.append(Condition("exclusive_unknown", name, "a process on the device is not visible from here"))
                continue
            if not ours:
                found.append(Condition("foreign_process", name, f"process {pid} uses the device", fails=True))
        return found

    def temperatures(self) -> Mapping[str, float]:
        """Of each card's hottest spot."""
        if self._library is None:
            return {}
        read = {name: self._library.celsius(card.handle) for name, card in self._cards.items()}
        return {name: celsius for name, celsius in read.items() if celsius is not None}

    def facts(self) -> Mapping[str, object]:
        """Version of amdsmi, and per card: fields read, limit, partitions, outcome of the trial."""
        return {**self._facts, "devices": {card.uuid: dict(card.facts) for card in self._cards.values()}}

    def close(self) -> None:
        """Ends amdsmi; what was read stays in the facts."""
        if self._library is not None:
            library, self._library = self._library, None
            library.close()
