"""Workload `spin`: a deterministic integer loop, for tests, controls and self-tests."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Final

from pydantic import PositiveInt

from harness.builtin.host import CPU_UUID, HostBackend
from harness.builtin.simulated import SimulatedBackend
from harness.builtin.simulated_accelerator import SimulatedAccelerator
from harness.functional_unit import FunctionalUnit
from harness.options import Duration, Options, Share
from harness.workload import Column, TrialContext, Window, Workload, WorkloadSpec

CHUNK: Final = 1000
"""Operations between two readings of the clock."""


class SpinOptions(Options):
    """Options of workload `spin`."""

    iterations: PositiveInt = 200_000
    """Operations of one step: multiplications and additions of a random-number generator."""
    seconds: Duration | None = None
    """How long one step lasts, in place of `iterations`."""
    slow_by: Share = 0.0
    """Share of the work that is done once more and not counted: a known slow-down for tests of gates."""
    crash: bool = False
    """Whether the first step raises: a known failure for tests."""


def spin(operations: int, start: int = 1) -> int:
    """Steps of a 31-bit linear congruential generator (multiplier 1103515245, increment 12345: ISO C's `rand`)."""
    value = start
    for _ in range(operations):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


class Spin(Workload):
    """One step is one item; a simulated accelerator is busy for as long as the step runs."""

    def __init__(self, options: SpinOptions) -> None:
        self._options = options
        self._accelerator: SimulatedAccelerator | None = None
        self._device: str | None = None
        self._busy_s = 0.0
        self._step = 0

    def prepare(self, context: TrialContext) -> None:
        """Finds the device to keep busy; other backends than ours get no device row."""
        if isinstance(context.backend, SimulatedBackend):
            self._accelerator = context.backend.accelerator
            self._device = self._accelerator.uuid if self._accelerator else None
        elif isinstance(context.backend, HostBackend):
            self._device = CPU_UUID

    def run(self, window: Window) -> None:
        """Repeats the step, then says for how long the device worked."""
        self._busy_s = 0.0
        self._step = 0
        super().run(window)
        if self._device is not None:
            reserved_s = max(window.now_s(), self._busy_s)
            window.device(self._device, busy_s=self._busy_s, reserved_s=reserved_s)

    def step(self, window: Window) -> None:
        """One item of `iterations` operations, or of `seconds`."""
        if self._options.crash:
            raise RuntimeError("spin was told to crash")
        with self._accelerator.busy() if self._accelerator else nullcontext():
            start_s = window.now_s()
            operations, result = self._timed() if self._options.seconds is not None else self._counted()
            end_s = window.now_s()
        self._busy_s += end_s - start_s
        item = str(self._step)
        self._step += 1
        window.item(item, operations=operations, latency_s=end_s - start_s, start_s=start_s, end_s=end_s)
        if result is not None:
            window.output(item, result)

    def _counted(self) -> tuple[float, int]:
        wanted = self._options.iterations
        result = spin(wanted)
        spin(round(wanted * self._options.slow_by))
        return float(wanted), result

    def _timed(self) -> tuple[float, None]:
        slowness = 1.0 + self._options.slow_by
        deadline = time.monotonic() + (self._options.seconds or 0.0) * slowness
        done = 0
        value = 1
        while done == 0 or time.monotonic() < deadline:
            value = spin(CHUNK, value)
            done += CHUNK
        return done / slowness, None


WORKLOAD: Final = WorkloadSpec(
    name="spin",
    summary="a deterministic integer loop",
    factory=Spin,
    columns=(
        Column("operations", "1", "loop steps that count", higher_is_better=True),
        Column("latency_s", "s", "duration of the item", higher_is_better=False),
    ),
    functional_units={"operation": FunctionalUnit("operations")},
    options=SpinOptions,
    fork_safe=True,
)
