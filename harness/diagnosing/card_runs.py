"""Makes meter cards of the meters of this machine and keeps them: `harness doctor --self-test`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from rich.console import Console

from harness.backend import Device
from harness.diagnosing.card_test import run_card
from harness.diagnosing.load import Load, ProcessLoad
from harness.errors import HarnessError, MeasurementError
from harness.machine.meter_card import MeterCard, card_path, cards_folder, key_of
from harness.meter import Meter, MeterContext, MeterSpec
from harness.quantity import Method, Unavailable
from harness.records.files import write_atomically
from harness.reporting.tables import Item, Section
from harness.reporting.terminal import print_section
from harness.reporting.wording import percent
from harness.sample import Scope, now_ns
from harness.units import si

HARDWARE: Final = (Method.COUNTER, Method.INTEGRATED, Method.WALL)
"""Methods that a self-test says something about; a model follows the load by construction."""
USUAL_TICK_S: Final = 0.1
"""Update period to start from where the meter states none: that of most power sensors."""
LEAST_TICK_S: Final = 0.01
"""Faster polling than 20 times this cannot be kept up in Python."""

LoadFor = Callable[[str, Scope], AbstractContextManager[Load] | Unavailable]
"""Scope's name and description -> a load that draws its power there, or why there is none."""


def load_for(scope: str, what: Scope) -> AbstractContextManager[Load] | Unavailable:
    """A spin on every usable core, for whatever holds the processor; other devices have no load in the core."""
    if what.device is not None and what.device != "cpu":
        return Unavailable(f"there is no built-in load for {scope}: call `run_card` of `harness.diagnosing` with one")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _spinning(cores)


@contextmanager
def _spinning(processes: int) -> Iterator[Load]:
    with ProcessLoad(processes=processes) as load:
        yield load


def make_cards(
    console: Console,
    registry: Any,
    devices: Sequence[Device],
    *,
    loads: LoadFor = load_for,
    clock: Callable[[], int] = now_ns,
    sleep: Callable[[float], object] = time.sleep,
    store: Path | None = None,
) -> list[MeterCard]:
    """Tests every hardware scope of every meter that opens with its default options, one after another.

    Args:
        console: is told each result, and why there is none.
        registry: the plugins.
        devices: what meters of devices shall look for.
        loads: finds a load for a scope.
        clock: monotonic nanoseconds.
        sleep: waits so many seconds.
        store: folder of the cards; by default in the user's data folder.
    """
    folder = store or cards_folder()
    context = MeterContext(devices=tuple(devices), pid=os.getpid())
    cards: list[MeterCard] = []
    absent: list[Item] = []
    for name, offer in registry.meters.items():
        if not isinstance(offer.spec, MeterSpec):
            continue
        try:
            made, why = _cards_of(name, offer.spec, context, loads, (clock, sleep))
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


def _cards_of(
    name: str,
    spec: MeterSpec,
    context: MeterContext,
    loads: LoadFor,
    timing: tuple[Callable[[], int], Callable[[float], object]],
) -> tuple[list[MeterCard], list[Item]]:
    """Cards of one meter's scopes, and why the others have none."""
    meter: Meter = spec.factory(spec.options())
    cards: list[MeterCard] = []
    absent: list[Item] = []
    try:
        opened = meter.open(context)
        if isinstance(opened, Unavailable):
            return [], [Item(name, opened.reason)]
        for scope, what in opened.items():
            found = _card(name, meter, scope, what, loads, timing)
            if isinstance(found, Unavailable):
                absent.append(Item(f"{name} on {scope}", found.reason))
            else:
                cards.append(found)
    finally:
        meter.close()
    return cards, absent


def _card(
    name: str,
    meter: Meter,
    scope: str,
    what: Scope | Unavailable,
    loads: LoadFor,
    timing: tuple[Callable[[], int], Callable[[float], object]],
) -> MeterCard | Unavailable:
    if isinstance(what, Unavailable):
        return what
    if what.method not in HARDWARE:
        return Unavailable(f"{what.method.value}: a self-test says nothing about a model")
    load = loads(scope, what)
    if isinstance(load, Unavailable):
        return load
    tick_s = max(what.tick_s or USUAL_TICK_S, LEAST_TICK_S)
    try:
        with load as running:
            return run_card(meter, scope, running, *timing, tick_s, key=key_of(scope, what, meter.facts()), name=name)
    except MeasurementError as error:
        return Unavailable(str(error))


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
        Item("gain error", shown("gain", "") if gain is None else f"{gain * 100:+.2g} %"),
        Item("one read", f"{si(card.read_median_s, 's')}, 95 % below {si(card.read_p95_s, 's')}"),
        *(Item("flag", flag) for flag in card.flags),
    ]
    kept = (f"kept in {path}",) if path else ()
    return Section(f"Meter card {card.id}: {card.meter} on {card.scope}", items=items, paragraphs=kept)
