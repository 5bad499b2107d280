"""Records that are torn, lost or of another program, in a site: they are named, and cost no other run."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.publishing.build import build
from harness.records.files import trial_folders, write_json
from harness.records.paths import ENERGY, ITEMS, MEASUREMENT, RECORD, RUN
from tests.publishing.test_site_pages import Parsed, pages

MakeRun = Callable[..., Path]


def test_a_torn_record_is_named_and_costs_no_other(make_run: MakeRun, tmp_path: Path) -> None:
    good, torn, lost = (make_run(f"store/{name}", points=2) for name in ("good", "torn", "lost"))
    (next(trial_folders(torn)) / RECORD).write_text('{"measurement": ', encoding="utf-8")
    for trial in trial_folders(lost):
        (trial / RECORD).write_text("{", encoding="utf-8")
    told: list[str] = []
    found = build(tmp_path / "site", [str(tmp_path / "store")], tell=told.append)
    assert (found.runs, found.unread) == (2, 1)
    assert any(text.startswith("torn: p0000-t000: ") for text in told)
    assert any(text.startswith(f"not read: {lost}: no trial of this run has a record (p0000-t000: ") for text in told)
    text = "".join(Parsed((tmp_path / "site/index.html").read_text(encoding="utf-8")).texts)
    assert "lost: not read: no trial of this run has a record (" in text
    assert "1 failed or missing" in text
    assert "p0000-t000" in (tmp_path / "site/runs/torn/index.html").read_text(encoding="utf-8")
    for name, page in pages(tmp_path / "site"):
        assert str(tmp_path) not in page, name
    assert not (tmp_path / "site/runs/lost").exists()
    assert good.name in text


def odd_point(trial: Path) -> None:
    for name in (MEASUREMENT, RECORD):
        content = json.loads((trial / name).read_text(encoding="utf-8"))
        if name == MEASUREMENT:
            del content["point"]["id"]
            write_json(trial / name, content)
            digest = hashlib.sha256((trial / name).read_bytes()).hexdigest()
        else:
            write_json(trial / name, content | {"measurement": {"file": MEASUREMENT, "sha256": digest}})


def odd_items(trial: Path) -> None:
    (trial / ITEMS).write_text("{\n{}\n", encoding="utf-8")


def odd_energy(trial: Path) -> None:
    (trial / ENERGY).write_text('{"t": 1, "m": "nvml", "j": [1]}\n', encoding="utf-8")


def odd_description(trial: Path) -> None:
    (trial.parent / RUN).write_text('{"points": [{"id": 1}], "provenance": 3, "suite_files": 7}', encoding="utf-8")


@pytest.mark.parametrize("damage", [odd_point, odd_items, odd_energy, odd_description], ids=lambda each: each.__name__)
def test_what_another_program_wrote_costs_its_own_run_alone(
    make_run: MakeRun, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    good, odd = make_run("store/good"), make_run("store/odd")
    damage(next(trial_folders(odd)))
    told: list[str] = []
    found = build(tmp_path / "site", [str(tmp_path / "store")], tell=told.append)
    assert (found.runs, found.unread) == (1, 1)
    assert len([text for text in told if text.startswith(f"not read: {odd}: ")]) == 1
    assert (tmp_path / "site/runs" / good.name / "index.html").exists()
    assert not (tmp_path / "site/runs/odd").exists()
    assert "odd: not read: " in "".join(Parsed((tmp_path / "site/index.html").read_text(encoding="utf-8")).texts)
    with (tmp_path / "site/data/units.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["run"] for row in csv.DictReader(stream)} == {"store/good"}
