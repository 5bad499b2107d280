"""The page in a real browser: nothing is asked of the network, nothing is complained of, every chart is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.summary import load
from harness.reporting.comparison import Runs
from harness.reporting.page import html

OpenPage = Callable[..., Any]
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&"

BOXES = """[...document.querySelectorAll('svg')].map(each => {
  each.closest('details')?.setAttribute('open', '');
  const box = each.getBoundingClientRect();
  return [box.width, box.height, each.querySelectorAll('path, rect').length];
})"""
CONTRAST = """(() => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const paper = light(getComputedStyle(document.querySelector('section')).backgroundColor);
  const texts = 'section p, section td, section th, section data, section small, section .method, section .flag';
  return [...document.querySelectorAll(texts)].map(each => {
    const ink = light(getComputedStyle(each).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  });
})()"""
"""Contrast of each text with the paper, by the formula of WCAG 2.2 (relative luminance)."""


@pytest.fixture
def page_file(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    runs = [make_run(name, points=4, label=HOSTILE) for name in ("one", "two")]
    path = tmp_path / "report.html"
    path.write_text(html(Runs([load(run) for run in runs], ["A", "B"])), encoding="utf-8")
    return path


def test_page_is_quiet_offline_and_drawn(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file)
    complaints = page.events("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    asked = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    boxes = page.value(BOXES)
    title = page.value("document.title")
    images = page.value("document.images.length")
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert len(boxes) >= 5
    assert all(width > 100 and height > 20 and drawn for width, height, drawn in boxes)
    assert title != "taken"
    assert images == 0


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_a_phone_and_can_be_read(page_file: Path, open_page: OpenPage, dark: bool) -> None:
    page = open_page(page_file, width=360, dark=dark)
    wide = page.value("document.documentElement.scrollWidth")
    ratios = page.value(CONTRAST)
    assert wide <= 360
    assert min(ratios) >= 4.5, "text needs a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3)"
