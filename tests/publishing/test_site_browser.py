"""A site from a folder in a real browser: offline, quiet, readable, sorted and filtered by keys alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.publishing.build import build
from harness.publishing.folder import files_below
from harness.records.files import trial_folders, write_json
from harness.records.paths import RECORD

MakeRun = Callable[..., Path]
StoredRun = Callable[..., Path]
OpenPage = Callable[..., Any]

CONTRAST = """(() => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const paper = each => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return light(colour);
    }
    return 1;
  };
  const texts = 'p, td, th, small, a, button, label, output, caption, code, .method, .flag, h1, h2, figcaption';
  return [...document.querySelectorAll(texts)].filter(each => each.getClientRects().length).map(each => {
    const [ink, under] = [light(getComputedStyle(each).color), paper(each)];
    return (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
  });
})()"""
"""Contrast of each text with the paper under it, by the formula of WCAG 2.2 (relative luminance)."""
SHOWN = """[...document.querySelectorAll('tr[data-device]')].filter(row => !row.hidden)
  .map(row => row.cells[1].textContent.trim())"""
SORTED = """[...document.querySelectorAll('table')]
  .map(table => [...table.tBodies[0].rows].map(row => Number(row.cells[3].dataset.sort)))"""


@pytest.fixture
def site(stored_run: StoredRun, make_run: MakeRun, tmp_path: Path) -> Path:
    """Two suites; in the second, three points on two devices, with a column of quality."""
    for day in range(1, 13):
        level = 100.0 if day <= 6 else 130.0
        stored_run(
            f"r{day:02d}", {"a": [level, level + 0.1 * day, level + 0.2]}, started=f"2026-01-{day:02d}T00:00:00+00:00"
        )
    stored_run("r20", {"a": [210, 211, 212]}, started="2026-02-01T00:00:00+00:00", card="GPU-2")
    run = make_run(
        "store/pictured", label="with a name that is long enough to need a line of its own, and more", trials=3
    )
    (next(trial_folders(run)) / "grid.png").write_bytes(PNG)
    for trial in trial_folders(run):  # the reward of a point is one more than its number
        content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
        write_json(trial / RECORD, content | {"qualities": {"reward": True, "latency_s": False}})
    build(tmp_path / "site", [str(tmp_path / "store")], tell=lambda _: None)
    return tmp_path / "site"


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf50"
    "0f0003860180e3a02d330000000049454e44ae426082"
)
"""One pixel."""


def board(site: Path, name: str = "token-energy_j-") -> Path:
    (path,) = (site / "leaderboards").glob(f"{name}*.html")
    return path


def test_every_page_is_quiet_and_asks_for_nothing_elsewhere(site: Path, open_page: OpenPage) -> None:
    for name in files_below(site):
        if not name.endswith(".html") or name.startswith("runs/r0"):
            continue
        page = open_page(site / name)
        assert page.events("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == [], name
        asked = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
        assert all(url.startswith((site.as_uri() + "/", "data:")) for url in asked), name
        assert page.value("[...document.images].every(each => each.complete && each.naturalWidth > 0)"), name
        assert page.value("[...document.querySelectorAll('main svg')].every(each => each.getBBox().width > 100)"), name
    page = open_page(site / "runs/pictured/index.html")
    assert page.value("document.images.length") == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_kind_of_page_fits_a_phone_and_has_contrast(site: Path, open_page: OpenPage, dark: bool) -> None:
    (history,) = (site / "history").glob("token-energy_j-*.html")
    for path in (
        site / "index.html",
        site / "runs.html",
        site / "badges.html",
        board(site),
        history,
        site / "changes.html",
    ):
        page = open_page(path, width=360, dark=dark)
        assert page.value("document.documentElement.scrollWidth") <= 360, path.name
        assert min(page.value(CONTRAST)) >= 4.5, f"{path.name}: text needs a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3)"


def press(page: Any, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "char", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
        if kind != "char" or text:
            page.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)


def test_the_keyboard_goes_through_the_page_in_its_order(site: Path, open_page: OpenPage) -> None:
    page = open_page(board(site))
    page.value("document.body.focus()")
    seen = []
    for _ in range(60):
        press(page, "Tab", 9)
        at = "[document.activeElement.tagName, document.activeElement.textContent.trim().slice(0, 30)]"
        seen.append(page.value(at))
        assert page.value("getComputedStyle(document.activeElement).outlineStyle") != "none", seen[-1]
        if seen[-1] == ["BUTTON", "rank"]:
            break
    assert seen[0] == ["A", "Skip to the content"]
    names = [name for name, _ in seen]
    assert names.index("SELECT") < names.index("BUTTON")
    press(page, "Enter", 13)
    assert page.value("document.querySelector('th').getAttribute('aria-sort')") == "ascending"


def test_headings_sort_by_the_numbers_behind_the_text(site: Path, open_page: OpenPage) -> None:
    page = open_page(board(site))
    heading = "[...document.querySelectorAll('th[scope=col]')].find(each => each.textContent === 'result')"
    assert page.value(f"{heading}.getAttribute('aria-sort')") == "none"
    for direction in ("ascending", "descending"):
        page.value(f"{heading}.querySelector('button').click()")
        assert page.value(f"{heading}.getAttribute('aria-sort')") == direction
        tables = page.value(SORTED)
        assert tables[0] == sorted(tables[0], reverse=direction == "descending")
    assert sorted(map(len, tables)) == [2, 3]


def choose(page: Any, name: str, value: str) -> None:
    page.value(
        f"(() => {{ const each = document.querySelector('form').elements['{name}']; each.value = {value!r}; "
        "each.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_filters_hide_rows_and_say_how_many_are_left(site: Path, open_page: OpenPage) -> None:
    page = open_page(board(site))
    everything = page.value(SHOWN)
    assert len(everything) == 5
    choose(page, "method", "estimated")
    assert page.value("document.querySelector('output').value") == "3 of 5 rows"
    assert all("with a name" in label for label in page.value(SHOWN))
    choose(page, "method", "")
    choose(page, "device", "a card")
    assert page.value("document.querySelector('output').value") == "2 of 5 rows"
    choose(page, "device", "")
    choose(page, "quality", "reward, at least")
    assert page.value("document.querySelector('output').value") == "5 of 5 rows"
    choose(page, "bar", "2")
    assert page.value("document.querySelector('output').value") == "2 of 5 rows"
    choose(page, "bar", "")
    choose(page, "quality", "latency_s, at most")
    assert page.value("document.querySelector('output').value") == "3 of 5 rows"
    choose(page, "bar", "0.05")
    assert page.value("document.querySelector('output').value") == "2 of 5 rows"
    choose(page, "quality", "")
    assert page.value(SHOWN) == everything


def test_everything_stands_there_without_a_script(site: Path, open_page: OpenPage) -> None:
    page = open_page(site / "index.html")
    page.ask("Emulation.setScriptExecutionDisabled", value=True)
    page.chromium.events.clear()
    page.ask("Page.navigate", url=board(site).as_uri())
    page.chromium.wait("Page.loadEventFired")
    page.ask("Emulation.setScriptExecutionDisabled", value=False)
    assert len(page.value(SHOWN)) == 5
    assert page.value("document.querySelector('form').hidden")
    assert page.value("document.querySelectorAll('th button').length") == 0
