"""Plugins that need nothing but Python, registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Iterable

from harness.backend import BackendSpec
from harness.executor import ExecutorSpec
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.workload import WorkloadSpec


@hookimpl
def harness_backends() -> Iterable[BackendSpec]:
    """The host's CPU and a simulated accelerator."""
    from harness.builtin import host, simulated

    return [host.BACKEND, simulated.BACKEND]


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """`command` and `function`, which measure anybody's code, and `spin`."""
    from harness.builtin import command, function, spin

    return [command.WORKLOAD, function.WORKLOAD, spin.WORKLOAD]


@hookimpl
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:
    """`rapl` and `hwmon`, which `auto` tries; the others estimate, replay or simulate and must be asked for."""
    from harness.builtin import cpu_time, declared_power, hwmon, rapl, replay, simulated, tdp

    reading = [rapl.METER, hwmon.METER, simulated.METER, cpu_time.METER, tdp.METER, replay.METER]
    return [*reading, declared_power.METER]


@hookimpl
def harness_executors() -> Iterable[ExecutorSpec]:
    """The local executor."""
    from harness.builtin import local

    return [local.EXECUTOR]
