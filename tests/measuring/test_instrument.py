"""A suite's meters around any code: which are chosen, and what a window of them shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from harness.builtin import declared_power, tdp
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.measuring.instrument import Instrument, choose
from harness.meter import Meter, MeterContext, MeterSpec
from harness.quantity import Amount, Method, Unavailable
from harness.sample import Scope, Snapshot, now_ns


class Burning(Meter):
    """A register of 5 J a reading."""

    def __init__(self) -> None:
        self.joules = 0.0

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable]:
        return {f"{context.node}/a": Scope(method=Method.COUNTER, gain=0.0)}

    def read(self) -> Snapshot:
        self.joules += 5.0
        return Snapshot(now_ns(), {"n0/a": self.joules})

    def close(self) -> None:
        pass


@pytest.fixture
def registry() -> Registry:
    class Plugin:
        @hookimpl
        def harness_meters(self) -> Iterable[MeterSpec | ImpactMeterSpec]:
            yield MeterSpec(name="found", summary="", factory=lambda _options: Burning(), auto=True)
            yield MeterSpec(name="check", summary="", factory=lambda _options: Burning(), cross_check=True)
            yield tdp.METER
            yield declared_power.METER

    made = Registry()
    assert made.register(Plugin(), "p"), made.broken
    return made


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["auto"], [("found", True)]),
        (["tdp"], [("tdp", False)]),
        (["tdp", "auto"], [("found", True), ("tdp", False)]),
        (["check"], [("found", True), ("check", False)]),
        (["declared_power"], [("found", True), ("declared_power", False)]),
        (["check", "tdp"], [("check", False), ("tdp", False)]),
        ([], []),
    ],
)
def test_impact_meters_and_cross_checks_alone_imply_auto(
    registry: Registry, asked: list[str], chosen: list[tuple[str, bool]]
) -> None:
    options = {"declared_power": {"watts": {"busy": 9}}}
    found = choose([(name, options.get(name, {})) for name in asked], registry)
    assert [(choice.name, choice.auto) for choice in found] == chosen


def test_what_is_wrong_is_named(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"tdp\.wats"):
        choose([("tdp", {"wats": 1})], registry)
    with pytest.raises(UsageError, match="there is no meter 'lamp'"):
        choose([("lamp", {})], registry)
    for length in (0.0, -1.0, float("nan"), 1e6):
        with pytest.raises(UsageError, match="a window cannot last"):
            Instrument([], seconds=length)


def test_a_window_counts_the_primary_meter_and_its_calls(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measuring.instrument.load_plugins", lambda: both)
    both = load_plugins()
    for offer in registry.offers("meter").values():
        if offer.spec.name in {"found", "check"}:
            spec = offer.spec
            both.register(type("P", (), {"harness_meters": hookimpl(lambda _self, spec=spec: [spec])})(), spec.name)
    instrument = Instrument([("found", {}), ("check", {})], seconds=0.01)
    done: list[None] = []
    found = instrument.measure(lambda: done.append(None), batch=10)
    instrument.close()
    energy = found.readings["energy_j"]
    assert isinstance(energy, Amount)
    assert energy.value >= 5.0
    assert energy.value % 5.0 == 0.0
    assert found.scopes == ("n0/a",)
    assert "short" in found.flags
    assert found.duration_s >= 0.01
    assert found.calls % 10 == 0
    assert 0 < found.calls < len(done), "the lead-in is no part of the window"


def test_without_a_reading_there_is_a_reason() -> None:
    instrument = Instrument([("rapl", {"root": "/nowhere"})], seconds=0.01)
    energy = instrument.measure(lambda: None).readings["energy_j"]
    instrument.close()
    assert isinstance(energy, Unavailable)
    assert energy.reason.startswith("rapl: ")
