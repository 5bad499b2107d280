"""Plugin: the backend `torch`: CPU, CUDA and MPS devices. Importing this module imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, model_validator

from harness import (
    Backend,
    BackendSpec,
    Device,
    DeviceSettings,
    Frequency,
    Options,
    Power,
    Unavailable,
    hookimpl,
)

_UUID = (
    r"(?:cuda[:-])?(?:GPU-|MIG-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|PCI-[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](?:#\d+)?"
)
_DEVICE = re.compile(rf"auto|cpu|mps|cuda(?::\d+)?|{_UUID}", re.IGNORECASE)
_ONE_OF_SEVERAL = re.compile(rf"cpu|mps|cuda:\d+|{_UUID}", re.IGNORECASE)


def _device(text: str) -> str:
    if _DEVICE.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is not a device; accepted: auto, cpu, cuda, cuda:N, cuda-UUID, GPU-UUID, MIG-UUID, PCI-ID, mps"
        )
    return text


def _one_of_several(found: int | str) -> int | str:
    if isinstance(found, int) and found < 0:
        raise ValueError(f"{found!r} is not a device; accepted: an index from 0, cuda:N, or a UUID")
    if isinstance(found, str) and _ONE_OF_SEVERAL.fullmatch(found) is None:
        raise ValueError(f"{found!r} is not one device; accepted: an index from 0, cuda:N, a UUID, cpu, mps")
    return found


def identity(found: int | str) -> str:
    """A device as a suite names it, without the ways to write it: `0` and `cuda:0` are one."""
    if isinstance(found, int):
        return f"cuda:{found}"
    text = found.lower()
    if text.startswith("cuda:") and text[5:].isdigit():
        return f"cuda:{int(text[5:])}"
    return text.removeprefix("cuda:").removeprefix("cuda-").removeprefix("gpu-").removeprefix("mig-")


class TorchOptions(Options):
    """Options of the backend `torch`.

    Attributes:
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N`, a CUDA device's UUID, an AMD
            device's `PCI-0000:c1:00.0`, or `mps`.
        devices: several devices of one kind, in place of `device`: `all` CUDA devices that are visible, or a list of
            indices among them, `cuda:N` and UUIDs. All of them are locked, read and charged, whatever the workload
            does with them; workloads that know one device alone take the first.
        power_limit: power limit of each GPU for the time of a trial, within what the card takes; put back afterwards.
            Needs root. Without a value the card's own stays.
        sm_clock: clock at which each NVIDIA GPU is held for the time of a trial, one that the card has; released
            afterwards, also if it was held before. Needs root. Without a value the card chooses.
        threads: threads of one operation on the CPU; if not set, 1 where the device is the CPU, else PyTorch's choice.
        deterministic: whether only deterministic algorithms are used; an operation that has none fails the trial.
    """

    device: Annotated[str, AfterValidator(_device)] = "auto"
    devices: (
        Literal["all"]
        | Annotated[list[Annotated[StrictInt | str, AfterValidator(_one_of_several)]], Field(min_length=1)]
        | None
    ) = None
    power_limit: Annotated[Power, Field(gt=0)] | None = None
    sm_clock: Annotated[Frequency, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    deterministic: bool = False

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> TorchOptions:
        if self.devices is None:
            return self
        if "device" in self.model_fields_set and self.device != "auto":
            raise ValueError(f"device {self.device!r} and devices {self.devices!r}; accepted: one of the two")
        if self.devices != "all":
            named = [identity(each) for each in self.devices]
            twice = [str(each) for each, name in zip(self.devices, named, strict=True) if named.count(name) > 1]
            if twice:
                raise ValueError(f"a device is named twice: {', '.join(twice)}; accepted: each once")
            kinds = sorted({name if name in {"cpu", "mps"} else "cuda" for name in named})
            if len(kinds) > 1:
                raise ValueError(f"devices of several kinds: {', '.join(kinds)}; accepted: one kind")
        return self


def _create(options: TorchOptions) -> Backend:
    from harness_backend_torch.backend import TorchBackend

    return TorchBackend(options)


def _probe(options: TorchOptions) -> Sequence[Device] | Unavailable:
    try:
        from harness_backend_torch.devices import find_all
    except ImportError as error:
        return Unavailable(f"torch cannot be imported: {error}")
    from harness_backend_torch.power import why_not

    found = find_all(options)
    if isinstance(found, Unavailable):
        return found
    devices = [each.device for each in found]
    return why_not(options, devices) or devices


def _settings() -> DeviceSettings:
    from harness_backend_torch.power import CardSettings

    return CardSettings()


@hookimpl
def harness_backends() -> Iterable[BackendSpec]:
    """The backend `torch`."""
    return [
        BackendSpec(
            name="torch",
            summary="PyTorch on CPU, CUDA or MPS, on one device or several",
            factory=_create,
            probe=_probe,
            options=TorchOptions,
            settings=_settings,
        )
    ]
