"""The GPUs of a pair's roles, as drivers and meters name them."""

from __future__ import annotations

from harness.backend import Device
from harness.quantity import Unavailable


def gpu(name: str) -> Device:
    """The GPU that torch calls `cuda:0`; raises RuntimeError or AssertionError where there is none."""
    import torch

    properties = torch.cuda.get_device_properties(torch.device(name))
    raw = str(properties.uuid)
    uuid = raw if raw.startswith(("GPU-", "MIG-")) else f"GPU-{raw}"
    return Device(kind="gpu", uuid=uuid, name=properties.name, memory_bytes=int(properties.total_memory))


def missing(role: str, name: str) -> Unavailable | None:
    """Why a role cannot have its device here; None if it can."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        return Unavailable(f"role {role}: torch has no device {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return Unavailable(f"role {role} asks for {name}; this machine has {torch.cuda.device_count()} CUDA devices")
    return None
