"""Backends and meters of a point, made and opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.backend import Backend
from harness.discovery.guard import made, sorted_scopes
from harness.discovery.registry import Registry
from harness.machine import meter_card
from harness.measuring.channel import Channel
from harness.meter import Meter, MeterContext, MeterSpec
from harness.planning.point import Choice
from harness.quantity import Method, Unavailable
from harness.sample import Scope

HARDWARE: Final = (Method.COUNTER, Method.INTEGRATED, Method.WALL)
"""Methods that a meter card says something about."""


def build_backend(choice: Choice, registry: Registry) -> Backend:
    """The backend that a point names, not yet opened."""
    offer = registry.get("backend", choice.name)
    options = offer.spec.options.model_validate(dict(choice.options))
    backend: Backend = made(offer, "backend", options, Backend)
    return backend


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
        scopes = {name: tested(choice.name, name, scope, meter) for name, scope in scopes.items()}
        channel = Channel(choice.name, not choice.auto, meter, scopes, missing, cross_check=spec.cross_check)
        (reading if scopes else silent).append(channel)
    return reading, silent


def tested(meter_name: str, name: str, scope: Scope, meter: Meter) -> Scope:
    """A scope with what the meter card of this very device says in place of what is published of its class.

    A card that does not hold is named in the scope's note; without one the scope stays as the meter describes it.
    """
    if scope.method not in HARDWARE:
        return scope
    card, why_not = meter_card.find(meter_name, name, scope, meter.facts())
    if card is None or card.sensor is None:
        return replace(scope, note="; ".join(filter(None, (scope.note, why_not)))) if why_not else scope
    tick_s = card.update_period_s if scope.tick_s and card.update_period_s else scope.tick_s
    return replace(scope, sensor=card.sensor, card=card.id, tick_s=tick_s)
