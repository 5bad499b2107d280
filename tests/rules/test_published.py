"""What is published under `reports/` follows from the records beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "reports/published"
MACHINES = sorted(path.parent for path in PUBLISHED.glob("*/README.md"))
RUNS = sorted(path.parent for path in PUBLISHED.glob("*/*/run.json"))
OF_THIS_MACHINE = re.compile(r"/(?:home|root|Users|work|tmp|opt|srv)/")


def called(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_something_is_published() -> None:
    assert MACHINES
    assert RUNS
    assert {run.parent for run in RUNS} == set(MACHINES)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_published_figure_follows_from_its_records(run: Path, tmp_path: Path) -> None:
    """`figures.csv` is what `harness report --format csv` makes of the records, figure by figure."""
    called("report", str(run), "--format", "csv", "--output", str(tmp_path / "figures.csv"))
    assert (tmp_path / "figures.csv").read_text(encoding="utf-8") == (run / "figures.csv").read_text(encoding="utf-8")


def test_the_site_is_built_from_the_records(tmp_path: Path) -> None:
    called("site", str(tmp_path / "site"), *map(str, RUNS))
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert "index.html" in pages
    assert all(any(run.name in page for page in pages) for run in RUNS)


def test_nothing_published_names_a_place_on_the_machine() -> None:
    texts = [path for run in RUNS for path in run.rglob("*") if path.suffix in {".json", ".jsonl", ".csv", ".log"}]
    assert [path for path in texts if OF_THIS_MACHINE.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("folder", MACHINES, ids=lambda folder: folder.name)
def test_a_published_folder_says_machine_and_commands(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "harness run" in text
    assert all(run.name in text for run in RUNS if run.parent == folder)
