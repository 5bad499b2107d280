"""BiAlignNet, after the released code (arXiv 2105.11651): two paths, aligned to each other by gated flow.

The image takes a context path (DFNet to stride 32, then pyramid pooling: C) and a spatial path (four convolutions to
stride 8: D). Two gated flow alignment modules warp C and D onto the lattice of D. The warped features are concatenated
and decoded by sub-pixels. For training there are two auxiliary heads on the backbone, and an edge head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness_semantic_segmentation.networks.dfnet import Backbone, DFNet
from harness_semantic_segmentation.networks.layers import (
    ConvBNReLU,
    Outputs,
    PyramidPooling,
    SubPixelHead,
    exact,
    kaiming,
    scaled,
    size_of,
    up,
)

Gate = Literal["simple", "none", "gated_conv"]


@dataclass(frozen=True)
class Switches:
    """What of the released code may be changed; every default is what the released code does.

    Attributes:
        backbone: DFNet-v2 or -v1.
        gate: of the flow: `simple` sees the warped feature only; `gated_conv` is in the code, but no such model was
            released.
        heads: whether the edge head and the auxiliary heads, for training only, are built.
        grid_align_corners: how the warp reads its grid. The released code builds a grid for True and samples with
            False, as its call names neither; so zero flow is not the identity.
        edge_input: the edge head reads the warped spatial feature; in the paper's figure, the one before the warp.
        aux_resize: auxiliary logits are enlarged 16 times and then resized; `single` saves memory and is close, not
            equal.
        flow_init: `zero` starts from the bare grid.
    """

    backbone: Backbone = "dfnet_v2"
    gate: Gate = "simple"
    heads: Literal["edge_and_auxiliary", "none"] = "edge_and_auxiliary"
    grid_align_corners: bool = False
    edge_input: Literal["warped_spatial", "spatial"] = "warped_spatial"
    aux_resize: Literal["two_step", "single"] = "two_step"
    flow_init: Literal["default", "zero"] = "default"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, accepted = getattr(self, field.name), get_args(hints[field.name]) or (False, True)
            if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in accepted):
                raise ValueError(f"{field.name} is one of {', '.join(map(str, accepted))}, not {value!r}")


def sampling_grid(height: int, width: int, like: Tensor) -> Tensor:
    """1 x height x width x 2: x and y of every point, from -1 to 1, both ends on the outermost points."""
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


def warp(source: Tensor, flow: Tensor, grid: Tensor, *, align_corners: bool = False) -> Tensor:
    """Samples `source` where the flow points to; bilinear, zeros outside.

    Args:
        source: B x C x h x w.
        flow: B x 2 x H x W, x before y; with `align_corners` False one unit moves the sample by half an output pixel.
        grid: of `sampling_grid(H, W)`.
        align_corners: how -1 and 1 are read: centres of the outermost pixels (True) or their outer edges (False).

    Returns:
        B x C x H x W.
    """
    height, width = size_of(flow)
    moved = grid + torch.stack([flow[:, 0] / width, flow[:, 1] / height], dim=-1)
    return functional.grid_sample(source.to(moved.dtype), moved, align_corners=align_corners).to(source.dtype)


class SimpleGate(nn.Module):
    """Weighs both components of the flow by what the warped feature shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)

    def forward(self, flow: Tensor, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:  # noqa: ARG002
        """The flow, times a gate in (0, 1) a component."""
        return flow * up(torch.sigmoid(exact(self.conv(source))), size_of(flow))


class OpenGate(nn.Module):
    """Leaves the flow as it is."""

    def forward(self, flow: Tensor, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:  # noqa: ARG002
        """The flow."""
        return flow


class ConvolutionGate(nn.Module):
    """Weighs the flow by both features, low level first, and mixes its components; every convolution has a bias."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(channels, hidden, 1)
        self.high = nn.Conv2d(channels, hidden, 1)
        self.weigh = nn.Sequential(
            nn.BatchNorm2d(2 * hidden),
            nn.Conv2d(2 * hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        self.mix = nn.Conv2d(2, 2, 1)

    def forward(self, flow: Tensor, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:  # noqa: ARG002
        """The flow times 1 + alpha, mixed."""
        both = torch.cat([self.low(spatial), up(self.high(context), size_of(spatial))], dim=1)
        return exact(self.mix(flow * (1 + self.weigh(both))))


class FlowAlignment(nn.Module):
    """Gated flow alignment module (GFAM): warps one of the two features onto the lattice of the spatial one.

    The features' names say what they are; the released code names its two modules the other way round.
    """

    def __init__(self, channels: int, hidden: int, switches: Switches) -> None:
        super().__init__()
        self.align_corners = switches.grid_align_corners
        self.project_context = nn.Conv2d(channels, hidden, 1, bias=False)
        self.project_spatial = nn.Conv2d(channels, hidden, 1, bias=False)
        self.to_flow = nn.Conv2d(2 * hidden, 2, 3, padding=1, bias=False)
        self.gate: SimpleGate | OpenGate | ConvolutionGate
        if switches.gate == "simple":
            self.gate = SimpleGate(channels)
        elif switches.gate == "gated_conv":
            self.gate = ConvolutionGate(channels, hidden)
        else:
            self.gate = OpenGate()
        if switches.flow_init == "zero":
            nn.init.zeros_(self.to_flow.weight)
            if isinstance(self.gate, ConvolutionGate) and self.gate.mix.bias is not None:
                nn.init.zeros_(self.gate.mix.bias)

    def flow(self, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:
        """B x 2 x H x W, gated: where every point of the spatial lattice looks, in units of `warp`.

        At least float32 under autocast: near 1, bfloat16 has a spacing of half a pixel at a width of 256.
        """
        high = up(self.project_context(context), size_of(spatial))
        flow = exact(self.to_flow(torch.cat([high, self.project_spatial(spatial)], dim=1)))
        return self.gate(flow, source, spatial, context)  # type: ignore[no-any-return]

    def forward(self, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:
        """B x C x h x w (one of the other two) to B x C x H x W of the spatial lattice."""
        flow = self.flow(source, spatial, context)
        return warp(source, flow, sampling_grid(*size_of(flow), like=flow), align_corners=self.align_corners)


class SpatialPath(nn.Sequential):
    """Four convolutions from the image to stride 8."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(3, hidden, 7, 2)
        self.conv2 = ConvBNReLU(hidden, hidden, 3, 2)
        self.conv3 = ConvBNReLU(hidden, hidden, 3, 2)
        self.conv_out = ConvBNReLU(hidden, out, 1)


class BiAlignNet(nn.Module):
    """Two paths, two alignments, one sub-pixel head.

    Args:
        classes: number of classes, at least 2.
        width: multiplies every channel count but classes and the 64 sub-pixels.
        switches: what differs from the released code.
    """

    def __init__(self, classes: int = 19, width: float = 1.0, switches: Switches | None = None) -> None:
        super().__init__()
        self.switches = switches = switches or Switches()
        half, channels = scaled(64, width), scaled(128, width)
        self.backbone = DFNet(switches.backbone, width)
        self.pyramid = PyramidPooling(scaled(512, width), channels)
        self.spatial_path = SpatialPath(half, channels)
        self.head = SubPixelHead(2 * channels, scaled(256, width), classes)
        self.edge_head: SubPixelHead | None = None
        self.aux8: nn.Conv2d | None = None
        self.aux16: nn.Conv2d | None = None
        if switches.heads != "none":
            self.edge_head = SubPixelHead(channels, half, 1)
            self.aux8 = kaiming(nn.Conv2d(scaled(128, width), classes, 1))
            self.aux16 = kaiming(nn.Conv2d(scaled(256, width), classes, 1))
        self.align_context = FlowAlignment(channels, half, switches)
        self.align_spatial = FlowAlignment(channels, half, switches)

    def forward(self, image: Tensor) -> Tensor | Outputs:
        """B x 3 x H x W to logits B x classes x H x W; in training mode to `Outputs`."""
        size = size_of(image)
        taps = self.backbone(image)
        context = self.pyramid(taps.f32)
        spatial = self.spatial_path(image)
        warped_context = self.align_context(context, spatial, context)
        warped_spatial = self.align_spatial(spatial, spatial, context)
        logits = self.head(torch.cat([warped_context, warped_spatial], dim=1), size)
        if not self.training:
            return logits  # type: ignore[no-any-return]
        if self.edge_head is None or self.aux8 is None or self.aux16 is None:
            return Outputs(logits)
        edge_input = warped_spatial if self.switches.edge_input == "warped_spatial" else spatial
        return Outputs(
            logits,
            edge=torch.sigmoid(self.edge_head(edge_input, size)),
            aux8=self._enlarged(self.aux8(taps.f8), size),
            aux16=self._enlarged(self.aux16(taps.f16), size),
        )

    def _enlarged(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        if self.switches.aux_resize == "two_step":
            height, width = size_of(logits)
            logits = up(logits, (16 * height, 16 * width))
        return up(logits, size)
