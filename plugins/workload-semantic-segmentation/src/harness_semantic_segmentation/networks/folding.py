"""Folds batch normalisation into the convolution before it, for inference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness_semantic_segmentation.networks.layers import ConvBNReLU, ResidualBlock


def fold(model: nn.Module) -> int:
    """Folds every batch normalisation that directly follows a convolution; changes the model in place.

    The model is in evaluation mode. Only networks of this package are known: pairs stand next to each other in a
    sequence, in a ConvBNReLU, or in a residual block. BN without a convolution before it stays.

    Returns:
        How many were folded.
    """
    if model.training:
        raise ValueError("only a model in evaluation mode can be folded: call eval() first")
    folded = 0
    for parent, conv, norm in list(_pairs(model)):
        setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm)))
        setattr(parent, norm, nn.Identity())
        folded += 1
    return folded


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parent, attribute of the convolution, attribute of the BN behind it."""
    for module in model.modules():
        if isinstance(module, ConvBNReLU):
            yield module, "conv", "bn"
        elif isinstance(module, ResidualBlock):
            yield module, "conv1", "bn1"
            yield module, "conv2", "bn2"
        elif isinstance(module, nn.Sequential):
            names = list(module._modules)  # noqa: SLF001 - torch offers no other way to a child's name
            for first, second in pairwise(names):
                if isinstance(module.get_submodule(first), nn.Conv2d) and isinstance(
                    module.get_submodule(second), nn.BatchNorm2d
                ):
                    yield module, first, second
