"""DDSM and the FPN it extends: laws of the two branches, sizes, gradients, odd sizes."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global ChannelSampling, DynamicDualSampling, FPN, Outputs, SAMPLES, Sampling, SpatialSampling, Tensor
    global affinities, attention, count_macs, functional, nn, parameter_count, sampled, sampling_places, torch
    import torch
    from harness_semantic_segmentation.networks.counting import count_macs, parameter_count
    from harness_semantic_segmentation.networks.ddsm import (
        SAMPLES,
        ChannelSampling,
        DynamicDualSampling,
        SpatialSampling,
        affinities,
        attention,
        sampled,
        sampling_places,
    )
    from harness_semantic_segmentation.networks.fpn import FPN, Sampling
    from harness_semantic_segmentation.networks.layers import Outputs
    from torch import Tensor, nn
    from torch.nn import functional


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize(("channels", "spatial", "channel"), [(64, 31_122, 22_802), (256, 370_194, 207_506)])
def test_sizes(channels: int, spatial: int, channel: int) -> None:
    with torch.device("meta"):
        assert parameter_count(SpatialSampling(channels)) == spatial
        assert parameter_count(ChannelSampling(channels)) == channel
        assert parameter_count(DynamicDualSampling(channels)) == spatial + channel


def pair() -> nn.Module:
    """The module on a low-level feature of the image's size and a high-level one of half of it."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = DynamicDualSampling(256)

        def forward(self, image: Tensor) -> Tensor:
            low = image[:, :1].expand(-1, 256, -1, -1)
            return self.module(low, low[..., ::2, ::2])

    return Pair()


@pytest.mark.parametrize(("height", "gmacs"), [(64, 3.04), (128, 12.11)])
def test_macs(height: int, gmacs: float) -> None:
    assert count_macs(pair, height, 2 * height) / 1e9 == pytest.approx(gmacs, abs=5e-3)


def test_affinities_sum_to_one() -> None:
    query, key = torch.randn(2, 8, 5, 7), torch.randn(2, 8, 5, 7)
    weights = affinities(query, key, sampling_places(torch.randn(2, 2 * SAMPLES, 5, 7)))
    assert weights.shape == (SAMPLES, 2, 5, 7)
    assert bool((weights > 0).all())
    assert torch.allclose(weights.sum(dim=0), torch.ones(2, 5, 7))


def window(x: Tensor) -> Tensor:
    """The nine neighbours, the border continued: B x C x 9 x H x W."""
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return functional.unfold(padded, 3).view(x.shape[0], x.shape[1], SAMPLES, *x.shape[2:])


def test_zero_offsets_equal_window_attention() -> None:
    query, key, value = torch.randn(2, 8, 6, 9), torch.randn(2, 8, 6, 9), torch.randn(2, 5, 6, 9)
    weights = torch.softmax((query[:, :, None] * window(key)).sum(dim=1), dim=1)
    expected = (weights[:, None] * window(value)).sum(dim=2)
    found = attention(query, key, value, torch.zeros(2, 2 * SAMPLES, 6, 9))
    assert float((found - expected).abs().max()) <= 3e-6


def test_zero_offsets_equal_window_attention_in_float64() -> None:
    query, key, value = (torch.randn(1, 4, 5, 6, dtype=torch.float64) for _ in range(3))
    weights = torch.softmax((query[:, :, None] * window(key)).sum(dim=1), dim=1)
    expected = (weights[:, None] * window(value)).sum(dim=2)
    found = attention(query, key, value, torch.zeros(1, 2 * SAMPLES, 5, 6, dtype=torch.float64))
    assert float((found - expected).abs().max()) <= 1e-12


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (-2, 1)])
def test_integer_offsets_equal_rolled_features(x: int, y: int) -> None:
    feature = torch.randn(1, 3, 9, 11, dtype=torch.float64)
    offsets = torch.zeros(1, SAMPLES, 2, 9, 11, dtype=torch.float64)
    offsets[:, :, 0], offsets[:, :, 1] = x, y
    places = sampling_places(offsets.flatten(1, 2))
    for sample in range(SAMPLES):
        moved = torch.roll(feature, (-(y + sample // 3 - 1), -(x + sample % 3 - 1)), (2, 3))
        assert torch.allclose(sampled(feature, places[sample])[..., 3:-3, 3:-3], moved[..., 3:-3, 3:-3])


def test_gradients_of_the_sampling() -> None:
    query, key, value = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    offsets = 0.3 * torch.rand(1, 2 * SAMPLES, 3, 4, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(attention, (query, key, value, offsets.requires_grad_()))


def test_gradients_of_both_branches() -> None:
    module = DynamicDualSampling(4, pool=2).double()
    for branch in (module.spatial, module.channel):
        assert branch is not None
        nn.init.normal_(branch.offsets.weight, std=0.1)
        nn.init.uniform_(branch.offsets.bias, 0.1, 0.3)
    low = torch.randn(1, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    high = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (low, high))


def test_gradients_reach_the_offset_convolutions() -> None:
    module = DynamicDualSampling(16)
    module(torch.randn(2, 16, 12, 10), torch.randn(2, 16, 6, 5)).square().sum().backward()
    for branch in (module.spatial, module.channel):
        assert branch is not None
        assert branch.offsets.weight.grad is not None
        assert bool(branch.offsets.weight.grad.any())


@pytest.mark.parametrize("axis", [2, 3])
def test_channel_branch_turns_with_its_inputs_at_the_start(axis: int) -> None:
    branch = ChannelSampling(16).double()
    low, high = torch.randn(1, 16, 11, 14, dtype=torch.float64), torch.randn(1, 16, 5, 7, dtype=torch.float64)
    assert torch.allclose(branch(low.flip(axis), high.flip(axis)), branch(low, high).flip(axis))


@pytest.mark.parametrize("channels", [128, 2, 65])
def test_no_square_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"{channels} is not a perfect square"):
        ChannelSampling(channels)


def test_spatial_branch_alone_takes_any_channels() -> None:
    module = DynamicDualSampling(10, branches="spatial")
    assert module(torch.randn(1, 10, 6, 6), torch.randn(1, 10, 3, 3)).shape == (1, 10, 6, 6)


def test_projecting_first_is_equal() -> None:
    branch = SpatialSampling(16).double()
    nn.init.normal_(branch.offsets.weight, std=0.1)
    low, high = torch.randn(2, 16, 9, 13, dtype=torch.float64), torch.randn(2, 16, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        plain = branch(low, high)
        branch.project_first = True
        assert float((branch(low, high) - plain).abs().max()) < 1e-12


def test_scaled_channel_branch_starts_at_nothing() -> None:
    module = DynamicDualSampling(16, channel_scale=True, branches="channel").eval()
    low, high = torch.randn(1, 16, 6, 8), torch.randn(1, 16, 3, 4)
    plain = low + functional.interpolate(high, size=(6, 8), mode="bilinear", align_corners=False)
    assert torch.equal(module(low, high), plain)


@pytest.mark.parametrize("sampling", [None, {}, {"combine": "concat", "embedding": "learned"}])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 67), (1, 1)])
def test_pyramid_takes_any_size(sampling: dict[str, Any] | None, height: int, width: int) -> None:
    model = FPN(5, 16, "tiny", 0.25, None if sampling is None else Sampling(**sampling))
    outputs = model(torch.randn(2, 3, height, width))
    assert isinstance(outputs, Outputs)
    assert outputs.logits.shape == (2, 5, height, width)
    assert model.eval()(torch.randn(1, 3, height, width)).shape == (1, 5, height, width)


@pytest.mark.parametrize(("backbone", "parameters"), [("18", 11_176_512), ("50", 23_508_032), ("101", 42_500_160)])
def test_sizes_of_backbones(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        model = FPN(backbone=f"resnet{backbone}")  # type: ignore[arg-type]
    assert parameter_count(model.backbone) == parameters


def test_ddsm_is_the_pyramid_and_two_modules() -> None:
    with torch.device("meta"):
        plain, dynamic = FPN(), FPN(sampling=Sampling())
    assert parameter_count(dynamic) - parameter_count(plain) == 2 * 577_700
