"""Checkpoints: the authors' files in all their forms, this project's own, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_semantic_segmentation.networks.errors import NetworkError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global FPN, BiAlignNet, DFNet, Switches, authors_state_dict, load_backbone, load_checkpoint, nn, read_file, torch
    import torch
    from harness_semantic_segmentation.networks.bialignnet import BiAlignNet, Switches
    from harness_semantic_segmentation.networks.checkpoints import authors_state_dict, load_backbone, load_checkpoint
    from harness_semantic_segmentation.networks.dfnet import DFNet
    from harness_semantic_segmentation.networks.fpn import FPN
    from harness_semantic_segmentation.networks.safe_files import read_file
    from torch import nn


V1 = {"backbone": "dfnet_v1"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("switches", "tensors"), [({}, 372), (V1, 240)])
def test_authors_keys(switches: dict[str, Any], tensors: int) -> None:
    with torch.device("meta"):
        keys = list(authors_state_dict(BiAlignNet(19, 1, Switches(**switches))))
    assert len(keys) == tensors
    stage = "stage3_1.9" if tensors == 372 else "stage4.2"
    for key in (
        "backbone.stage1.0.weight",
        "backbone.stage1.4.running_var",
        f"backbone.{stage}.conv2.weight",
        "ppm.stages.3.2.bias",
        "ppm.bottleneck.0.weight",
        "sp.conv_out.bn.num_batches_tracked",
        "conv_out.conv.conv.weight",
        "conv_out.conv_out.bias",
        "spatial_out.conv_out.weight",
        "cxt8_aux.conv_out.bias",
        "cxt16_aux.conv_out.weight",
        "spatial2Context.down_h.weight",
        "context2Spatial.flow_make.weight",
        "context2Spatial.gate.gate.0.bias",
    ):
        assert key in keys


def checkpoint(path: Path, model: BiAlignNet, *, zipped: bool = True, **changes: object) -> Path:
    """A file as the authors' training script writes it: after an epoch, of a wrapped network, with its score."""
    state = {f"module.{key}": value for key, value in authors_state_dict(model).items()}
    state.update(changes)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    torch.save(
        {
            "state_dict": {key: value for key, value in state.items() if value is not None},
            "optimizer": optimizer.state_dict(),
            "epoch": 499,
            "mean_iu": np.nanmean(np.array([0.9, np.nan, 0.7])),
            "command": "--dataset cityscapes --arch network.bialignnet.AlignNetDFNetV2",
        },
        path,
        _use_new_zipfile_serialization=zipped,
    )
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_authors_checkpoint_loads(tmp_path: Path, zipped: bool, lived: Any) -> None:
    source, model = lived(BiAlignNet(5, 0.25)), BiAlignNet(5, 0.25)
    loaded = load_checkpoint(model, checkpoint(tmp_path / "authors.pth", source, zipped=zipped))  # type: ignore[arg-type]
    assert loaded.skipped == ()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())


def test_a_checkpoint_of_an_older_numpy_loads(tmp_path: Path) -> None:
    """numpy 1 called the module of its numbers by another name; the name is all that differs in the file."""
    path = checkpoint(tmp_path / "authors.pth", BiAlignNet(5, 0.25), zipped=False)
    written = path.read_bytes()
    assert written.count(b"numpy._core.multiarray\nscalar\n") == 1
    path.write_bytes(written.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert load_checkpoint(BiAlignNet(5, 0.25), path).skipped == ()


def test_names_are_crossed_in_the_file_only(tmp_path: Path) -> None:
    source = BiAlignNet(5, 0.25)
    assert authors_state_dict(source)["spatial2Context.flow_make.weight"].data_ptr() == (
        source.align_context.to_flow.weight.data_ptr()
    )


def test_own_state_dict_loads(tmp_path: Path) -> None:
    source, model = FPN(5, 16, "tiny", 0.5), FPN(5, 16, "tiny", 0.5)
    torch.save(source.state_dict(), tmp_path / "own.pt")
    load_checkpoint(model, tmp_path / "own.pt")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    source, model = BiAlignNet(5, 0.25), BiAlignNet(5, 0.25)
    changes = {
        "module.sp.conv1.conv.weight": None,
        "module.fc.weight": torch.zeros(3),
        "module.conv_out.conv_out.bias": torch.zeros(7),
    }
    path = checkpoint(tmp_path / "bad.pth", source, **changes)
    before = model.state_dict()["head.conv.conv.weight"].clone()
    with pytest.raises(NetworkError) as raised:
        load_checkpoint(model, path)
    text = str(raised.value)
    for part in (str(path), "1 missing (sp.conv1.conv.weight)", "1 unexpected (fc.weight)", "(7,)", "(320,)"):
        assert part in text
    assert torch.equal(before, model.state_dict()["head.conv.conv.weight"])
    loaded = load_checkpoint(model, path, partial=True)
    assert (len(loaded.missing), len(loaded.unexpected), len(loaded.mismatched)) == (1, 1, 1)
    assert not torch.equal(before, model.state_dict()["head.conv.conv.weight"])


def test_nothing_fits(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(NetworkError, match="no tensor of the file fits"):
        load_checkpoint(BiAlignNet(5, 0.25), tmp_path / "other.pt", partial=True)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_no_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NetworkError, match=r"weights\.pth"):
        load_checkpoint(BiAlignNet(5, 0.25), path)


class Runs:
    """What a malicious file holds: a call of anything."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda mark: Runs(os.system, f"touch {mark}"), r"posix\.system"),
        (lambda mark: Runs(exec, f"open({str(mark)!r}, 'w')"), r"exec"),
        (lambda mark: Runs(Path.touch, mark), r"getattr|pathlib|PosixPath"),
        (lambda mark: Runs(np.load, str(mark)), r"numpy\.load"),
    ],
)
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, content: Any, named: str, zipped: bool) -> None:
    mark = tmp_path / "ran"
    saved = {"state_dict": {}, "mean_iu": np.float64(0.5), "command": content(mark)}
    torch.save(saved, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(NetworkError, match=rf"evil\.pth: the file names `\S*({named})\S*`, which could run") as caught:
        load_checkpoint(BiAlignNet(5, 0.25), tmp_path / "evil.pth")
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    assert "add_safe_globals" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("f8", np.float64(0.787)),
        ("f4", np.float32(0.787)),
        ("f2", np.float16(0.5)),
        ("i8", np.int64(-(2**40))),
        ("u1", np.uint8(200)),
        ("b1", np.bool_(True)),
        ("c16", np.complex128(1 + 2j)),
        (">f8", np.array([0.25], dtype=">f8")[0]),
    ],
)
def test_numbers_of_numpy_are_read_as_numbers(tmp_path: Path, name: str, number: Any) -> None:
    torch.save({"mean_iu": number}, tmp_path / "number.pt")
    found = read_file(tmp_path / "number.pt")["mean_iu"]
    assert found == number.item(), name
    assert type(found) is type(number.item())


@pytest.mark.parametrize("content", [np.zeros(3), np.array([{}], dtype=object), np.datetime64("2021-01-01")])
def test_other_things_of_numpy_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save({"mean_iu": content}, tmp_path / "array.pt")
    with pytest.raises(NetworkError, match=r"array\.pt"):
        read_file(tmp_path / "array.pt")


def test_no_format_of_gated_conv(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", BiAlignNet(5, 0.25))
    with pytest.raises(NetworkError, match="gated_conv"):
        load_checkpoint(BiAlignNet(5, 0.25, Switches(gate="gated_conv")), path)


def test_backbone_weights(tmp_path: Path) -> None:
    source, backbone = BiAlignNet(5, 0.25), DFNet("dfnet_v2", 0.25)
    load_backbone(backbone, checkpoint(tmp_path / "a.pth", source))
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in source.backbone.state_dict().items())
