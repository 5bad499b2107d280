"""Measures what machine-learning work costs, per functional unit, and says how sure it is.

Everything a plugin needs is importable from here; names are loaded when first used, so that `import harness` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "harness.backend": ("Backend", "BackendSpec", "Device", "DeviceSettings", "Setting"),
    "harness.builtin.local": ("LocalExecutor",),
    "harness.counter": ("CounterTrack", "PowerIntegrator"),
    "harness.errors": (
        "HarnessError",
        "MeasurementError",
        "NotPossibleHereError",
        "PluginError",
        "UsageError",
        "did_you_mean",
    ),
    "harness.executor": ("Executor", "ExecutorSpec", "Job", "Outcome"),
    "harness.functional_unit": ("FunctionalUnit", "Row"),
    "harness.hookspecs": ("CommandSpec", "ExportSpec", "Exported", "hookimpl"),
    "harness.impact": ("Costed", "DeviceUse", "EnergyTrace", "Factor", "Impact", "ImpactMeter", "ImpactMeterSpec"),
    "harness.meter": ("Meter", "MeterContext", "MeterSpec", "Node"),
    "harness.options": ("Duration", "Frequency", "NoOptions", "Options", "Power", "Share", "Size"),
    "harness.quantity": ("Amount", "Method", "Unavailable", "Undefined", "Value", "total"),
    "harness.records.files": ("load_items", "load_record", "recorded_trials", "write_json"),
    "harness.reporting.export": ("open_metrics",),
    "harness.reporting.figures": ("Figure", "figures"),
    "harness.sample": ("Condition", "Cumulative", "Scope", "Snapshot", "clock_id", "now_ns"),
    "harness.scorer": ("Scorer", "ScorerSpec"),
    "harness.session.block": ("Block",),
    "harness.planning.places": ("find_place",),
    "harness.session.imported": ("Imported", "keep_imported"),
    "harness.session.loaded": ("LoadedPoint", "LoadedRun", "LoadedTrial", "load"),
    "harness.session.measure": ("measure", "measured"),
    "harness.session.session": ("Session",),
    "harness.workload": ("Column", "FetchContext", "ToFetch", "TrialContext", "Window", "Workload", "WorkloadSpec"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from harness.backend import Backend as Backend
    from harness.backend import BackendSpec as BackendSpec
    from harness.backend import Device as Device
    from harness.backend import DeviceSettings as DeviceSettings
    from harness.backend import Setting as Setting
    from harness.builtin.local import LocalExecutor as LocalExecutor
    from harness.counter import CounterTrack as CounterTrack
    from harness.counter import PowerIntegrator as PowerIntegrator
    from harness.errors import HarnessError as HarnessError
    from harness.errors import MeasurementError as MeasurementError
    from harness.errors import NotPossibleHereError as NotPossibleHereError
    from harness.errors import PluginError as PluginError
    from harness.errors import UsageError as UsageError
    from harness.errors import did_you_mean as did_you_mean
    from harness.executor import Executor as Executor
    from harness.executor import ExecutorSpec as ExecutorSpec
    from harness.executor import Job as Job
    from harness.executor import Outcome as Outcome
    from harness.functional_unit import FunctionalUnit as FunctionalUnit
    from harness.functional_unit import Row as Row
    from harness.hookspecs import CommandSpec as CommandSpec
    from harness.hookspecs import Exported as Exported
    from harness.hookspecs import ExportSpec as ExportSpec
    from harness.hookspecs import hookimpl as hookimpl
    from harness.impact import Costed as Costed
    from harness.impact import DeviceUse as DeviceUse
    from harness.impact import EnergyTrace as EnergyTrace
    from harness.impact import Factor as Factor
    from harness.impact import Impact as Impact
    from harness.impact import ImpactMeter as ImpactMeter
    from harness.impact import ImpactMeterSpec as ImpactMeterSpec
    from harness.meter import Meter as Meter
    from harness.meter import MeterContext as MeterContext
    from harness.meter import MeterSpec as MeterSpec
    from harness.meter import Node as Node
    from harness.options import Duration as Duration
    from harness.options import Frequency as Frequency
    from harness.options import NoOptions as NoOptions
    from harness.options import Options as Options
    from harness.options import Power as Power
    from harness.options import Share as Share
    from harness.options import Size as Size
    from harness.planning.places import find_place as find_place
    from harness.quantity import Amount as Amount
    from harness.quantity import Method as Method
    from harness.quantity import Unavailable as Unavailable
    from harness.quantity import Undefined as Undefined
    from harness.quantity import Value as Value
    from harness.quantity import total as total
    from harness.records.files import load_items as load_items
    from harness.records.files import load_record as load_record
    from harness.records.files import recorded_trials as recorded_trials
    from harness.records.files import write_json as write_json
    from harness.reporting.export import open_metrics as open_metrics
    from harness.reporting.figures import Figure as Figure
    from harness.reporting.figures import figures as figures
    from harness.sample import Condition as Condition
    from harness.sample import Cumulative as Cumulative
    from harness.sample import Scope as Scope
    from harness.sample import Snapshot as Snapshot
    from harness.sample import clock_id as clock_id
    from harness.sample import now_ns as now_ns
    from harness.scorer import Scorer as Scorer
    from harness.scorer import ScorerSpec as ScorerSpec
    from harness.session.block import Block as Block
    from harness.session.imported import Imported as Imported
    from harness.session.imported import keep_imported as keep_imported
    from harness.session.loaded import LoadedPoint as LoadedPoint
    from harness.session.loaded import LoadedRun as LoadedRun
    from harness.session.loaded import LoadedTrial as LoadedTrial
    from harness.session.loaded import load as load
    from harness.session.measure import measure as measure
    from harness.session.measure import measured as measured
    from harness.session.session import Session as Session
    from harness.workload import Column as Column
    from harness.workload import FetchContext as FetchContext
    from harness.workload import ToFetch as ToFetch
    from harness.workload import TrialContext as TrialContext
    from harness.workload import Window as Window
    from harness.workload import Workload as Workload
    from harness.workload import WorkloadSpec as WorkloadSpec

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - computed from the one table above


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
