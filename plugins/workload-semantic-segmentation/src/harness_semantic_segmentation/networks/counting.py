"""What a network needs: parameters and multiply-accumulates, counted on meta tensors, and the memory of a pass.

Counting on meta tensors is instant, and no fused kernel hides any operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
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


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, those that several modules share once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in _tensors(model)}
    return sum(storages.values())


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes on the CPU at once of what a call allocates through PyTorch; what was there before is left out.

    Args:
        run: is called once, under the profiler, which slows it; call it before, so that what is cached exists.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    found = profiled.profiler.kineto_results.events()
    alive = most = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most
