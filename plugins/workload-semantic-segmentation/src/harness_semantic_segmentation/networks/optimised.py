"""Inference: the network as it was published, or the same function computed with less work.

The optimised path folds batch normalisation, keeps images and features channels-last, leaves out training heads,
caches sampling grids, projects before it enlarges, and writes the sub-pixel head's output strip by strip. Once it is
`specialised`, its 3 x 3 convolutions take the way that is fastest on this machine. Float32 logits move by less than
1e-4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, FlowAlignment, sampling_grid, warp
from harness_semantic_segmentation.networks.ddsm import SpatialSampling
from harness_semantic_segmentation.networks.folding import fold
from harness_semantic_segmentation.networks.int8 import Quantised, quantise
from harness_semantic_segmentation.networks.kernels import Convolutions, Setting, Timer, choose, measured
from harness_semantic_segmentation.networks.layers import SubPixelHead, size_of, up


@dataclass(frozen=True)
class InferenceOptions:
    """How a network is run.

    Attributes:
        faithful: as published, in plain eager mode; the options below then do nothing, but for `flip_average`.
        fold: batch normalisation into the convolution before it.
        channels_last: memory format of images, features and weights.
        compile: torch.compile, for the sizes that come; the first call of a size takes long.
        cuda_graphs: with `compile` on a CUDA device, replays what was compiled as one graph a size, so that no kernel
            waits for Python. Elsewhere without effect.
        dtype: bfloat16 is autocast: flow and sampling grids stay float32. int8 takes effect once the predictor is
            `quantised`. Judge both by classes, not by logits.
        flip_average: mean of the logits of the image and its mirror image, two passes an image.
        winograd: what `Predictor.specialised` may choose for 3 x 3 convolutions: `auto` the fastest way, `f2` or `f4`
            nothing but F(2,3) or F(4,3), `off` the direct way.
        winograd_bytes: what transformed weights may take beyond those that they replace, so that only the layers that
            gain most are transformed; None for as much as it takes.
    """

    faithful: bool = False
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    flip_average: bool = False
    winograd: Setting = "auto"
    winograd_bytes: int | None = None


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
        self._graph_shape: torch.Size | None = None
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        if not options.faithful:
            self.network = _rewritten(self.network)
            self.folded = fold(self.network) if options.fold else 0
            if options.channels_last:
                self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if options.compile:
                self.network.compile(dynamic=False, mode="reduce-overhead" if options.cuda_graphs else None)

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

    @torch.inference_mode()
    def specialised(self, image: Tensor, published: nn.Module, timer: Timer = measured) -> Convolutions:
        """Chooses how 3 x 3 convolutions are computed, for images of this size, and checks the logits of this one.

        Without it all go the direct way. It takes seconds, once: call it before anything is timed.

        Args:
            image: B x 3 x H x W, on the predictor's device.
            published: the network as it was handed in; its logits are what must not move.
            timer: times of a convolution's ways by its shape; pass one that keeps them.

        Returns:
            What was chosen and why.
        """
        setting = self.options.winograd
        reason = self._no_choice(image.device)
        if reason or setting == "off":
            return Convolutions(setting, reason)
        expected = Predictor(published, InferenceOptions(faithful=True))(image)
        plain = partial(self._both_ways, image.contiguous(memory_format=torch.channels_last), flip=False)
        return choose(self.network, plain, expected, setting, timer, self.options.winograd_bytes)

    @torch.inference_mode()
    def quantised(self, images: Sequence[Tensor], published: nn.Module) -> Quantised:
        """Computes convolutions in int8 from now on, in the ranges that these images bring; see `networks.int8`.

        Args:
            images: B x 3 x H x W each, on a CPU; like those to come, but not those that results are judged on.
            published: the network as it was handed in, whose classes are compared.

        Raises:
            NetworkError: this CPU or this network cannot.
        """

        def run() -> None:
            for image in images:
                self.network(image.contiguous(memory_format=torch.channels_last))

        found = quantise(self.network, run)
        before = Predictor(published, InferenceOptions(faithful=True))
        same = [(self.class_map(image) == before.class_map(image)).float().mean() for image in images]
        found.agreement = float(torch.stack(same).mean())
        return found

    def _no_choice(self, device: torch.device) -> str:
        """Why the direct way is the only one; empty where it is not."""
        options = self.options
        if options.faithful:
            return "run as published"
        if device.type != "cpu":
            return f"the libraries of {device.type} choose"
        if options.compile:
            return "the compiler chooses"
        if options.dtype != "float32":
            return f"convolutions in {options.dtype} are the library's"
        return "" if options.channels_last else "images and features are not channels-last"

    @torch.inference_mode()
    def class_map(self, image: Tensor) -> Tensor:
        """B x 3 x H x W to the likeliest classes, B x H x W, uint8, on the image's device.

        The optimised path on a CPU takes them from the logits strip by strip: no map of logits is ever written.
        """
        options = self.options
        if options.faithful or image.device.type != "cpu":
            logits: Tensor = self(image)
            return logits.argmax(dim=1).to(torch.uint8)
        if isinstance(self.network, Evaluation) and not (self._no_choice(image.device) or options.flip_average):
            found = self.network.class_map(image.contiguous(memory_format=torch.channels_last))
            if found is not None:
                return found
        return self(image).max(dim=1).indices.to(torch.uint8)  # type: ignore[no-any-return] # half the time of argmax

    def _both_ways(self, image: Tensor, *, flip: bool | None = None) -> Tensor:
        logits = self._logits(image)
        if self.options.flip_average if flip is None else flip:
            logits = (logits + self._logits(image.flip(-1)).flip(-1)) / 2
        return logits

    def _logits(self, image: Tensor) -> Tensor:
        options = self.options
        if not (options.compile and options.cuda_graphs) or options.faithful or image.device.type != "cuda":
            return self.network(image)  # type: ignore[no-any-return]
        if image.shape != self._graph_shape:
            self.network.forward(image)  # sampling grids are made here: memory of a graph is overwritten by its replay
            self._graph_shape = image.shape
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self.network(image).clone()  # type: ignore[no-any-return] # the next replay overwrites its outputs


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
        scale = self.head.SCALE
        batch, _, height, width = x.shape
        classes = self.head.conv_out.out_channels // scale**2
        out = _pages(batch, classes, height, scale, width, scale)
        for image, row, strip in self._strips(x):
            out[image, :, row].copy_(strip.view(width, classes, scale, scale).permute(1, 2, 0, 3))
        return out.view(batch, classes, height * scale, width * scale)

    def class_map(self, x: Tensor) -> Tensor:
        """B x C x h x w to the likeliest classes, B x 8h x 8w, uint8."""
        scale = self.head.SCALE
        x = self.head.conv(x)
        batch, _, height, width = x.shape
        out = torch.empty(batch, height, scale, width, scale, dtype=torch.uint8)
        for image, row, strip in self._strips(x):
            likeliest = strip.view(width, -1, scale**2).max(dim=1).indices
            out[image, row].copy_(likeliest.view(width, scale, scale).transpose(0, 1))
        return out.view(batch, height * scale, width * scale)

    def _strips(self, x: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Number of the image, row, and that row's sub-pixels, w x out; the last are overwritten by the next."""
        conv = self.head.conv_out
        weight, bias = conv.weight.flatten(1).t(), conv.bias
        strip = x.new_empty(x.shape[-1], conv.out_channels)
        rows = x.permute(0, 2, 3, 1)
        for image in range(rows.shape[0]):
            for row in range(rows.shape[1]):
                yield image, row, torch.addmm(bias, rows[image, row], weight, out=strip)  # type: ignore[arg-type]


def _pages(*shape: int) -> Tensor:
    """An empty float32 tensor, by numpy: it asks for huge pages, which cost a quarter of small ones to touch."""
    return torch.from_numpy(np.empty(shape, np.float32))


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

    def class_map(self, image: Tensor) -> Tensor | None:
        """B x 3 x H x W to B x H x W, uint8; None where logits have to be resized before they are compared."""
        scale = self.head.head.SCALE
        if any(side % scale for side in size_of(image)):
            return None
        return self.head.class_map(self.aligned(image))

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
