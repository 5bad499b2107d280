"""What a wheel holds: licence, type marker and package data; an editable installation copies nothing of it."""

from __future__ import annotations

import configparser
import shutil
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
DECODING = ROOT / "plugins" / "workload-speculative-decoding"
LICENSE = (ROOT / "LICENSE").read_bytes()
FOLDERS = [ROOT, *sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))]


def built(project: Path, target: Path, version: str = "standard") -> zipfile.ZipFile:
    (wheel,) = WheelBuilder(str(project)).build(directory=str(target), versions=[version])
    return zipfile.ZipFile(wheel)


def licences(wheel: zipfile.ZipFile) -> list[bytes]:
    return [wheel.read(name) for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: folder.name)
def test_each_plugin_has_the_licence(folder: Path) -> None:
    assert (folder / "LICENSE").read_bytes() == LICENSE
    assert 'license-files = ["LICENSE"]' in (folder / "pyproject.toml").read_text(encoding="utf-8")


def test_the_cores_wheel_holds_licence_suites_templates_and_both_commands(tmp_path: Path) -> None:
    with built(ROOT, tmp_path) as wheel:
        names = set(wheel.namelist())
        assert licences(wheel) == [LICENSE]
        (scripts,) = [wheel.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
    assert {f"harness/suites/{path.name}" for path in ROOT.glob("suites/*.yaml")} <= names
    assert {"joule_harness_cli.py", "harness/py.typed", "harness/commands/templates/pyproject.toml.in"} <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"harness", "joule_harness_cli.py"}
    parsed = configparser.ConfigParser()
    parsed.read_string(scripts)
    assert dict(parsed["console_scripts"]) == {
        "harness": "harness.__main__:main",
        "joule-harness": "joule_harness_cli:main",
    }


def test_the_decoding_plugins_wheel_holds_its_models(tmp_path: Path) -> None:
    with built(DECODING, tmp_path) as wheel:
        assert licences(wheel) == [LICENSE]
        for name in ("LICENSE", "small/model.safetensors", "tiny/model.safetensors", "tiny/recipe.json"):
            inside = wheel.read(f"harness_speculative_decoding/models/{name}")
            assert inside == (DECODING / "src/harness_speculative_decoding/models" / name).read_bytes()


def test_an_editable_installation_is_a_path_and_no_copy(tmp_path: Path) -> None:
    with built(ROOT, tmp_path, "editable") as wheel:
        outside = [name for name in wheel.namelist() if ".dist-info" not in name]
        assert outside == ["_joule_harness.pth"]
        assert wheel.read(outside[0]).decode() == str(ROOT)


def test_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    shutil.unpack_archive(archive, tmp_path, filter="data")
    (unpacked,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    with built(unpacked, tmp_path / "again") as again, built(ROOT, tmp_path / "here") as here:
        assert set(again.namelist()) == set(here.namelist())
