"""Meter `zeus` on a made-up monitor, and on Zeus itself with made-up devices."""

from __future__ import annotations

import sys
import warnings

import pytest
from harness_meter_zeus import harness_meters
from harness_meter_zeus.meter import ZeusMeter
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Device, MeterContext, Method, Scope, Unavailable
from harness.testing import FakeCard, FakeClock, FakeNvml, check_meter, check_offers

UUID = "GPU-11111111-2222-3333-4444-555555555555"
OTHER = "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
GPU = f"n0/gpu:{UUID}"


def context(*uuids):
    return MeterContext(devices=tuple(Device(kind="gpu", uuid=uuid, name="card") for uuid in uuids))


class FakeSource:
    """Says what it is told; the last value again when there are no more."""

    def __init__(self, *answers, indices=None, lost=None, polled=()):
        self.answers = list(answers)
        self.indices = {UUID: 0} if indices is None else indices
        self.lost = lost or {}
        self.polled = polled
        self.stops = 0

    def __call__(self, uuids):
        self.asked = list(uuids)
        return self

    def joules(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def method(self, name):
        return Method.INTEGRATED if name in self.polled else Method.COUNTER

    def facts(self):
        return {"zeus": "0"}

    def stop(self):
        self.stops += 1


def test_offers_are_inert_and_never_count():
    assert check_offers("harness_meter_zeus") == ["meters:zeus"]
    (spec,) = harness_meters()
    assert spec.cross_check
    assert not spec.auto


def test_scopes_bear_the_names_that_other_meters_use():
    values = {"gpu:0": 0.0, "gpu:1": 0.0, "cpu:0": 0.0, "cpu:1": 0.0, "dram:0": 0.0}
    source = FakeSource(values, indices={OTHER: 0, UUID: 1}, polled={"gpu:1"})
    opened = ZeusMeter(source).open(context(UUID, OTHER))
    assert {name: scope.method for name, scope in opened.items()} == {
        GPU: Method.INTEGRATED,
        f"n0/gpu:{OTHER}": Method.COUNTER,
        "n0/cpu-package:0": Method.COUNTER,
        "n0/cpu-package:1": Method.COUNTER,
        "n0/dram:0": Method.COUNTER,
    }
    assert opened[GPU].device == UUID
    assert source.asked == [UUID, OTHER]


def test_partitions_of_one_card_are_one_device():
    source = FakeSource({"gpu:0": 0.0})
    parts = tuple(Device(kind="gpu", uuid=f"MIG-{n}", name="part", parent=UUID) for n in range(2))
    ZeusMeter(source).open(MeterContext(devices=(*parts, Device(kind="cpu", uuid="cpu", name="cpu"))))
    assert source.asked == [UUID]


def test_it_keeps_the_contract():
    check_meter(ZeusMeter(FakeSource({"gpu:0": 0.0}, {"gpu:0": 1.0}, {"gpu:0": 2.5})), context(UUID))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Unavailable("driver lost"), "driver lost"),
        ({}, "left it out"),
        ({"gpu:0": 4.0}, "fell from 5 to 4 J"),
        ({"gpu:0": float("nan")}, "nan J"),
        ({"gpu:0": float("inf")}, "inf J"),
    ],
)
def test_a_bad_reading_is_unavailable_and_the_next_one_counts_on(answer, reason):
    meter = ZeusMeter(FakeSource({"gpu:0": 0.0}, {"gpu:0": 5.0}, answer, {"gpu:0": 6.0}))
    meter.open(context(UUID))
    assert meter.read().joules == {GPU: 5.0}
    lost = meter.read().joules[GPU]
    assert isinstance(lost, Unavailable)
    assert reason in lost.reason
    assert meter.read().joules == {GPU: 6.0}


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_what_is_read_never_falls(values):
    """Whatever Zeus says, the joules that come through are a rising subsequence of it."""
    meter = ZeusMeter(FakeSource({"gpu:0": 0.0}, *({"gpu:0": value} for value in values)))
    meter.open(context(UUID))
    read = [meter.read().joules[GPU] for _ in values]
    joules = [value for value in read if not isinstance(value, Unavailable)]
    assert joules == sorted(joules)
    assert joules[-1] == max(values)


def test_a_monitor_that_does_not_start_says_why():
    def broken(uuids):
        raise RuntimeError("Root privilege is required")

    opened = ZeusMeter(broken).open(context(UUID))
    assert isinstance(opened, Unavailable)
    assert "Root privilege is required" in opened.reason


def test_a_monitor_that_reads_nothing_is_unavailable_and_released():
    source = FakeSource(Unavailable("no"))
    meter = ZeusMeter(source)
    assert meter.open(context(UUID)) == Unavailable("no")
    assert source.stops == 1
    assert meter.read().joules == {}
    empty = ZeusMeter(FakeSource({}, indices={})).open(context())
    assert isinstance(empty, Unavailable)
    lost = ZeusMeter(FakeSource({}, indices={}, lost={UUID: Unavailable("unknown")})).open(context(UUID))
    assert lost == {GPU: Unavailable("unknown")}


# Zeus itself, with made-up devices


@pytest.fixture
def zeus(monkeypatch):
    """Zeus' modules, with its cached devices forgotten before and after."""
    pytest.importorskip("zeus")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import zeus.device.cpu
        import zeus.device.gpu
        from zeus.monitor import energy
    monkeypatch.setattr(zeus.device.gpu, "_gpus", None)
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    return energy


@pytest.fixture
def on_cards(zeus, monkeypatch):
    """Gives Zeus fake cards: its manager's devices are replaced, its arithmetic and windows are its own."""
    import pynvml
    import zeus.device.gpu

    def install(*cards, counter=True):
        clock = FakeClock()
        nvml = FakeNvml(pynvml, clock, *cards)
        nvml.nvmlInit()
        monkeypatch.setitem(sys.modules, "pynvml", nvml)

        class Gpu:
            def __init__(self, card):
                self.handle = card

        class Gpus:
            gpus = tuple(Gpu(card) for card in cards)

            def __len__(self):
                return len(self.gpus)

            def supports_get_total_energy_consumption(self, index):
                return counter

            def get_total_energy_consumption(self, index):
                return nvml.nvmlDeviceGetTotalEnergyConsumption(self.gpus[index].handle)

        made = Gpus()
        monkeypatch.setattr(zeus.device.gpu, "_gpus", made)
        return clock

    return install


def test_zeus_reads_what_the_fake_cards_drew(on_cards):
    """Two cards of 100 W and 250 W for 7 s in three reads: nothing between the reads is lost."""
    cards = FakeCard(uuid=UUID), FakeCard(uuid=OTHER, trace=[(0.0, 250.0)])
    clock = on_cards(*cards)
    meter = ZeusMeter(clock=clock)
    opened = meter.open(context(OTHER, UUID))
    assert isinstance(opened, dict)
    assert opened[GPU].method is Method.COUNTER
    first = meter.read()
    for pause_s in (1.0, 2.0, 4.0):
        clock.advance(pause_s)
        last = meter.read()
    for scope, watts in ((GPU, 100.0), (f"n0/gpu:{OTHER}", 250.0)):
        assert last.joules[scope] - first.joules[scope] == pytest.approx(7 * watts, abs=0.1 * watts + 1e-6)
    assert meter.facts()["gpus"] == {OTHER: 1, UUID: 0}
    meter.close()
    meter.close()


def test_zeus_keeps_the_contract_and_may_be_opened_again(on_cards):
    clock = on_cards(FakeCard(uuid=UUID))
    check_meter(ZeusMeter(clock=clock), context(UUID), between=lambda: clock.advance(1.0))


def test_a_fault_of_the_driver_is_unavailable_and_the_window_stays(on_cards):
    import pynvml

    card = FakeCard(uuid=UUID)
    clock = on_cards(card)
    meter = ZeusMeter(clock=clock)
    meter.open(context(UUID))
    first = meter.read().joules[GPU]
    card.faults["nvmlDeviceGetTotalEnergyConsumption"] = pynvml.NVML_ERROR_GPU_IS_LOST
    clock.advance(1.0)
    lost = meter.read().joules[GPU]
    assert isinstance(lost, Unavailable)
    assert lost.reason.startswith("Zeus failed")
    card.faults.clear()
    clock.advance(1.0)
    assert meter.read().joules[GPU] - first == pytest.approx(200.0, abs=10.1)


def test_a_device_that_zeus_does_not_know_is_named(on_cards):
    clock = on_cards(FakeCard(uuid=UUID))
    opened = ZeusMeter(clock=clock).open(context(UUID, OTHER))
    assert isinstance(opened[GPU], Scope)
    assert opened[f"n0/gpu:{OTHER}"] == Unavailable("Zeus does not know this device")


def test_zeus_without_devices_says_so(zeus, monkeypatch):
    def no_processor():
        raise zeus.ZeusCPUInitError("no RAPL in this test")

    monkeypatch.setattr(zeus, "get_cpus", no_processor)
    opened = ZeusMeter().open(MeterContext())
    assert isinstance(opened, Unavailable)
    assert "neither" in opened.reason
