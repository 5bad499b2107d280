"""Plugins that need nothing but Python, registered through the same hooks as anybody's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from harness.backend import BackendSpec
from harness.executor import ExecutorSpec
from harness.hookspecs import ExportSpec, hookimpl
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


@hookimpl
def harness_exports() -> Iterable[ExportSpec]:
    """Formats that need no library: pytest-benchmark's JSON, OpenMetrics, a model card's metadata."""
    return [
        ExportSpec(
            name="pytest-benchmark",
            summary="JSON of pytest-benchmark: seconds per functional unit, with energy and impacts as extra_info",
            load=_format("pytest_benchmark"),
        ),
        ExportSpec(
            name="openmetrics",
            summary="text of OpenMetrics 1.0: each figure as a gauge, with its bound",
            load=_format("open_metrics"),
        ),
        ExportSpec(
            name="model-card",
            summary="metadata of a Hugging Face model card: co2_eq_emissions, in grams",
            load=_format("model_card"),
        ),
    ]


def _format(name: str) -> Callable[[], Any]:
    """Loads a function of the reports by name: they stand above the plugins, which do not import them."""
    return lambda: getattr(importlib.import_module("harness.reporting.export_formats"), name)
