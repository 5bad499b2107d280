"""The revision of a run: in its header, and in the formats of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.records.summary import load
from harness.reporting.circumstances import header, revisions
from harness.reporting.export import commit_info, model_card, open_metrics, pytest_benchmark

TREE = {"project": "work", "revision": "0123456789abcdef" * 2 + "01234567", "branch": "main", "dirty": True}
PLUGIN = {"project": "plug", "revision": "f" * 40}


def described(folder: Path, provenance: object) -> Any:
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**content, "provenance": provenance}), encoding="utf-8")
    return load(folder)


def test_a_run_is_shown_and_exported_with_its_revision(make_run: Callable[..., Path]) -> None:
    report = described(make_run(), {"working_folder": TREE, "sources": {"a": TREE, "b": PLUGIN}})
    texts = [text for name, text in header(report) if name == "sources"]
    assert texts == ["work 0123456789ab, branch main, with uncommitted changes", "plug ffffffffffff, as installed"]
    info = json.loads(pytest_benchmark(report))["commit_info"]
    assert (info["id"], info["dirty"], info["project"], info["branch"]) == (TREE["revision"], True, "work", "main")
    assert f'revision="{TREE["revision"]}",branch="main",dirty="true"}} 1' in open_metrics(report)
    assert open_metrics(report).endswith("# EOF\n")


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({}, "unknown"),
        ({"working_folder": None, "sources": {}}, "unversioned"),
        ({"working_folder": {"project": "p", "unknown": "git took too long"}}, "unknown"),
        ("nonsense", "unknown"),
        ({"working_folder": "nonsense", "sources": ["nonsense"]}, "unversioned"),
    ],
)
def test_what_is_not_known_is_not_claimed(make_run: Callable[..., Path], provenance: object, said: str) -> None:
    report = described(make_run(), provenance)
    info = commit_info(report.run)
    assert info["id"] == said
    assert info["error"]
    assert "harness_run{" not in open_metrics(report)
    assert "harness_run_info{" not in open_metrics(report)
    assert all("not known: git took too long" in text for text in revisions(report.run))


def test_a_run_of_before_is_read(make_run: Callable[..., Path]) -> None:
    report = load(make_run())
    assert revisions(report.run) == []
    assert commit_info(report.run)["id"] == "unknown"


def test_a_model_card_names_the_revision(stored_run: Callable[..., Path]) -> None:
    folder = stored_run("r", {"p": [1.0]}, factor="grid:1")
    assert "work 0123456789ab with uncommitted changes" in model_card(described(folder, {"working_folder": TREE}))


def test_a_real_run_says_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "suite: s\nmeters: []\ntrials: 1\nwindows: {count: 1, min_seconds: 0.01}\nwarm_up: {max_iterations: 0}\n"
        "foreign_load: {at_most: 100%}\ncases: [{workload: spin, options: {iterations: 10}}]\n"
    )
    ended = CliRunner().invoke(app, ["run", str(suite), "--store", str(tmp_path / "store")])
    assert ended.exit_code == 0, ended.output
    (file,) = (tmp_path / "store").glob("*/run.json")
    said = json.loads(file.read_text())["provenance"]
    assert said["suites"][0]["path"] == str(suite)
    assert len(said["suites"][0]["sha256"]) == 64
    assert {"pydantic", "typer", "psutil"} <= said["distributions"].keys()
    assert said["host"]["cores_logical"] >= 1
    (measured,) = (tmp_path / "store").glob("*/*/measurement.json")
    content = json.loads(measured.read_text())
    assert content["environment"]["locks"]["held"]["cpu"]
    assert [load["window"] for load in content["loads"]] == [0]
