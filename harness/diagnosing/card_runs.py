"""Makes meter cards of the meters of this machine and keeps them: `harness doctor --self-test`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from rich.console import Console

from harness.backend import Backend, Device, Load
from harness.diagnosing.card_test import run_card
from harness.diagnosing.load import ProcessLoad
from harness.diagnosing.reference import Reference, reference_of
from harness.diagnosing.response import SEES_ALL
from harness.errors import HarnessError, MeasurementError
from harness.machine.meter_card import HARDWARE, MeterCard, card_path, cards_folder, key_of
from harness.meter import Meter, MeterContext, MeterSpec
from harness.quantity import Unavailable
from harness.records.files import write_atomically
from harness.reporting.tables import Item, Section
from harness.reporting.terminal import print_section
from harness.reporting.wording import percent
from harness.sample import Scope, now_ns
from harness.session.meters import with_place
from harness.units import si

USUAL_TICK_S: Final = 0.1
"""Update period to start from where the meter states none: that of most power sensors."""
LEAST_TICK_S: Final = 0.01
"""Faster polling than 20 times this cannot be kept up in Python."""

LoadFor = Callable[[str, Scope], AbstractContextManager[Load] | Unavailable]
"""Scope's name and description -> a load that draws its power there, or why there is none."""


class Timing(NamedTuple):
    """A clock in monotonic nanoseconds, and what waits so many seconds of it."""

    clock: Callable[[], int] = now_ns
    sleep: Callable[[float], object] = time.sleep


REAL_TIME: Final = Timing()


def load_for(scope: str, what: Scope) -> AbstractContextManager[Load] | Unavailable:
    """A spin on every usable core, for whatever holds the processor; other devices have no load in the core."""
    if what.device is not None and what.device != "cpu":
        return Unavailable(f"there is no built-in load for {scope}: no backend that opens here offers one")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _spinning(cores)


@contextmanager
def _spinning(processes: int) -> Iterator[Load]:
    with ProcessLoad(processes=processes) as load:
        yield load


def backend_loads(registry: Any) -> LoadFor:
    """Loads of the backends that open with their default options, each for its devices; else those of the core."""

    def find(scope: str, what: Scope) -> AbstractContextManager[Load] | Unavailable:
        if what.device in (None, "cpu"):
            return load_for(scope, what)
        reasons = []
        for name, offer in registry.backends.items():
            try:
                backend: Backend = offer.spec.factory(offer.spec.options())
                opened = backend.open()
            except (Exception, SystemExit):  # noqa: BLE001, S112 - a backend that does not open here has no load here
                continue
            if what.device not in {device.parent or device.uuid for device in opened}:
                backend.close()
                continue
            try:
                load = backend.load()
            except Exception as error:  # noqa: BLE001 - a plugin's fault is a reason
                load = Unavailable(f"{type(error).__name__}: {error}")
            if isinstance(load, Unavailable):
                backend.close()
                reasons.append(f"{name}: {load.reason}")
                continue
            return _of_backend(backend, load)
        why = load_for(scope, what)
        return Unavailable(f"{why.reason}; {'; '.join(reasons)}") if isinstance(why, Unavailable) and reasons else why

    return find


@contextmanager
def _of_backend(backend: Backend, load: AbstractContextManager[Load]) -> Iterator[Load]:
    try:
        with load as running:
            yield running
    finally:
        backend.close()


def make_cards(
    console: Console,
    registry: Any,
    devices: Sequence[Device],
    *,
    loads: LoadFor | None = None,
    timing: Timing = REAL_TIME,
    store: Path | None = None,
    named: str | None = None,
    reference: str | None = None,
) -> list[MeterCard]:
    """Tests every hardware scope of every meter that opens with its default options, one after another.

    Args:
        console: is told each result, and why there is none.
        registry: the plugins.
        devices: what meters of devices shall look for.
        loads: finds a load for a scope; by default those of the backends and of the core.
        timing: clock and sleep.
        store: folder of the cards; by default in the user's data folder.
        named: test the meter of this name only.
        reference: the meter that gain and offset are held against: its name, or one name with a mapping of its
            options as in a suite, such as `wall: {kind: shelly, url: "http://plug"}`.

    Raises:
        UsageError: nobody offers a meter of such a name, or the reference is no meter.
    """
    held = with_place([reference], grid=None, site=None, where="--reference")[0] if reference else None
    for asked in filter(None, (named, held[0] if held else None)):
        registry.get("meter", asked)  # raises, with what there is, for a name that nobody offers
    folder = store or cards_folder()
    context = MeterContext(devices=tuple(devices), pid=os.getpid())
    runs = _Runs(registry, context, loads or backend_loads(registry), timing, held)
    cards: list[MeterCard] = []
    absent: list[Item] = []
    for name, offer in registry.meters.items():
        if not isinstance(offer.spec, MeterSpec) or named not in {None, name} or (held and name == held[0]):
            continue
        try:
            made, why = runs.cards_of(name, offer.spec)
        except ValidationError:
            made, why = [], [Item(name, "needs options")]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's fault must not cost the others their cards
            text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            made, why = [], [Item(name, text)]
        for card in made:
            folder.mkdir(parents=True, exist_ok=True)
            path = card_path(card.meter, card.scope, card.key.device, folder)
            write_atomically(path, card.to_json().encode())
            print_section(console, section(card, path))
        cards += made
        absent += why
    if absent:
        print_section(console, Section("No meter card, and why", items=absent))
    return cards


@dataclass(frozen=True, slots=True)
class _Runs:
    """What every self-test of a machine needs."""

    registry: Any
    context: MeterContext
    loads: LoadFor
    timing: Timing
    reference: tuple[str, Mapping[str, Any]] | None

    def cards_of(self, name: str, spec: MeterSpec) -> tuple[list[MeterCard], list[Item]]:
        """Cards of one meter's scopes, and why the others have none."""
        meter: Meter = spec.factory(spec.options())
        cards: list[MeterCard] = []
        absent: list[Item] = []
        try:
            opened = meter.open(self.context)
            if isinstance(opened, Unavailable):
                return [], [Item(name, opened.reason)]
            for scope, what in opened.items():
                found = self._card(name, meter, scope, what)
                if isinstance(found, Unavailable):
                    absent.append(Item(f"{name} on {scope}", found.reason))
                else:
                    cards.append(found)
        finally:
            meter.close()
        return cards, absent

    def _card(self, name: str, meter: Meter, scope: str, what: Scope | Unavailable) -> MeterCard | Unavailable:
        if isinstance(what, Unavailable):
            return what
        if what.method not in HARDWARE:
            return Unavailable(f"{what.method.value}: a self-test says nothing about a model")
        load = self.loads(scope, what)
        if isinstance(load, Unavailable):
            return load
        stated_s = what.sensor.update_s if what.sampled and what.sensor is not None else what.tick_s
        tick_s = max(stated_s or USUAL_TICK_S, LEAST_TICK_S)
        key = key_of(scope, what, meter.facts())
        try:
            with load as running, self._held_against(scope) as reference:
                return run_card(
                    meter, scope, running, *self.timing, tick_s, key=key, name=name, what=what, reference=reference
                )
        except MeasurementError as error:
            return Unavailable(str(error))

    @contextmanager
    def _held_against(self, scope: str) -> Iterator[Reference | None]:
        """The meter that gain and offset are held against, open; raises MeasurementError if it cannot serve."""
        if self.reference is None:
            yield None
            return
        name, options = self.reference
        offer = self.registry.find("meter", name)
        if offer is None or not isinstance(offer.spec, MeterSpec):
            raise MeasurementError(f"there is no meter {name!r} to hold others against")
        meter: Meter = offer.spec.factory(offer.spec.options.model_validate(dict(options)))
        try:
            opened = meter.open(self.context)
            found = opened if isinstance(opened, Unavailable) else reference_of(name, meter, opened, scope)
            if isinstance(found, Unavailable):
                raise MeasurementError(f"reference {name}: {found.reason}")
            yield found
        finally:
            meter.close()


def section(card: MeterCard, path: Path | None = None) -> Section:
    """A card as the terminal shows it."""

    def shown(name: str, unit: str) -> str:
        value = getattr(card, name)
        return f"none: {card.missing.get(name, 'not found')}" if value is None else si(value, unit)

    fraction, gain = card.sampled_fraction, card.gain
    items = [
        Item("update period", shown("update_period_s", "s")),
        Item("jitter", shown("jitter_s", "s")),
        Item("smallest increment", si(card.smallest_increment_j, "J")),
        Item("power idle", shown("idle_w", "W")),
        Item("power under load", si(card.busy_w, "W")),
        Item("lag", shown("lag_s", "s")),
        Item("rise", shown("rise_s", "s")),
        Item("sampled fraction", shown("sampled_fraction", "") if fraction is None else percent(fraction)),
        Item("gain error", shown("gain", "") if gain is None else f"{gain * 100:+.2g} % by {card.reference}"),
        Item("sensor", _sensor(card)),
        Item("one read", f"{si(card.read_median_s, 's')}, 95 % below {si(card.read_p95_s, 's')}"),
        *(Item("flag", flag) for flag in card.flags),
    ]
    kept = (f"kept in {path}",) if path else ()
    return Section(f"Meter card {card.id}: {card.meter} on {card.scope}", items=items, paragraphs=kept)


def _sensor(card: MeterCard) -> str:
    """What readings are by this card: whether they see all of the time, how late they are, and how far off."""
    sensor = card.sensor
    if sensor is None:
        return f"none: {card.missing.get('sensor', 'not found')}"
    sees = "sees all of the time" if sensor.seen >= SEES_ALL else f"sees {percent(sensor.seen)} of the time"
    late = f"late by {si(sensor.lag_s, 's')} to {si(sensor.lag_s + sensor.lag_error_s, 's')}"
    errors = (
        f"within {percent(sensor.gain)} and {si(sensor.offset_w, 'W')} of {card.reference}"
        if card.reference
        else "gain and offset of its class: no reference"
    )
    return f"{sees}; {late}; {errors}"
