"""A whole plugin in one file: a backend, a workload and a meter, found through one entry point."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from harness import (
    Backend,
    BackendSpec,
    Column,
    Device,
    DeviceSettings,
    FunctionalUnit,
    Meter,
    MeterContext,
    MeterSpec,
    Method,
    Options,
    Power,
    Scope,
    Setting,
    Snapshot,
    Window,
    Workload,
    WorkloadSpec,
    hookimpl,
    now_ns,
)

DESK = Device(kind="desk", uuid="desk-0", name="Example desk")


REGISTER = "HARNESS_EXAMPLE_DESK"
"""Environment variable that names the file which stands for the desk's power limit, in W."""


class DeskOptions(Options):
    """Options of the backend."""

    limit: Power | None = None
    """Power limit of the desk for the time of a trial; without a value it keeps its own."""


class Desk(Backend):
    """A backend with one device, which is always there."""

    def __init__(self, options: DeskOptions) -> None:
        self.limit = options.limit

    def open(self) -> Sequence[Device]:
        return (DESK,)

    def settings(self) -> Sequence[Setting]:
        if self.limit is None:
            return ()
        return (Setting(device=DESK.uuid, name="limit", value=self.limit, unit="W"),)


class DeskSettings(DeviceSettings):
    """Sets the desk's limit, and puts it back after a trial that was killed."""

    def read(self, device: str, name: str) -> float | None:
        return float(Path(os.environ[REGISTER]).read_text(encoding="utf-8"))

    def write(self, device: str, name: str, value: float | None) -> float | None:
        Path(os.environ[REGISTER]).write_text(str(value), encoding="utf-8")
        return self.read(device, name)


class SumOptions(Options):
    """Options of the workload."""

    terms: int = Field(1000, gt=0)
    """How many numbers one item adds."""


class Sum(Workload):
    """Adds numbers; one work item is one sum."""

    def __init__(self, options: SumOptions) -> None:
        self.terms = options.terms

    def step(self, window: Window) -> None:
        start_s = window.now_s()
        assert sum(range(self.terms)) == self.terms * (self.terms - 1) // 2
        item_id = f"{window.index}-{window.iteration}"
        window.item(item_id, start_s=start_s, end_s=window.now_s(), additions=self.terms)


class LampOptions(Options):
    """Options of the meter."""

    watts: float = Field(5.0, gt=0)
    """What the lamp on the desk is said to draw, in W."""


class Lamp(Meter):
    """Energy of a lamp whose power is declared: watts times time, so an estimate."""

    def __init__(self, options: LampOptions) -> None:
        self.watts = options.watts
        self.scope = ""
        self.opened_ns = 0

    def open(self, context: MeterContext) -> Mapping[str, Scope]:
        self.scope = f"{context.node}/lamp:0"
        self.opened_ns = now_ns()
        return {self.scope: Scope(method=Method.ESTIMATED, note="declared watts of a lamp x time")}

    def read(self) -> Snapshot:
        now = now_ns()
        return Snapshot(now, {self.scope: self.watts * (now - self.opened_ns) / 1e9})

    def close(self) -> None:
        self.scope = ""


@hookimpl
def harness_backends() -> Iterable[BackendSpec]:
    yield BackendSpec(
        name="example_desk",
        summary="a desk",
        factory=Desk,
        probe=lambda options: (DESK,),
        options=DeskOptions,
        settings=DeskSettings,
    )


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    yield WorkloadSpec(
        name="example_sum",
        summary="adds numbers",
        factory=Sum,
        options=SumOptions,
        columns=(Column("additions", "1", "numbers added"),),
        functional_units={"addition": FunctionalUnit.of("additions")},
    )


@hookimpl
def harness_meters() -> Iterable[MeterSpec]:
    yield MeterSpec(name="example_lamp", summary="declared watts of a lamp", factory=Lamp, options=LampOptions)
