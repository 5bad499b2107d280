"""Every option is read, what is built is reached from one, and what cannot be is known while planning."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import harness_semantic_segmentation as plugin
import numpy as np
import pytest
from harness_backend_torch import TorchOptions
from harness_semantic_segmentation.data.image_io import read_index, write
from harness_semantic_segmentation.workloads.checks import CHOICES, check
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions, TrainingOptions

from harness.errors import UsageError
from harness.testing import RecordingWindow, trial_context

SOURCE = Path(plugin.__file__).parent
SMALL: dict[str, Any] = {"model": "bialignnet-dfnet1", "width": 0.125, "size": [32, 64]}
FOR_COPIES = {"authors_state_dict"}
"""What only programs call that take the folder `networks/` with them: they write files that the authors' code reads."""
DECLARED = {"options.py", "own_data.py", "checks.py"}
OFFICIAL = pytest.mark.filterwarnings("ignore:.*the official split has")


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Any]:
    from harness_backend_torch.backend import TorchBackend

    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    specs = {each.name: each for each in plugin.harness_workloads()}
    told: list[str] = []

    def prepare(name: str, **options: Any) -> Any:
        spec = specs[f"segmentation-{name}"]
        workload = spec.factory(spec.options.model_validate({**SMALL, **options}))
        workload.prepare(replace(trial_context(tmp_path, backend), log=told.append))
        workload.told = told
        return workload

    yield prepare
    backend.close()


def measured(workload: Any, steps: int = 1) -> Any:
    """The workload after one window of so many steps."""
    workload.window = RecordingWindow(steps)
    workload.run(workload.window)
    workload.after_window(workload.window)
    return workload


Definition = ast.FunctionDef | ast.ClassDef


def mentioned(node: ast.AST) -> set[str]:
    """Names that a piece of code mentions, also as `module:Name` in a text; imports alone mention nothing."""
    found: set[str] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            found.add(each.id)
        elif isinstance(each, ast.Attribute):
            found.add(each.attr)
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            found.add(each.value.rpartition(":")[2])
    return found


def leads_of(module: ast.Module) -> dict[str, set[str]]:
    """Top-level definitions and constants of a module, with what they mention."""
    found: dict[str, set[str]] = {}
    for node in module.body:
        if isinstance(node, Definition):
            found[node.name] = mentioned(node) - {node.name}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {ast.unparse(target): mentioned(node) for target in targets}
    return found


def reached(files: dict[Path, str]) -> tuple[set[str], dict[str, Path]]:
    """What the hooks lead to, definition by definition, and where each public function and class is defined."""
    leads: dict[str, set[str]] = {}
    public: dict[str, Path] = {}
    for file, text in files.items():
        module = ast.parse(text)
        for name, names in leads_of(module).items():
            leads.setdefault(name, set()).update(names)
        public |= {
            node.name: file for node in module.body if isinstance(node, Definition) and not node.name.startswith("_")
        }
    found, new = set(), {name for name in leads if name.startswith("harness_")}
    assert new == {"harness_commands", "harness_workloads"}
    while new:
        found |= new
        new = {name for each in new for name in leads.get(each, ())} - found
    return found, public


def test_every_public_function_is_reached_from_an_option_or_a_command() -> None:
    files = {file: file.read_text(encoding="utf-8") for file in sorted(SOURCE.rglob("*.py"))}
    found, public = reached(files)
    alone = {f"{file.relative_to(SOURCE)}: {name}" for name, file in public.items() if name not in found | FOR_COPIES}
    assert alone == set()
    assert len(public) > 150
    island = "def islander():\n    return neighbour()\ndef neighbour():\n    return islander()\n"
    far = reached({**files, SOURCE / "island.py": island})[0]
    assert not {"islander", "neighbour"} & far, "two that call each other are no more reached for it"


@pytest.mark.parametrize("model", [TrainingOptions, SegmentationInferenceOptions])
def test_every_option_is_read(model: Any) -> None:
    read = "\n".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py") if file.name not in DECLARED)
    assert [name for name in model.model_fields if f"options.{name}" not in read] == []


def test_choices_that_planning_knows_are_those_of_the_networks() -> None:
    from harness_semantic_segmentation.networks.bialignnet import Switches
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE
    from harness_semantic_segmentation.networks.fpn import FPNBackbone, Sampling

    for name, entry in CATALOGUE.items():
        assert set(CHOICES.get(name, {})) == set(entry.defaults), name
    hints = {**get_type_hints(Switches), **get_type_hints(Sampling), "backbone": FPNBackbone}
    for name, choices in CHOICES.items():
        for choice, values in choices.items():
            wanted = (False, True) if hints.get(choice) is bool else get_args(hints.get(choice))
            assert set(values) == set(wanted), (name, choice)


@pytest.mark.parametrize(
    ("options", "option", "says"),
    [
        ({"model": "bialignet"}, "model", "no network"),
        ({"choices": {"gates": "none"}}, "choices", "no choice 'gates'"),
        ({"choices": {"gate": "open"}}, "choices", "gate is 'open'"),
        ({"choices": {"grid_align_corners": 1}}, "choices", "grid_align_corners is 1"),
        ({"model": "fpn", "choices": {"channels": 0}}, "choices", "channels is 0"),
        ({"model": "segformer-b0", "width": 0.5}, "width", "no width"),
        ({"data": "camvit", "root": "."}, "data", "no data set 'camvit'"),
        ({"weights": "resnet"}, "weights", "no file"),
        ({"data": "camvid", "root": ".", "weights": "trained"}, "weights", "synthetic scenes only"),
        ({"export": "out"}, "export", "Cityscapes"),
        ({"split": "test"}, "split", "Cityscapes"),
    ],
)
def test_what_cannot_be_is_known_while_planning(options: dict[str, Any], option: str, says: str) -> None:
    faults = check(SegmentationInferenceOptions.model_validate(options))
    (fault,) = [each for each in faults if each.option != "root"]  # no data set lies in the folder of the tests
    assert fault.option == option
    assert says in fault.message


def test_weights_of_the_loss_and_its_form_enter_the_recipe(prepared: Any) -> None:
    chosen = {"edge_loss": "corrected", "segmentation_weight": 2.0, "edge_weight": 0.5, "mined_weight": 0.0}
    loss = prepared("training", ohem_pixels=50, **chosen).facts()["recipe"]["loss"]
    assert (loss["edge_form"], loss["segmentation_weight"], loss["edge_weight"]) == ("corrected", 2.0, 0.5)
    assert (loss["mined_weight"], loss["keep"], loss["keep_mined"]) == (0.0, 50, 25)
    assert prepared("training").facts()["recipe"]["loss"]["keep"] == 2000


def test_thin_scenes_are_trained_on_and_judged(prepared: Any) -> None:
    facts = prepared("training", objects="thin").facts()
    assert (facts["data"]["objects"], facts["validation"]["objects"]) == ("thin", "thin")


def test_a_training_begins_with_weights_of_a_file(prepared: Any, tmp_path: Path) -> None:
    import torch
    from harness_semantic_segmentation.networks.checkpoints import authors_state_dict

    first = measured(prepared("training", steps=2, images=4, batch=2, checkpoints=str(tmp_path / "a")))
    network, path = first._task.network, first.facts()["checkpoint"]
    begun = prepared("training", weights=path)
    assert torch.equal(begun._task.network.head.conv.conv.weight, network.head.conv.conv.weight)
    assert begun._task.steps_done == 0
    torch.save({"state_dict": authors_state_dict(network)}, tmp_path / "authors.pth")
    backbone = prepared("training", backbone_weights=str(tmp_path / "authors.pth"))._task.network.backbone
    assert torch.equal(next(iter(backbone.parameters())), next(iter(network.backbone.parameters())))
    with pytest.raises(UsageError, match="do not fit"):
        prepared("training", weights=path, choices={"gate": "none"})
    partial = prepared("training", weights=path, choices={"gate": "none"}, partial=True)
    assert any(line.startswith("not loaded: ") and "gate" in line for line in partial.told)


def streets(root: Path, split: str, cities: int) -> Path:
    """A folder like Cityscapes, of small pictures of a road and a car."""
    for number in range(cities):
        name = f"aachen_00000{number}_000019"
        rows, columns = np.mgrid[:64, :96]
        photo = np.stack([rows, columns, rows % 7], axis=-1).astype(np.uint8)
        write(root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", photo)
        write(
            root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png",
            np.where(columns < 50, 7, 26).astype(np.uint8),
        )
    return root


@OFFICIAL
def test_all_of_a_split_is_judged_and_counted(prepared: Any, tmp_path: Path) -> None:
    root = streets(streets(tmp_path / "city", "val", 5), "train", 2)
    given = {"data": "cityscapes", "root": str(root)}
    first = measured(prepared("training", **given, steps=4, batch=2, crop=[32, 32]))
    assert first.facts()["validation"]["judged"] == 5
    assert "wall" in first.facts()["validation"]["labels"]["absent"]
    assert any("never occur in all 5 label maps" in note for note in first.told)
    given["weights"] = first.facts()["checkpoint"]
    workload = measured(prepared("inference", **given, images=2))
    facts = workload.facts()
    assert (facts["judged"], facts["data"]["frames"]) == (5, 2)
    assert facts["data"]["labels"]["looked_at"] == 5
    assert list(facts["iou_by_class"])[:2] == ["road", "sidewalk"]
    assert {row["item_id"] for row in workload.window.rows} == {"frame-0-aachen_000000_000019"}
    assert measured(prepared("inference", **given, images=1, judged=2)).facts()["judged"] == 2


def test_a_frame_without_labels_costs_no_other_its_quality(prepared: Any, tmp_path: Path) -> None:
    weights = measured(prepared("training", steps=2, batch=2, checkpoints=str(tmp_path / "a"))).facts()["checkpoint"]
    workload = prepared("inference", weights=weights, images=2)
    workload._frames[0] = replace(workload._frames[0], labels=None)
    first, second = measured(workload, 2).window.rows
    assert first.get("image_miou") is None
    assert second["image_miou"] is not None
    assert workload.validate()["miou"] == second["miou"]


@OFFICIAL
def test_street_labels_that_are_train_ids_are_refused(prepared: Any, tmp_path: Path) -> None:
    root = streets(streets(tmp_path / "city", "val", 1), "train", 2)
    for file in root.glob("gtFine/*/*/*.png"):
        write(file, np.where(read_index(file) == 7, 7, 13).astype(np.uint8))
    with pytest.raises(UsageError, match="no labelId above 18, as trainIds do"):
        prepared("training", data="cityscapes", root=str(root), crop=[32, 32])


@OFFICIAL
def test_predictions_go_to_the_test_server_in_its_form(
    prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_semantic_segmentation.data import cityscapes

    monkeypatch.setattr(cityscapes, "SIZE", (64, 96))
    given = {"data": "cityscapes", "root": str(streets(tmp_path / "city", "test", 2)), "split": "test"}
    workload = measured(prepared("inference", **given, export=str(tmp_path / "out"), images=1))
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["aachen_000000_000019_leftImg8bit.png", "aachen_000001_000019_leftImg8bit.png"]
    assert set(np.unique(read_index(tmp_path / "out" / names[0]))) <= {*cityscapes.LABEL_IDS.values()}
    assert workload.validate() == {}


SUITE = """
suite: my-own-pictures
backend: {name: torch, device: cpu}
meters: [tdp: {watts_per_thread: 4}]
trials: 1
warm_up: {max_iterations: 0}
cases:
  - workload: segmentation-training
    options:
      model: bialignnet-dfnet1
      width: 0.125
      root: pictures
      data: {images: "photos/*.jpg", masks: "masks/{stem}.png", classes: [wall, crack], values: {wall: 0, crack: 255}}
      crop: [32, 32]
      steps: 2
    windows: {count: 1, min_seconds: 0, min_iterations: 2}
"""


@pytest.mark.slow
def test_ten_pictures_of_ones_own_are_trained_on_by_a_suite_of_fifteen_lines(tmp_path: Path) -> None:
    from PIL import Image

    assert len(SUITE.strip().splitlines()) <= 16
    for number in range(10):
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[:, 10 + number : 30] = 255
        write(tmp_path / "pictures" / "masks" / f"wall {number}.png", mask)
        (tmp_path / "pictures" / "photos").mkdir(exist_ok=True)
        Image.fromarray(255 - mask).save(tmp_path / "pictures" / "photos" / f"wall {number}.JPG")
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("store/*/*/pictures.png"))
