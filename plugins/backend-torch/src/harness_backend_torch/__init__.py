"""Plugin: the backend `torch`: CPU, CUDA and MPS devices. Importing this module imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from harness import Backend, BackendSpec, Device, Options, Unavailable, hookimpl

_DEVICE = re.compile(
    r"auto|cpu|mps|cuda(?::\d+)?|(?:cuda[:-])?(?:GPU-|MIG-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|PCI-[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](?:#\d+)?",
    re.IGNORECASE,
)


def _device(text: str) -> str:
    if _DEVICE.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is not a device; accepted: auto, cpu, cuda, cuda:N, cuda-UUID, GPU-UUID, MIG-UUID, PCI-ID, mps"
        )
    return text


class TorchOptions(Options):
    """Options of the backend `torch`.

    Attributes:
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N`, a CUDA device's UUID, an AMD
            device's `PCI-0000:c1:00.0`, or `mps`.
        threads: threads of one operation on the CPU; if not set, 1 where the device is the CPU, else PyTorch's choice.
        deterministic: whether only deterministic algorithms are used; an operation that has none fails the trial.
    """

    device: Annotated[str, AfterValidator(_device)] = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    deterministic: bool = False


def _create(options: TorchOptions) -> Backend:
    from harness_backend_torch.backend import TorchBackend

    return TorchBackend(options)


def _probe(options: TorchOptions) -> Sequence[Device] | Unavailable:
    try:
        from harness_backend_torch.devices import find
    except ImportError as error:
        return Unavailable(f"torch cannot be imported: {error}")
    found = find(options.device)
    return found if isinstance(found, Unavailable) else [found.device]


@hookimpl
def harness_backends() -> Iterable[BackendSpec]:
    """The backend `torch`."""
    return [
        BackendSpec(
            name="torch",
            summary="PyTorch on CPU, CUDA or MPS",
            factory=_create,
            probe=_probe,
            options=TorchOptions,
        )
    ]
