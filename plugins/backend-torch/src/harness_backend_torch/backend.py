"""The backend `torch`: devices of this machine, as PyTorch sees them."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.util import find_spec

import torch

from harness import Backend, Device, MeasurementError, Setting, Unavailable
from harness.backend import Load
from harness_backend_torch import TorchOptions
from harness_backend_torch.devices import Found, find_all
from harness_backend_torch.load import matrix_loads
from harness_backend_torch.nvidia import describe
from harness_backend_torch.power import wanted


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class TorchBackend(Backend):
    """One PyTorch device, or several.

    Threads and determinism are settings of the whole process: `close` puts back what `open` found.
    """

    def __init__(self, options: TorchOptions) -> None:
        self._options = options
        self._found: list[Found] = []
        self._threads_before: int | None = None
        self._deterministic_before: tuple[bool, bool, bool] | None = None

    @property
    def device(self) -> torch.device:
        """The device to put tensors and models on, the first of several. Raises MeasurementError before `open`."""
        return self.devices[0]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices that were asked for, in that order. Raises MeasurementError before `open`."""
        return tuple(found.torch_device for found in self._opened())

    def _opened(self) -> list[Found]:
        if not self._found:
            raise MeasurementError("the backend torch is not open")
        return self._found

    def open(self) -> Sequence[Device]:
        """Takes the devices; raises MeasurementError if one is not there."""
        if self._options.deterministic:
            # cuBLAS reads this once, when its first handle is made (CUDA library documentation, "Results
            # reproducibility"), so it must stand before anything touches the device.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        found = find_all(self._options)
        if isinstance(found, Unavailable):
            raise MeasurementError(found.reason, where="backend torch")
        self._found = found
        threads = self._options.threads or (1 if self.device.type == "cpu" else None)
        if threads is not None:
            self._threads_before = torch.get_num_threads()
            torch.set_num_threads(threads)
        if self._options.deterministic:
            cudnn = torch.backends.cudnn
            self._deterministic_before = (
                torch.are_deterministic_algorithms_enabled(),
                cudnn.deterministic,
                cudnn.benchmark,
            )
            torch.use_deterministic_algorithms(mode=True)
            cudnn.deterministic, cudnn.benchmark = True, False
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            self.synchronize()  # makes the contexts now, outside every measured window
        return [each.device for each in found]

    def synchronize(self) -> None:
        """Waits for the queue of each device; a CPU has none."""
        for device in self.devices:
            _wait_for(device)

    def settings(self) -> Sequence[Setting]:
        """Power limit and SM clock, of each device."""
        return wanted(self._options, [found.device for found in self._opened()])

    def seed(self, seed: int) -> None:
        """Seeds `random`, PyTorch on every device, and NumPy where it is installed."""
        random.seed(seed)
        torch.manual_seed(seed)
        if find_spec("numpy") is not None:
            import numpy as np

            np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is the one other libraries draw from

    def fingerprint(self) -> Mapping[str, object]:
        """Versions, threads and determinism; for CUDA also driver, clock limits and power limit, of each if several."""
        found = self._opened()[0]
        facts: dict[str, object] = {
            "torch": str(torch.__version__),
            "device": found.torch_device.type,
            "device_name": found.device.name,
            "threads": torch.get_num_threads(),
            "deterministic": self._options.deterministic,
        }
        if found.torch_device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(found.torch_device)
            facts |= {
                "cuda": torch.version.cuda,
                "hip": torch.version.hip,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "compute_capability": f"{major}.{minor}",
                "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
            }
            if torch.version.hip is not None:
                facts["gcn_arch"] = str(torch.cuda.get_device_properties(found.torch_device).gcnArchName)
            else:
                facts |= describe(found.device.parent or found.device.uuid)
            others = self._opened()[1:]
            if others:
                facts["other_devices"] = {
                    each.device.uuid: {
                        "device_name": each.device.name,
                        **({} if torch.version.hip else describe(each.device.parent or each.device.uuid)),
                    }
                    for each in others
                }
        return facts

    def load(self) -> AbstractContextManager[Load]:
        """Matrix products on every device."""
        return matrix_loads(self.devices, _wait_for)

    def close(self) -> None:
        """Frees cached device memory and puts the process settings back."""
        if self._found and self._found[0].torch_device.type == "cuda":
            with suppress(RuntimeError):  # a lost card must not hide the error that closed the trial
                torch.cuda.empty_cache()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
        if self._deterministic_before is not None:
            mode, deterministic, benchmark = self._deterministic_before
            torch.use_deterministic_algorithms(mode=mode)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        self._found = []
        self._threads_before = self._deterministic_before = None
