"""Parts that several networks share: resizing, conv-BN-ReLU, the residual block, pyramid pooling, sub-pixel head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Outputs(NamedTuple):
    """What a network returns in training mode; in evaluation mode it returns the logits alone.

    Attributes:
        logits: B x classes x H x W, at the size of the image.
        edge: B x 1 x H x W, probability that a pixel lies on an edge; None without an edge head.
        aux8: logits of the first auxiliary head, B x classes x H x W; None without auxiliary heads.
        aux16: logits of the second.
    """

    logits: Tensor
    edge: Tensor | None = None
    aux8: Tensor | None = None
    aux16: Tensor | None = None


def up(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of B x C x h x w to `size`, corners aligned."""
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of B x C x H x W."""
    return x.shape[-2], x.shape[-1]


def exact(x: Tensor) -> Tensor:
    """In float32 where it had half precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def scaled(channels: int, width: float) -> int:
    """A channel count times the width multiplier, at least 1."""
    return max(1, round(channels * width))


def kaiming(conv: nn.Conv2d) -> nn.Conv2d:
    """Kaiming normal with a = 1 and biases 0, as the released code does for heads and spatial path."""
    nn.init.kaiming_normal_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ConvBNReLU(nn.Module):
    """Square convolution without bias, padded to keep the lattice, then BN and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = kaiming(nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False))
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """B x channels x H x W to B x out x H/stride x W/stride."""
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; the shortcut is projected where stride or channels change."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """B x channels x H x W to B x out x H/stride x W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y.add_(shortcut))  # type: ignore[no-any-return]


class PyramidPooling(nn.Module):
    """Average pools of 1, 2, 3 and 6 bins a side, projected, resized, and concatenated before the input itself.

    A branch has BN and no ReLU. In training the batch holds at least two images: the BN of the 1 x 1 bin would see a
    single value a channel.
    """

    BINS = (1, 2, 3, 6)

    def __init__(self, channels: int, out: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
            for bins in self.BINS
        )
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels + len(self.BINS) * out, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x channels x H x W to B x out x H x W."""
        if self.training and x.shape[0] < 2:
            raise ValueError(
                "training needs a batch of at least 2 images: batch normalisation of the 1 x 1 pooling bin sees one "
                "value a channel otherwise"
            )
        pooled = [up(branch(x), size_of(x)) for branch in self.branches]
        return self.bottleneck(torch.cat([*pooled, x], dim=1))  # type: ignore[no-any-return]


class SubPixelHead(nn.Module):
    """Conv-BN-ReLU, then 8 x 8 sub-pixels of every output channel by a 1 x 1 convolution with bias (PixelShuffle)."""

    SCALE = 8

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(channels, hidden)
        self.conv_out = kaiming(nn.Conv2d(hidden, out * self.SCALE**2, 1))
        self.shuffle = nn.PixelShuffle(self.SCALE)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """B x channels x h x w to B x out x `size`; the resize is the identity where 8h x 8w is `size`."""
        return up(self.shuffle(self.conv_out(self.conv(x))), size)
