"""BiAlignNet: sizes, the golden forward pass, switches, the warp, odd sizes and class counts."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global BiAlignNet, FlowAlignment, Outputs, Switches, Tensor, authors_state_dict, count_macs, nn
    global parameter_count, sampling_grid, torch, warp
    import torch
    from harness_semantic_segmentation.networks.bialignnet import (
        BiAlignNet,
        FlowAlignment,
        Switches,
        sampling_grid,
        warp,
    )
    from harness_semantic_segmentation.networks.checkpoints import authors_state_dict
    from harness_semantic_segmentation.networks.counting import count_macs, parameter_count
    from harness_semantic_segmentation.networks.layers import Outputs
    from torch import Tensor, nn


V1 = {"backbone": "dfnet_v1"}
SMALL = {"classes": 5, "width": 0.25}


def golden(model: BiAlignNet) -> BiAlignNet:
    """Weights that follow from the authors' key names alone, in evaluation mode."""
    for key, tensor in authors_state_dict(model).items():
        r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape))
        if key.endswith("num_batches_tracked"):
            value = np.zeros(())
        elif tensor.ndim == 4:
            value = r / np.sqrt(np.prod(tensor.shape[1:]))
        elif key.endswith("running_var"):
            value = np.exp(0.1 * r)
        elif key.endswith(("running_mean", "bias")):
            value = 0.1 * r
        else:
            value = 1 + 0.1 * r
        tensor.copy_(torch.as_tensor(value))
    return model.eval()


def golden_image(height: int = 128, width: int = 256) -> Tensor:
    return torch.as_tensor(np.random.RandomState(0).standard_normal((1, 3, height, width)))


def small(**switches: object) -> BiAlignNet:
    torch.manual_seed(0)
    return BiAlignNet(5, 0.25, Switches(**switches))  # type: ignore[arg-type]


def evaluated(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model.eval()(image)
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize(
    ("switches", "classes", "width", "parameters", "tensors", "trained"),
    [
        ({}, 19, 1, 18_986_762, 372, 195),
        (V1, 19, 1, 9_532_682, 240, 129),
        ({"heads": "none"}, 19, 1, 18_901_412, 360, 186),
        ({"gate": "none"}, 19, 1, 18_986_246, 368, 191),
        ({}, 11, 1, 18_852_090, 372, 195),
        (V1, 7, 0.25, 611_594, 240, 129),
    ],
)
def test_sizes(
    switches: dict[str, Any], classes: int, width: float, parameters: int, tensors: int, trained: int
) -> None:
    with torch.device("meta"):
        model = BiAlignNet(classes, width, Switches(**switches))
    assert parameter_count(model) == parameters
    assert len(model.state_dict()) == tensors
    assert len(list(model.parameters())) == trained


def test_inference_alone_and_buffers() -> None:
    with torch.device("meta"):
        one, two = BiAlignNet(switches=Switches(**V1)), BiAlignNet()
        assert parameter_count(BiAlignNet(switches=Switches(backbone="dfnet_v1", heads="none"))) == 9_447_332
    assert sum(buffer.numel() for buffer in two.buffers()) == 20_859
    assert sum(buffer.numel() for buffer in one.buffers()) == 12_133


def test_sizes_of_parts() -> None:
    with torch.device("meta"):
        model, one = BiAlignNet(), BiAlignNet(switches=Switches(**V1))
    parts = {
        "pyramid": 394_496,
        "spatial_path": 91_968,
        "align_context": 18_946,
        "align_spatial": 18_946,
        "head": 902_848,
        "edge_head": 78_016,
        "aux16": 4_883,
        "aux8": 2_451,
        "backbone": 17_474_208,
        "backbone.stem": 19_488,
        "backbone.stages.stage2_1": 152_192,
        "backbone.stages.stage2_2": 230_144,
        "backbone.stages.stage3_1": 2_970_880,
        "backbone.stages.stage3_2": 919_040,
        "backbone.stages.stage4_1": 4_788_736,
        "backbone.stages.stage4_2": 8_393_728,
    }
    assert {name: parameter_count(model.get_submodule(name)) for name in parts} == parts
    parts = {"backbone": 8_020_128, "stage2": 226_176, "stage3": 820_992, "stage4": 3_280_384, "stage5": 3_673_088}
    found = {name: parameter_count(one.backbone if name == "backbone" else one.backbone.stages[name]) for name in parts}
    assert found == parts


@pytest.mark.parametrize(
    ("switches", "height", "width", "macs"),
    [
        ({}, 1024, 2048, 115_909_197_824),
        ({}, 512, 1024, 28_979_757_056),
        (V1, 1024, 2048, 72_959_524_864),
        (V1, 512, 1024, 18_242_338_816),
        ({"heads": "none"}, 512, 1024, 28_979_757_056),
    ],
)
def test_macs(switches: dict[str, Any], height: int, width: int, macs: int) -> None:
    assert count_macs(lambda: BiAlignNet(switches=Switches(**switches)), height, width) == macs


@pytest.mark.parametrize(
    ("height", "width", "twice_v2", "twice_v1"), [(768, 1536, 130.401, 82.082), (720, 960, 76.809, 48.311)]
)
def test_twice_the_macs_is_what_torch_prints(height: int, width: int, twice_v2: float, twice_v1: float) -> None:
    assert 2 * count_macs(BiAlignNet, height, width) / 1e9 == pytest.approx(twice_v2, abs=6e-4)
    assert 2 * count_macs(lambda: BiAlignNet(switches=Switches(**V1)), height, width) / 1e9 == pytest.approx(
        twice_v1, abs=6e-4
    )


def test_stage_shapes_at_full_resolution() -> None:
    with torch.device("meta"):
        backbone = BiAlignNet().backbone
        x = backbone.stem(torch.empty(1, 3, 1024, 2048))
        shapes = [tuple(x.shape[1:])] + [tuple((x := stage(x)).shape[1:]) for stage in backbone.stages.values()]
    assert shapes == [
        (64, 256, 512),
        (64, 128, 256),
        (128, 128, 256),
        (128, 64, 128),
        (256, 64, 128),
        (256, 32, 64),
        (512, 32, 64),
    ]


def test_golden_forward_v2() -> None:
    model, image = golden(BiAlignNet().double()), golden_image()
    logits = evaluated(model, image)
    assert logits.shape == (1, 19, 128, 256)
    found = [logits.mean(), logits.std(), logits.min(), logits.max()]
    found += [logits[0, 0, 0, 0], logits[0, 3, 17, 40], logits[0, 18, 127, 255]]
    expected = [0.03063057, 0.72121071, -3.294222, 3.225141, -0.184826, 0.015570, -0.174408]
    assert [float(value) for value in found] == pytest.approx(expected, abs=1e-6)
    assert (evaluated(model.float(), image.float()).double() - logits).abs().max() < 1e-4


def test_golden_flow_v2() -> None:
    model, image = golden(BiAlignNet().double()), golden_image()
    with torch.no_grad():
        context, spatial = model.pyramid(model.backbone(image).f32), model.spatial_path(image)
        towards_context = model.align_context.flow(context, spatial, context)
        towards_spatial = model.align_spatial.flow(spatial, spatial, context)
    assert [float(towards_context.std()), float(towards_spatial.std())] == pytest.approx([0.1922, 0.2612], abs=5e-5)


def test_aligned_corners_change_the_golden_logits() -> None:
    image = golden_image()
    released = evaluated(golden(BiAlignNet().double()), image)
    aligned = evaluated(golden(BiAlignNet(switches=Switches(grid_align_corners=True)).double()), image)
    assert float((aligned - released).abs().max()) == pytest.approx(1.25, abs=5e-3)
    assert float((aligned - released).abs().mean()) == pytest.approx(0.12, abs=5e-3)


@pytest.mark.parametrize("backbone", ["dfnet_v1", "dfnet_v2"])
@pytest.mark.parametrize(("height", "width"), [(100, 180), (33, 47), (64, 64), (1, 1), (7, 130)])
def test_any_size(backbone: str, height: int, width: int) -> None:
    model = small(backbone=backbone)
    assert evaluated(model, torch.randn(1, 3, height, width)).shape == (1, 5, height, width)
    model.train()
    outputs = model(torch.randn(2, 3, height, width))
    assert isinstance(outputs, Outputs)
    assert [tuple(part.shape[1:]) for part in outputs if part is not None] == [
        (5, height, width),
        (1, height, width),
        (5, height, width),
        (5, height, width),
    ]


@pytest.mark.parametrize("classes", [2, 3, 19, 150])
def test_class_counts(classes: int) -> None:
    model = BiAlignNet(classes, 0.25)
    assert evaluated(model, torch.randn(1, 3, 40, 56)).shape == (1, classes, 40, 56)


def test_training_needs_two_images() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        small()(torch.randn(1, 3, 64, 64))


def test_without_heads_training_gives_logits_only() -> None:
    outputs = small(heads="none")(torch.randn(2, 3, 64, 64))
    assert isinstance(outputs, Outputs)
    assert outputs[1:] == (None, None, None)


def test_gradients_reach_every_parameter() -> None:
    model = small(gate="gated_conv")
    outputs = model(torch.randn(2, 3, 96, 64))
    torch.stack([part.square().mean() for part in outputs if part is not None]).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_gate_lies_between_zero_and_one() -> None:
    model = small()
    context, spatial = torch.randn(2, 32, 4, 6), torch.randn(2, 32, 16, 24)
    ungated = small(gate="none")
    ungated.align_context.load_state_dict(model.align_context.state_dict(), strict=False)
    flow = ungated.align_context.flow(context, spatial, context)
    ratio = model.align_context.flow(context, spatial, context) / flow
    assert bool(((ratio > 0) & (ratio < 1)).all())


def test_gate_convolution_has_five_biases() -> None:
    gate = small(gate="gated_conv").align_context.gate
    convolutions = [module for module in gate.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5
    assert all(conv.bias is not None for conv in convolutions)


def test_zero_flow_is_not_the_identity() -> None:
    """Column j reads j W_S / (W - 1) - 0.5 of the source; outside lie zeros."""
    width, columns = 9, 6
    source = torch.arange(1.0, columns + 1, dtype=torch.float64).expand(1, 1, 4, columns)
    flow = torch.zeros(1, 2, 5, width, dtype=torch.float64)
    out = warp(source, flow, sampling_grid(5, width, like=flow))[0, 0, 2]
    place = torch.arange(width, dtype=torch.float64) * columns / (width - 1) - 0.5
    padded = torch.cat([torch.zeros(1), torch.arange(1.0, columns + 1), torch.zeros(1)]).double()
    left = place.floor().long()
    share = place - left
    assert torch.allclose(out, padded[left + 1] * (1 - share) + padded[(left + 2).clamp(max=columns + 1)] * share)


def test_zero_flow_with_aligned_corners_is_the_identity() -> None:
    source = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    flow = torch.zeros(1, 2, 6, 8, dtype=torch.float64)
    assert torch.allclose(warp(source, flow, sampling_grid(6, 8, like=flow), align_corners=True), source)


def test_one_flow_unit_is_half_an_output_pixel() -> None:
    width = 12
    source = torch.arange(float(width), dtype=torch.float64).expand(1, 1, 4, width)
    flow = torch.zeros(1, 2, 4, width, dtype=torch.float64)
    grid = sampling_grid(4, width, like=flow)
    flow[:, 0] = 1
    moved = warp(source, flow, grid) - warp(source, torch.zeros_like(flow), grid)
    assert torch.allclose(moved[0, 0, 1:-1, 2:-2], torch.tensor(0.5, dtype=torch.float64))


def test_gradients_of_the_warp() -> None:
    torch.manual_seed(1)
    source = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = torch.randn(2, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    grid = sampling_grid(5, 7, like=flow)
    assert torch.autograd.gradcheck(lambda s, f: warp(s, f, grid), (source, flow))


@pytest.mark.parametrize("gate", ["simple", "none", "gated_conv"])
def test_gradients_of_the_alignment(gate: str) -> None:
    torch.manual_seed(2)
    module = FlowAlignment(2, 2, Switches(gate=gate)).double().eval()  # type: ignore[arg-type]
    context = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    spatial = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, d: module(c, d, c), (context, spatial))


def test_zero_flow_start() -> None:
    for gate in ("simple", "gated_conv"):
        module = small(gate=gate, flow_init="zero").align_context
        context, spatial = torch.randn(2, 32, 2, 3), torch.randn(2, 32, 8, 12)
        flow = module.flow(context, spatial, context)
        assert not flow.any()
        module(context, spatial, context).square().sum().backward()
        assert module.to_flow.weight.grad is not None
        assert bool(module.to_flow.weight.grad.any())


def outputs_of(**switches: object) -> Outputs:
    model = small(**switches)
    reference = small()
    model.load_state_dict(reference.state_dict(), strict=False)
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0
    torch.manual_seed(5)
    outputs = model(torch.randn(2, 3, 96, 160))
    assert isinstance(outputs, Outputs)
    return outputs


@pytest.mark.parametrize(
    ("switch", "value", "changed"),
    [
        ("edge_input", "spatial", {"edge"}),
        ("aux_resize", "single", {"aux8"}),
        ("grid_align_corners", True, {"logits", "edge"}),
        ("gate", "none", {"logits", "edge"}),
    ],
)
def test_a_switch_changes_what_it_should(switch: str, value: object, changed: set[str]) -> None:
    released, other = outputs_of()._asdict(), outputs_of(**{switch: value})._asdict()
    assert {name for name in released if not torch.equal(released[name], other[name])} == changed


def test_single_resize_is_close() -> None:
    with torch.no_grad():
        two, one = outputs_of().aux8, outputs_of(aux_resize="single").aux8
    assert two is not None
    assert one is not None
    assert 0 < float((two - one).abs().mean()) < 0.05 * float(two.abs().mean())


@pytest.mark.parametrize("switch", [{"gate": "simpel"}, {"backbone": "resnet"}, {"grid_align_corners": "no"}])
def test_unknown_switch_value(switch: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(switch))):
        Switches(**switch)  # type: ignore[arg-type]


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = BiAlignNet()
    assert model.edge_head is not None
    for conv in (model.head.conv_out, model.edge_head.conv_out, model.aux8, model.aux16):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        assert not conv.bias.any()
        assert float(conv.weight.detach().std()) == pytest.approx(conv.in_channels**-0.5, rel=0.05)  # a = 1, fan-in
    conv = model.head.conv.conv
    assert float(conv.weight.detach().std()) == pytest.approx((conv.in_channels * 9) ** -0.5, rel=0.05)
    assert bool(model.align_context.to_flow.weight.any())
