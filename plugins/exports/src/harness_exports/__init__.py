"""Exports to formats and services of others: each says what was measured, with method and bound where there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from harness import ExportSpec, hookimpl
from harness_exports.options import BoAmpsOptions, MlflowOptions, PushgatewayOptions, WandbOptions


def _function(module: str) -> Callable[[], Any]:
    return lambda: import_module(f"harness_exports.{module}").export


@hookimpl
def harness_exports() -> Iterable[ExportSpec]:
    """Three files that need no library, and four services that need their own."""
    yield ExportSpec(
        name="boamps",
        summary="report of Boavizta's BoAmps 1.1: the energy of one point, as JSON",
        load=_function("boamps"),
        options=BoAmpsOptions,
    )
    yield ExportSpec(
        name="codecarbon",
        summary="rows of codecarbon's emissions.csv, one a trial: operational carbon, as codecarbon counts",
        load=_function("emissions_csv"),
    )
    yield ExportSpec(
        name="mlperf-power",
        summary="power log in the format of MLPerf Training (:::MLLOG lines of JSON); measured energy only",
        load=_function("mlperf_power"),
    )
    yield ExportSpec(
        name="mlflow",
        summary="an MLflow run for each point: medians with bounds as metrics, methods as tags",
        load=_function("mlflow_runs"),
        options=MlflowOptions,
        address="URI of an MLflow tracking server or store, such as http://127.0.0.1:5000 or sqlite:///mlflow.db",
    )
    yield ExportSpec(
        name="wandb",
        summary="a run of Weights & Biases for each point; WANDB_MODE=offline keeps it in a folder",
        load=_function("wandb_runs"),
        options=WandbOptions,
        address="project, or ENTITY/PROJECT, of Weights & Biases",
    )
    yield ExportSpec(
        name="otlp",
        summary="gauges of OpenTelemetry over OTLP/HTTP, with method and bound",
        load=_function("otlp"),
        address="URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318",
    )
    yield ExportSpec(
        name="pushgateway",
        summary="every figure as a gauge in a Prometheus Pushgateway; a second push replaces the first",
        load=_function("pushgateway"),
        options=PushgatewayOptions,
        address="URL of a Pushgateway, such as http://127.0.0.1:9091",
    )
