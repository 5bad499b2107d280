"""Joint transforms of image and labels, in the order of the released script, drawn from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness_semantic_segmentation.data.dataset import IGNORE, MEAN, STD, Bytes

Point = tuple[float, float]
"""Row and column in an image, in pixels."""
GREY = (0.299, 0.587, 0.114)
"""Luma of red, green, blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image; every default is what the released script does.

    Attributes:
        crop: height and width that the network sees; what lies outside the image is 0, its labels 255.
        scale: least and largest factor of the size; image bicubic, labels nearest.
        flip: probability of mirroring.
        jitter: of brightness, contrast, saturation (factors 1 - jitter to 1 + jitter) and hue (turns), in random order.
        blur: least and largest sigma of a Gaussian blur, in pixels; None for no blur.
    """

    crop: tuple[int, int] = (1024, 1024)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.25
    blur: tuple[float, float] | None = (0.15, 1.3)

    @classmethod
    def light(cls, crop: tuple[int, int]) -> Augmentation:
        """For small data and few steps: crop and flip alone."""
        return cls(crop, scale=(1.0, 1.0), jitter=0.0, blur=None)


def augment(
    image: Bytes, labels: Bytes, options: Augmentation, generator: np.random.Generator, point: Point | None = None
) -> tuple[Tensor, Tensor]:
    """One training example.

    Args:
        image: H x W x 3.
        labels: H x W.
        options: what is done.
        generator: of all random choices.
        point: the crop contains it.

    Returns:
        3 x h x w float32, normalised, and h x w int64.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1).float().div(255)
    truth = torch.from_numpy(labels)
    factor = float(generator.uniform(*options.scale))
    if factor != 1:
        pixels, truth = scaled(pixels, truth, factor)
    top, left = corner((truth.shape[-2], truth.shape[-1]), options.crop, point, factor, generator)
    pixels, truth = cropped(pixels, top, left, options.crop, 0), cropped(truth, top, left, options.crop, IGNORE)
    if generator.random() < options.flip:
        pixels, truth = pixels.flip(-1), truth.flip(-1)
    if options.jitter:
        pixels = jittered(pixels, options.jitter, generator)
    if options.blur is not None:
        pixels = blurred(pixels, float(generator.uniform(*options.blur)))
    return normalised(pixels), truth.long()


def normalised(pixels: Tensor) -> Tensor:
    """... x 3 x H x W with values from 0 to 1, shifted and scaled as the backbones were trained."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std


def network_input(image: Bytes) -> Tensor:
    """H x W x 3 to 3 x H x W float32, normalised and otherwise as it is."""
    return normalised(torch.from_numpy(image).permute(2, 0, 1).float().div(255))


def scaled(pixels: Tensor, labels: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Both resized by a factor: bicubic with the source's own filter width, and nearest."""
    size = [max(1, round(side * factor)) for side in labels.shape]
    image = functional.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return image, functional.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].to(labels.dtype)


def corner(
    size: tuple[int, int], crop: tuple[int, int], point: Point | None, factor: float, generator: np.random.Generator
) -> tuple[int, int]:
    """Upper left corner of a crop, drawn evenly among those inside the image that contain the point, if there is one.

    An image smaller than the crop is placed evenly in it, so that the corner may be negative.
    """
    found = []
    for side, wanted, at in zip(size, crop, point or (None, None), strict=True):
        first, last = min(0, side - wanted), max(0, side - wanted)
        if at is not None and side > wanted:
            pixel = min(side - 1, int(at * factor))
            first, last = max(first, pixel - wanted + 1), min(last, pixel)
        found.append(int(generator.integers(first, last + 1)))
    return found[0], found[1]


def cropped(pixels: Tensor, top: int, left: int, size: tuple[int, int], fill: int) -> Tensor:
    """... x H x W to ... x `size` from (top, left), which may lie outside; what does is `fill`."""
    height, width = pixels.shape[-2:]
    out = pixels.new_full((*pixels.shape[:-2], *size), fill)
    rows, columns = slice(max(0, top), min(height, top + size[0])), slice(max(0, left), min(width, left + size[1]))
    out[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels[
        ..., rows, columns
    ]
    return out


def jittered(pixels: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """3 x H x W with brightness, contrast, saturation and hue changed, in random order."""
    for kind in generator.permutation(4):
        factor = float(generator.uniform(1 - strength, 1 + strength))
        if kind == 0:
            pixels = pixels * factor
        elif kind == 1:
            pixels = torch.lerp(grey(pixels).mean(), pixels, factor)
        elif kind == 2:
            pixels = torch.lerp(grey(pixels), pixels, factor)
        else:
            pixels = hue_turned(pixels, factor - 1)
        pixels = pixels.clamp(0, 1)
    return pixels


def grey(pixels: Tensor) -> Tensor:
    """3 x H x W to its luma, 1 x H x W."""
    return (pixels * pixels.new_tensor(GREY)[:, None, None]).sum(dim=0, keepdim=True)


def hue_turned(pixels: Tensor, turns: float) -> Tensor:
    """3 x H x W with its hue moved by a share of the full circle; saturation and value (HSV) stay."""
    value, chroma = pixels.amax(dim=0), pixels.amax(dim=0) - pixels.amin(dim=0)
    red, green, blue = pixels
    width = chroma.clamp(min=1e-8)
    sector = torch.where(
        value == red,
        (green - blue) / width,
        torch.where(value == green, 2 + (blue - red) / width, 4 + (red - green) / width),
    )
    sector = sector + 6 * turns
    channels = [value - chroma * shape(sector, first) for first in (5, 3, 1)]
    return torch.stack(channels)


def shape(sector: Tensor, first: int) -> Tensor:
    """How much of the chroma a channel lacks at a hue given in sixths of the circle."""
    k = torch.remainder(sector + first, 6)
    return torch.minimum(k, 4 - k).clamp(0, 1)


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """3 x H x W under a Gaussian of `sigma` pixels, cut at 4 sigma; the border repeats."""
    reach = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=pixels.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = functional.pad(pixels[:, None], (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]
