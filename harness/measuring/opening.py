"""Backends and meters of a point, made and opened; which of what they read is charged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from harness.backend import Backend, Device, Setting
from harness.discovery.guard import expect, made, naming, sorted_scopes, title
from harness.discovery.registry import Registry
from harness.errors import PluginError
from harness.machine import meter_card
from harness.machine.device_settings import Settled, restored, settled
from harness.machine.meter_card import HARDWARE, MeterCard
from harness.measuring.channel import Channel
from harness.meter import Meter, MeterContext, MeterSpec
from harness.planning.point import Choice
from harness.quantity import Unavailable
from harness.sample import Condition, Scope
from harness.workload import Workload

STALE: Final = "meter_card_stale"
"""Condition: there is a meter card of this device, and it does not hold any more."""


def build_backend(choice: Choice, registry: Registry) -> Backend:
    """The backend that a point names, not yet opened."""
    offer = registry.get("backend", choice.name)
    options = offer.spec.options.model_validate(dict(choice.options))
    backend: Backend = made(offer, "backend", options, Backend)
    return backend


@contextmanager
def set_as_asked(choice: Choice, backend: Backend, registry: Registry, held: Collection[str]) -> Iterator[Settled]:
    """Sets the devices of an opened backend as its options ask, and puts back what they were, for a trial's time.

    First what a process that was killed left on these devices is put back; where it cannot be, that is a fault.

    Raises:
        NotPossibleHereError: not permitted, or a device has no such setting.
    """
    notes = restored(registry.settings_of, held=held)
    plugin = title("backend", choice.name, registry.get("backend", choice.name))
    with naming(plugin, "settings"):
        wanted = expect(backend.settings(), Sequence, plugin, "settings")
        for each in wanted:
            expect(each, Setting, plugin, "settings")
    with settled(choice.name, wanted, registry.settings_of(choice.name)) as found:
        found.faults += [note.text for note in notes if not note.done]
        yield found


def open_meters(
    choices: tuple[Choice, ...], registry: Registry, context: MeterContext
) -> tuple[list[Channel], list[Channel]]:
    """Opens the hardware meters of a point: those that read, and those that do not, with the reason."""
    reading: list[Channel] = []
    silent: list[Channel] = []
    for choice in choices:
        offer = registry.get("meter", choice.name)
        spec = offer.spec
        if not isinstance(spec, MeterSpec):
            continue
        meter: Meter = made(offer, "meter", spec.options.model_validate(dict(choice.options)), Meter)
        scopes: dict[str, Scope] = {}
        try:
            opened = meter.open(context)
            if isinstance(opened, Unavailable):
                missing = {"*": opened.reason}
            else:
                scopes, missing = sorted_scopes(choice.name, opened)
        except Exception as error:  # noqa: BLE001 - a plugin's fault costs its own readings only
            missing = {"*": f"{type(error).__name__}: {error}"}
        found = {name: tested(choice.name, name, scope, meter) for name, scope in scopes.items()}
        channel = Channel(
            choice.name,
            not choice.auto,
            meter,
            {name: scope for name, (scope, _) in found.items()},
            missing,
            cross_check=spec.cross_check,
            notices=tuple(Condition(STALE, name, why) for name, (_, why) in found.items() if why),
        )
        (reading if scopes else silent).append(channel)
    return reading, silent


def tested(meter_name: str, name: str, scope: Scope, meter: Meter) -> tuple[Scope, str]:
    """A scope with what the meter card of this very device says of it, and why a card that is there does not hold.

    Such a card is named in the scope's note too; without any the scope stays as the meter describes it.
    """
    if scope.method not in HARDWARE:
        return scope, ""
    card, why_not = meter_card.find(meter_name, name, scope, meter.facts())
    if card is None:
        return (_noted(scope, why_not), why_not) if why_not else (scope, "")
    return by_card(scope, card), ""


def by_card(scope: Scope, card: MeterCard) -> Scope:
    """A scope as its meter card describes it.

    Times are the card's. Gain and offset are so only where the card was held against a reference: what is known then
    is undone, and the bound holds what is left. Else they stay those of the class, and without a class the bound of the
    energy stays unknown: a load whose true energy nobody knows shows when a sensor looks, and not how well.
    """
    tick_s = card.update_period_s if scope.tick_s and card.update_period_s else scope.tick_s
    sensor = card.sensor
    if sensor is None:
        why = card.missing.get("sensor", "it tells nothing of the sensor")
        return replace(_noted(scope, f"meter card {card.id}: {why}"), tick_s=tick_s)
    known = scope.sensor
    if card.reference:
        found = sensor
    elif known is not None:
        found = replace(sensor, gain=known.gain, offset_w=known.offset_w, limit_w=known.limit_w)
    elif scope.gain is not None:
        # A reading is within 1 ± gain of the truth, so the truth is within gain / (1 - gain) of a reading.
        found = replace(sensor, gain=scope.gain / (1 - scope.gain) if scope.gain < 0.5 else 0.99, offset_w=0.0)
    else:
        return replace(scope, card=card.id, tick_s=tick_s)
    return replace(scope, sensor=found, card=card.id, tick_s=tick_s, scale=card.scale, shift_w=card.shift_w)


def _noted(scope: Scope, text: str) -> Scope:
    return replace(scope, note="; ".join(filter(None, (scope.note, text))))


def charged_scopes(
    workload: Workload, title: str, read: Mapping[tuple[str, str], Scope]
) -> tuple[tuple[str, ...] | None, str]:
    """Scopes whose energy is the work's, None for all of them; and why there are none.

    Args:
        workload: that is prepared.
        title: its name and plugin, for errors.
        read: (meter, scope) -> the scope, of all that is read.

    Raises:
        PluginError: the workload names a scope that nobody reads.
    """
    with naming(title, "charged"):
        found = workload.charged(read)
    if found is None:
        return None, ""
    if isinstance(found, Unavailable):
        return (), found.reason
    known = {scope for _, scope in read}
    if strange := sorted({*found} - known):
        raise PluginError(f"{title} charges scopes that no meter reads: {', '.join(strange)}")
    return tuple(sorted(found)), ""


def charged_devices(workload: Workload, title: str, of_nodes: Sequence[Device]) -> tuple[str, ...] | None:
    """UUIDs of the devices whose making is the work's, where it is done elsewhere; None for all of them.

    Args:
        workload: that is prepared.
        title: its name and plugin, for errors.
        of_nodes: devices of the nodes that do part of the work.
    """
    with naming(title, "elsewhere"):
        if not expect(workload.elsewhere(), bool, title, "elsewhere"):
            return None
    with naming(title, "devices"):
        return tuple(dict.fromkeys(device.uuid for device in (*workload.devices(), *of_nodes)))
