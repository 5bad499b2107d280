"""Convolutions in 8 bits by oneDNN, on CPUs that multiply bytes (VNNI): sums are 32 bits wide, outputs float32 again.

Quantisation after training as in Jacob et al. (arXiv 1712.05877): weights with one scale an output channel, inputs
with one scale and zero point a layer, from the least and greatest value that a few images bring there. What stands
between convolutions stays float32, and so do those of few outputs: a flow moves features by shares of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.errors import NetworkError

LEAST_OUTPUTS: Final = 8
"""Convolutions with fewer outputs predict flows, gates or one probability, and stay float32."""
LEVELS: Final = 255
"""Steps between the least and the greatest value of an input."""
LARGEST: Final = 127
"""Of a weight, in steps."""


def unsupported(device: torch.device) -> str:
    """Why convolutions cannot be computed in int8 there; empty where they can."""
    if device.type != "cpu":
        return f"int8 is for CPUs, not for {device.type}"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this PyTorch is built without oneDNN"
    if not torch.cpu._is_vnni_supported():  # noqa: SLF001 - what torch.compile asks, too
        return "this CPU has no VNNI: sums of products of bytes would overflow"
    return ""


def fits(module: nn.Module) -> bool:
    """Whether the module is a convolution that `Int8Conv2d` computes."""
    return (
        type(module) is nn.Conv2d
        and module.out_channels >= LEAST_OUTPUTS
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
    )


class Int8Conv2d(nn.Module):
    """A convolution with weights and inputs of 8 bits.

    Args:
        conv: that `fits`.
        low: least value of its inputs; lower ones are taken for it.
        high: greatest value, likewise. 0 always lies between both: it is what padding adds.
        shape: of an input, B x in x H x W, for which weights are packed; others work, too.

    Attributes:
        weight_bytes: of the weights with their scales.
    """

    def __init__(self, conv: nn.Conv2d, low: float, high: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        self._scale = (high - low) / LEVELS or 1.0
        self._zero = round(-low / self._scale)
        self._offset = torch.tensor(self._zero + 0.5)
        weight = conv.weight.detach()
        scales = (weight.abs().amax(dim=(1, 2, 3)) / LARGEST).clamp_min(torch.finfo(weight.dtype).tiny)
        steps = (weight / scales[:, None, None, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        geometry = (list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups)
        packed = torch.ops.onednn.qconv_prepack(steps, scales, self._scale, self._zero, *geometry, list(shape))
        self._weights = (packed, scales, torch.zeros(conv.out_channels, dtype=torch.int64))
        self._bias = None if conv.bias is None else conv.bias.detach().clone()
        self._geometry = geometry
        self.weight_bytes = steps.nbytes + scales.nbytes + (0 if self._bias is None else self._bias.nbytes)

    def forward(self, x: Tensor) -> Tensor:
        """B x in x H x W to B x out x H' x W', float32."""
        steps = torch.add(self._offset, x, alpha=1 / self._scale).clamp_(0, LEVELS).to(torch.uint8)  # rounds half up
        return torch.ops.onednn.qconv2d_pointwise(  # type: ignore[no-any-return]
            steps, self._scale, self._zero, *self._weights, self._bias, *self._geometry,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip


@dataclass
class Quantised:
    """What was quantised, for the record.

    Attributes:
        layers: convolutions in int8.
        kept: names of those that stay float32.
        weight_bytes: of the layers in int8.
        agreement: share of pixels of the calibration images that keep the class of the network as published.
    """

    layers: int
    kept: list[str]
    weight_bytes: int
    agreement: float | None = None

    def facts(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "layers": self.layers,
            "kept_in_float32": self.kept,
            "weight_bytes": self.weight_bytes,
            "agreement": self.agreement,
        }


def quantise(network: nn.Module, run: Callable[[], object]) -> Quantised:
    """Replaces convolutions, in place, by ones in int8.

    Args:
        network: float32, on a CPU, in evaluation mode.
        run: passes images through it: inputs outside of the range that they bring to a layer will be cut off. A
            convolution that is not called there, as where its weights are used directly, stays as it is.

    Raises:
        NetworkError: nothing in it can be quantised, or this CPU cannot do it.
    """
    if reason := unsupported(torch.device("cpu")):
        raise NetworkError(f"{reason}; accepted: dtype float32 or bfloat16")
    seen: dict[str, tuple[float, float, tuple[int, ...]]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = (float(end) for end in inputs[0].aminmax())
            before = seen.get(name, (low, high))
            seen[name] = min(low, before[0]), max(high, before[1]), tuple(inputs[0].shape)

        return note

    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in convolutions.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    found = Quantised(0, [], 0)
    for name, module in convolutions.items():
        if name not in seen or not fits(module):
            found.kept.append(name)
            continue
        replaced = Int8Conv2d(module, *seen[name])
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, replaced)
        found.layers += 1
        found.weight_bytes += replaced.weight_bytes
    if not found.layers:
        raise NetworkError("no convolution of this network can be computed in int8; accepted: dtype float32")
    return found
