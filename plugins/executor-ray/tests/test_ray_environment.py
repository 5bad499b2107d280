"""What is compared between driver and nodes, and what is packed for nodes that differ."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from copy import deepcopy
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any

import pytest
from harness_executor_ray import keeper, manifest, parcel


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """A stranger's distribution with a package and a module, one of them named by an entry point."""
    (tmp_path / "my_lamp").mkdir()
    (tmp_path / "my_lamp/__init__.py").write_text("watts = 5\n")
    (tmp_path / "my_lamp/data.csv").write_text("1,2\n")
    (tmp_path / "my_lamp/__pycache__").mkdir()
    (tmp_path / "my_lamp/__pycache__/x.pyc").write_bytes(b"\0")
    (tmp_path / "my_lamp_cli.py").write_text("")
    info = tmp_path / "my_lamp-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: My_Lamp\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[harness]\nlamp = my_lamp\n")
    (info / "RECORD").write_text("my_lamp/__init__.py,,\nmy_lamp/data.csv,,\nmy_lamp_cli.py,,\n../../bin/x.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return PathDistribution(info)


def test_the_core_and_the_plugins_are_described():
    described = manifest.describe()
    assert described["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    core = described["distributions"]["joule-harness"]
    assert len(core["modules"]["harness"]) == 16
    assert "harness_executor_ray" in described["distributions"]["joule-harness-executor-ray"]["modules"]
    assert json.loads(json.dumps(described)) == described


def test_modules_and_sources_of_a_distribution(plugin: Distribution):
    assert "my-lamp" in manifest.offering()
    assert manifest.modules(plugin) == ["my_lamp", "my_lamp_cli"]
    assert [name for name, _ in manifest.sources("my_lamp")] == ["my_lamp/__init__.py", "my_lamp/data.csv"]
    assert [name for name, _ in manifest.sources("my_lamp_cli")] == ["my_lamp_cli.py"]
    assert list(manifest.sources("no_such_module")) == []


@pytest.mark.parametrize("change", ["content", "name", "data", "added"])
def test_every_change_of_a_source_changes_the_digest(plugin: Distribution, tmp_path: Path, change: str):
    package = tmp_path / "my_lamp"
    before = manifest.digest("my_lamp")
    if change == "content":
        (package / "__init__.py").write_text("watts = 6\n")
    elif change == "name":
        (package / "data.csv").rename(package / "other.csv")
    elif change == "data":
        (package / "data.csv").write_text("1,3\n")
    else:
        (package / "new.py").write_text("")
    assert manifest.digest("my_lamp") != before


def test_compiled_files_do_not_change_it(plugin: Distribution, tmp_path: Path):
    before = manifest.digest("my_lamp")
    (tmp_path / "my_lamp/__pycache__/y.pyc").write_bytes(b"1")
    assert manifest.digest("my_lamp") == before


HERE: dict[str, Any] = {
    "python": "3.11",
    "distributions": {
        "joule-harness": {"version": "0.1.0", "modules": {"harness": "aa"}},
        "my-lamp": {"version": "1.2", "modules": {"my_lamp": "bb"}},
    },
}


def test_differences_are_named():
    there = deepcopy(HERE)
    assert manifest.differences(HERE, there) == []
    there["distributions"]["more"] = {"version": "1", "modules": {}}
    assert manifest.differences(HERE, there) == [], "what is installed only there does not matter"
    there["python"] = "3.12"
    there["distributions"]["joule-harness"]["modules"]["harness"] = "ab"
    there["distributions"]["my-lamp"]["version"] = "1.1"
    assert manifest.differences(HERE, there) == [
        "Python 3.12 there, 3.11 here",
        "joule-harness 0.1.0 has other source files there in harness",
        "my-lamp 1.1 there, 1.2 here",
    ]
    del there["distributions"]["my-lamp"]
    assert "my-lamp is not installed there" in manifest.differences(HERE, there)


def test_a_parcel_holds_what_is_here_and_nothing_else(tmp_path: Path):
    """Unpacked and first in PYTHONPATH, it is the environment that it was packed from."""
    digest, packed = parcel.pack()
    assert (digest, packed) == parcel.pack()
    keeper.unpack(packed, tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name or name.startswith("ray/")]
    code = "import json, harness; print(json.dumps(harness.__file__))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
        )
        for text in (code, inspect.getsource(manifest))
    ]
    assert found[0] == str(tmp_path / "harness/__init__.py")
    assert manifest.differences(manifest.describe(), found[1]) == []


@pytest.mark.parametrize(
    "packed",
    [
        b'[["../outside", 1]]\nx',
        b'[["/outside", 1]]\nx',
        b'[["a/../../outside", 1]]\nx',
        b'[["a", 2]]\nx',
        b'[["a", -1], ["b", 2]]\nx',
        b"no parcel",
        b"",
    ],
)
def test_a_parcel_writes_nothing_outside_its_folder(tmp_path: Path, packed: bytes):
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ValueError, match=r"parcel|Expecting|line 1"):
        keeper.unpack(packed, inside)
    assert list(tmp_path.iterdir()) == [inside]
