"""A load for the self-test of a meter: matrix products on each device, switched at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import torch

from harness.backend import Load

STEP_S: Final = 2e-3
"""A batch of products takes about so long: a switch has its effect when the batch that runs has ended."""
LARGEST: Final = 8192
"""Matrices of this side fill any device, and take 128 MiB each in 16 bits."""
SMALLEST: Final = 64
READY_S: Final = 60.0


class MatrixLoad:
    """Multiplies matrices while it is busy, in a thread of its own; the queue is never longer than one batch.

    Args:
        device: where.
        synchronize: waits for the device's queue.
    """

    def __init__(self, device: torch.device, synchronize: Callable[[], object]) -> None:
        self._device, self._synchronize = device, synchronize
        self._busy, self._ended, self._ready = threading.Event(), threading.Event(), threading.Event()
        self._failure: Exception | None = None
        self.switch_s = STEP_S
        self._thread = threading.Thread(target=self._work, name="harness-load", daemon=True)

    def busy(self) -> None:
        """Multiplies from now on; raises what made the thread end."""
        if self._failure is not None:
            raise self._failure
        self._busy.set()

    def idle(self) -> None:
        """Stops after the batch that runs."""
        self._busy.clear()

    def true_joules(self) -> None:
        """Not known."""

    def start(self) -> None:
        """Chooses the size and waits until the load can be switched; raises what went wrong."""
        self._thread.start()
        self._ready.wait(READY_S)
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._busy.set()
        self._thread.join(READY_S)

    def _work(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # the current device belongs to the thread
            left, right, result, count = self._sized()
            self._ready.set()
            while True:
                self._busy.wait()
                if self._ended.is_set():
                    return
                for _ in range(count):
                    torch.mm(left, right, out=result)
                self._synchronize()
        except Exception as error:  # noqa: BLE001 - told by the next switch: nobody sees what a thread raises
            self._failure = error
            self._ready.set()

    def _sized(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """The largest matrices of which a product takes less than a batch, and how many products make one."""
        kind = torch.float32 if self._device.type == "cpu" else torch.float16
        side = LARGEST if self._device.type == "cuda" else 1024
        while True:
            # Random values toggle more wires, and draw more power, than zeros do.
            left, right = (torch.randn(side, side, device=self._device).to(kind) for _ in range(2))
            result = torch.empty(side, side, device=self._device, dtype=kind)
            took_s = self._timed(left, right, result)
            if took_s <= STEP_S or side <= SMALLEST:
                self.switch_s = max(STEP_S, took_s)
                return left, right, result, max(1, int(STEP_S / took_s))
            side //= 2

    def _timed(self, left: torch.Tensor, right: torch.Tensor, result: torch.Tensor) -> float:
        """Seconds of one product; the first one chooses its algorithm and does not count."""
        torch.mm(left, right, out=result)
        self._synchronize()
        began = time.perf_counter()
        for _ in range(3):
            torch.mm(left, right, out=result)
        self._synchronize()
        return max((time.perf_counter() - began) / 3, 1e-6)


@contextmanager
def matrix_load(device: torch.device, synchronize: Callable[[], object]) -> Iterator[MatrixLoad]:
    """A load that is ready to be switched, and ends with the context."""
    load = MatrixLoad(device, synchronize)
    load.start()
    try:
        yield load
    finally:
        load.close()


class SeveralLoads:
    """Loads that are switched together, one a device."""

    def __init__(self, loads: Sequence[MatrixLoad]) -> None:
        self._loads = loads
        self.switch_s = max(load.switch_s for load in loads)

    def busy(self) -> None:
        """All of them multiply from now on."""
        for load in self._loads:
            load.busy()

    def idle(self) -> None:
        """All of them stop."""
        for load in self._loads:
            load.idle()

    def true_joules(self) -> None:
        """Not known."""


@contextmanager
def matrix_loads(devices: Sequence[torch.device], synchronize: Callable[[torch.device], object]) -> Iterator[Load]:
    """A load on every device, ready to be switched, which ends with the context."""
    with ExitStack() as stack:
        yield SeveralLoads([stack.enter_context(matrix_load(each, partial(synchronize, each))) for each in devices])
