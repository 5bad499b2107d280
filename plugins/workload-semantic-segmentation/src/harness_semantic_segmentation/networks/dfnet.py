"""DFNet-v1 and -v2, the backbones of BiAlignNet, to stride 32."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from harness_semantic_segmentation.networks.layers import ResidualBlock, scaled

Backbone = Literal["dfnet_v2", "dfnet_v1"]


class Stage(NamedTuple):
    """`blocks` residual blocks of `channels`; the first one carries the stride."""

    name: str
    blocks: int
    channels: int
    stride: int


STEM = 64
STAGES: dict[Backbone, tuple[Stage, ...]] = {
    "dfnet_v2": (
        Stage("stage2_1", 2, 64, 2),
        Stage("stage2_2", 1, 128, 1),
        Stage("stage3_1", 10, 128, 2),
        Stage("stage3_2", 1, 256, 1),
        Stage("stage4_1", 4, 256, 2),
        Stage("stage4_2", 2, 512, 1),
    ),
    "dfnet_v1": (
        Stage("stage2", 3, 64, 2),
        Stage("stage3", 3, 128, 2),
        Stage("stage4", 3, 256, 2),
        Stage("stage5", 1, 512, 1),
    ),
}
TAPS: dict[Backbone, tuple[str, str, str]] = {
    "dfnet_v2": ("stage2_2", "stage3_2", "stage4_2"),
    "dfnet_v1": ("stage3", "stage4", "stage5"),
}
"""Stages whose outputs are used. Those of v1 are called f8 and f16 too and lie at strides 16 and 32."""


class Taps(NamedTuple):
    """Features for the auxiliary heads (128 and 256 channels) and for the context path (512 channels, stride 32)."""

    f8: Tensor
    f16: Tensor
    f32: Tensor


class DFNet(nn.Module):
    """A stem to stride 4 and stages of residual blocks."""

    def __init__(self, plan: Backbone = "dfnet_v2", width: float = 1.0) -> None:
        super().__init__()
        self.taps = TAPS[plan]
        half, channels = scaled(STEM // 2, width), scaled(STEM, width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, half, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleDict()
        for stage in STAGES[plan]:
            out = scaled(stage.channels, width)
            blocks = [ResidualBlock(channels, out, stage.stride)]
            blocks += [ResidualBlock(out, out) for _ in range(stage.blocks - 1)]
            self.stages[stage.name] = nn.Sequential(*blocks)
            channels = out

    def forward(self, image: Tensor) -> Taps:
        """B x 3 x H x W to the three taps."""
        x = self.stem(image)
        taps = []
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.taps:
                taps.append(x)
        return Taps(*taps)
