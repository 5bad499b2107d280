"""The page says what the records say, and nothing in a record can leave its place."""

from __future__ import annotations

import base64
import csv
import io
import json
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.quantity import Amount, Method
from harness.records.files import load_record, trial_folders
from harness.records.paths import RECORD
from harness.records.summary import load
from harness.reporting.charts import Dot, front
from harness.reporting.comparison import Runs
from harness.reporting.figures import COLUMNS, Figure, compact, expand, figures, to_csv, to_json
from harness.reporting.page import html
from harness.reporting.sidecars import IMAGE_BYTES, images, power_steps
from harness.reporting.svg import Scale

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&]]>--></style></svg>\x1b[31m"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
MakeRun = Callable[..., Path]
Harness = Callable[..., "subprocess.CompletedProcess[str]"]


class Parsed(HTMLParser):
    """Tags, visible texts, `<data>` values, the embedded figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[float] = []
        self.texts: list[str] = []
        self.data = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "data":
            self.values.append(float(dict(attrs)["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.data += data
        elif self._inside != "style":
            self.texts.append(data)


def page(*folders: Path) -> str:
    return html(Runs([load(folder) for folder in folders], ["A", "B"][: len(folders)]))


def test_every_figure_of_the_page_is_the_median_of_the_records(make_run: MakeRun) -> None:
    folder = make_run(trials=3)
    parsed = Parsed(page(folder))
    rows = list(expand(json.loads(parsed.data)))
    records = [load_record(trial) for trial in trial_folders(folder)]
    checked = 0
    for row in rows:
        mine = [each for each in records if each.measurement.point["id"] == row.point_id]
        assert row.trials == len(mine) == 3
        if row.per == "token" and row.metric != "rate":
            values = [each.units["token"].costs[row.metric] for each in mine]
        elif row.per == "token":
            values = [each.units["token"].rate for each in mine]
        elif row.per == "window time":
            values = [each.totals[row.metric] for each in mine]
        else:
            column, statistic = row.metric.split()
            values = [each.columns[column][statistic] for each in mine]
        amounts = [value for value in values if isinstance(value, Amount)]
        assert row.n == len(amounts)
        if not amounts:
            assert row.value is None
            assert row.reason
            continue
        assert row.value == statistics.median(amount.value for amount in amounts)
        assert (row.least, row.greatest) == (min(a.value for a in amounts), max(a.value for a in amounts))
        assert row.label == max((a.label for a in amounts), key=lambda method: method.weakness).value
        median = sorted(amounts, key=lambda amount: amount.value)[1]
        assert (row.low, row.high) == (median.low, median.high)
        checked += 1
    assert checked > 60
    known = {row.value for row in rows}
    assert len(parsed.values) == 3 * 5  # rate, three costs, and a quality
    assert set(parsed.values) <= known


def test_json_csv_and_page_carry_the_same_figures(make_run: MakeRun) -> None:
    folder = make_run()
    report = load(folder)
    wanted = list(figures(report))
    assert [Figure(**row) for row in json.loads(to_json([report]))["figures"]] == wanted
    assert list(expand(json.loads(json.dumps(compact(wanted))))) == wanted
    rows = list(csv.DictReader(io.StringIO(to_csv([report]))))
    assert list(rows[0]) == list(COLUMNS)
    for row, figure in zip(rows, wanted, strict=True):
        assert row["value"] == ("" if figure.value is None else str(figure.value))
        assert (row["point"], row["metric"], row["reason"]) == (figure.point, figure.metric, figure.reason)


def test_a_hostile_label_stays_text(make_run: MakeRun) -> None:
    parsed = Parsed(page(make_run("one", label=HOSTILE), make_run("two", label=HOSTILE)))
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert tags.count("style") == 1
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script>alert(1)</script>" in "".join(parsed.texts)
    assert "\x1b" not in "".join(parsed.texts)


def test_the_page_refers_to_nothing_outside(make_run: MakeRun) -> None:
    text = page(make_run())
    for _, attributes in Parsed(text).tags:
        for name in ("src", "href", "data", "action"):
            address = attributes.get(name) or ""
            assert address == "" or address.startswith(("#", "data:"))
    assert "default-src 'none'" in text
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_can_be_used_without_eyes_or_mouse(make_run: MakeRun) -> None:
    tags = Parsed(page(make_run())).tags
    assert dict(tags)["html"]["lang"] == "en"
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert drawings
    assert all(attributes["role"] == "img" for attributes in drawings)
    for at, (tag, _) in enumerate(tags):
        if tag == "svg":
            assert [tags[at + 1][0], tags[at + 2][0]] == ["title", "desc"]
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table")
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    scrolled = [attributes for _, attributes in tags if "scroll" in (attributes.get("class") or "")]
    assert scrolled
    assert all(attributes.get("tabindex") == "0" and attributes.get("aria-label") for attributes in scrolled)
    identities = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_sections_stand_in_the_order_of_the_questions(make_run: MakeRun) -> None:
    sections = [attributes["id"] for tag, attributes in Parsed(page(make_run())).tags if tag == "section"]
    order = ["unit-token", "front", "joules", "power", "latency", "meters", "missing", "factors", "environment"]
    assert [name for name in sections if name in order] == order


def test_hundred_points_stay_under_three_megabytes(make_run: MakeRun) -> None:
    assert len(page(make_run(points=100, trials=1)).encode()) < 3_000_000


def test_the_page_of_a_run_without_impacts_has_no_columns_of_carbon(make_run: MakeRun) -> None:
    folder = make_run(points=1, trials=1)
    path = next(trial_folders(folder)) / RECORD
    content = json.loads(path.read_text(encoding="utf-8"))
    for table in (content["totals"], content["units"]["token"]["costs"]):
        for name in list(table):
            if name.startswith(("carbon", "water")):
                del table[name]
    path.write_text(json.dumps(content), encoding="utf-8")
    text = page(folder)
    assert "gCO2e" not in text
    assert "Not among the results of any point: carbon_operational_g, carbon_embodied_g" in text


# Drawing


def test_power_of_a_steady_device_is_its_power(make_run: MakeRun) -> None:
    folder = make_run(points=1, trials=1) / "p0000-t000"
    windows = power_steps(folder, load_record(folder))["n0/gpu:GPU-1"]
    assert len(windows) == 2
    for steps in windows:
        assert steps[0][0] == 0.0
        assert steps[-1][1] == 2.0
        assert all(watts == pytest.approx(75.0) for *_, watts in steps)
        assert sum((end - start) * watts for start, end, watts in steps) == pytest.approx(150.0)


def dot(value: float) -> Dot:
    return Dot(name="d", value=value, bound=None, spread=None, method=None, tip="")


@pytest.mark.parametrize(
    ("pairs", "more", "wanted"),
    [
        ([(1, 5), (2, 3), (3, 4), (4, 1)], False, {0, 1, 3}),
        ([(1, 5), (2, 3), (3, 4), (4, 1)], True, {3}),
        ([(1, 1), (1, 1), (1, 2)], False, {0, 1}),
    ],
)
def test_front_holds_those_that_none_beats(pairs: list[tuple[float, float]], more: bool, wanted: set[int]) -> None:
    assert front([(dot(x), dot(y)) for x, y in pairs], more_is_better=more) == wanted


@pytest.mark.parametrize("values", [[0.0], [5.0], [-1.0, 1.0], [1e-9, 3.0], [0.0, 1e6], [2.5, 2.5000001]])
def test_scale_shows_all_values_and_has_ticks(values: list[float]) -> None:
    for zero in (False, True):
        scale = Scale.over(values, 10, 110, zero=zero)
        assert all(10 - 1e-6 <= scale(value) <= 110 + 1e-6 for value in values)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 9
        assert all(scale.low * (1 - 1e-9) - 1e-9 <= tick <= scale.high * (1 + 1e-9) + 1e-9 for tick in ticks)


# Several runs


def test_no_front_across_methods(make_run: MakeRun) -> None:
    text = page(make_run("one"), make_run("two", method=Method.SIMULATED))
    assert "No front is drawn: the costs were obtained in different ways (estimated, simulated)." in text


# Images


def test_images_inside_the_folder_are_shown_and_others_are_not(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(points=1, trials=1)
    folder = run / "p0000-t000"
    finished = load_record(folder)
    (folder / "grid.png").write_bytes(PNG)
    (image,) = images(folder, finished)
    assert image.data == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert [attributes["src"] for tag, attributes in Parsed(page(run)).tags if tag == "img"] == [image.data]
    (folder / "grid.png").write_bytes(b"<svg onload=alert(1)>")
    assert next(images(folder, finished)).reason == "is no PNG"
    (folder / "grid.png").write_bytes(PNG + bytes(IMAGE_BYTES))
    assert "at most" in next(images(folder, finished)).reason
    (folder / "grid.png").unlink()
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "grid.png").symlink_to(tmp_path / "secret.png")
    assert next(images(folder, finished)).reason == "lies outside the trial's folder"


# The command


@pytest.fixture
def harness(harness_in_process: Harness) -> Harness:
    return partial(harness_in_process, environment={"COLUMNS": "200"})


def test_command_writes_the_page_into_the_run(make_run: MakeRun, harness: Harness) -> None:
    run = make_run()
    done = harness("report", run, "--format", "html")
    assert (done.returncode, done.stdout) == (0, f"report: {run}/report.html\n")
    assert Parsed((run / "report.html").read_text(encoding="utf-8")).values
    assert harness("report", run).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "htlm"], "did you mean 'html'?"),
        (["--format", "json", "--output", "/nowhere/at/all.json"], "there is no such folder"),
        (["--open"], "--format html --open"),
    ],
)
def test_command_refuses_what_it_cannot_do(
    make_run: MakeRun, arguments: list[str], told: str, harness: Harness
) -> None:
    done = harness("report", make_run(points=1, trials=1), *arguments)
    assert done.returncode == 2
    assert told in done.stderr


GATE: dict[str, Any] = {
    "verdict": "regressed", "exit_code": 1, "reason": "", "pairs": {"s: p": 8}, "looks": [{"pairs": 8, "alpha": 0.05}],
    "control_change": 0.001, "notes": [HOSTILE], "revisions": {"base": "main", "head": HOSTILE}, "suites": ["s.yaml"],
    "cells": [
        {"name": HOSTILE, "verdict": "regressed", "reason": "", "limit": False, "worse_by_at_most": 0.03, "n": 8,
         "estimate": 0.12, "low": 0.08, "high": 0.2, "p_worse": 0.004},
        {"name": "reward", "verdict": "invalid", "reason": "not measured", "limit": True, "worse_by_at_most": None,
         "n": 0, "estimate": None, "low": None, "high": None, "p_worse": None},
        {"name": "latency", "verdict": "inconclusive", "reason": "", "limit": False, "worse_by_at_most": 0.05, "n": 2,
         "estimate": 0.01, "low": None, "high": None, "p_worse": 0.25},
    ],
}  # fmt: skip


@pytest.mark.parametrize("measured", [True, False])
def test_gate_page_shows_cells_and_both_sides(
    make_run: MakeRun, tmp_path: Path, measured: bool, harness: Harness
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    if measured:
        make_run("gate/base", points=1)
        make_run("gate/head", points=1, slower=1.2)
    (gate / "gate.json").write_text(json.dumps(GATE), encoding="utf-8")
    done = harness("report", gate, "--format", "html", "--output", tmp_path / "gate.html")
    assert done.returncode == 0, done.stderr
    parsed = Parsed((tmp_path / "gate.html").read_text(encoding="utf-8"))
    text = " ".join(parsed.texts)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    for told in ("Verdict: regressed", "+12.00 %", "+8.00 % to +20.00 %", "not bounded to not bounded", "not measured"):
        assert told in text
    assert ("Differences between the runs" in text) == measured
    shown = harness("report", gate)
    assert shown.returncode == 0, shown.stderr
    assert "Verdict: regressed" in shown.stdout


def test_what_else_lies_in_a_store_is_left_out_with_a_note(make_run: MakeRun, tmp_path: Path, harness: Harness) -> None:
    run = make_run(points=1, trials=1)
    index, gate = tmp_path / "index", tmp_path / "gate"
    index.mkdir()
    gate.mkdir()
    (gate / "gate.json").write_text(json.dumps(GATE), encoding="utf-8")
    done = harness("report", gate, index, run)
    assert done.returncode == 0, done.stderr
    assert done.stdout == harness("report", run).stdout
    for told in (f"{index}: no run", f"{gate}: a gate, which is reported alone"):
        assert f"note: left out: {told}\n" in done.stderr
    assert harness("report", index).returncode == 3
    assert harness("report", gate, index).returncode == 2
    missing = harness("report", run, tmp_path / "nope")
    assert (missing.returncode, "nope" in missing.stderr) == (2, True)


def test_broken_gate_file_is_named(tmp_path: Path, harness: Harness) -> None:
    (tmp_path / "gate.json").write_text("{}", encoding="utf-8")
    done = harness("report", tmp_path, "--format", "html")
    assert done.returncode == 3
    assert "gate.json" in done.stderr


def test_a_gate_against_a_baseline_is_reported_with_its_own_run(
    make_run: MakeRun, tmp_path: Path, harness: Harness
) -> None:
    run = make_run(points=1)
    verdict = {"verdict": "pass", "baseline": "main", "cells": [], "notes": ["compared with a stored baseline"]}
    (run / "gate.json").write_text(json.dumps(verdict), encoding="utf-8")
    done = harness("report", run, "--format", "md")
    assert done.returncode == 0, done.stderr
    assert "Verdict: pass" in done.stdout
    assert "main, saved at an unknown time" in done.stdout
    assert "Per token" in done.stdout
