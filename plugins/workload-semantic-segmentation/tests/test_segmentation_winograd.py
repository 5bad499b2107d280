"""F(2,3) and F(4,3) against the convolution, the choice between them, and what happens when they are not exact."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import harness_semantic_segmentation as plugin
import pytest

from harness.testing import RecordingWindow, trial_context


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global BiAlignNet, ConvShape, InferenceOptions, KeptTimes, Predictor, Switches, WinogradConv2d, Workspace
    global added_bytes, chosen, fits, kernels, measured, nn, restored, torch, transformed, ways, within
    import torch
    from harness_semantic_segmentation.networks import kernels
    from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, Switches
    from harness_semantic_segmentation.networks.kernels import ConvShape, added_bytes, chosen, measured, ways, within
    from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
    from harness_semantic_segmentation.networks.winograd import (
        WinogradConv2d,
        Workspace,
        fits,
        restored,
        transformed,
    )
    from harness_semantic_segmentation.workloads.kept_times import KeptTimes
    from torch import nn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


def convolution(channels: int = 5, out: int = 7, *, bias: bool = True) -> Any:
    return nn.Conv2d(channels, out, 3, padding=1, bias=bias).requires_grad_(requires_grad=False)


def equal_times(shape: Any) -> dict[str, float]:
    """A machine on which every way takes the same time."""
    return dict.fromkeys(ways(shape), 1.0)


def fast(*names: str) -> Any:
    """A machine on which only these ways are fast."""

    def timer(shape: Any) -> dict[str, float]:
        return {way: 0.1 + 0.01 * names.index(way[:2]) if way[:2] in names else 1.0 for way in ways(shape)}

    return timer


# ---- exactness


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 9), (8, 16), (13, 7), (17, 30), (3, 50)])
def test_equals_the_convolution(tile: Any, rows: int, size: tuple[int, int]) -> None:
    conv = convolution(bias=rows != 2)
    found = WinogradConv2d(conv, tile, rows)
    for batch in (3, 1):
        x = torch.randn(batch, 5, *size)
        for given in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().mT):
            torch.testing.assert_close(found(given), conv(given), atol=2e-5, rtol=0)


@pytest.mark.parametrize("tile", [2, 4])
def test_transformed_filters_are_exact_in_float64(tile: Any) -> None:
    """A filter of ones: the position at infinity takes its last tap, the one at 1 the sum of its taps, scaled."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False, dtype=torch.float64)
    side = tile + 2
    assert transformed(conv.weight, tile).shape == (side**2, 1, 1)
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    corners = transformed(ones, tile).view(side, side)
    assert float(corners[-1, -1]) == 1
    assert float(corners[1, 1]) == pytest.approx((3 / 2 if tile == 2 else -1 / 2) ** 2)


def test_shapes_that_share_buffers_do_not_leak_into_each_other() -> None:
    workspace = Workspace()
    convs = [convolution(5, 7), convolution(7, 3), convolution(3, 64)]
    found = [WinogradConv2d(conv, tile, 2, workspace) for conv, tile in zip(convs, (4, 2, 4), strict=True)]
    for size in ((20, 33), (6, 6), (40, 17), (6, 6)):
        x = expected = torch.randn(2, 5, *size)
        for conv, module in zip(convs, found, strict=True):
            expected, x = conv(expected), module(x)
        torch.testing.assert_close(x, expected, atol=2e-5, rtol=0)
    assert workspace.nbytes > 0


def test_memory_grows_with_the_strip_and_not_with_the_map() -> None:
    sizes = []
    for height in (16, 64, 256):
        workspace = Workspace()
        WinogradConv2d(convolution(), 4, 2, workspace)(torch.randn(1, 5, height, 32))
        sizes.append(workspace.nbytes)
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    "changes",
    [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 0}, {"padding_mode": "reflect"}, {"kernel_size": 5}],
)
def test_other_convolutions_do_not_fit(changes: dict[str, Any]) -> None:
    conv = nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, **changes})
    assert not fits(conv)
    with pytest.raises(ValueError, match="3 x 3"):
        WinogradConv2d(conv, 4, 1)


def test_other_number_types_go_the_direct_way() -> None:
    conv = convolution()
    found, x = WinogradConv2d(conv, 4, 1), torch.randn(1, 5, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found(x), conv(x))
    assert torch.equal(found.double()(x.double()), conv.double()(x.double()))


@pytest.mark.parametrize("tile", [2, 4])
def test_released_weights_are_computed_back(tile: Any) -> None:
    conv, x = convolution(), torch.randn(1, 5, 9, 9)
    found = WinogradConv2d(conv, tile, 1)
    before = found(x)
    weights = sum(each.nbytes for each in found.parameters())
    found.release()
    assert weights - sum(each.nbytes for each in found.parameters()) == conv.weight.nbytes
    assert torch.equal(found(x), before)
    torch.testing.assert_close(found.weight, conv.weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(restored(transformed(conv.weight.double(), tile), tile), conv.weight.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(found(x), conv(x), atol=2e-2, rtol=0)
    assert found.weight.shape == (7, 5, 3, 3)


# ---- the choice


def test_a_limit_of_memory_takes_the_layers_that_gain_most_for_it() -> None:
    large, small, slow = ConvShape(1, 64, 8, 8, 64), ConvShape(1, 8, 64, 64, 8), ConvShape(1, 8, 4, 4, 8)
    shapes = {"large": large, "small": small, "slow": slow}
    times = {
        large: {"direct": 1.0, "f2/1": 0.8, "f4/1": 0.5},
        small: {"direct": 1.0, "f2/1": 0.9, "f4/1": 0.6},
        slow: {"direct": 1.0, "f2/1": 2.0, "f4/1": 2.0},
    }

    def taken(limit: int | None, tiles: tuple[str, ...] = ("f2", "f4")) -> list[str]:
        found = within(shapes, times, tiles, limit, forced=False)
        assert limit is None or sum(added_bytes(shapes[name], way) for name, way in found.items()) <= limit
        return [found[name] for name in shapes]

    bytes_of = {name: added_bytes(shape, "f4/1") for name, shape in shapes.items()}
    assert bytes_of["small"] == 4 * 8 * 8 * (36 - 9)
    assert taken(None) == ["f4/1", "f4/1", "direct"]
    assert taken(sum(bytes_of.values())) == ["f4/1", "f4/1", "direct"]
    assert taken(0) == ["direct"] * 3
    assert taken(bytes_of["small"]) == ["direct", "f4/1", "direct"]
    with_f2 = bytes_of["small"] + added_bytes(large, "f2/1")
    assert taken(with_f2) == ["f2/1", "f4/1", "direct"], "what is too large for F(4,3) may take F(2,3)"
    assert taken(with_f2 - 1) == ["direct", "f4/1", "direct"]
    assert taken(with_f2, ()) == ["direct"] * 3


def test_ways_hold_strips_of_useful_sizes() -> None:
    found = ways(ConvShape(1, 256, 64, 128, 256))
    assert found[0] == "direct"
    assert {way[:2] for way in found[1:]} == {"f2", "f4"}
    assert ways(ConvShape(1, 1, 1, 1, 1)) == ["direct", "f2/1", "f4/1"]
    assert ways(ConvShape(1, 4096, 64, 4096, 4096)) == ["direct", "f2/1", "f4/1"]  # too large for any cache


def test_the_least_time_wins_if_it_gains_enough() -> None:
    seconds = {"direct": 1.0, "f2/1": 0.8, "f4/1": 0.97, "f4/2": 0.7}
    assert chosen(seconds, ("f2", "f4")) == "f4/2"
    assert chosen(seconds, ("f2",)) == "f2/1"
    assert chosen(seconds, ()) == "direct"
    assert chosen({**seconds, "direct": 0.71}, ("f2", "f4")) == "direct"
    assert chosen({**seconds, "direct": 0.1}, ("f2", "f4"), forced=True) == "f4/2"


def test_every_way_is_timed() -> None:
    shape = ConvShape(1, 3, 6, 6, 4)
    found = measured(shape)
    assert list(found) == ways(shape)
    assert all(took >= 0 for took in found.values())


def test_times_are_kept_and_taken_once(tmp_path: Path) -> None:
    shape, other, seen, told = ConvShape(1, 3, 6, 6, 4), ConvShape(1, 3, 6, 6, 8), [], []

    def timer(asked: Any) -> dict[str, float]:
        seen.append(asked)
        return dict.fromkeys(ways(asked), 1.5)

    def kept() -> Any:
        return KeptTimes(tmp_path, lambda message, _: told.append(message), timer)

    first = kept()
    assert first(shape) == first(shape) == kept()(shape) == dict.fromkeys(ways(shape), 1.5)
    assert (seen, first.measured, len(told)) == ([shape], [str(shape)], 1)
    kept()(other)
    assert kept()(shape)["direct"] == 1.5
    assert seen == [shape, other]
    content = json.loads(first.path.read_text())
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert set(content["seconds"]) == {str(shape), str(other)}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seconds": 3}', '{"seconds": {"1 x 3 x 6 x 6 to 4": {"direct": NaN}}}']
)
def test_a_file_that_holds_no_times_is_measured_anew(tmp_path: Path, content: str) -> None:
    kept = KeptTimes(tmp_path, lambda *_: None, equal_times)
    kept.path.parent.mkdir()
    kept.path.write_text(content)
    shape = ConvShape(1, 3, 6, 6, 4)
    assert kept(shape) == equal_times(shape)
    assert KeptTimes(tmp_path, lambda *_: None, fast("f4"))(shape) == equal_times(shape)


def test_a_cache_that_cannot_be_written_costs_a_timing_only(tmp_path: Path) -> None:
    (tmp_path / "segmentation").write_text("a file where the folder should be")
    shape = ConvShape(1, 3, 6, 6, 4)
    kept = KeptTimes(tmp_path, lambda *_: None, equal_times)
    assert kept(shape) == kept(shape) == equal_times(shape)
    assert kept.measured == [str(shape)] * 2


def test_other_threads_have_other_times(tmp_path: Path) -> None:
    before, paths = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            paths.add(KeptTimes(tmp_path, lambda *_: None).path)
    finally:
        torch.set_num_threads(before)
    assert len(paths) == 2


# ---- networks


def network() -> Any:
    return BiAlignNet(5, 0.25, Switches(backbone="dfnet_v1")).eval()


def specialised(model: Any, timer: Any, image: Any = None, **options: Any) -> Any:
    predictor = Predictor(model, InferenceOptions(**options))
    image = torch.randn(2, 3, 64, 96) if image is None else image
    return predictor, predictor.specialised(image, model, timer), image


def published(model: Any, image: Any) -> Any:
    return Predictor(model, InferenceOptions(faithful=True))(image)


@pytest.mark.parametrize("setting", ["auto", "f2", "f4"])
@pytest.mark.parametrize("other", [(64, 96), (51, 77)])
def test_a_network_keeps_its_logits(setting: str, other: tuple[int, int]) -> None:
    model = network()
    predictor, found, _ = specialised(model, fast("f4"), winograd=setting)
    tile = "f2" if setting == "f2" else "f4"
    assert found.facts()["counts"] == {tile: 20}  # 17 of the backbone, the head's, and two of flow
    assert found.reason == ""
    assert 0 < found.error <= 1e-4
    image = torch.randn(1, 3, *other)
    assert float((predictor(image) - published(model, image)).abs().max()) <= 1e-4
    assert torch.equal(predictor.class_map(image).long(), predictor(image).argmax(dim=1))


def test_auto_takes_nothing_that_does_not_gain() -> None:
    _, found, _ = specialised(network(), equal_times)
    assert found.facts()["counts"] == {"direct": 20}
    assert (found.weight_bytes, found.buffer_bytes, found.reason) == (0, 0, "")


def test_the_record_names_what_each_layer_uses() -> None:
    predictor, found, _ = specialised(network(), fast("f4", "f2"))
    facts = json.loads(json.dumps(found.facts()))
    modules = {name: module for name, module in predictor.network.named_modules() if isinstance(module, WinogradConv2d)}
    assert set(facts["layers"]) == set(facts["shapes"]) == set(modules)
    for name, module in modules.items():
        assert facts["layers"][name] == f"f{module.tile}/{module.strip_rows}"
        assert facts["layers"][name] in facts["milliseconds"][facts["shapes"][name]]
    assert facts["transformed_weight_bytes"] == 4 * sum(module.weight.nbytes for module in modules.values())
    assert facts["buffer_bytes"] > 0


def test_a_network_stays_within_its_limit_and_keeps_its_logits() -> None:
    from harness_semantic_segmentation.networks.counting import weight_bytes

    model = network()
    whole = {limit: specialised(model, fast("f4"), winograd_bytes=limit) for limit in (None, 300_000, 0)}
    direct = weight_bytes(whole[0][0])
    counts = {limit: found.facts()["counts"] for limit, (_, found, _) in whole.items()}
    assert counts[None] == {"f4": 20}
    assert counts[0] == {"direct": 20}
    assert 0 < counts[300_000]["f4"] < 20
    assert direct < weight_bytes(whole[300_000][0]) <= direct + 300_000 < weight_bytes(whole[None][0])
    predictor, found, image = whole[300_000]
    assert found.facts()["limit_bytes"] == 300_000
    assert float((predictor(image) - published(model, image)).abs().max()) <= 1e-4


def large_cancelling(model: Any) -> Any:
    """With features so large, and taken back by the next layer, that rounding of the six-point transform shows."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.head.conv.conv.weight.mul_(3e2)
        model.head.conv.bn.running_var.fill_(1)
    return model


@pytest.mark.parametrize(
    ("f4_error", "f2_error", "counts"),
    [(1e-3, 0.0, {"f2": 20}), (1e-3, 1e-3, {"direct": 20}), (float("nan"), 0.0, {"f2": 20})],
)
def test_falls_back_where_a_way_is_not_exact(
    f4_error: float, f2_error: float, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters of a tile are made wrong: only the comparison with the faithful logits can notice."""
    from harness_semantic_segmentation.networks import winograd

    right = winograd.transformed

    def wrong(weight: Any, tile: Any) -> Any:
        return right(weight, tile) * (1 + {4: f4_error, 2: f2_error}[tile])

    monkeypatch.setattr(winograd, "transformed", wrong)
    model = network()
    predictor, found, image = specialised(model, fast("f4", "f2"))
    assert found.facts()["counts"] == counts
    assert "f4: logits" in found.reason or "f2 and f4: logits" in found.reason
    assert found.error <= 1e-4
    assert float((predictor(image) - published(model, image)).abs().max()) <= 1e-4


def test_falls_back_for_weights_that_round_badly() -> None:
    model, image = large_cancelling(network()), torch.randn(1, 3, 64, 96)
    _, only_f4, _ = specialised(model, fast("f4"), image, winograd="f4")
    assert "f4: logits" in only_f4.reason
    assert "f4" not in only_f4.facts()["counts"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"faithful": True}, "published"),
        ({"compile": True}, "compiler"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"channels_last": False}, "channels-last"),
        ({"winograd": "off"}, ""),
    ],
)
def test_where_there_is_no_choice_the_record_says_why(options: dict[str, Any], says: str) -> None:
    def never(_: Any) -> dict[str, float]:
        raise AssertionError("nothing is timed")

    predictor, found, _ = specialised(network(), never, **options)
    assert says in found.reason
    assert bool(says) == bool(found.reason)
    assert not [module for module in predictor.modules() if isinstance(module, WinogradConv2d)]


@pytest.mark.gpu
@pytest.mark.parametrize("flip_average", [False, True])
def test_cuda_graphs_give_the_same_logits(flip_average: bool) -> None:
    """Logits of one call outlive the next, and another size in between does no harm."""
    model = network().cuda()
    options = InferenceOptions(compile=True, cuda_graphs=True, flip_average=flip_average)
    predictor, plain = Predictor(model, options), Predictor(model, InferenceOptions(flip_average=flip_average))
    images = [torch.randn(1, 3, height, 96, device="cuda") for height in (64, 96, 64, 64, 64)]
    found = [predictor(image) for image in images]
    for image, logits in zip(images, found, strict=True):
        torch.testing.assert_close(logits, plain(image), atol=1e-2, rtol=0)


def test_graphs_are_asked_for_with_compile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, **options: modes.append(options["mode"]))
    for options in ({"compile": True}, {"compile": True, "cuda_graphs": True}, {"cuda_graphs": True}):
        predictor = Predictor(network(), InferenceOptions(**options))
        assert predictor(torch.randn(1, 3, 64, 64)).shape == (1, 5, 64, 64)
    assert modes == [None, "reduce-overhead"]


def test_the_mirror_image_too() -> None:
    model = network()
    predictor, found, image = specialised(model, fast("f4"), flip_average=True)
    expected = (published(model, image) + published(model, image.flip(-1)).flip(-1)) / 2
    assert found.facts()["counts"] == {"f4": 20}
    torch.testing.assert_close(predictor(image), expected, atol=1e-4, rtol=0)


# ---- the workload


def test_trials_take_times_once_and_record_what_each_layer_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []

    def timer(shape: Any) -> dict[str, float]:
        timed.append(str(shape))
        return dict(fast("f4")(shape))

    from harness_backend_torch import TorchOptions
    from harness_backend_torch.backend import TorchBackend
    from harness_semantic_segmentation.workloads import inference

    monkeypatch.setattr(inference, "KeptTimes", lambda cache, tell: KeptTimes(cache, tell, timer))
    small = {"model": "bialignnet-dfnet1", "width": 0.125, "size": [32, 64], "images": 1, "pictures": 0}
    found = {each.name: each for each in plugin.harness_workloads()}["segmentation-inference"]
    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    records = []
    for options in ({}, {}, {"winograd": "off"}, {"winograd": "f2"}, {"faithful": True}, {"winograd_mib": 0}):
        workload = found.factory(found.options(**small, **options))
        workload.prepare(trial_context(tmp_path, backend=backend))
        before = list(timed)
        window = RecordingWindow()
        workload.step(window)
        assert timed == before  # nothing is timed inside of a window
        records.append(json.loads(json.dumps(workload.facts()["convolutions"])))
        workload.close()
    backend.close()
    assert len(timed) == len(set(timed)) > 0
    assert records[0] == records[1]
    assert [record["counts"] for record in records] == [{"f4": 20}, {"f4": 20}, {}, {"f2": 20}, {}, {"direct": 20}]
    assert records[0]["timed_on"]["threads"] == 1
    assert records[4]["reason"] == "run as published"
