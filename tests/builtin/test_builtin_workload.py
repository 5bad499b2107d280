"""Workload `spin`, backend `host`, and the offers themselves."""

from __future__ import annotations

import os

import pytest

from harness import builtin
from harness.backend import processor_name
from harness.builtin import spin as spin_module
from harness.builtin.host import HostBackend, HostOptions, probe
from harness.builtin.simulated import SimulatedBackend, SimulatedOptions
from harness.builtin.spin import WORKLOAD, Spin, SpinOptions, spin
from harness.testing import RecordingWindow, check_offers, check_workload, trial_context


def test_loop_is_the_generator_of_iso_c():
    value = 1
    for _ in range(3):
        value = (value * 1103515245 + 12345) % 2**31
    assert spin(3) == value


def test_spin_on_the_host(tmp_path):
    window = check_workload(WORKLOAD, {"iterations": 500}, HostBackend(HostOptions()), tmp_path, iterations=3)
    assert [row["operations"] for row in window.rows] == [500.0] * 3
    assert set(window.outputs.values()) == {spin(500)}
    (used,) = window.uses
    assert used.device == "cpu"
    assert used.busy_s == pytest.approx(sum(row["latency_s"] for row in window.rows))
    assert used.busy_s <= used.reserved_s


def test_spin_keeps_the_simulated_accelerator_busy(tmp_path):
    backend = SimulatedBackend(SimulatedOptions(idle_w=0, busy_w=100))
    backend.open()
    accelerator = backend.accelerator
    workload = Spin(SpinOptions(seconds="20ms"))
    workload.prepare(trial_context(tmp_path, backend))
    window = RecordingWindow(iterations=2)
    workload.run(window)
    busy_s = accelerator.true_joules(accelerator.clock()) / 100
    assert window.uses[0].device == accelerator.uuid
    assert window.uses[0].busy_s <= busy_s <= window.uses[0].busy_s + 0.1
    assert busy_s >= 0.04
    assert accelerator.power_w(accelerator.clock()) == 0
    backend.close()


def test_timed_step_lasts_as_long_as_asked(tmp_path):
    window = check_workload(WORKLOAD, {"seconds": "30ms"}, HostBackend(HostOptions()), tmp_path, iterations=1)
    assert window.rows[0]["latency_s"] >= 0.03
    assert window.outputs == {}


@pytest.mark.parametrize(("slow_by", "extra"), [("0%", 0), ("10%", 100), (0.5, 500)])
def test_slow_down_repeats_work_without_counting_it(tmp_path, monkeypatch, slow_by, extra):
    done = []
    monkeypatch.setattr(spin_module, "spin", lambda n, start=1: done.append(n) or spin(n, start))
    options = {"iterations": 1000, "slow_by": slow_by}
    window = check_workload(WORKLOAD, options, HostBackend(HostOptions()), tmp_path, iterations=1)
    assert sum(done) == 1000 + extra
    assert window.rows[0]["operations"] == 1000
    assert window.outputs["0"] == spin(1000)


def test_crash_raises_and_leaves_the_accelerator_idle(tmp_path):
    with pytest.raises(RuntimeError, match="told to crash"):
        check_workload(WORKLOAD, {"crash": True}, SimulatedBackend(SimulatedOptions()), tmp_path)


def test_host_lists_one_cpu_and_restores_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    backend = HostBackend(HostOptions(threads=2))
    (device,) = backend.open()
    backend.open()
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"
    assert (device.kind, device.uuid) == ("cpu", "cpu")
    assert device.name == processor_name()
    assert device.memory_bytes > 0
    assert [device] == list(probe(HostOptions()))
    facts = backend.fingerprint()
    assert facts["threads"] == 2
    assert {"governor", "cpu", "cores_logical", "cores_physical", "load_average"} <= facts.keys()
    backend.close()
    backend.close()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_offers_are_inert_and_complete():
    assert set(check_offers("harness.builtin")) == {
        "workloads:spin",
        "backends:host",
        "backends:simulated",
        "meters:rapl",
        "meters:hwmon",
        "meters:simulated",
        "meters:cpu_time",
        "meters:tdp",
        "meters:replay",
        "meters:declared_power",
        "executors:local",
        "workloads:command",
        "workloads:function",
        "exports:model-card",
        "exports:openmetrics",
        "exports:pytest-benchmark",
    }


def test_only_counters_are_tried_by_auto():
    assert [spec.name for spec in builtin.harness_meters() if getattr(spec, "auto", False)] == ["rapl", "hwmon"]
    (local,) = builtin.harness_executors()
    assert not local.remote
