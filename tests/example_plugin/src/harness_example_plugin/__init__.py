"""A whole plugin in one file: a backend, a workload and a meter, found through one entry point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from harness import (
    Backend,
    BackendSpec,
    Column,
    Device,
    FunctionalUnit,
    Meter,
    MeterContext,
    MeterSpec,
    Method,
    Options,
    Scope,
    Snapshot,
    Window,
    Workload,
    WorkloadSpec,
    hookimpl,
    now_ns,
)

DESK = Device(kind="desk", uuid="desk-0", name="Example desk")


class Desk(Backend):
    """A backend with one device, which is always there."""

    def open(self) -> Sequence[Device]:
        return (DESK,)


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
        name="example_desk", summary="a desk", factory=lambda options: Desk(), probe=lambda options: (DESK,)
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
