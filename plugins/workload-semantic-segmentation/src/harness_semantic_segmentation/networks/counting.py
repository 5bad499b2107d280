"""Parameters and multiply-accumulates of a network, counted on meta tensors: instant, and no fused kernel hides any."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(model: nn.Module) -> int:
    """Trainable values; buffers are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(build: Callable[[], nn.Module], height: int, width: int) -> int:
    """MACs of an evaluation at batch 1: convolutions and matrix products.

    BN, resizing, pooling, softmax and grid sampling are not counted (under 1 % of BiAlignNet). Papers of this field
    mostly call MACs "GFLOPs"; an operation count that tells multiplication from addition is 2 x MAC.

    Args:
        build: makes the network; it is called where tensors have no memory.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    with torch.device("meta"), torch.no_grad():
        model = build().eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, height, width))
    return int(counter.get_total_flops()) // 2
