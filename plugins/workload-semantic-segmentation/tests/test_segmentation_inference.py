"""The optimised path, peers and the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness_semantic_segmentation.networks.errors import NetworkError, WeightsError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global BiAlignNet, CATALOGUE, CONFIGURATIONS, FPN, InferenceOptions, Outputs, Peer, Predictor, Sampling
    global Switches, build_model, count_macs, fold, nn, parameter_count, peer, pretrained, torch, variant
    import torch
    from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, Switches
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE, build_model, variant
    from harness_semantic_segmentation.networks.counting import count_macs, parameter_count
    from harness_semantic_segmentation.networks.folding import fold
    from harness_semantic_segmentation.networks.fpn import FPN, Sampling
    from harness_semantic_segmentation.networks.layers import Outputs
    from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
    from harness_semantic_segmentation.networks.peers import CONFIGURATIONS, Peer, peer, pretrained
    from torch import nn


V1 = {"backbone": "dfnet_v1"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


NETWORKS = {
    "v1": lambda: BiAlignNet(5, 0.25, Switches(**V1)),
    "v2": lambda: BiAlignNet(5, 0.25),
    "gated_conv": lambda: BiAlignNet(5, 0.25, Switches(gate="gated_conv", grid_align_corners=True)),
    "no gate, no heads": lambda: BiAlignNet(5, 0.25, Switches(gate="none", heads="none")),
    "fpn": lambda: FPN(5, 16, "tiny", 0.5),
    "ddsm": lambda: FPN(5, 16, "tiny", 0.5, Sampling()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(64, 128), (51, 77)])
def test_optimised_equals_faithful(name: str, height: int, width: int, lived: Any) -> None:
    model = lived(NETWORKS[name]())
    faithful, optimised = Predictor(model, InferenceOptions(faithful=True)), Predictor(model)
    for size in ((height, width), (height + 8, width), (height, width)):  # the cached grid follows the size
        image = torch.randn(2, 3, *size)
        expected, found = faithful(image), optimised(image)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= 1e-4


def test_folding_takes_all_58_of_v2() -> None:
    assert Predictor(BiAlignNet(), InferenceOptions(channels_last=False)).folded == 58


def test_the_norm_before_its_convolution_stays() -> None:
    model = NETWORKS["gated_conv"]()
    predictor = Predictor(model)
    left = [module.num_features for module in predictor.modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == [32, 32]  # 128 x 0.25, once an alignment; the BN of one channel follows its convolution


def test_folding_needs_evaluation_mode() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        fold(NETWORKS["v1"]())


def test_the_network_handed_in_stays_as_it_is() -> None:
    model = NETWORKS["v1"]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Predictor(model)(torch.randn(1, 3, 64, 64))
    assert model.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_cached_grids_are_no_state() -> None:
    predictor = Predictor(NETWORKS["v1"](), InferenceOptions(fold=False))
    assert not [key for key in predictor.state_dict() if "grid" in key]


def test_flip_average_is_the_mean_of_logits(lived: Any) -> None:
    model, image = lived(NETWORKS["v1"]()), torch.randn(1, 3, 64, 96)
    plain = Predictor(model, InferenceOptions(faithful=True))
    averaged = Predictor(model, InferenceOptions(faithful=True, flip_average=True))
    assert torch.allclose(averaged(image), (plain(image) + plain(image.flip(-1)).flip(-1)) / 2)
    assert torch.allclose(averaged(image), averaged(image.flip(-1)).flip(-1), atol=1e-6)


def test_class_map() -> None:
    predictor, image = Predictor(NETWORKS["v1"]()), torch.randn(2, 3, 40, 56)
    found = predictor.class_map(image)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), predictor(image).argmax(dim=1))


@pytest.mark.parametrize("name", ["v1", "ddsm"])
def test_bfloat16_agrees_on_classes(name: str, lived: Any) -> None:
    model, image = lived(NETWORKS[name]()), torch.randn(1, 3, 64, 128)
    exact = Predictor(model, InferenceOptions(faithful=True)).class_map(image)
    half = Predictor(model, InferenceOptions(dtype="bfloat16")).class_map(image)
    assert float((exact == half).float().mean()) > 0.9


def test_flow_stays_exact_under_autocast() -> None:
    alignment = NETWORKS["v1"]().align_context
    context, spatial = torch.randn(1, 32, 4, 4), torch.randn(1, 32, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert alignment.flow(context, spatial, context).dtype == torch.float32


# ---- peers and catalogue


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "gmacs_full"),
    [
        ("segformer-b0", 3_719_027, 17.757, 120.957),
        ("segformer-b1", 13_682_131, 34.82, 239.13),
        ("upernet-resnet18", 13_713_363, 45.78, 183.09),
        ("mobilenetv2-deeplab", 2_525_203, 6.05, 24.18),
    ],
)
def test_sizes_of_peers(name: str, parameters: int, gmacs: float, gmacs_full: float) -> None:
    with torch.device("meta"):
        assert parameter_count(peer(name)) == parameters
    assert count_macs(lambda: peer(name), 512, 1024) / 1e9 == pytest.approx(gmacs, abs=6e-3)
    assert count_macs(lambda: peer(name), 1024, 2048) / 1e9 == pytest.approx(gmacs_full, abs=6e-3)


@pytest.mark.parametrize("name", ["segformer-b0", "mobilenetv2-deeplab"])
def test_peers_speak_the_same_language(name: str) -> None:
    model = peer(name, 7)
    image = torch.randn(2, 3, 70, 90)
    assert Predictor(model)(image).shape == (2, 7, 70, 90)
    outputs = model.train()(image)
    assert isinstance(outputs, Outputs)
    assert outputs.logits.shape == (2, 7, 70, 90)


def test_peer_from_a_folder(tmp_path: Path) -> None:
    source = peer("mobilenetv2-deeplab", 4)
    source.model.save_pretrained(tmp_path)  # type: ignore[operator]
    found = pretrained(str(tmp_path))
    assert isinstance(found, Peer)
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in source.state_dict().items())


def test_no_such_peer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model folder"):
        pretrained(str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="no segmentation model"):
        pretrained(str(tmp_path))
    with pytest.raises(NetworkError, match="segformer-b0"):
        peer("segformer-b7")


def test_catalogue_builds_on_meta() -> None:
    assert set(CATALOGUE) == {"bialignnet-dfnet1", "bialignnet-dfnet2", "ddsm", "fpn", *CONFIGURATIONS}
    with torch.device("meta"):
        assert parameter_count(build_model("bialignnet-dfnet1")) == 9_532_682
        assert parameter_count(build_model("bialignnet-dfnet1", 7, 0.25)) == 611_594
        small = build_model("ddsm", 150, 0.25, backbone="tiny", channels=64, branches="spatial")
    assert isinstance(small, FPN)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("bialignet", {}, "did you mean"),
        ("bialignnet-dfnet2", {"gates": "none"}, "did you mean 'gate'"),
        ("bialignnet-dfnet2", {"gate": "open"}, "simple"),
        ("bialignnet-dfnet2", {"classes": 1}, "2 to 255"),
        ("bialignnet-dfnet2", {"width": 0.0}, "positive"),
        ("ddsm", {"channels": 128}, "perfect square"),
        ("fpn", {"width": 0.5}, "tiny"),
        ("segformer-b0", {"width": 0.5}, "no width"),
    ],
)
def test_what_cannot_be_built(name: str, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(NetworkError, match=says), torch.device("meta"):
        build_model(name, **arguments)  # type: ignore[arg-type]


def test_variants_are_named() -> None:
    assert variant("bialignnet-dfnet2", gate="simple") == {}
    assert variant("bialignnet-dfnet2", gate="none", heads="none") == {"gate": "none", "heads": "none"}
