from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pynvml as real
import pytest
from harness_meter_nvml import NvmlOptions, card, harness_meters, watch
from harness_meter_nvml.meter import NvmlMeter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import Cumulative, Device, MeterContext, Method, Scope, Unavailable

FIRST = "GPU-11111111-2222-3333-4444-555555555555"
SECOND = "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
PARTITION = "MIG-99999999-8888-7777-6666-555555555555"
A, B = f"n0/gpu:{FIRST}", f"n0/gpu:{SECOND}"
COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
NO_COUNTER = {COUNTER: real.NVML_ERROR_NOT_SUPPORTED}
NO_INSTANT = {real.NVML_FI_DEV_POWER_INSTANT: real.NVML_ERROR_NOT_SUPPORTED}
NO_POWER = {**NO_INSTANT, "nvmlDeviceGetPowerUsage": real.NVML_ERROR_NOT_SUPPORTED}
(SPEC,) = harness_meters()


def gpu(uuid=FIRST, parent=None):
    return Device(kind="gpu", uuid=uuid, name="NVIDIA Test Card", parent=parent)


@pytest.fixture
def opened(fake_nvml, clock):
    """Opens a meter on fake cards; gives the meter, its scopes and a function that lets time pass and reads."""
    meters = []

    def open_on(*cards, devices=None, pid=0, **options):
        fake_nvml(*cards)
        meter = NvmlMeter(NvmlOptions(**options), clock_ns=clock, sleep=clock.sleep)
        meters.append(meter)
        found = meter.open(MeterContext(devices=tuple(devices or [gpu(one.uuid) for one in cards]), pid=pid))

        def after(duration_s):
            """Reads as often as the meter asks to be read."""
            end_ns = clock() + round(duration_s * 1e9)
            while True:
                pause_s = min(1 / meter.sample_hz, (end_ns - clock()) / 1e9)
                clock.sleep(max(pause_s, 0))
                snapshot = meter.read()
                if clock() >= end_ns:
                    return snapshot.joules

        return meter, found, after

    yield open_on
    for meter in meters:
        meter.close()
        meter.close()


def joules(value):
    assert isinstance(value, Cumulative), value
    return value.joules


# Offer


def test_offer_is_inert_and_automatic():
    assert SPEC.auto
    code = (
        "import sys, harness_meter_nvml as m; assert list(m.harness_meters());"
        "sys.exit(any(n in sys.modules for n in ('pynvml', 'torch', 'numpy', 'psutil')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize("bad", [{"tick": 0}, {"gain": 1.0}, {"source": "guess"}, {"index": 0}])
def test_options_refused(bad):
    with pytest.raises(ValidationError):
        NvmlOptions(**bad)


def test_every_name_used_exists_in_nvidias_module():
    used = set()
    for module in (card, watch, sys.modules[NvmlMeter.__module__]):
        source = Path(module.__file__).read_text(encoding="utf-8")
        used |= set(re.findall(r"(?:nvml|pynvml)\.((?:nvml|NVML)\w+)", source))
        used |= set(re.findall(r"\"(nvmlClocksEventReason\w+)\"", source))
    assert len(used) > 20
    assert [name for name in sorted(used) if not hasattr(real, name)] == []


# What is not there


def test_no_driver_is_named(fake_nvml):
    fake_nvml().init_fault = real.NVML_ERROR_LIBRARY_NOT_FOUND
    found = SPEC.factory(NvmlOptions()).open(MeterContext(devices=(gpu(),)))
    assert found == Unavailable("no NVIDIA driver: NVML Shared Library Not Found")


def test_no_module_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = NvmlMeter(NvmlOptions()).open(MeterContext(devices=(gpu(),)))
    assert isinstance(found, Unavailable)
    assert "nvidia-ml-py" in found.reason


@pytest.mark.parametrize(
    "device",
    [
        Device(kind="cpu", uuid="cpu", name="CPU"),
        Device(kind="gpu", uuid="mps", name="Apple GPU"),
        Device(kind="gpu", uuid="sim-0", name="simulated"),
    ],
)
def test_other_devices_are_not_read(fake_nvml, make_card, device):
    fake = fake_nvml(make_card())
    found = NvmlMeter(NvmlOptions()).open(MeterContext(devices=(device,)))
    assert found == Unavailable("the workload uses no NVIDIA device")
    assert fake.opened == 0


def test_an_unknown_uuid_is_unavailable_and_others_are_read(opened, make_card):
    _, found, after = opened(make_card(), devices=[gpu(), gpu(SECOND)])
    assert isinstance(found[A], Scope)
    assert isinstance(found[B], Unavailable)
    assert SECOND in found[B].reason
    assert set(after(1.0)) == {A}


def test_every_card_is_read_and_its_processes_are_named(fake_nvml, make_card, clock):
    fake = fake_nvml(make_card(), make_card(uuid=SECOND, pids=[41, 42]))
    meter = NvmlMeter(NvmlOptions(), clock_ns=clock, sleep=clock.sleep)
    host = Device(kind="cpu", uuid="cpu", name="CPU")
    try:
        assert set(meter.open(MeterContext(devices=(host, gpu(SECOND)), every_device=True))) == {A, B}
        assert {name: found.uuid for name, found in meter.found().items()} == {A: FIRST, B: SECOND}
        assert meter.users() == {A: [], B: [41, 42]}
        fake.cards[0].pids = [43]
        fake.cards[1].faults["nvmlDeviceGetComputeRunningProcesses"] = real.NVML_ERROR_NO_PERMISSION
        assert {name: list(pids) for name, pids in meter.users().items()} == {A: [43], B: []}
    finally:
        meter.close()
    assert meter.users() == {}


def test_a_machine_without_cards_says_so(fake_nvml):
    fake_nvml()
    found = NvmlMeter(NvmlOptions()).open(MeterContext(every_device=True))
    assert found == Unavailable("this machine has no NVIDIA device")


@pytest.mark.parametrize("source", ["auto", "counter", "power"])
def test_no_register_at_all_is_unavailable(opened, make_card, source):
    _, found, after = opened(make_card(faults={**NO_COUNTER, **NO_POWER}), source=source)
    assert isinstance(found[A], Unavailable)
    assert "Not Supported" in found[A].reason
    assert after(1.0) == {}


# The counter


def test_counter_scope_says_what_it_is(opened, make_card):
    meter, found, _ = opened(make_card(), tick="20ms")
    scope = found[A]
    assert (scope.method, scope.tick_s, scope.gain_class) == (Method.COUNTER, 0.02, "nvml")
    assert (scope.max_power_w, scope.device, scope.card) == (300.0, FIRST, "")
    assert scope.sensor is not None
    assert (scope.sensor.update_s, scope.sensor.seen) == (0.02, 0.25)
    assert meter.sample_hz == 10.0


def test_a_counter_whose_sensor_sees_all_of_the_time_is_read_once_a_second(opened, make_card):
    card = make_card(name="NVIDIA GeForce RTX 4090", architecture=real.NVML_DEVICE_ARCH_ADA)
    meter, found, _ = opened(card)
    assert found[A].sensor.seen == 1.0
    assert meter.sample_hz == 1.0


def test_a_declared_gain_takes_the_place_of_the_class(opened, make_card):
    _, found, _ = opened(make_card(), gain="2%")
    assert (found[A].sensor.gain, found[A].sensor.offset_w) == (0.02, 0.0)


def test_power_is_handed_on_as_it_was_read_and_never_twice(opened, make_card, clock):
    meter, _, _ = opened(make_card(trace=[(0.0, 120.0)]))
    clock.advance(0.2)
    assert meter.read().watts == {A: 120.0}
    assert meter.read().watts == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    watts=st.lists(st.floats(10, 300), min_size=1, max_size=5),
    phase_s=st.floats(0, 0.1),
    window_s=st.floats(0.5, 8),
)
def test_counter_differs_from_truth_by_one_tick_at_most(opened, make_card, clock, watts, phase_s, window_s):
    start_s = clock.s
    one = make_card(trace=[(0.0, 50.0), *((start_s + 0.7 + 1.1 * i, w) for i, w in enumerate(watts))], phase_s=phase_s)
    _, _, after = opened(one)
    first_s, first = clock.s, joules(after(0.0)[A])
    last = joules(after(window_s)[A])
    truth = one.energy_j(clock.s) - one.energy_j(first_s)
    assert last - first == pytest.approx(truth, abs=0.1 * 300 + 0.002 * 300)


def test_step_and_square_load_follow_the_trace(opened, make_card, clock):
    trace = [(0.0, 80.0)] + [(2.0 + 0.5 * i, 280.0 if i % 2 == 0 else 80.0) for i in range(41)]
    one = make_card(trace=trace)
    _, _, after = opened(one)
    began_s = clock.s
    spent = joules(after(20.0)[A])
    assert spent == pytest.approx(one.energy_j(clock.s) - one.energy_j(began_s), rel=0.02)


def test_starts_from_zero_and_not_from_the_drivers_count(opened, make_card):
    _, _, after = opened(make_card(before_j=1e9))
    assert joules(after(0.0)[A]) <= 100.0 * 0.1 + 1e-6


def test_a_reset_is_bridged_by_power_and_counted(opened, make_card, clock):
    one = make_card(trace=[(0.0, 200.0)], reset_s=clock.s + 5.25)
    _, found, after = opened(one)
    assert found[A].method is Method.COUNTER
    began = clock.s
    state = after(10.0)[A]
    assert state.resets == 1
    assert state.joules == pytest.approx(200.0 * (clock.s - began), rel=0.03)
    assert 0 < state.other_j[Method.INTEGRATED] <= 200.0 * 1.2


def test_a_reset_without_power_leaves_a_gap_and_a_lower_bound(opened, make_card, clock):
    _, _, after = opened(make_card(trace=[(0.0, 200.0)], reset_s=clock.s + 5.25, faults=dict(NO_POWER)))
    state = after(10.0)[A]
    assert state.resets == 1
    assert state.gap_s == pytest.approx(0.1, abs=0.01)
    assert 200.0 * 9.9 <= state.joules <= 200.0 * 10  # what the counter shows after the reset was drawn
    assert state.joules + state.under_j >= 200.0 * 10 - 0.2 * 200


@pytest.mark.parametrize(
    "code", [real.NVML_ERROR_GPU_IS_LOST, real.NVML_ERROR_NO_PERMISSION, real.NVML_ERROR_UNINITIALIZED]
)
def test_a_failed_read_is_unavailable_and_the_next_one_closes_it(opened, make_card, clock, code):
    one = make_card()
    _, _, after = opened(one)
    began_s = clock.s
    after(2.0)
    one.faults[COUNTER] = code
    lost = after(3.0)[A]
    assert isinstance(lost, Unavailable)
    assert str(real.NVMLError(code)) in lost.reason
    del one.faults[COUNTER]
    assert joules(after(2.0)[A]) == pytest.approx(100.0 * (clock.s - began_s), abs=15)


def test_a_counter_that_stops_is_unavailable(opened, make_card):
    one = make_card()
    _, _, after = opened(one)
    assert isinstance(after(3.0)[A], Cumulative)
    one.frozen = True
    after(1.0)  # the frozen value is a decrease here: counted as a reset, then no more movement
    stopped = after(4.0)[A]
    assert isinstance(stopped, Unavailable)
    assert "stood still" in stopped.reason


def test_counter_against_integration_is_told(opened, make_card):
    meter, _, after = opened(make_card())
    after(20.0)
    check = meter.facts()["devices"][FIRST]["cross_check"]
    assert check["relative_difference"] == pytest.approx(0.0, abs=0.02)
    assert check["disagrees"] is False


# Power


@pytest.mark.parametrize(
    "fault",
    [
        {"faults": {COUNTER: real.NVML_ERROR_NOT_SUPPORTED}},
        {"frozen": True},
        {"frozen": True, "before_j": 0.0},
    ],
)
def test_without_a_moving_counter_power_is_integrated(opened, make_card, clock, fault):
    meter, found, after = opened(make_card(trace=[(0.0, 120.0)], **fault))
    scope = found[A]
    assert (scope.method, scope.tick_s) == (Method.INTEGRATED, None)
    assert meter.sample_hz == 10.0
    began_s, first = clock.s, joules(after(0.0)[A])
    last = after(5.0)[A]
    assert joules(last) - first == pytest.approx(120.0 * (clock.s - began_s), rel=1e-3)
    assert last.gap_s == 0
    facts = meter.facts()["devices"][FIRST]
    assert facts["field"] == "NVML_FI_DEV_POWER_INSTANT"
    assert "did not move" in facts["counter_probe"] or "Not Supported" in facts["counter_probe"]


@pytest.mark.parametrize(
    ("architecture", "window_s"), [(real.NVML_DEVICE_ARCH_HOPPER, 1.0), (real.NVML_DEVICE_ARCH_TURING, 0.02)]
)
def test_the_averaged_register_says_so(opened, make_card, architecture, window_s):
    one = make_card(faults={**NO_COUNTER, **NO_INSTANT}, architecture=architecture)
    meter, found, _ = opened(one)
    assert found[A].sensor.window_s == window_s
    assert meter.facts()["devices"][FIRST]["field"] == "nvmlDeviceGetPowerUsage"


def test_power_by_choice_does_not_wait_for_the_counter(opened, make_card, clock):
    began_s = clock.s
    _, found, _ = opened(make_card(frozen=True), source="power")
    assert found[A].method is Method.INTEGRATED
    assert clock.s - began_s < 0.1


def test_the_counter_by_choice_never_becomes_power(opened, make_card):
    _, found, _ = opened(make_card(frozen=True), source="counter")
    assert isinstance(found[A], Unavailable)
    assert "did not move in 0.5 s" in found[A].reason


def test_a_power_read_that_fails_is_a_gap(opened, make_card, clock):
    one = make_card(trace=[(0.0, 120.0)], faults=dict(NO_COUNTER))
    _, _, after = opened(one)
    after(1.0)
    one.faults["nvmlDeviceGetFieldValues"] = real.NVML_ERROR_GPU_IS_LOST
    lost = after(1.0)[A]
    assert isinstance(lost, Unavailable)
    assert "GPU is lost" in lost.reason
    del one.faults["nvmlDeviceGetFieldValues"]
    state = after(1.0)[A]
    assert state.gap_s == pytest.approx(1.1, abs=0.15)
    assert state.joules == pytest.approx(120.0 * 3, rel=0.05)
    assert state.under_j == pytest.approx((300 - 120) * state.gap_s, rel=0.01)


def test_zero_watts_is_no_reading(opened, make_card):
    one = make_card(faults=dict(NO_COUNTER))
    _, _, after = opened(one)
    one.trace = [(0.0, 0.0)]
    assert isinstance(after(0.5)[A], Unavailable)


# Devices


def test_two_devices_are_counted_twice(opened, make_card):
    cards = (make_card(uuid=FIRST, trace=[(0.0, 100.0)]), make_card(uuid=SECOND, trace=[(0.0, 250.0)]))
    _, found, after = opened(*cards)
    assert set(found) == {A, B}
    spent = after(10.0)
    assert joules(spent[A]) == pytest.approx(1000, rel=0.02)
    assert joules(spent[B]) == pytest.approx(2500, rel=0.02)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_renumbered_device_is_found_by_uuid(opened, make_card, order):
    cards = [make_card(uuid=FIRST, trace=[(0.0, 100.0)]), make_card(uuid=SECOND, trace=[(0.0, 250.0)])]
    _, found, after = opened(*(cards[i] for i in order), devices=[gpu(SECOND)])
    assert set(found) == {B}
    assert joules(after(10.0)[B]) == pytest.approx(2500, rel=0.02)


def test_one_device_failing_leaves_the_other(opened, make_card):
    cards = make_card(uuid=FIRST), make_card(uuid=SECOND)
    _, _, after = opened(*cards)
    cards[0].faults[COUNTER] = real.NVML_ERROR_GPU_IS_LOST
    spent = after(2.0)
    assert isinstance(spent[A], Unavailable)
    assert joules(spent[B]) == pytest.approx(200, abs=15)


@pytest.mark.parametrize("parent", [FIRST, None])
def test_partitions_are_read_as_their_card_once(opened, make_card, parent):
    other = PARTITION.replace("9", "0")
    one = make_card(partitions=(PARTITION, other))
    meter, found, _ = opened(one, devices=[gpu(PARTITION, parent), gpu(other, parent)])
    assert set(found) == {A}
    assert found[A].device == FIRST
    assert "no hardware meters a partition" in found[A].note
    assert meter.facts()["devices"][FIRST]["partitions"] == [PARTITION, other]


def test_a_grace_hopper_module_is_no_gpu_scope(opened, make_card):
    _, found, _ = opened(make_card(name="NVIDIA GH200 480GB"))
    assert set(found) == {f"n0/module:{FIRST}"}


# Conditions


@pytest.mark.parametrize(
    ("name", "kind", "fails"),
    [
        ("HwThermalSlowdown", "thermal_throttle", True),
        ("SwThermalSlowdown", "thermal_throttle", True),
        ("HwSlowdown", "hw_slowdown", True),
        ("HwPowerBrakeSlowdown", "power_brake", True),
        ("SwPowerCap", "power_cap", False),
    ],
)
def test_throttling_is_told(opened, make_card, name, kind, fails):
    one = make_card()
    meter, _, _ = opened(one)
    assert meter.conditions() == []
    one.reasons = getattr(real, f"nvmlClocksEventReason{name}") | real.nvmlClocksEventReasonGpuIdle
    assert [(seen.kind, seen.fails, seen.scope) for seen in meter.conditions()] == [(kind, fails, A)]


def test_old_drivers_know_the_reasons_by_another_name(opened, make_card):
    one = make_card(
        faults={"nvmlDeviceGetCurrentClocksEventReasons": real.NVML_ERROR_FUNCTION_NOT_FOUND},
        reasons=real.nvmlClocksEventReasonHwSlowdown,
    )
    meter, _, _ = opened(one)
    assert [seen.kind for seen in meter.conditions()] == ["hw_slowdown"]


def test_unreadable_reasons_are_told(opened, make_card):
    meter, _, _ = opened(make_card(faults={"nvmlDeviceGetCurrentClocksEventReasons": real.NVML_ERROR_NO_PERMISSION}))
    assert [(seen.kind, seen.fails) for seen in meter.conditions()] == [("throttle_unknown", False)]


@pytest.fixture
def processes():
    """A process that is not ours' child, as seen from a child: this one; and a child of this one."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield os.getpid(), child.pid
    child.kill()
    child.wait()


@pytest.mark.parametrize("whole_machine", [True, False])
def test_our_process_and_its_children_are_not_foreign(opened, make_card, monkeypatch, processes, whole_machine):
    monkeypatch.setattr(watch, "sees_all_processes", lambda: whole_machine)
    ours, child = processes
    meter, _, _ = opened(make_card(pids=[ours, child]), pid=ours)
    assert meter.conditions() == []


def test_a_foreign_process_fails_the_trial(opened, make_card, monkeypatch, processes):
    monkeypatch.setattr(watch, "sees_all_processes", lambda: True)
    parent, ours = processes
    meter, _, _ = opened(make_card(pids=[ours, parent]), pid=ours)
    (seen,) = meter.conditions()
    assert (seen.kind, seen.fails, seen.scope) == ("foreign_process", True, A)
    assert str(parent) in seen.detail


def test_in_a_container_a_strange_number_may_be_ours(opened, make_card, monkeypatch, processes):
    monkeypatch.setattr(watch, "sees_all_processes", lambda: False)
    parent, ours = processes
    one = make_card(pids=[parent])
    meter, _, _ = opened(one, pid=ours)
    assert [(seen.kind, seen.fails) for seen in meter.conditions()] == [("exclusive_unknown", False)]
    one.pids = [parent, ours]
    assert [(seen.kind, seen.fails) for seen in meter.conditions()] == [("foreign_process", True)]


def test_a_process_that_cannot_be_seen_is_unknown(opened, make_card):
    absent = next(pid for pid in range(4_000_000, 5_000_000) if not psutil.pid_exists(pid))
    meter, _, _ = opened(make_card(pids=[absent]))
    assert [(seen.kind, seen.fails) for seen in meter.conditions()] == [("exclusive_unknown", False)]


def test_an_unreadable_list_is_unknown(opened, make_card):
    meter, _, _ = opened(make_card(faults={"nvmlDeviceGetComputeRunningProcesses": real.NVML_ERROR_NO_PERMISSION}))
    (seen,) = meter.conditions()
    assert (seen.kind, seen.fails) == ("exclusive_unknown", False)
    assert "Permissions" in seen.detail


@pytest.mark.parametrize(
    ("name", "value", "kinds"),
    [("limit_w", 250.0, ["limit_change"]), ("clock_mhz", 1200, ["clock_change", "clock_change"])],
)
def test_a_limit_changed_by_others_fails_the_trial(opened, make_card, name, value, kinds):
    one = make_card()
    meter, _, _ = opened(one)
    setattr(one, name, value)
    seen = meter.conditions()
    assert [(one.kind, one.fails) for one in seen] == [(kind, True) for kind in kinds]
    assert meter.conditions() == seen


# Facts and closing


def test_facts_are_json_and_outlive_the_meter(opened, make_card):
    meter, _, after = opened(make_card())
    after(1.0)
    meter.close()
    facts = meter.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["driver"], facts["nvml"]) == ("570.00", "12.570.00")
    device = facts["devices"][FIRST]
    assert (device["field"], device["power_limit_w"], device["name"]) == (COUNTER, 300.0, "NVIDIA Test Card")
    assert device["read_cost_s"] == pytest.approx(50e-6)
    assert "moved within" in device["counter_probe"]


def test_a_closed_meter_reads_nothing(opened, make_card):
    meter, _, after = opened(make_card())
    meter.close()
    assert after(1.0) == {A: Unavailable("the meter is closed")}
    assert meter.conditions() == ()


@pytest.mark.gpu
def test_real_card_counts_or_integrates():
    import torch

    uuid = f"GPU-{str(torch.cuda.get_device_properties(0).uuid).removeprefix('GPU-')}"
    meter = NvmlMeter(NvmlOptions())
    found = meter.open(MeterContext(devices=(gpu(uuid),), pid=os.getpid()))
    assert not isinstance(found, Unavailable), found
    ((name, scope),) = found.items()
    assert isinstance(scope, Scope), scope
    a = torch.rand(4096, 4096, device="cuda")
    first = joules(meter.read().joules[name])
    began = time.monotonic()
    while time.monotonic() - began < 3:
        for _ in range(20):
            a = (a @ a).clamp_(0, 1)
        torch.cuda.synchronize()
        meter.read()
    spent = joules(meter.read().joules[name]) - first
    duration_s = time.monotonic() - began
    assert 20 < spent / duration_s < 1.2 * (scope.max_power_w or 2000)
    facts = meter.facts()
    print(json.dumps(facts, indent=1))  # noqa: T201 - the card's answers are what this run is for
    print(meter.conditions())  # noqa: T201
    assert json.loads(json.dumps(facts)) == facts
    meter.close()


# Temperature


def test_temperature_of_each_card_whose_driver_tells_it(opened, make_card):
    silent = make_card(uuid=SECOND)
    silent.faults["nvmlDeviceGetTemperature"] = real.NVML_ERROR_NOT_SUPPORTED
    meter, _, _ = opened(make_card(celsius=61), silent)
    assert meter.temperatures() == {A: 61.0}
    meter.close()
    assert meter.temperatures() == {}
