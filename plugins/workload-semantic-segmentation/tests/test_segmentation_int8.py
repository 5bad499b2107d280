"""Convolutions in int8 against the integers that they stand for, and what a network and a trial make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness_semantic_segmentation as plugin
import pytest
from harness_backend_torch import TorchOptions
from pydantic import ValidationError

from harness.errors import UsageError
from harness.testing import RecordingWindow, trial_context


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Int8Conv2d, NetworkError, Predictor, InferenceOptions, build_model, functional, nn, quantise, torch
    import torch
    from harness_semantic_segmentation.networks.catalogue import build_model
    from harness_semantic_segmentation.networks.errors import NetworkError
    from harness_semantic_segmentation.networks.int8 import Int8Conv2d, quantise
    from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
    from torch import nn
    from torch.nn import functional


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


@pytest.fixture
def able() -> None:
    from harness_semantic_segmentation.networks.int8 import unsupported

    if reason := unsupported(torch.device("cpu")):
        pytest.skip(reason)


def reference(conv: Any, x: Any, low: float, high: float) -> Any:
    """The convolution of the values that the steps of weights and inputs stand for."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    steps = (x.double() / scale + zero + 0.5).floor().clamp(0, 255)
    scales = conv.weight.double().abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight = (conv.weight.double() / scales).round() * scales
    bias = None if conv.bias is None else conv.bias.double()
    return functional.conv2d(
        (steps - zero) * scale, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"kernel_size": 1, "padding": 0, "bias": False},
        {"kernel_size": 7, "padding": 3, "stride": 2},
        {"groups": 4},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
@pytest.mark.parametrize(("low", "high"), [(-2.0, 3.0), (0.5, 4.0), (-1.0, -0.25)])
def test_equals_the_integers_that_it_stands_for(changes: dict[str, Any], low: float, high: float) -> None:
    given = {"in_channels": 8, "out_channels": 12, "kernel_size": 3, "padding": 1, **changes}
    conv = nn.Conv2d(**given).requires_grad_(requires_grad=False)
    x = torch.rand(2, 8, 13, 17) * (high - low) + low
    found = Int8Conv2d(conv, low, high, tuple(x.shape))
    for image in (x, x.contiguous(memory_format=torch.channels_last), x[:1, :, :9, :8]):
        expected = reference(conv, image, low, high)
        assert float((found(image) - expected).abs().max()) < 2e-3 * float(expected.abs().max())
    assert found.weight_bytes < conv.weight.nbytes


@pytest.mark.usefixtures("able")
def test_inputs_beyond_the_range_are_cut_off_and_weights_of_zero_stay_zero() -> None:
    conv = nn.Conv2d(8, 8, 1).requires_grad_(requires_grad=False)
    conv.weight[3] = 0
    found = Int8Conv2d(conv, -1.0, 1.0, (1, 8, 4, 4))
    far, end = torch.full((1, 8, 4, 4), 50.0), torch.full((1, 8, 4, 4), 1.0)
    assert torch.equal(found(far), found(end))
    assert torch.equal(found(end)[0, 3], conv.bias[3].expand(4, 4))


@pytest.mark.usefixtures("able")
def test_only_what_was_called_with_enough_outputs_is_replaced() -> None:
    network = nn.ModuleDict({
        "used": nn.Conv2d(3, 8, 3), "flow": nn.Conv2d(8, 2, 1), "unused": nn.Conv2d(8, 8, 1),
        "mirrored": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    }).requires_grad_(requires_grad=False)  # fmt: skip

    def run() -> None:
        features = network["mirrored"](network["used"](torch.randn(1, 3, 8, 8)))
        network["flow"](features)

    found = quantise(network, run)
    assert (found.layers, found.kept) == (1, ["flow", "unused", "mirrored"])
    assert isinstance(network["used"], Int8Conv2d)
    run()
    with pytest.raises(NetworkError, match="no convolution"):
        quantise(nn.ReLU(), lambda: None)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("model", ["bialignnet-dfnet1", "ddsm", "segformer-b0"])
def test_a_network_keeps_most_of_its_classes(model: str) -> None:
    choices: dict[str, Any] = {"choices": {"backbone": "tiny", "channels": 16}} if model == "ddsm" else {}
    width = 1.0 if model.startswith("seg") else 0.25
    network = build_model(model, 7, width, **choices.get("choices", {})).eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    predictor, images = Predictor(network, InferenceOptions(dtype="int8")), [torch.randn(1, 3, 64, 96)] * 2
    found = predictor.quantised(images, network)
    assert found.layers > 0
    assert found.agreement is not None
    assert found.agreement > 0.9
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items()), "as handed in"
    assert predictor(torch.randn(2, 3, 51, 77)).shape == (2, 7, 51, 77)
    if model == "bialignnet-dfnet1":
        assert {name.rpartition(".")[2] for name in found.kept} == {"to_flow", "conv", "conv_out"}


def test_a_cpu_that_cannot_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_semantic_segmentation.networks.int8 import unsupported

    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(NetworkError, match="this CPU has no VNNI"):
        quantise(nn.Conv2d(8, 8, 1), lambda: None)
    assert "not for cuda" in unsupported(torch.device("cuda"))


# ---- the workload


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Any]:
    """A workload of those options after a window of two frames, with the window's rows."""
    from harness_backend_torch.backend import TorchBackend

    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    spec = {each.name: each for each in plugin.harness_workloads()}["segmentation-inference"]
    small = {"model": "bialignnet-dfnet1", "width": 0.25, "size": [64, 96], "images": 4, "pictures": 0, "boundary": 0}

    def run(**options: Any) -> tuple[Any, list[dict[str, Any]]]:
        workload = spec.factory(spec.options.model_validate({**small, **options}))
        workload.prepare(replace(trial_context(tmp_path, backend), seed=1))
        window = RecordingWindow(2)
        workload.run(window)
        workload.after_window(window)
        return workload, window.rows

    yield run
    backend.close()


@pytest.mark.usefixtures("able")
def test_a_trial_says_what_is_int8_and_judges_it(measured: Any) -> None:
    trained = {"weights": "trained", "training_steps": 12}
    _, exact = measured(**trained)
    workload, rows = measured(**trained, dtype="int8")
    facts = json.loads(json.dumps(workload.facts()))
    assert facts["int8"]["layers"] == 40
    assert facts["int8"]["agreement"] > 0.95
    assert facts["convolutions"]["reason"] == "convolutions in int8 are the library's"
    assert rows[0]["miou"] == pytest.approx(exact[0]["miou"], abs=0.03)
    assert rows[0]["peak_memory_bytes"] < exact[0]["peak_memory_bytes"]
    faithful, _ = measured(dtype="int8", faithful=True)
    assert faithful.facts()["int8"] is None


@pytest.mark.usefixtures("able")
def test_int8_takes_ranges_from_other_images_and_its_weights_count(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_semantic_segmentation.networks.counting import weight_bytes
    from harness_semantic_segmentation.networks.optimised import Predictor
    from harness_semantic_segmentation.workloads import inference

    seen: list[Any] = []
    quantised = Predictor.quantised

    def spied(self: Any, images: Any, published: Any) -> Any:
        seen.extend(images)
        return quantised(self, images, published)

    monkeypatch.setattr(Predictor, "quantised", spied)
    monkeypatch.setattr(inference, "peak_bytes", lambda _run: 0)
    workload, rows = measured(dtype="int8")
    judged = [workload._pixels([frame.image]) for frame in workload._frames]
    assert len(seen) == inference.CALIBRATION
    assert not any(torch.equal(one, other) for one in seen for other in judged)
    taken = workload.facts()["int8"]["weight_bytes"]
    assert rows[0]["peak_memory_bytes"] == weight_bytes(workload._predictor) + taken
    assert taken > 0


def test_a_trial_on_a_cpu_that_cannot_is_refused(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(UsageError, match=r"no VNNI.*accepted: dtype float32 or bfloat16"):
        measured(dtype="int8")


def test_int8_is_not_compiled() -> None:
    spec = {each.name: each for each in plugin.harness_workloads()}["segmentation-inference"]
    with pytest.raises(ValidationError, match="int8 beside compile"):
        spec.options(dtype="int8", compile=True)
