"""DDSM, our reading of the figure (arXiv 2105.11657; no code was released): two branches of dynamic sampling.

For every pixel and every channel of the low-level feature x_l, a few points and channels of the higher one x_h are
sampled at learned places, weighted by affinity, and added to x_l. Every number here that the figure does not show (nine
samples, scale of the logits, size of the pools, what is added at the end) is this project's assumption.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness_semantic_segmentation.networks.layers import exact, size_of

SIDE = 3
SAMPLES = SIDE**2
"""Samples of a place, on a 3 x 3 stencil before the learned offsets."""
Combine = Literal["add", "concat"]


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of B x C x h x w to `size`, half-pixel centres."""
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def stencil(like: Tensor) -> Tensor:
    """SAMPLES x 2: x and y of the 3 x 3 neighbours, row by row, in pixels."""
    steps = torch.arange(SIDE, dtype=like.dtype, device=like.device) - SIDE // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(SAMPLES, 2)


def sampling_places(offsets: Tensor) -> Tensor:
    """Where every pixel looks, in the units of `grid_sample` with half-pixel centres.

    Args:
        offsets: B x 2 SAMPLES x H x W in pixels; x and y of the first sample, then of the second, and so on.

    Returns:
        SAMPLES x B x H x W x 2.
    """
    offsets = exact(offsets)
    batch, _, height, width = offsets.shape
    x = torch.arange(width, dtype=offsets.dtype, device=offsets.device)
    y = torch.arange(height, dtype=offsets.dtype, device=offsets.device)
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    moved = offsets.view(batch, SAMPLES, 2, height, width).permute(1, 0, 3, 4, 2)
    moved = pixels + stencil(offsets)[:, None, None, None] + moved
    return torch.stack([(2 * moved[..., 0] + 1) / width - 1, (2 * moved[..., 1] + 1) / height - 1], dim=-1)


def sampled(feature: Tensor, places: Tensor) -> Tensor:
    """B x C x H x W of a feature at one sample's places, B x H x W x 2; bilinear, the border is continued."""
    return functional.grid_sample(
        feature.to(places.dtype), places, mode="bilinear", padding_mode="border", align_corners=False
    ).to(feature.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Weights sampled values by the softmax of query times sampled key, one sample after the other.

    One sampled feature at a time bounds the memory: all nine together would take nine features.

    Args:
        query: B x C x H x W, scaled already.
        key: B x C x H x W.
        value: B x V x H x W.
        offsets: B x 2 SAMPLES x H x W, in pixels.

    Returns:
        B x V x H x W.
    """
    places = sampling_places(offsets)
    affinity = affinities(query, key, places)
    out = torch.zeros_like(value)
    for sample in range(SAMPLES):
        out = out + affinity[sample, :, None] * sampled(value, places[sample])
    return out


def affinities(query: Tensor, key: Tensor, places: Tensor) -> Tensor:
    """SAMPLES x B x H x W, positive, with sum 1 over the samples."""
    logits = [(query * sampled(key, places[sample])).sum(dim=1) for sample in range(SAMPLES)]
    return torch.softmax(torch.stack(logits), dim=0)


def sine_embedding(channels: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """Fixed 1 x channels x H x W: sines and cosines of the row, then of the column, as shares of height and width.

    Shares, not pixels, so that low and high level agree on where a place lies, whatever their strides.
    """
    pairs = math.ceil(channels / 4)
    speeds = 10_000 ** -(torch.arange(pairs, dtype=like.dtype, device=like.device) / pairs)
    parts = []
    for axis, extent in enumerate(size):
        place = (torch.arange(extent, dtype=like.dtype, device=like.device) + 0.5) / extent * 2 * math.pi
        angle = speeds[:, None] * place
        waves = torch.stack([angle.sin(), angle.cos()], dim=1).flatten(0, 1)
        waves = waves[:, :, None] if axis == 0 else waves[:, None]
        parts.append(waves.expand(-1, *size))
    return torch.cat(parts)[:channels][None]


class LearnedEmbedding(nn.Module):
    """Learned places on a lattice of 16 x 16, resized to the feature's size; zero at the start."""

    LATTICE = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lattice = nn.Parameter(torch.zeros(1, channels, self.LATTICE, self.LATTICE))

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, the place added."""
        return x + resized(self.lattice, size_of(x))


class SineEmbedding(nn.Module):
    """Fixed places of `sine_embedding`."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, the place added."""
        return x + sine_embedding(x.shape[1], size_of(x), x)


def offset_convolution(channels: int) -> nn.Conv2d:
    """Predicts offsets of all samples, in pixels; all zero at the start."""
    conv = nn.Conv2d(channels, 2 * SAMPLES, 3, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has one
    return conv


class SpatialSampling(nn.Module):
    """Spatial branch: every pixel of x_l gathers from nine places of x_h.

    Args:
        channels: of both features.
        embedding: `sine` (fixed) or `learned`.

    Attributes:
        project_first: project x_h before it is resized; equal, as both are linear and the weights of a bilinear resize
            sum to 1, and cheaper, as x_h is smaller.
    """

    def __init__(self, channels: int, embedding: Literal["sine", "learned"] = "sine") -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(2 * channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.offsets = offset_convolution(channels)
        self.out = nn.Conv2d(channels, channels, 1)
        self.place_low = LearnedEmbedding(channels) if embedding == "learned" else SineEmbedding()
        self.place_high = LearnedEmbedding(channels) if embedding == "learned" else SineEmbedding()
        self.project_first = False

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """B x C x H x W and B x C x h x w to B x C x H x W."""
        low, high = self.place_low(low), self.place_high(high)
        key, value = self.keys_and_values(low, high)
        query = self.query(low) / math.sqrt(low.shape[1])
        return self.out(attention(query, key, value, self.offsets(key)))  # type: ignore[no-any-return]

    def keys_and_values(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Both B x C x H x W, from features with their places added."""
        size, channels = size_of(low), low.shape[1]
        if not self.project_first:
            high = resized(high, size)
            return self.key(torch.cat([low, high], dim=1)), self.value(high)
        of_low, of_high = self.key.weight[:, :channels], self.key.weight[:, channels:]
        key = functional.conv2d(low, of_low, self.key.bias) + resized(functional.conv2d(high, of_high), size)
        return key, resized(self.value(high), size)


class ChannelSampling(nn.Module):
    """Channel branch: every channel of x_l gathers from nine channels of x_h.

    Channels are cells of a square grid here, so their number is a perfect square.

    Args:
        channels: of both features.
        pool: a; features are pooled to a x a for query and key.
    """

    def __init__(self, channels: int, pool: int = 8) -> None:
        super().__init__()
        self.side, self.pool = math.isqrt(channels), pool
        if self.side**2 != channels:
            raise ValueError(
                f"the channel branch arranges channels on a square grid: {channels} is not a perfect square; "
                f"{self.side**2} and {(self.side + 1) ** 2} are"
            )
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(2 * channels, channels, 1)
        self.offsets = offset_convolution(pool**2)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """B x C x H x W and B x C x h x w to B x C x H x W."""
        pooled_low = functional.adaptive_avg_pool2d(low, self.pool)
        pooled_high = functional.adaptive_avg_pool2d(high, self.pool)
        query = self.as_grid(self.query(pooled_low)) / self.pool
        key = self.as_grid(self.key(torch.cat([pooled_low, pooled_high], dim=1)))
        height, width = (math.ceil(extent / 2) for extent in size_of(high))
        value = functional.adaptive_avg_pool2d(high, (height, width))
        gathered = attention(query, key, self.as_grid(value), self.offsets(key))
        return resized(gathered.flatten(2).transpose(1, 2).reshape(low.shape[0], -1, height, width), size_of(low))

    def as_grid(self, x: Tensor) -> Tensor:
        """B x C x h x w to B x hw x side x side: channels become cells."""
        return x.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, self.side, self.side)


class DynamicDualSampling(nn.Module):
    """Joins a low-level and a high-level feature: x_l + resized x_h + spatial branch + channel branch.

    Args:
        channels: of both features; a perfect square with the channel branch.
        pool: of the channel branch.
        combine: `add`, or `concat`: a 1 x 1 convolution of the four parts.
        channel_scale: BN and a scale that starts at zero on the channel branch, which otherwise slows early learning.
        branches: which of the two are built.
        embedding: of places, in the spatial branch.
    """

    def __init__(
        self,
        channels: int,
        pool: int = 8,
        *,
        combine: Combine = "add",
        channel_scale: bool = False,
        branches: Literal["both", "spatial", "channel"] = "both",
        embedding: Literal["sine", "learned"] = "sine",
    ) -> None:
        super().__init__()
        self.spatial = SpatialSampling(channels, embedding) if branches != "channel" else None
        self.channel = ChannelSampling(channels, pool) if branches != "spatial" else None
        self.norm = nn.BatchNorm2d(channels) if channel_scale and self.channel is not None else None
        if self.norm is not None:
            nn.init.zeros_(self.norm.weight)
        parts = 2 + (self.spatial is not None) + (self.channel is not None)
        self.mix = nn.Conv2d(parts * channels, channels, 1) if combine == "concat" else None

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """B x C x H x W and B x C x h x w to B x C x H x W."""
        parts = [low, resized(high, size_of(low))]
        if self.spatial is not None:
            parts.append(self.spatial(low, high))
        if self.channel is not None:
            channel = self.channel(low, high)
            parts.append(channel if self.norm is None else self.norm(channel))
        if self.mix is not None:
            return self.mix(torch.cat(parts, dim=1))  # type: ignore[no-any-return]
        return torch.stack(parts).sum(dim=0)
