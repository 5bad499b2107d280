"""Finds the devices that a suite asks for, and names them as their driver does."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from harness import Backend, Device, MeasurementError, Unavailable
from harness.backend import processor_name
from harness_backend_torch import TorchOptions
from harness_backend_torch.nvidia import mig_parent


@dataclass(frozen=True, slots=True)
class Found:
    """A device under both of its names.

    Attributes:
        torch_device: as PyTorch counts it in this process, an index among the visible ones.
        device: as the driver identifies it.
    """

    torch_device: torch.device
    device: Device


def torch_device(backend: Backend) -> torch.device:
    """The device of a backend that runs PyTorch; raises MeasurementError for another."""
    device = getattr(backend, "device", None)
    if not isinstance(device, torch.device):
        raise MeasurementError(
            f"the backend {type(backend).__name__} has no PyTorch device", accepted="`backend: torch` in the suite"
        )
    return device


def device_uuid(device: torch.device) -> str:
    """The device as the backend names it: `cpu`, `mps`, a CUDA device's UUID with its prefix, an AMD card's address."""
    if device.type != "cuda":
        return device.type
    index = torch.cuda.current_device() if device.index is None else device.index
    properties = torch.cuda.get_device_properties(index)
    return _nvidia_uuid(properties) if torch.version.hip is None else _identify_rocm(index, properties).uuid


def find(wanted: str) -> Found | Unavailable:
    """The device for a suite's word (`auto`, `cpu`, `cuda`, `cuda:N`, a UUID, `mps`), or why there is none."""
    if wanted == "cpu":
        return _cpu()
    if wanted == "mps":
        return _mps()
    if wanted == "auto":
        for found in (_cuda("cuda"), _mps()):
            if isinstance(found, Found):
                return found
        return _cpu()
    return _cuda(wanted)


def find_all(options: TorchOptions) -> list[Found] | Unavailable:
    """The device or the devices that the options ask for, in their order, or why they cannot be had."""
    if options.devices is None:
        found = find(options.device)
        return found if isinstance(found, Unavailable) else [found]
    if options.devices == "all":
        why = _why_no_cuda()
        if why is not None:
            return Unavailable(f"no CUDA device: {why}")
        return [Found(torch.device("cuda", index), _identify(index)) for index in range(torch.cuda.device_count())]
    taken: dict[str, int | str] = {}
    listed = []
    for wanted in options.devices:
        found = find(f"cuda:{wanted}" if isinstance(wanted, int) else wanted)
        if isinstance(found, Unavailable):
            return Unavailable(f"devices, {wanted}: {found.reason}")
        first = taken.setdefault(found.device.uuid, wanted)
        if first != wanted:
            return Unavailable(f"devices, {first} and {wanted}: both are {found.device.uuid}")
        listed.append(found)
    if len({each.device.parent is None for each in listed}) > 1:
        named = ", ".join(each.device.uuid for each in listed)
        return Unavailable(f"devices of several kinds: whole cards and partitions: {named}")
    return listed


def _host_memory_bytes() -> int | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return size if size > 0 else None


def _cpu() -> Found:
    device = Device(kind="cpu", uuid="cpu", name=processor_name(), memory_bytes=_host_memory_bytes())
    return Found(torch.device("cpu"), device)


def _mps() -> Found | Unavailable:
    if not torch.backends.mps.is_available():
        why = "macOS or the chip is too old" if torch.backends.mps.is_built() else "this torch is built without it"
        return Unavailable(f"no MPS device: {why}")
    # Apple's GPU has no UUID of its own and shares the memory of the machine.
    device = Device(kind="gpu", uuid="mps", name=f"{processor_name()} GPU", memory_bytes=_host_memory_bytes())
    return Found(torch.device("mps"), device)


def _why_no_cuda() -> str | None:
    """The reason why CUDA cannot be used, None if it can."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__} is built without CUDA"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available() and torch.cuda.device_count() > 0:
            return None
    said = "; ".join(str(warning.message).splitlines()[0] for warning in caught)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said:
        return said
    return "none is visible" + (f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible is not None else "")


def _identify(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    name = str(properties.name)
    if torch.version.hip is not None:
        return _identify_rocm(index, properties)
    uuid = _nvidia_uuid(properties)
    parent = mig_parent(uuid) if uuid.startswith("MIG-") else None
    return Device(kind="gpu", uuid=uuid, name=name, memory_bytes=int(properties.total_memory), parent=parent)


def _nvidia_uuid(properties: Any) -> str:
    raw = str(properties.uuid).removeprefix("GPU-").removeprefix("MIG-")
    # CUDA names a partition `<product> MIG <profile>` and gives the partition's UUID; NVML prints it with this prefix.
    return f"MIG-{raw}" if " MIG " in str(properties.name) else f"GPU-{raw}"


def pci_address(properties: Any) -> str:
    """Domain, bus, device and function 0 of a device, as the kernel and `amdsmi` write it: `0000:c1:00.0`."""
    return f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"


def _identify_rocm(index: int, properties: Any) -> Device:
    """An AMD device, named by its PCI address: what ROCm calls a UUID is empty on many cards.

    The partitions of a card share its address: each after the first gets a number, and all name the card as parent.
    """
    address = pci_address(properties)
    every = [pci_address(torch.cuda.get_device_properties(other)) for other in range(torch.cuda.device_count())]
    shared = every.count(address) > 1
    card, place = f"PCI-{address}", every[:index].count(address)
    architecture = str(properties.gcnArchName).partition(":")[0]
    name = str(properties.name) or f"AMD {architecture}"
    return Device(
        kind="gpu",
        uuid=f"{card}#{place}" if shared else card,
        name=name,
        memory_bytes=int(properties.total_memory),
        parent=card if shared else None,
    )


def _cuda(wanted: str) -> Found | Unavailable:
    why = _why_no_cuda()
    if why is not None:
        return Unavailable(f"no CUDA device: {why}")
    count = torch.cuda.device_count()
    name = wanted.lower()
    if name == "cuda":
        return Found(torch.device("cuda", 0), _identify(0))
    if name.startswith("cuda:") and name[5:].isdigit():
        index = int(name[5:])
        if index >= count:
            return Unavailable(f"no CUDA device: index {index} was asked for, {count} visible, counted from 0")
        return Found(torch.device("cuda", index), _identify(index))
    raw = name.removeprefix("cuda:").removeprefix("cuda-").removeprefix("gpu-").removeprefix("mig-")
    devices = [_identify(index) for index in range(count)]
    for index, device in enumerate(devices):
        if device.uuid.lower().endswith(raw):
            return Found(torch.device("cuda", index), device)
    return Unavailable(f"no CUDA device: {wanted} is not among {', '.join(device.uuid for device in devices)}")
