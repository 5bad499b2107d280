"""The backend `torch`: one device of this machine, as PyTorch sees it."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.util import find_spec

import torch

from harness import Backend, Device, MeasurementError, Unavailable
from harness.backend import Load
from harness_backend_torch import TorchOptions
from harness_backend_torch.devices import Found, find
from harness_backend_torch.load import matrix_load
from harness_backend_torch.nvidia import describe


class TorchBackend(Backend):
    """One PyTorch device.

    Threads and determinism are settings of the whole process: `close` puts back what `open` found.
    """

    def __init__(self, options: TorchOptions) -> None:
        self._options = options
        self._found: Found | None = None
        self._threads_before: int | None = None
        self._deterministic_before: tuple[bool, bool, bool] | None = None

    @property
    def device(self) -> torch.device:
        """The device to put tensors and models on. Raises MeasurementError before `open`."""
        return self._opened().torch_device

    def _opened(self) -> Found:
        if self._found is None:
            raise MeasurementError("the backend torch is not open")
        return self._found

    def open(self) -> Sequence[Device]:
        """Takes the device; raises MeasurementError if it is not there."""
        if self._options.deterministic:
            # cuBLAS reads this once, when its first handle is made (CUDA library documentation, "Results
            # reproducibility"), so it must stand before anything touches the device.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        found = find(self._options.device)
        if isinstance(found, Unavailable):
            raise MeasurementError(found.reason, where="backend torch")
        self._found = found
        threads = self._options.threads or (1 if found.torch_device.type == "cpu" else None)
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
        if found.torch_device.type == "cuda":
            torch.cuda.set_device(found.torch_device)
            torch.cuda.synchronize(found.torch_device)  # makes the context now, outside every measured window
        return [found.device]

    def synchronize(self) -> None:
        """Waits for the device's queue; a CPU has none."""
        device = self.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def seed(self, seed: int) -> None:
        """Seeds `random`, PyTorch on every device, and NumPy where it is installed."""
        random.seed(seed)
        torch.manual_seed(seed)
        if find_spec("numpy") is not None:
            import numpy as np

            np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is the one other libraries draw from

    def fingerprint(self) -> Mapping[str, object]:
        """Versions, threads and determinism; for CUDA also driver, clock limits and power limit."""
        found = self._opened()
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
        return facts

    def load(self) -> AbstractContextManager[Load]:
        """Matrix products on this device."""
        return matrix_load(self.device, self.synchronize)

    def close(self) -> None:
        """Frees cached device memory and puts the process settings back."""
        if self._found is not None and self._found.torch_device.type == "cuda":
            with suppress(RuntimeError):  # a lost card must not hide the error that closed the trial
                torch.cuda.empty_cache()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
        if self._deterministic_before is not None:
            mode, deterministic, benchmark = self._deterministic_before
            torch.use_deterministic_algorithms(mode=mode)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        self._found = self._threads_before = self._deterministic_before = None
