"""Data sets of a user's own and of wide-spread layouts: how files are read, paired, refused and told of."""

from __future__ import annotations

import json
import re
import struct
import zlib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_semantic_segmentation.data import image_io, survey
from harness_semantic_segmentation.data.camvid import COLOURS, camvid, official_split
from harness_semantic_segmentation.data.cityscapes import cityscapes
from harness_semantic_segmentation.data.dataset import IGNORE
from harness_semantic_segmentation.data.folders import ade20k, coco_panoptic, voc, voc_colours
from harness_semantic_segmentation.data.image_io import read_colour, read_mask, write
from harness_semantic_segmentation.data.label_rules import LabelRule
from harness_semantic_segmentation.data.own import matching, own_files
from harness_semantic_segmentation.data.scenes import Scenes
from harness_semantic_segmentation.workloads import checks
from harness_semantic_segmentation.workloads.options import TrainingOptions
from harness_semantic_segmentation.workloads.own_data import OwnData
from PIL import Image
from pydantic import ValidationError

from harness.errors import UsageError

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def saved(path: Path, pixels: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **how)
    return path


# Images


@pytest.mark.parametrize(
    ("name", "mode", "wanted"),
    [
        ("a.png", "RGB", (200, 10, 10)),
        ("a.PNG", "RGBA", (200, 10, 10)),
        ("a.tif", "RGB", (200, 10, 10)),
        ("a.TIFF", "L", (67, 67, 67)),
        ("a.png", "LA", (67, 67, 67)),
        ("a.png", "P", (200, 10, 10)),
        ("a.jpg", "L", (67, 67, 67)),
        ("a.png", "1", (0, 0, 0)),
    ],
)
def test_photographs_of_every_kind_are_read_as_colours(tmp_path: Path, name: str, mode: str, wanted: Any) -> None:
    picture = Image.new("RGB", (6, 4), RED)
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode, dither=Image.Dither.NONE)
    found = read_colour(saved(tmp_path / name, picture))
    assert found.shape == (4, 6, 3)
    assert found.dtype == np.uint8
    assert tuple(found[2, 3]) == pytest.approx(wanted, abs=2)


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        assert read_colour(saved(tmp_path / name, deep))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = read_colour(saved(tmp_path / "turned.png", PHOTO, exif=exif))
    assert np.array_equal(turned, np.rot90(PHOTO, -1))
    with pytest.raises(UsageError, match=r"turned.png: the label map is turned by its EXIF"):
        read_mask(tmp_path / "turned.png")


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("sides", [(20_000, 10_000), (60_000, 60_000)])
def test_a_huge_image_is_refused_by_its_name(tmp_path: Path, sides: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"huge.png: the image has .*pixels; accepted: at most 178,956,970"):
        read_colour(bomb(tmp_path / "huge.png", *sides))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"odd.png: this is not a readable image"):
        read_colour(tmp_path / "odd.png")
    with pytest.raises(UsageError, match="no such file"):
        read_mask(tmp_path / "gone.png")


def test_a_file_of_several_images_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(UsageError, match=r"two.tif: the file holds 2 images"):
        read_colour(tmp_path / "two.tif")


# Label maps


def test_numbers_are_read_whatever_holds_them(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    indexed = Image.fromarray(labels).convert("P")
    for path in (
        saved(tmp_path / "l.png", labels),
        saved(tmp_path / "p.png", indexed),
        saved(tmp_path / "deep.png", labels.astype(np.uint16)),
        saved(tmp_path / "l.tif", labels),
        saved(tmp_path / "rgb.png", np.repeat(labels[..., None], 3, axis=2)),
    ):
        assert LabelRule(("a", "b", "c")).read(path).tolist() == [[0, 1], [2, IGNORE]], path
    with pytest.raises(UsageError, match=r"x.jpg: a JPEG file changes label values"):
        read_mask(saved(tmp_path / "x.jpg", labels))


def test_a_map_that_its_format_may_have_changed_is_refused(tmp_path: Path) -> None:
    """WebP and TIFF hold both kinds of files."""
    pixels = np.tile(np.array([RED, GREEN], dtype=np.uint8), (8, 4, 1))
    rule = LabelRule(("a", "b"), colours={RED: 0, GREEN: 1})
    for whole in (saved(tmp_path / "a.webp", pixels, lossless=True), saved(tmp_path / "a.tif", pixels)):
        assert rule.read(whole)[0].tolist() == [0, 1] * 4, whole
    lossy = (saved(tmp_path / "b.webp", pixels), saved(tmp_path / "b.tif", pixels, compression="jpeg"))
    for torn in lossy:
        with pytest.raises(UsageError, match=rf"{torn.name}: a \w+ file changes label colours"):
            rule.read(torn)
        with pytest.raises(UsageError, match=rf"{torn.name}: a \w+ file changes label values"):
            read_mask(torn)


def test_the_ways_of_numbers() -> None:
    stored = np.array([[0, 1, 2, 255]], dtype=np.int32)
    names = ("a", "b", "c")
    assert LabelRule(names).of_numbers(stored, "m").tolist() == [[0, 1, 2, IGNORE]]
    assert LabelRule(names, reduce_zero_label=True).of_numbers(stored, "m").tolist() == [[IGNORE, 0, 1, IGNORE]]
    assert LabelRule(names[:2], values={0: 0, 255: 1}, ignore=(1, 2)).of_numbers(stored, "m").tolist() == [
        [0, IGNORE, IGNORE, 1]
    ]
    assert LabelRule(names, ignore=(0, 255), values={1: 0, 2: 1}).of_numbers(stored, "m").tolist() == [
        [IGNORE, 0, 1, IGNORE]
    ]


def test_what_is_unknown_is_counted_and_refused_above_a_share() -> None:
    stored = np.array([[0, 1, 7, 7, 9, 1, 1, 1]], dtype=np.int32)
    with pytest.raises(UsageError, match=r"m.png: 3 of 8 pixels have an unknown label: 7 in 2 pixels, 9 in 1 pixels"):
        LabelRule(("a", "b")).of_numbers(stored, "m.png")
    found = LabelRule(("a", "b"), unknown_at_most=0.5).of_numbers(stored, "m.png")
    assert (found == IGNORE).sum() == 3
    colours = np.array([[RED, GREEN, BLUE, (0, 0, 0)]], dtype=np.uint8)
    rule = LabelRule(("a", "b"), colours={RED: 0, GREEN: 1}, void_colours=((0, 0, 0),))
    with pytest.raises(UsageError, match=r"1 of 4 pixels have an unknown colour: \(10, 10, 200\) in 1 pixels"):
        rule.of_colours(colours, "m.png")
    known = LabelRule(("a", "b", "c"), colours={RED: 0, GREEN: 1, BLUE: 2}, void_colours=((0, 0, 0),))
    assert known.of_colours(colours, "m.png").tolist() == [[0, 1, 2, IGNORE]]


# Files of one's own


def own(root: Path, count: int = 10, *, suffix: str = ".png", values: tuple[int, ...] = (0, 1, 255)) -> Path:
    """So many images, half of a map one class and half the other, the lowest row ignored."""
    for number in range(count):
        labels = np.full((32, 48), values[0], dtype=np.uint8)
        labels[:, 20 + number % 5 :] = values[1]
        labels[-1] = values[2]
        saved(
            root / "photos" / f"image{number}{suffix}",
            np.where(labels[..., None] == values[1], RED, BLUE).astype(np.uint8),
        )
        write(root / "masks" / f"image{number}.png", labels)
    return root


def described(root: Path, split: str = "train", **changes: Any) -> Any:
    given = {"images": "photos/*.png", "masks": "masks/{stem}.png", "validation": "", "classes": ("a", "b")}
    return own_files(root, split, **{**given, "read": LabelRule(("a", "b")).read, **changes})


def test_every_fifth_image_is_held_out_and_never_trained_on(tmp_path: Path) -> None:
    own(tmp_path, 11)
    learned, judged = described(tmp_path), described(tmp_path, "val")
    assert (len(learned), len(judged)) == (8, 3)
    assert not {pair.name for pair in learned.pairs} & {pair.name for pair in judged.pairs}
    assert learned[0].labels is not None
    assert set(np.unique(learned[0].labels)) == {0, 1, IGNORE}


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".TIF", ".png"])
def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path, suffix: str) -> None:
    own(tmp_path, 3, suffix=suffix)
    assert len(matching(tmp_path, f"photos/*{suffix.lower()}")) == 3
    assert len(matching(tmp_path, "**/image*.*")) == 6


def test_what_lacks_its_partner_is_counted_and_named(tmp_path: Path) -> None:
    own(tmp_path, 4)
    (tmp_path / "masks" / "image2.png").rename(tmp_path / "masks" / "image9.png")
    with pytest.raises(UsageError, match=r"1 of 3 images lack their label map: \S*image2.png \(no masks/image2.png\)"):
        described(tmp_path)
    write(tmp_path / "masks" / "image2.png", np.zeros((32, 48), dtype=np.uint8))
    (note,) = described(tmp_path).notes
    assert "1 label maps belong to no image" in note
    assert "image9.png" in note


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": "photo/*.png"}, r"no image matches 'photo/\*.png'; the folder holds masks, photos"),
        ({"images": "../*.png"}, "leaves the folder"),
        ({"masks": "masks/{nam}{stem}.png"}, r"accepted: \{stem\}"),
        ({"masks": "masks/{stem.suffix}{name}.png"}, r"accepted: \{stem\}"),
        ({"validation": "photos/image1.png"}, "1 images are both trained on and judged"),
    ],
)
def test_patterns_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        described(own(tmp_path, 5), **changes)
    given: Any = {"images": "photos/*.png", "masks": "masks/{stem}.png", "classes": ["a", "b"]}
    assert not list(checks.check(TrainingOptions(data=OwnData(**given), root=str(tmp_path))))
    (fault,) = checks.check(TrainingOptions(data=OwnData(**{**given, **changes}), root=str(tmp_path)))
    assert fault.option == "data"
    assert re.search(says, f"{fault.message}; accepted: {fault.accepted}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": ["a"]}, "at least 2"),
        ({"classes": ["a", "a"]}, "each name once"),
        ({"palette": [[1, 2, 3]]}, "1 colours"),
        ({"palette": [[1, 2, 3], [1, 2, 3]]}, "each colour once"),
        ({"values": {"c": 0}}, "values name the class 'c'"),
        ({"values": {"a": 0, "b": [1, 0]}}, "each number once"),
        ({"masks": "mask.png"}, "one file for all images"),
        ({"paletet": []}, "paletet"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    given = {"images": "*.jpg", "masks": "{stem}.png", "classes": ["a", "b"]}
    with pytest.raises(ValidationError, match=says):
        OwnData.model_validate({**given, **changes})


# What labels hold


def test_shares_of_classes_and_ignored_pixels(tmp_path: Path) -> None:
    own(tmp_path, 5)
    found = survey.survey(described(tmp_path, classes=("a", "b", "c"), read=LabelRule(("a", "b", "c")).read))
    assert found.ignored_share == pytest.approx(1 / 32)
    assert found.absent == ["c"]
    assert found.told("train") == ["train: c never occur in all 4 label maps"]
    assert sum(found.facts()["class_shares"].values()) + found.facts()["ignored_share"] == pytest.approx(1, abs=1e-5)
    found.check("train", 0.5)
    with pytest.raises(UsageError, match=r"3.1% of the pixels of train are ignored"):
        found.check("train", 0.01)


def test_masks_of_0_and_255_are_no_two_classes(tmp_path: Path) -> None:
    own(tmp_path, 5, values=(0, 255, 255))
    with pytest.raises(UsageError, match=r"hold a only.*masks of 0 and 255 need `values`"):
        survey.survey(described(tmp_path)).check("train", 0.9)
    rule = LabelRule(("a", "b"), values={0: 0, 255: 1}, ignore=())
    survey.survey(described(tmp_path, read=rule.read)).check("train", 0.5)


def test_a_large_split_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "LOOKED_AT", 3)
    found = survey.survey(Scenes(7, 32, 64))
    assert (found.images, found.of) == (3, 7)


# Layouts


def test_pascal_voc(tmp_path: Path) -> None:
    labels = np.array([[0, 15], [20, 255]], dtype=np.uint8)
    coloured = Image.fromarray(labels).convert("P")
    coloured.putpalette([part for colour in voc_colours(256) for part in colour])
    saved(tmp_path / "JPEGImages" / "2007_000032.jpg", PHOTO[:2, :2])
    saved(tmp_path / "SegmentationClass" / "2007_000032.png", Image.fromarray(labels))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n")
    data = voc(tmp_path, "train")
    assert data[0].labels is not None
    assert data[0].labels.tolist() == [[0, 15], [20, IGNORE]]
    assert voc_colours(16)[15] == (192, 128, 128)  # a person, in every picture of this data set
    with pytest.raises(UsageError, match=r"val.txt: there is no such list"):
        voc(tmp_path, "val")


def test_ade20k(tmp_path: Path) -> None:
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n2\t0\t1\t1\t1\tsky\n1\t0\t1\t1\t1\twall, side\n"
    )
    saved(tmp_path / "images" / "training" / "ADE_train_00000001.JPG", PHOTO[:1, :3])
    saved(tmp_path / "annotations" / "training" / "ADE_train_00000001.png", np.array([[0, 1, 2]], dtype=np.uint8))
    data = ade20k(tmp_path, "train")
    assert data.classes == ("wall", "sky")
    assert data[0].labels is not None
    assert data[0].labels.tolist() == [[IGNORE, 0, 1]]


def test_coco_panoptic_labels_become_classes(tmp_path: Path) -> None:
    ids = np.array([[0, 7, 70_000, 9]])
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    saved(tmp_path / "train2017" / "000000000001.jpg", PHOTO[:1, :4])
    saved(tmp_path / "annotations" / "panoptic_train2017" / "000000000001.png", colours)
    segments = [
        {"id": 7, "category_id": 90, "iscrowd": 0},
        {"id": 70_000, "category_id": 1, "iscrowd": 0},
        {"id": 9, "category_id": 1, "iscrowd": 1},
    ]
    content = {
        "categories": [{"id": 90, "name": "toothbrush", "color": RED}, {"id": 1, "name": "person", "color": BLUE}],
        "annotations": [{"file_name": "000000000001.png", "segments_info": segments}],
    }
    (tmp_path / "annotations" / "panoptic_train2017.json").write_text(json.dumps(content))
    data = coco_panoptic(tmp_path, "train")
    assert data.classes == ("person", "toothbrush")
    assert data[0].labels is not None
    assert data[0].labels.tolist() == [[IGNORE, 1, 0, IGNORE]]
    assert data.palette is not None
    assert data.palette.tolist() == [list(BLUE), list(RED)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("0001TP_006690", "train"),
        ("0001TP_008520", "train"),
        ("0001TP_008550", "test"),
        ("0006R0_f00930", "train"),
        ("0016E5_07959", "val"),
        ("0016E5_08159", "val"),
        ("0016E5_08190", "train"),
        ("Seq05VD_f00000", "test"),
    ],
)
def test_the_usual_splits_of_camvid_follow_from_names(name: str, split: str) -> None:
    assert official_split(name) == split


@pytest.mark.filterwarnings("ignore:.*the official split has")
def test_camvid_as_it_is_distributed(tmp_path: Path) -> None:
    labels = np.array([[COLOURS["road"], (128, 0, 192), (0, 0, 0), COLOURS["sky"]]], dtype=np.uint8)
    for name in ("0001TP_006690", "0016E5_07959", "Seq05VD_f00000"):
        saved(tmp_path / "701_StillsRaw_full" / f"{name}.png", PHOTO[:1, :4])
        saved(tmp_path / "LabeledApproved_full" / f"{name}_L.png", labels)
    data = camvid(tmp_path, "trainval")
    assert [pair.name for pair in data.pairs] == ["0001TP_006690", "0016E5_07959"]
    assert data[0].labels is not None
    assert data[0].labels.tolist() == [[3, 3, IGNORE, 0]]  # the marking of a lane is road
    assert len(camvid(tmp_path, "test")) == 1
    labels[0, 0] = (1, 2, 3)
    saved(tmp_path / "LabeledApproved_full" / "0001TP_006690_L.png", labels)
    with pytest.raises(UsageError, match=r"0001TP_006690_L.png: 1 of 4 pixels have an unknown colour: \(1, 2, 3\)"):
        camvid(tmp_path, "trainval")[0]


@pytest.mark.filterwarnings("ignore:.*the official split has")
def test_camvid_as_the_tutorial_of_segnet_holds_it(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        saved(tmp_path / "CamVid" / part / "0001TP_006690.png", PHOTO)
        saved(tmp_path / "CamVid" / f"{part}annot" / "0001TP_006690.png", np.full((4, 6), 11, dtype=np.uint8))
        (tmp_path / "CamVid" / f"{part}.txt").write_text(
            f"/SegNet/CamVid/{part}/0001TP_006690.png /SegNet/CamVid/{part}annot/0001TP_006690.png\n"
        )
    data = camvid(tmp_path, "trainval")
    assert len(data) == 2
    assert data[0].labels is not None
    assert (data[0].labels == IGNORE).all()


@pytest.mark.filterwarnings("ignore:.*the official split has")
def test_train_ids_of_cityscapes_are_read_as_such(tmp_path: Path) -> None:
    city = tmp_path / "gtFine" / "train" / "aachen"
    saved(tmp_path / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png", PHOTO[:1, :3])
    saved(city / "aachen_000000_000019_gtFine_labelTrainIds.png", np.array([[0, 18, 255]], dtype=np.uint8))
    found = cityscapes(tmp_path)[0].labels
    assert found is not None
    assert found.tolist() == [[0, 18, IGNORE]]
    saved(city / "aachen_000000_000019_gtFine_labelIds.png", np.array([[7, 33, 0]], dtype=np.uint8))
    found = cityscapes(tmp_path)[0].labels
    assert found is not None
    assert found.tolist() == [[0, 18, IGNORE]]


# As options


def test_a_data_set_of_a_plugin_has_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from harness_semantic_segmentation.workloads.sources import data_set

    found = EntryPoint("rails", f"{__name__}:rails", checks.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda _self: rails)
    monkeypatch.setattr(
        checks, "entry_points", lambda **asked: [found] if asked.get("name", "rails") == "rails" else []
    )
    options = TrainingOptions(data="rails", root=str(tmp_path))
    assert not list(checks.check(options))
    assert len(data_set(options, "val")) == 3
    (fault,) = checks.check(TrainingOptions(data="rail", root=str(tmp_path)))
    assert (fault.option, "rails" in fault.accepted) == ("data", True)


def rails(_root: Path, split: str) -> Scenes:
    return Scenes({"train": 5, "val": 3}[split], 32, 64)


def test_images_are_read_through_one_limit() -> None:
    assert image_io.LARGEST == Image.MAX_IMAGE_PIXELS * 2
