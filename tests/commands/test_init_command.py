"""`harness init`: a starter suite that plans and fits this machine; never over what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli import app
from harness.commands import init
from harness.diagnosing.survey import READS, Row
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.planning.planner import expand
from harness.planning.suite import loads

ROOT = Path(__file__).parents[2]


def core() -> Registry:
    import harness.builtin

    registry = Registry()
    registry.register(harness.builtin, "builtin", distribution="joule-harness")
    return registry


def row(kind: str, name: str, **more: Any) -> Row:
    return Row(kind=kind, name=name, plugin="p 1", status=READS, **more)


COUNTER = row("meter", "rapl", scope="n0/cpu-package:0", method="counter")
CARD = row("meter", "nvml", scope="n0/gpu:GPU-1", method="counter")
TORCH = row("backend", "torch")


def suite_of(rows: list[Row], monkeypatch: pytest.MonkeyPatch, registry: Registry, place: str | None = None) -> str:
    monkeypatch.setattr("harness.diagnosing.survey.devices_of", lambda *_: [])
    monkeypatch.setattr("harness.diagnosing.survey.survey", lambda *_: rows)
    return init.composed("mine", place, registry)


def test_it_is_written_and_the_next_commands_are_said(tmp_path: Path) -> None:
    file = tmp_path / "first.yaml"
    done = CliRunner().invoke(app, ["init", str(file)])
    assert done.exit_code == 0, done.output
    assert done.stdout.split("\n")[1:3] == [f"  harness plan {file}", f"  harness run {file}"]
    suite = loads(file.read_text(encoding="utf-8"), str(file))
    assert suite.suite == "first"
    assert {"function", "command"} <= {case.workload for case in suite.cases}
    assert expand([suite], load_plugins()).points


@pytest.mark.parametrize(
    ("rows", "estimates"), [([], True), ([CARD], True), ([COUNTER], False), ([COUNTER, CARD], False)]
)
def test_an_estimate_is_added_where_no_counter_reads_the_processor(
    rows: list[Row], estimates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = suite_of(rows, monkeypatch, core())
    meters = yaml.safe_load(text)["meters"]
    assert meters[0] == "auto"
    assert any(isinstance(each, dict) and "tdp" in each for each in meters) is estimates
    assert ", ".join(each.name for each in rows) in text


def test_what_torch_and_the_decoding_plugin_can_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = load_plugins()
    if "vanilla" not in everything.workloads:
        pytest.skip("the decoding plugin is not installed")
    workloads = [
        [case["workload"] for case in yaml.safe_load(suite_of(rows, monkeypatch, registry))["cases"]]
        for rows, registry in (([TORCH], everything), ([], everything), ([TORCH], core()))
    ]
    assert [("vanilla" in each) for each in workloads] == [True, False, False]


def test_a_place_gives_carbon_and_a_wrong_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = load_plugins()
    if "fuel" not in everything.meters:
        pytest.skip("meter fuel is not installed")
    suite = yaml.safe_load(suite_of([], monkeypatch, everything, "FRA"))
    assert suite["place"] == "FRA"
    assert "fuel" in suite["meters"]
    for wrong in ("Atlantis", "", "FRA}, x: {", "a\nb"):
        with pytest.raises(UsageError) as said:
            suite_of([], monkeypatch, everything, wrong)
        assert said.value.where == f"--place {wrong}"
    with pytest.raises(UsageError, match=r"joule-harness\[carbon\]"):
        suite_of([], monkeypatch, core(), "FRA")


@pytest.mark.parametrize("taken", ["file", "folder", "dangling"])
def test_nothing_is_overwritten(taken: str, tmp_path: Path) -> None:
    place = tmp_path / "suite.yaml"
    if taken == "file":
        place.write_text("mine", encoding="utf-8")
    elif taken == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "gone")
    for more in ([], ["--like", "first-number"]):
        done = CliRunner().invoke(app, ["init", str(place), *more])
        assert isinstance(done.exception, UsageError)
        assert "not overwritten" in str(done.exception)
    assert taken != "file" or place.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "gone").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "no" / "suite.yaml"), "--like", "first-number"])
    assert isinstance(done.exception, UsageError)
    assert "cannot be written" in str(done.exception)


@pytest.mark.parametrize("name", ["my suite", "1.5", "true", "größe", "a: b"])
def test_any_file_name_gives_a_suite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.diagnosing.survey.devices_of", lambda *_: [])
    monkeypatch.setattr("harness.diagnosing.survey.survey", lambda *_: [])
    text = init.composed(name, None, core())
    assert expand([loads(text)], core()).points


def test_a_suite_that_comes_with_the_harness_is_copied(tmp_path: Path) -> None:
    assert {"first-number", "quickstart"} <= init.shipped().keys() == {path.stem for path in ROOT.glob("suites/*.yaml")}
    done = CliRunner().invoke(app, ["init", str(tmp_path / "x.yaml"), "--like", "first-number"])
    assert done.exit_code == 0, done.output
    copied = (tmp_path / "x.yaml").read_text(encoding="utf-8")
    assert "$schema" not in copied
    assert loads(copied).cases == loads((ROOT / "suites/first-number.yaml").read_text(encoding="utf-8")).cases
    with pytest.raises(UsageError, match="did you mean 'first-number'"):
        init.copied("first-numbr")
    both = CliRunner().invoke(app, ["init", str(tmp_path / "y.yaml"), "--like", "first-number", "--place", "FRA"])
    assert both.exit_code == 2


def test_where_it_is_installed_suites_lie_within_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "harness"
    (package / "commands").mkdir(parents=True)
    (package / "suites").mkdir()
    (package / "suites" / "one.yaml").write_text("suite: one\n", encoding="utf-8")
    monkeypatch.setattr(init, "__file__", str(package / "commands" / "init.py"))
    assert list(init.shipped()) == ["one"]


def test_a_copied_suite_comes_with_the_files_that_it_names(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    done = CliRunner().invoke(app, ["init", str(target), "--like", "scarf-fabs"])
    assert done.exit_code == 0, done.output
    copied = tmp_path / "candidates" / "scarf-fabs-invented.yaml"
    assert copied.read_bytes() == (ROOT / "suites/candidates/scarf-fabs-invented.yaml").read_bytes()
    assert {path.name for path in tmp_path.rglob("*.yaml")} == {"mine.yaml", copied.name}
    copied.write_text("kept", encoding="utf-8")
    assert CliRunner().invoke(app, ["init", str(tmp_path / "other.yaml"), "--like", "scarf-fabs"]).exit_code == 0
    assert copied.read_text(encoding="utf-8") == "kept"
