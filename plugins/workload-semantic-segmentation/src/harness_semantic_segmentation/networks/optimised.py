"""Inference: the network as it was published, or the same function computed with less work.

The optimised path folds batch normalisation, keeps images and features channels-last, leaves out training heads,
caches sampling grids, projects before it enlarges, and writes the sub-pixel head's output strip by strip. Float32
logits move by less than 1e-4.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, FlowAlignment, sampling_grid, warp
from harness_semantic_segmentation.networks.ddsm import SpatialSampling
from harness_semantic_segmentation.networks.folding import fold
from harness_semantic_segmentation.networks.layers import SubPixelHead, size_of, up


@dataclass(frozen=True)
class InferenceOptions:
    """How a network is run.

    Attributes:
        faithful: as published, in plain eager mode; the options below then do nothing, but for `flip_average`.
        fold: batch normalisation into the convolution before it.
        channels_last: memory format of images, features and weights.
        compile: torch.compile, for the sizes that come; the first call of a size takes long.
        dtype: bfloat16 is autocast: flow and sampling grids stay float32. Judge it by classes, not by logits.
        flip_average: mean of the logits of the image and its mirror image, two passes an image.
    """

    faithful: bool = False
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    flip_average: bool = False


class Predictor(nn.Module):
    """A network made ready for inference; the network handed in stays as it is.

    Args:
        network: takes B x 3 x H x W, returns logits B x classes x H x W in evaluation mode.
        options: how to run it.

    Attributes:
        folded: number of batch normalisations that were folded away.
    """

    def __init__(self, network: nn.Module, options: InferenceOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or InferenceOptions()
        self.folded = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        if not options.faithful:
            self.network = _rewritten(self.network)
            self.folded = fold(self.network) if options.fold else 0
            if options.channels_last:
                self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if options.compile:
                self.network.compile(dynamic=False)

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """B x 3 x H x W to logits B x classes x H x W."""
        if self.options.faithful:
            return self._both_ways(image)
        if self.options.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        half = self.options.dtype == "bfloat16"
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=half):
            return self._both_ways(image)

    def class_map(self, image: Tensor) -> Tensor:
        """B x 3 x H x W to the likeliest classes, B x H x W, uint8, on the image's device."""
        logits: Tensor = self(image)
        return logits.argmax(dim=1).to(torch.uint8)

    def _both_ways(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        if self.options.flip_average:
            logits = (logits + self.network(image.flip(-1)).flip(-1)) / 2
        return logits


class CachedGrid(nn.Module):
    """The sampling grid of the last size seen; not part of the state dict."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.empty(1, 0, 0, 2), persistent=False)

    def forward(self, flow: Tensor) -> Tensor:
        """B x 2 x H x W to 1 x H x W x 2."""
        grid = self.grid
        if grid.shape[1:3] != flow.shape[-2:] or grid.device != flow.device or grid.dtype != flow.dtype:
            self.grid = grid = sampling_grid(*size_of(flow), like=flow)
        return grid


class CachedAlignment(nn.Module):
    """A flow alignment that does not build its grid anew."""

    def __init__(self, alignment: FlowAlignment, grid: CachedGrid) -> None:
        super().__init__()
        self.alignment, self.grid = alignment, grid

    def forward(self, source: Tensor, spatial: Tensor, context: Tensor) -> Tensor:
        """As `FlowAlignment`."""
        flow = self.alignment.flow(source, spatial, context)
        return warp(source, flow, self.grid(flow), align_corners=self.alignment.align_corners)


class StripHead(nn.Module):
    """A sub-pixel head without a resize to the same size, and, on a CPU, without a whole map of sub-pixels.

    There every row of the feature map is projected and put where it belongs while it lies in the cache: neither the
    map before the shuffle nor its pages are touched. Accelerators and compilers do better with the whole map.
    """

    def __init__(self, head: SubPixelHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """As `SubPixelHead`."""
        x = self.head.conv(x)
        in_strips = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
        y = self.in_strips(x) if in_strips else self.head.shuffle(self.head.conv_out(x))
        return y if size_of(y) == size else up(y, size)

    def in_strips(self, x: Tensor) -> Tensor:
        """B x C x h x w to B x out x 8h x 8w."""
        conv, scale = self.head.conv_out, self.head.SCALE
        weight, bias = conv.weight.flatten(1), conv.bias
        batch, _, height, width = x.shape
        classes = conv.out_channels // scale**2
        out = x.new_empty(batch, classes, height, scale, width, scale)
        strip = x.new_empty(conv.out_channels, width)
        pixels = strip.view(classes, scale, scale, width).permute(0, 1, 3, 2)
        rows = x.permute(0, 2, 3, 1)
        for image in range(batch):
            for row in range(height):
                torch.addmm(bias[:, None], weight, rows[image, row].t(), out=strip)  # type: ignore[index]
                out[image, :, row].copy_(pixels)
        return out.view(batch, classes, height * scale, width * scale)


class Evaluation(nn.Module):
    """What BiAlignNet computes in evaluation mode, from its own parts; a feature map is freed when it has been used."""

    def __init__(self, network: BiAlignNet) -> None:
        super().__init__()
        grid = CachedGrid()
        self.backbone, self.pyramid, self.spatial_path = network.backbone, network.pyramid, network.spatial_path
        self.align_context = CachedAlignment(network.align_context, grid)
        self.align_spatial = CachedAlignment(network.align_spatial, grid)
        self.head = StripHead(network.head)

    def forward(self, image: Tensor) -> Tensor:
        """As `BiAlignNet` in evaluation mode."""
        return self.head(self.aligned(image), size_of(image))  # type: ignore[no-any-return]

    def aligned(self, image: Tensor) -> Tensor:
        """Both warped features, concatenated: B x 2C x H/8 x W/8."""
        context = self.pyramid(self.backbone(image).f32)
        spatial = self.spatial_path(image)
        parts = [self.align_context(context, spatial, context), self.align_spatial(spatial, spatial, context)]
        return torch.cat(parts, dim=1)


def _rewritten(network: nn.Module) -> nn.Module:
    """Puts equal and cheaper parts into a network of this package; other networks stay as they are."""
    for module in network.modules():
        if isinstance(module, SpatialSampling):
            module.project_first = True
    return Evaluation(network).eval() if isinstance(network, BiAlignNet) else network
