"""What is wrong with options is found while planning, without torch and without opening a file of images."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness_semantic_segmentation.workloads.checks import DATA, NETWORKS, check
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions, TrainingOptions


def test_the_names_that_planning_knows_are_those_of_the_catalogue() -> None:
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE

    assert set(NETWORKS) == set(CATALOGUE)


def test_what_is_not_there_is_found_without_torch(tmp_path: Path) -> None:
    here = str(tmp_path)
    wrong = SegmentationInferenceOptions(model="bialignnet", data="camvid", root=f"{here}/gone", weights=f"{here}/w.pt")
    assert [fault.option for fault in check(wrong)] == ["model", "root", "weights"]
    assert [fault.option for fault in check(TrainingOptions(resume=here))] == ["resume"]
    assert not list(check(SegmentationInferenceOptions(model="segformer-b0", weights="nvidia/segformer-b0")))
    code = "import sys, harness_semantic_segmentation.workloads.checks, harness_semantic_segmentation.data.layouts; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LAYOUTS = {
    "cityscapes": (
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png",
        "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
        "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png",
    ),
    "camvid": tuple(f"{part}{kind}/a.png" for part in ("train", "val", "test") for kind in ("", "annot")),
    "voc": (
        "JPEGImages/a.jpg",
        "SegmentationClass/a.png",
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
    ),
    "ade20k": (
        "objectInfo150.txt",
        *(f"images/{part}/a.jpg" for part in ("training", "validation")),
        *(f"annotations/{part}/a.png" for part in ("training", "validation")),
    ),
    "coco-panoptic": tuple(
        name
        for split in ("train", "val")
        for name in (
            f"{split}2017/a.jpg",
            f"annotations/panoptic_{split}2017.json",
            f"annotations/panoptic_{split}2017/a.png",
        )
    ),
}
"""Files of each layout; images are empty, since planning opens none."""
TEXTS = {"train.txt": "a\n", "val.txt": "a\n", "objectInfo150.txt": "Idx\tName\n1\twall\n2\tsky\n"}


def laid_out(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEXTS.get(file.name, ""), encoding="utf-8")
    return root


def test_every_layout_that_can_be_read_is_looked_at_here() -> None:
    from harness_semantic_segmentation.data.layouts import READERS

    assert set(LAYOUTS) == set(READERS) == set(DATA) - {"scenes"}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_is_judged_while_planning_whatever_is_taken_out_of_it(name: str, tmp_path: Path) -> None:
    whole = laid_out(tmp_path / "whole", LAYOUTS[name])
    assert not list(check(TrainingOptions(data=name, root=str(whole))))
    assert not list(check(SegmentationInferenceOptions(data=name, root=str(whole))))
    assert not list(check(SegmentationInferenceOptions(data=name, root=str(whole), dtype="int8")))
    (tmp_path / "empty").mkdir()
    assert [fault.option for fault in check(TrainingOptions(data=name, root=str(tmp_path / "empty")))] == ["root"]
    for left_out in {Path(file).parts[0] for file in LAYOUTS[name]}:
        kept = tuple(file for file in LAYOUTS[name] if Path(file).parts[0] != left_out)
        (fault,) = check(TrainingOptions(data=name, root=str(laid_out(tmp_path / left_out, kept))))
        assert fault.option == "root"
        assert fault.accepted, fault
        assert left_out in fault.message or "label map" in fault.message, fault


def test_int8_is_told_while_planning_that_its_training_images_are_missing(tmp_path: Path) -> None:
    judged = tuple(file for file in LAYOUTS["cityscapes"] if "/train/" not in file)
    assert len(judged) < len(LAYOUTS["cityscapes"])
    root = str(laid_out(tmp_path, judged))
    assert not list(check(SegmentationInferenceOptions(data="cityscapes", root=root)))
    assert not list(check(SegmentationInferenceOptions(data="cityscapes", root=root, dtype="int8", faithful=True)))
    (fault,) = check(SegmentationInferenceOptions(data="cityscapes", root=root, dtype="int8"))
    assert fault.option == "root"
    assert "train" in fault.message


def test_the_layout_of_another_data_set_is_refused_with_the_one_that_is_accepted(tmp_path: Path) -> None:
    root = laid_out(tmp_path, LAYOUTS["voc"])
    (fault,) = check(TrainingOptions(data="cityscapes", root=str(root)))
    assert "holds ImageSets, JPEGImages, SegmentationClass" in fault.message
    assert fault.accepted.startswith("leftImg8bit/SPLIT/CITY")
    assert fault.message.count(str(root / "leftImg8bit")) == 1


def test_a_folder_that_may_not_be_read_is_a_fault_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    root = laid_out(tmp_path, LAYOUTS["camvid"])
    monkeypatch.setattr(Path, "iterdir", refused)  # root, as whom tests may run, reads every folder
    (fault,) = check(TrainingOptions(data="camvid", root=str(root)))
    assert (fault.option, fault.message) == ("root", f"{root / 'train'}: Permission denied")
