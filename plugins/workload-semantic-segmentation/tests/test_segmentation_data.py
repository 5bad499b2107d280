"""Synthetic scenes, Cityscapes and CamVid folders, transforms, class-uniform sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness_semantic_segmentation.data.camvid import COLOURS, LISTED_ORDER, camvid
from harness_semantic_segmentation.data.cityscapes import LABEL_IDS, TO_LABEL, TO_TRAIN, cityscapes, export
from harness_semantic_segmentation.data.dataset import IGNORE, Sample
from harness_semantic_segmentation.data.scenes import CLASSES, VALIDATION, Scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.errors import UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Augmentation, Examples, augment, batches, blurred, class_centroids, cropped, hue_turned, network_input
    global normalised, plan, torch
    import torch
    from harness_semantic_segmentation.data.transforms import (
        Augmentation,
        augment,
        blurred,
        cropped,
        hue_turned,
        network_input,
        normalised,
    )
    from harness_semantic_segmentation.training.loading import Examples, batches, class_centroids, plan


RGB = np.full((6, 8, 3), 90, dtype=np.uint8)
OFFICIAL = "official split"


def save(path: Path, pixels: np.ndarray, *, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)
    return path


# Scenes


def test_a_scene_depends_on_seed_and_number_alone() -> None:
    one, other = Scenes(5, 64, 128, seed=3), Scenes(2, 64, 128, seed=3, first=2)
    for mine, theirs in ((2, 0), (3, 1)):
        assert one[mine].image.tobytes() == other[theirs].image.tobytes()
        assert one[mine].labels.tobytes() == other[theirs].labels.tobytes()  # type: ignore[union-attr]
    assert Scenes(1, 64, 128, seed=4)[0].image.tobytes() != Scenes(1, 64, 128, seed=3)[0].image.tobytes()
    assert Scenes(1, 64, 128, first=VALIDATION)[0].name == f"scene-0-{VALIDATION}"


def test_scenes_hold_all_classes_and_an_ignored_border() -> None:
    labels = np.stack([sample.labels for sample in (Scenes(20, 128, 256)[n] for n in range(20))])
    assert set(np.unique(labels)) == {*range(len(CLASSES)), IGNORE}
    assert (labels[:, -8:] == IGNORE).all()
    assert (labels[:, :-8] != IGNORE).all()
    shares = [float((labels == label).mean()) for label in range(len(CLASSES))]
    assert all(share > 0.003 for share in shares)
    assert max(shares) < 0.6


def test_thin_objects_are_thinner() -> None:
    shares = {}
    for objects in ("thick", "thin"):
        scenes = Scenes(10, 128, 256, objects=objects)  # type: ignore[arg-type]
        shares[objects] = sum(float((scenes[number].labels == 5).mean()) for number in range(10))
    assert shares["thin"] < 0.6 * shares["thick"]


@given(height=st.integers(32, 90), width=st.integers(32, 90), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scenes_of_any_size(height: int, width: int, seed: int) -> None:
    sample = Scenes(1, height, width, seed)[0]
    assert sample.image.shape == (height, width, 3)
    assert sample.labels is not None
    assert sample.labels.shape == (height, width)
    assert set(np.unique(sample.labels)) <= {*range(7), IGNORE}


# Cityscapes


def fake_cityscapes(root: Path, split: str = "train", *, deeper: bool = False, labels: bool = True) -> Path:
    image_base = root / "leftImg8bit_trainvaltest" if deeper else root
    label_base = root / "gtFine_trainvaltest" if deeper else root
    for number in range(2):
        name = f"aachen_{number:06d}_000019"
        save(image_base / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", RGB)
        if labels:
            ids = np.full((6, 8), 7, dtype=np.uint8)
            ids[0] = [0, 6, 8, 33, 32, 29, 11, 26]
            save(label_base / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", ids)
    return root


@pytest.mark.parametrize("deeper", [False, True])
def test_cityscapes_maps_label_ids(tmp_path: Path, deeper: bool) -> None:
    with pytest.warns(UserWarning, match=r"2 images; the official split has 2975"):
        data = cityscapes(fake_cityscapes(tmp_path, deeper=deeper))
    sample = data[1]
    assert sample.name == "aachen_000001_000019"
    assert sample.labels is not None
    assert sample.labels[0].tolist() == [255, 255, 1, 18, 17, 255, 2, 13]
    assert (sample.labels[1:] == 0).all()


def test_label_ids_go_there_and_back() -> None:
    assert len(LABEL_IDS) == 19
    assert [int(TO_TRAIN[label]) for label in LABEL_IDS.values()] == list(range(19))
    assert [int(TO_LABEL[TO_TRAIN[label]]) for label in LABEL_IDS.values()] == list(LABEL_IDS.values())
    assert all(TO_TRAIN[label] == IGNORE for label in (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255))


def test_test_labels_are_withheld(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1525"):
        data = cityscapes(fake_cityscapes(tmp_path, "test", labels=False), "test")
    assert data[0].labels is None
    with pytest.raises(UsageError, match="has no labels"):
        class_centroids(data)


def test_export_for_the_test_server(tmp_path: Path) -> None:
    classes = np.zeros((1024, 2048), dtype=np.uint8)
    classes[5, 7] = 18
    path = export(tmp_path / "out", "berlin_000000_000019", classes)
    assert path.name.startswith("berlin_000000_000019")
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (2048, 1024))
        written = np.array(image)
    assert written[5, 7] == 33
    assert set(np.unique(written)) == {7, 33}
    with pytest.raises(UsageError, match="512 x 1024"):
        export(tmp_path, "x", classes[::2, ::2])
    with pytest.raises(UsageError, match="class 19"):
        export(tmp_path, "x", np.full_like(classes, 19))


@pytest.mark.parametrize("root", ["", "gtFine", "nowhere"])
def test_cityscapes_names_the_missing_folder(tmp_path: Path, root: str) -> None:
    (tmp_path / "pictures").mkdir()
    if root == "gtFine":
        fake_cityscapes(tmp_path, labels=False)
    with pytest.raises(UsageError) as error:
        cityscapes(tmp_path / ("nowhere" if root == "nowhere" else ""))
    expected = {"": "leftImg8bit", "gtFine": "gtFine", "nowhere": "nowhere"}[root]
    assert expected in error.value.where
    assert "pictures" in str(error.value)
    assert "_gtFine_labelIds.png" in error.value.accepted


def test_an_image_without_labels_is_named(tmp_path: Path) -> None:
    fake_cityscapes(tmp_path)
    (tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 2 pairs lack their label map.*aachen_000001_000019_gtFine"):
        cityscapes(tmp_path)


def broken(tmp_path: Path, image: np.ndarray | None, labels: np.ndarray | None) -> str:
    fake_cityscapes(tmp_path)
    name = "aachen_000000_000019"
    if image is not None:
        save(tmp_path / f"leftImg8bit/train/aachen/{name}_leftImg8bit.png", image)
    if labels is not None:
        save(tmp_path / f"gtFine/train/aachen/{name}_gtFine_labelIds.png", labels)
    with pytest.warns(UserWarning, match=OFFICIAL):
        data = cityscapes(tmp_path)
    with pytest.raises(UsageError) as error:
        data[0]
    assert name in error.value.where
    return str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    assert "label 34 in 48 pixels" in broken(tmp_path, None, np.full((6, 8), 34, dtype=np.uint8))
    assert "5 x 8 pixels" in broken(tmp_path, None, np.full((5, 8), 7, dtype=np.uint8))
    coloured = np.stack([RGB[..., 0], RGB[..., 1] + 1, RGB[..., 2]], axis=2)
    assert "the label map has three channels" in broken(tmp_path, RGB, coloured)
    assert "the label 300" in broken(tmp_path, RGB, np.full((6, 8), 300, dtype=np.uint16))


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    fake_cityscapes(tmp_path)
    (tmp_path / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").write_bytes(b"not an image")
    with pytest.warns(UserWarning, match=OFFICIAL):
        data = cityscapes(tmp_path)
    with pytest.raises(UsageError, match="not a readable image"):
        data[0]


# CamVid


def fake_folders(root: Path) -> Path:
    for part in ("train", "val", "test"):
        save(root / part / f"{part}1.png", RGB)
        labels = np.full((6, 8), 11, dtype=np.uint8)
        labels[0] = range(8)
        save(root / f"{part}annot" / f"{part}1.png", labels, palette=part == "val")
    return root


def fake_lists(root: Path) -> Path:
    colours = np.zeros((6, 8, 3), dtype=np.uint8)
    colours[0] = [COLOURS[name] for name in LISTED_ORDER[:8]]
    for part in ("train", "val", "test"):
        save(root / "images" / f"{part}1.png", RGB)
        save(root / "labels" / f"{part}1_L.png", colours)
        (root / "list").mkdir(exist_ok=True)
        (root / "list" / f"{part}.lst").write_text(f"images/{part}1.png labels/{part}1_L.png\n\n", encoding="utf-8")
    return root


def test_camvid_folders(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="468"):
        data = camvid(fake_folders(tmp_path), "trainval")
    assert [data[number].name for number in range(2)] == ["train1", "val1"]
    for number in range(2):
        labels = data[number].labels
        assert labels is not None
        assert labels[0].tolist() == list(range(8))
        assert (labels[1:] == IGNORE).all()


def test_camvid_lists_store_the_order_of_the_folders(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="233"):
        sample = camvid(fake_lists(tmp_path), "test")[0]
    assert sample.labels is not None
    assert [list(COLOURS)[label] for label in sample.labels[0]] == list(LISTED_ORDER[:8])
    assert (sample.labels[1:] == IGNORE).all()


def test_camvid_faults(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    with pytest.raises(UsageError, match="no train/ and no list; the folder holds odd"):
        camvid(tmp_path)
    folders = fake_folders(tmp_path / "a")
    save(folders / "trainannot" / "train1.png", np.full((6, 8), 12, dtype=np.uint8))
    with pytest.warns(UserWarning, match=OFFICIAL):
        data = camvid(folders)
    with pytest.raises(UsageError, match=r"train1.png: label 12"):
        data[0]
    save(folders / "trainannot" / "train2.png", RGB[..., 0])
    with pytest.raises(UsageError, match=r"train2.png: 1 of 2 label maps lack their image"):
        camvid(folders)
    lists = fake_lists(tmp_path / "b")
    save(lists / "labels" / "train1_L.png", RGB)
    with pytest.warns(UserWarning, match=OFFICIAL):
        data = camvid(lists)
    with pytest.raises(UsageError, match=r"train1_L.png: 48 of 48 pixels have an unknown colour"):
        data[0]
    (lists / "list" / "train.lst").write_text("images/train1.png\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"train.lst:1: found 1 words"):
        camvid(lists)
    (lists / "list" / "train.lst").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no image"):
        camvid(lists)


# Transforms


def test_light_augmentation_only_crops_and_flips() -> None:
    sample = Scenes(1, 64, 96)[0]
    assert sample.labels is not None
    pixels, labels = augment(sample.image, sample.labels, Augmentation.light((64, 96)), np.random.default_rng(1))
    plain = network_input(sample.image)
    assert torch.equal(pixels, plain) or torch.equal(pixels, plain.flip(-1))
    assert torch.equal(
        labels.flip(-1) if torch.equal(pixels, plain.flip(-1)) else labels, torch.from_numpy(sample.labels).long()
    )


def test_image_and_labels_move_together() -> None:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[10:20, 30:50] = 1
    image = np.repeat(labels[..., None] * np.uint8(255), 3, axis=2)
    options = Augmentation((48, 48), jitter=0.0, blur=None)
    for seed in range(10):
        pixels, truth = augment(image, labels, options, np.random.default_rng(seed))
        assert pixels.shape == (3, 48, 48)
        agree = (pixels[0] > 0) == (truth == 1)
        assert float(agree[truth != IGNORE].float().mean()) > 0.97
        padding = normalised(torch.zeros(3, 1, 1))
        outside = truth == IGNORE
        assert torch.allclose(pixels[:, outside], padding[:, 0].expand(3, int(outside.sum())))


@given(
    size=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    share=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_the_crop_contains_the_point(size: tuple[int, int], share: tuple[float, float], seed: int) -> None:
    labels = np.zeros(size, dtype=np.uint8)
    point = (int(share[0] * size[0]), int(share[1] * size[1]))
    labels[point] = 1
    _, truth = augment(
        np.zeros((*size, 3), dtype=np.uint8), labels, Augmentation.light((24, 24)), np.random.default_rng(seed), point
    )
    assert int((truth == 1).sum()) == 1


def test_a_crop_may_lie_outside() -> None:
    found = cropped(torch.ones(2, 3), -1, 1, (4, 4), 7)
    assert found.tolist() == [[7, 7, 7, 7], [1, 1, 7, 7], [1, 1, 7, 7], [7, 7, 7, 7]]


def test_hue_turns_the_circle() -> None:
    red = torch.tensor([1.0, 0.2, 0.2]).view(3, 1, 1)
    assert hue_turned(red, 1 / 3).flatten().tolist() == pytest.approx([0.2, 1.0, 0.2])
    assert hue_turned(red, 0.5).flatten().tolist() == pytest.approx([0.2, 1.0, 1.0])
    any_colour = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hue_turned(any_colour, 0.0), any_colour, atol=1e-6)
    assert torch.allclose(hue_turned(any_colour, 1.0), any_colour, atol=1e-5)


def test_blur_keeps_the_mean_and_has_its_sigma() -> None:
    point = torch.zeros(3, 21, 21)
    point[:, 10, 10] = 1
    spread = blurred(point, 1.3)
    assert float(spread[0].sum()) == pytest.approx(1, abs=1e-5)
    offsets = torch.arange(-10, 11.0)
    assert float((spread[0].sum(dim=0) * offsets**2).sum()) == pytest.approx(1.69, rel=0.01)
    assert torch.allclose(blurred(torch.full((3, 9, 9), 0.4), 0.15), torch.tensor(0.4))


# Order


def test_every_image_once_an_epoch() -> None:
    first, second = (plan(5, epoch, 30) for epoch in (0, 1))
    assert sorted(number for number, _ in first) == list(range(30))
    assert first != second
    assert first == plan(5, 0, 30)


def test_class_uniform_sampling() -> None:
    centroids = [{0: (1.0, 1.0)} for _ in range(37)] + [{0: (1.0, 1.0), 3: (float(n), 2.0)} for n in range(3)]
    items = plan(0, 2, 40, centroids)
    assert len(items) == 40
    rare = [number for number, point in items if point is not None and point[1] == 2.0]
    assert len(rare) == 10  # floor(0.5 * 40 / 2), from a list of three, wrapping
    assert {rare.count(number) for number in (37, 38, 39)} == {3, 4}
    assert sum(point is None for _, point in items) == 20
    assert all(centroids[number][3] == point for number, point in items if point is not None and point[1] == 2.0)


def test_centroids_are_means_of_positions() -> None:
    scenes = Scenes(2, 64, 64)
    found = class_centroids(scenes)
    labels = scenes[1].labels
    assert labels is not None
    rows, columns = np.nonzero(labels == 0)
    assert found[1][0] == pytest.approx((rows.mean(), columns.mean()))
    assert IGNORE not in found[1]


def test_batches_follow_positions_whatever_the_workers() -> None:
    examples = Examples(Scenes(6, 64, 64), Augmentation((48, 48)), seed=9)
    whole = list(batches(examples, 0, 4, 2))
    later = list(batches(examples, 2, 4, 2))
    with_workers = list(batches(examples, 2, 4, 2, workers=2))
    for one, two, three in zip(whole[2:], later, with_workers, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.images, three.images)
        assert torch.equal(one.edges, three.edges)
    halves = [list(batches(examples, 0, 2, 2, rank=rank, ranks=2)) for rank in (0, 1)]
    assert torch.equal(halves[1][0].images, whole[1].images)
    assert torch.equal(halves[0][1].images, whole[2].images)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(UsageError, match="no image"):
        Examples(Scenes(0, 64, 64), Augmentation(), 0)


def test_a_sample_without_labels_cannot_be_trained_on() -> None:
    class Bare(Scenes):
        def __getitem__(self, number: int) -> Sample:
            return Sample("bare", RGB, None)

    with pytest.raises(UsageError, match="bare has no labels"):
        Examples(Bare(1, 64, 64), Augmentation(), 0)[0]
