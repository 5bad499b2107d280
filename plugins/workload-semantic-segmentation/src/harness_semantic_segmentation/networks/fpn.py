"""A feature pyramid network for segmentation, plain or with DDSM at its two finest merges.

Backbone to strides 4, 8, 16 and 32, pyramid pooling on top, merges 32->16, 16->8 and 8->4, all levels resized to
stride 4, concatenated, 3 x 3 and 1 x 1 convolution. The host is in the manner of SFNet, from whose code base DDSM's
authors start; the details are this project's reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from harness_semantic_segmentation.networks.ddsm import Combine, DynamicDualSampling, resized
from harness_semantic_segmentation.networks.layers import (
    ConvBNReLU,
    Outputs,
    PyramidPooling,
    ResidualBlock,
    kaiming,
    scaled,
    size_of,
)

FPNBackbone = Literal["resnet50", "resnet101", "resnet18", "tiny"]
TINY = (32, 64, 128, 256)


@dataclass(frozen=True)
class Sampling:
    """Options of DDSM where it stands in for upsample-and-add; see `DynamicDualSampling`."""

    pool: int = 8
    combine: Combine = "add"
    channel_scale: bool = False
    branches: Literal["both", "spatial", "channel"] = "both"
    embedding: Literal["sine", "learned"] = "sine"


class TinyBackbone(nn.Module):
    """Stem and four stages of one residual block each, for tests and two cores."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.channels = tuple(scaled(channels, width) for channels in TINY)
        first = self.channels[0]
        self.stem = nn.Sequential(ConvBNReLU(3, first, 3, 2), ConvBNReLU(first, first, 3, 2))
        ins = (first, *self.channels)
        self.stages = nn.ModuleList(
            ResidualBlock(ins[stage], out, 1 if stage == 0 else 2) for stage, out in enumerate(self.channels)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """B x 3 x H x W to features of strides 4, 8, 16, 32."""
        x = self.stem(image)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ResNet(nn.Module):
    """ResNet of transformers, random weights; its four stages lie at strides 4, 8, 16, 32."""

    def __init__(self, depth: Literal["18", "50", "101"]) -> None:
        super().__init__()
        from transformers import ResNetBackbone

        from harness_semantic_segmentation.networks.peers import resnet_config

        config = resnet_config(depth)
        self.channels: tuple[int, ...] = tuple(config.hidden_sizes)
        self.body = ResNetBackbone(config)

    def forward(self, image: Tensor) -> Sequence[Tensor]:
        """B x 3 x H x W to features of strides 4, 8, 16, 32."""
        return self.body(image).feature_maps  # type: ignore[no-any-return]


class UpsampleAndAdd(nn.Module):
    """The plain merge: x_l + resized x_h."""

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """B x C x H x W and B x C x h x w to B x C x H x W."""
        return low + resized(high, size_of(low))


class FPN(nn.Module):
    """Plain FPN (`sampling` None) or DDSM.

    Args:
        classes: number of classes.
        channels: of every level; a perfect square with DDSM's channel branch.
        backbone: `resnet50`, `resnet101`, `resnet18`, or `tiny`.
        width: multiplies the channels of the tiny backbone; those of a ResNet are fixed.
        sampling: DDSM in place of the merges 16->8 and 8->4.
    """

    def __init__(
        self,
        classes: int = 19,
        channels: int = 256,
        backbone: FPNBackbone = "resnet50",
        width: float = 1.0,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.backbone: TinyBackbone | ResNet
        if backbone == "tiny":
            self.backbone = TinyBackbone(width)
        else:
            if width != 1:
                raise ValueError(f"width {width} is for backbone tiny: the channels of {backbone} are fixed")
            self.backbone = ResNet(backbone.removeprefix("resnet"))  # type: ignore[arg-type]  # one of its depths
        self.pyramid = PyramidPooling(self.backbone.channels[-1], channels)
        self.laterals = nn.ModuleList(ConvBNReLU(level, channels, 1) for level in self.backbone.channels[:-1])
        self.merges = nn.ModuleList(
            UpsampleAndAdd() if sampling is None or stride == 16 else DynamicDualSampling(channels, **asdict(sampling))
            for stride in (4, 8, 16)
        )
        self.decoder = ConvBNReLU(4 * channels, channels)
        self.classifier = kaiming(nn.Conv2d(channels, classes, 1))

    def forward(self, image: Tensor) -> Tensor | Outputs:
        """B x 3 x H x W to logits B x classes x H x W; in training mode to `Outputs`."""
        *lower, top = self.backbone(image)
        levels = [self.pyramid(top)]
        for lateral, merge, feature in zip(self.laterals[::-1], self.merges[::-1], lower[::-1], strict=True):
            levels.append(merge(lateral(feature), levels[-1]))
        finest = size_of(levels[-1])
        joined = torch.cat([*(resized(level, finest) for level in levels[:-1]), levels[-1]], dim=1)
        logits = resized(self.classifier(self.decoder(joined)), size_of(image))
        return Outputs(logits) if self.training else logits
