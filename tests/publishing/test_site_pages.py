"""The pages of a site: whole, linked, small, deterministic, and safe from what records hold."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest

from harness.publishing import frame, run_pages
from harness.publishing.badges import COLOURS, DARK, INK, STRONG, badge
from harness.publishing.build import Made, build
from harness.publishing.folder import files_below
from harness.publishing.parts import ROWS, Cell, Grid, GridRow, Part
from harness.quantity import Method
from harness.records.files import trial_folders, write_json
from harness.records.paths import ENERGY, GATE, ITEMS, MEASUREMENT, RECORD, RUN
from harness.records.summary import load

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&]]>--></style></svg>\x1b[31m"
MakeRun = Callable[..., Path]
StoredRun = Callable[..., Path]
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


class Parsed(HTMLParser):
    """Tags with their attributes in order, and visible texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in {"script", "style"}:
            self.texts.append(data)


def made(place: Path, *runs: Path, **options: Any) -> Made:
    return build(place, [str(run) for run in runs], tell=lambda _: None, **options)


def pages(place: Path) -> Iterator[tuple[str, str]]:
    for name in files_below(place):
        if name.endswith(".html"):
            yield name, (place / name).read_text(encoding="utf-8")


@pytest.fixture
def site(make_run: MakeRun, tmp_path: Path) -> Path:
    """A site of three runs whose every text is hostile, two of them of equal points."""
    name = HOSTILE.replace("/", "_")
    runs = [
        make_run(f"store/{name}{number}", label=f"{HOSTILE}{number % 2}", trials=3, slower=1 + number / 10)
        for number in range(3)
    ]
    for number, run in enumerate(runs):
        content = json.loads((run / RUN).read_text(encoding="utf-8"))
        content |= {"run": f"{HOSTILE}{number}", "started_utc": f"2026-01-0{number + 1}T00:00:00+00:00"}
        write_json(run / RUN, content)
    made(tmp_path / "site", *runs, title=HOSTILE)
    return tmp_path / "site"


def test_no_text_of_a_record_leaves_its_place(site: Path) -> None:
    for name, text in pages(site):
        parsed = Parsed(text)
        tags = [tag for tag, _ in parsed.tags]
        assert tags.count("script") <= 1, name
        assert tags.count("style") == 1, name
        assert all(not key.startswith("on") for _, attributes in parsed.tags for key in attributes), name
        images = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
        assert all(str(source).endswith((".svg", ".png")) for source in images), name
        assert "\x1b" not in text, name
    assert "<script>alert(1)</script>" in "".join(Parsed((site / "index.html").read_text(encoding="utf-8")).texts)
    for path in site.rglob("*.svg"):
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg", "an image viewer goes by the name space"
        assert not [each for each in root.iter() if each.tag.rpartition("}")[2] in {"script", "img", "image", "a"}]
    assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", name) for name in files_below(site))


def test_every_address_leads_to_a_file_of_the_site(site: Path) -> None:
    seen = 0
    for name, text in pages(site):
        parsed = Parsed(text)
        anchors = {attributes.get("id") for _, attributes in parsed.tags}
        for _, attributes in parsed.tags:
            for key in ("href", "src", "action", "data", "poster", "srcset"):
                address = attributes.get(key)
                if address is None or address == "data:,":
                    continue
                assert not re.match(r"[a-z]+:|//|/", address), f"{name}: {address}"
                path, _, anchor = address.partition("#")
                target = (site / name).parent / unquote(path) if path else site / name
                assert target.resolve().is_relative_to(site.resolve()), f"{name}: {address}"
                assert target.is_file(), f"{name}: {address}"
                assert path or anchor in anchors, f"{name}: {address}"
                seen += 1
        style = text.partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"url\(|@import", style), name
        assert "default-src 'none'" in text, name
    assert seen > 100
    for path in site.rglob("*.svg"):
        assert not re.search(r"href|url\(|@import", path.read_text(encoding="utf-8")), path


def test_the_pages_can_be_used_without_eyes_or_mouse(site: Path) -> None:
    for name, text in pages(site):
        tags = Parsed(text).tags
        names = [tag for tag, _ in tags]
        assert dict(tags)["html"]["lang"] == "en", name
        focusable = [a for tag, a in tags if tag in {"a", "button", "select", "input"} or a.get("tabindex") == "0"]
        assert focusable[0] == {"class": "skip", "href": "#main"}, name
        assert all(int(a.get("tabindex") or 0) == 0 for a in focusable), (
            f"{name}: the order of keys is that of the page"
        )
        assert names.count("main") == names.count("h1") == 1, name
        assert names.count("caption") == names.count("table"), name
        assert all(a.get("scope") in {"col", "row"} for tag, a in tags if tag == "th"), name
        assert all(a.get("alt") for tag, a in tags if tag == "img"), name
        for at, (tag, attributes) in enumerate(tags):
            if tag == "svg":
                assert attributes["role"] == "img", name
                assert [tags[at + 1][0], tags[at + 2][0]] == ["title", "desc"], name
        identities = [a["id"] for _, a in tags if "id" in a]
        assert len(identities) == len(set(identities)), name
        scrolled = [a for _, a in tags if "scroll" in (a.get("class") or "")]
        assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolled), name


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """By the formula of WCAG 2.2 (relative luminance)."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_letters_and_paper_has_contrast(site: Path, scheme: int) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    inks = {"paper": ("ink", "soft", "accent"), "card": ("ink", "soft", "accent", "c0", "c2", "c3", "weak", "flag")}
    for paper, letters in {**inks, "flag-paper": ("flag",)}.items():
        for ink in letters:
            assert contrast(colours[ink], colours[paper]) >= 4.5, f"{ink} on {paper}"


def test_badges_have_contrast_name_their_method_and_say_it_to_readers() -> None:
    for paper in (*COLOURS.values(), STRONG, DARK):
        assert contrast(INK, paper) >= 4.5
    root = ET.fromstring(badge("energy", "43.5 µJ/token, estimated", "estimated"))
    assert root.get("aria-label") == "energy: 43.5 µJ/token, estimated"
    assert root[0].text == "energy: 43.5 µJ/token, estimated"
    assert [each.get("fill") for each in root if each.tag.endswith("rect")] == [DARK, COLOURS["estimated"]]


def test_the_same_records_make_the_same_bytes_wherever_they_lie(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"store/run{number}", trials=3, slower=1 + number / 10) for number in range(3)]
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere" / "other")
    made(tmp_path / "one", tmp_path / "store")
    made(tmp_path / "two", *(tmp_path / "elsewhere" / "other" / run.name for run in reversed(runs)))
    names = files_below(tmp_path / "one")
    assert names == files_below(tmp_path / "two")
    assert [
        name for name in names if (tmp_path / "one" / name).read_bytes() != (tmp_path / "two" / name).read_bytes()
    ] == []
    for name in names:
        assert str(tmp_path).encode() not in (tmp_path / "one" / name).read_bytes(), f"{name} says where records lie"


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


def test_the_tables_hold_the_figures_of_the_runs(make_run: MakeRun, tmp_path: Path) -> None:
    import duckdb

    runs = [make_run(f"run{number}", label="=1+1", trials=3) for number in range(2)]
    made(tmp_path / "site", *runs)
    for run in runs:
        page = (tmp_path / "site/runs" / run.name / "index.html").read_text(encoding="utf-8")
        for name in ("figures.csv", "figures.json", "figure.svg"):
            assert f'<a download="{name}" href="{name}">' in page
            assert (tmp_path / "site/runs" / run.name / name).stat().st_size > 500
    data = tmp_path / "site/data"
    with duckdb.connect() as database:
        rows = database.execute(
            "SELECT run, point, metric, per, value, label, composition FROM read_parquet(?)",
            [str(data / "figures.parquet")],
        ).fetchall()
    wanted = []
    for run in runs:
        with (tmp_path / "site/runs" / run.name / "figures.csv").open(encoding="utf-8", newline="") as stream:
            wanted += list(csv.DictReader(stream))
    assert len(rows) == len(wanted) > 100
    for (run, point, metric, per, value, label, shares), row in zip(rows, wanted, strict=True):
        assert (f"'{point}", run, metric, per, label) == tuple(
            row[name] for name in ("point", "run", "metric", "per", "label")
        )
        assert ("" if value is None else str(value)) == row["value"]
        assert set(json.loads(shares)) == {part.partition("=")[0] for part in row["composition"].split("; ") if part}
    with (data / "units.csv").open(encoding="utf-8", newline="") as stream:
        of_units = list(csv.DictReader(stream))
    assert {row["per"] for row in of_units} == {"token"}
    assert {row["point"][:2] for row in of_units} == {"'="}, "a spreadsheet must not work a label out"
    assert not any(":" in row["metric"] for row in of_units)


def test_a_change_is_marked_in_the_history_and_on_the_overview(stored_run: StoredRun, tmp_path: Path) -> None:
    for day in range(1, 25):
        level = 100.0 if day <= 12 else 120.0
        energies = [level * (1 + 0.001 * ((day * 7 + trial) % 5)) for trial in range(3)]
        stored_run(f"r{day:03d}", {"a": energies}, started=f"2026-01-{day:02d}T00:00:00+00:00")
    made(tmp_path / "site", tmp_path / "store")
    (history,) = (tmp_path / "site/history").glob("token-energy_j-*.html")
    text = history.read_text(encoding="utf-8")
    assert "Changed with run r013: from 10 J/token to 12 J/token (+20.0%)" in text
    assert text.count('<span class="flag">change point</span>') == 1
    assert 'class="limit"' in text
    index = "".join(Parsed((tmp_path / "site/index.html").read_text(encoding="utf-8")).texts)
    assert "Newest change points" in index
    assert "r013" in index
    changes = "".join(Parsed((tmp_path / "site/changes.html").read_text(encoding="utf-8")).texts)
    assert "r024 against r023" in changes
    page = (tmp_path / "site/runs/r013/index.html").read_text(encoding="utf-8")
    assert "Against the run before, r012" in page
    assert "+20" in page
    assert "Against the run before" not in (tmp_path / "site/runs/r001/index.html").read_text(encoding="utf-8")


def test_a_drawing_names_its_method_where_it_stands_alone(stored_run: StoredRun, tmp_path: Path) -> None:
    for day, method in enumerate([Method.ESTIMATED, Method.ESTIMATED, Method.COUNTER, Method.COUNTER], start=1):
        energies = [100.0 + day, 101.0 + day, 102.0 + day]
        stored_run(f"r{day}", {"a": energies}, started=f"2026-01-0{day}T00:00:00+00:00", method=method)
    made(tmp_path / "site", tmp_path / "store")
    charts = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "site/charts").glob("*energy_j*.svg"))]
    titles = [next(ET.fromstring(text).iter("{http://www.w3.org/2000/svg}title")).text or "" for text in charts]
    assert sorted(titles) == sorted(
        [f"Energy per token, {method}" for method in ("counter", "estimated")]
        + [f"Energy per token, {method}: s: a" for method in ("counter", "estimated")]
    )
    of_histories = [text for text, title in zip(charts, titles, strict=True) if title.endswith("s: a")]
    assert sorted(re.findall(">(counter|estimated)<", "".join(of_histories))) == ["counter", "estimated"]


def test_a_run_is_compared_with_the_one_before_it_on_its_own_device(stored_run: StoredRun, tmp_path: Path) -> None:
    for day, card in enumerate(["GPU-1", "GPU-2", "GPU-1"], start=1):
        stored_run(f"r{day}", {"a": [100.0, 101.0, 102.0]}, started=f"2026-01-0{day}T00:00:00+00:00", card=card)
    made(tmp_path / "site", tmp_path / "store")
    assert "Against the run before, r1" in (tmp_path / "site/runs/r3/index.html").read_text(encoding="utf-8")
    assert "Against the run before" not in (tmp_path / "site/runs/r2/index.html").read_text(encoding="utf-8")


def test_pages_stay_below_their_size_however_many_rows_there_are(tmp_path: Path) -> None:
    rows = [GridRow([Cell(f"run {number} " + "x" * 150, href="index.html"), Cell("y" * 100)]) for number in range(5000)]
    parts = [Part(anchor="rows", title="Rows", grid=Grid("Rows", ("a", "b"), rows))]
    count = frame.write_pages(tmp_path, "rows.html", "Rows", parts)
    found = [
        (tmp_path / frame.numbered("rows.html", number)).read_text(encoding="utf-8") for number in range(1, count + 1)
    ]
    assert count > 3
    assert all(len(text.encode()) < frame.PAGE_BYTES for text in found)
    assert [number for text in found for number in re.findall(r"run (\d+) x", text)] == [str(at) for at in range(5000)]
    for number, text in enumerate(found, start=1):
        named = {str(a["href"]) for tag, a in Parsed(text).tags if tag == "a" and str(a.get("href")).startswith("rows")}
        near = {each for each in (number - 1, number + 1) if 1 <= each <= count}
        assert {frame.numbered("rows.html", each) for each in near} <= named
        assert max(map(len, re.findall(r"(?s)<tbody>.*?</tbody>", text))) < ROWS * 600


def test_a_large_run_has_pages_that_say_which_points_they_are_about(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(points=40, trials=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_pages, "PAGE_BYTES", 130_000)
        made(tmp_path / "site", run)
    home = tmp_path / "site/runs/run"
    texts = [path.read_text(encoding="utf-8") for path in sorted(home.glob("*.html"))]
    assert len(texts) > 2
    assert all(len(text.encode()) <= 130_000 for text in texts)
    spans = [re.findall(r"points (\d+) to (\d+) of 40", text)[0] for text in texts]
    covered = sorted(number for first, last in spans for number in range(int(first), int(last) + 1))
    assert covered == list(range(1, 41))
    assert all("The whole run" in text for text in texts)
    rows = list(csv.DictReader((home / "figures.csv").read_text(encoding="utf-8").splitlines()))
    assert len({row["point"] for row in rows}) == 40


def test_images_of_a_workload_become_files_beside_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(points=1, trials=1)
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
    (next(trial_folders(run)) / "grid.png").write_bytes(png)
    made(tmp_path / "site", run)
    (image,) = (tmp_path / "site/runs/run").glob("*.png")
    assert image.read_bytes() == png
    text = (tmp_path / "site/runs/run/index.html").read_text(encoding="utf-8")
    assert f'src="{image.name}"' in text
    assert "base64" not in text


def test_names_of_files_are_safe_and_never_shared() -> None:
    names = [
        "token",
        "Token",
        "../x",
        "x",
        "a b",
        "a  b",
        "ä",
        "",
        "con",
        "x" * 300,
        "x" * 301,
        "a/b",
        "a\\b",
        "\ud800",
    ]
    slugs = [frame.slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", each) for each in slugs)


def test_two_runs_of_one_name_have_pages_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"{place}/Run", points=1, trials=1) for place in ("a", "b")]
    assert made(tmp_path / "site", *runs, runs[0]).runs == 2
    assert sorted(path.name for path in (tmp_path / "site/runs").iterdir()) == ["Run", "Run-2"]


# The command, on runs that were measured


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
