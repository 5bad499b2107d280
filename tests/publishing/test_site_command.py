"""`harness site` on runs that were measured, in a folder, in a store or behind a URL."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.publishing.folder import files_below
from harness.records.paths import GATE
from harness.records.summary import load
from tests.publishing.test_site_pages import Parsed, made

MakeRun = Callable[..., Path]
Harness = Callable[..., "subprocess.CompletedProcess[str]"]

SPIN = """
suite: spin-sizes
backend: simulated
meters: [simulated]
trials: 3
windows: {count: 1, min_seconds: 0.15}
warm_up: {max_iterations: 0, min_iterations: 0}
cases:
  - {workload: spin, name: small, options: {iterations: 2000}}
  - {workload: spin, name: large, options: {iterations: 20000}}
"""


@pytest.fixture
def spun(harness_in_process: Harness, tmp_path: Path) -> Path:
    """A store of two runs of the loop on the simulated accelerator."""
    (tmp_path / "suite.yaml").write_text(SPIN, encoding="utf-8")
    for _ in range(2):
        done = harness_in_process("run", tmp_path / "suite.yaml", "--store", tmp_path / "reports")
        assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "reports"


def test_measured_runs_become_a_site(spun: Path, harness_in_process: Harness, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in spun.rglob("*")}
    done = harness_in_process("site", tmp_path / "site", spun, "--title", "Spinning")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"site: {tmp_path / 'site/index.html'} (2 runs, ")
    assert {path: path.stat().st_mtime_ns for path in spun.rglob("*")} == before, "the records are only read"
    text = "".join(Parsed((tmp_path / "site/index.html").read_text(encoding="utf-8")).texts)
    for wanted in (
        "Spinning",
        "2 runs, 12 trials, 1 device",
        "Energy per operation",
        "Rate in operation/s",
        "spin-sizes",
    ):
        assert wanted in text
    (board,) = (tmp_path / "site/leaderboards").glob("operation-energy_j-*.html")
    shown = Parsed(board.read_text(encoding="utf-8"))
    assert {"small ", "large ", "simulated"} <= set(shown.texts)
    runs = [load(run) for run in sorted(spun.iterdir())]
    newest = max(runs, key=lambda report: str(report.run["started_utc"]))
    linked = {str(a.get("href")) for tag, a in shown.tags if tag == "a" and "runs/" in str(a.get("href"))}
    assert linked == {f"../runs/{newest.folder.name}/index.html"}
    badges = (tmp_path / "site/badges.html").read_text(encoding="utf-8")
    assert badges.count("<img ") == 2 * 3
    assert ", simulated" in badges


def test_wrong_arguments_are_refused_by_name(harness_in_process: Harness, make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = make_run(points=1, trials=1)
    for arguments, said in (
        ((tmp_path / "site", tmp_path / "nowhere"), "there is no such folder"),
        ((tmp_path / "site", tmp_path / "empty"), "there is no run here"),
        ((tmp_path, run), "would lie in each other"),
    ):
        done = harness_in_process("site", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
    assert not (tmp_path / "site").exists()


def test_runs_behind_a_url_become_the_same_site(
    make_run: MakeRun, harness_in_process: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(2):
        make_run(f"store/run{number}", points=1)
    place = f"file://{tmp_path / 'store'}"
    done = harness_in_process("site", tmp_path / "far", place)
    assert done.returncode == 0, done.stdout + done.stderr
    made(tmp_path / "near", tmp_path / "store")
    assert files_below(tmp_path / "far") == files_below(tmp_path / "near")
    pairs = [
        ((tmp_path / side / name).read_bytes() for side in ("far", "near")) for name in files_below(tmp_path / "far")
    ]
    assert all(far == near for far, near in pairs)
    one = harness_in_process("site", tmp_path / "one", f"{place}/run1")
    assert "(1 run, " in one.stdout, one.stderr


def test_gates_are_left_out_and_said_so_where_they_are_named(
    make_run: MakeRun, harness_in_process: Harness, tmp_path: Path
) -> None:
    make_run("store/run", points=1)
    (tmp_path / "store/gate").mkdir()
    (tmp_path / "store/gate" / GATE).write_text("{}", encoding="utf-8")
    (tmp_path / "store/notes").mkdir()
    done = harness_in_process("site", tmp_path / "site", tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, "note: left out: notes: no run\n")
    done = harness_in_process("site", tmp_path / "other", tmp_path / "store/gate")
    assert (done.returncode, "this is a gate" in done.stderr) == (2, True)
