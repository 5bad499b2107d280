"""The page in a real browser: nothing is asked of the network, nothing is complained of, every chart is drawn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.records.summary import load
from harness.reporting.comparison import Runs
from harness.reporting.page import html

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH: none of {', '.join(BROWSERS)}")
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


class Browser:
    """Chromium's debugging protocol over its pipe: JSON documents that end in a zero byte."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._reader, 1 << 16)
            assert part, "the browser went away"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        content = {
            "id": self._number,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._writer, json.dumps(content).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())


@contextmanager
def browser() -> Iterator[Browser]:
    to_browser, writer = os.pipe()
    reader, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', str(BROWSER), *options.split(),
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Browser(reader, writer)
        finally:
            process.kill()
            process.wait(timeout=20)
            os.close(reader)
            os.close(writer)


class Page:
    def __init__(self, chromium: Browser, path: Path, *, width: int = 1280, dark: bool = False) -> None:
        self.chromium = chromium
        target = chromium.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = chromium.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            chromium.ask(f"{domain}.enable", self.session)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        chromium.events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        chromium.wait("Page.loadEventFired")
        time.sleep(0.2)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.chromium.ask(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def events(self, *methods: str) -> list[Mapping[str, Any]]:
        self.value("0")
        return [event["params"] for event in self.chromium.events if event.get("method") in methods]


@pytest.fixture
def page_file(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    runs = [make_run(name, points=4, label=HOSTILE) for name in ("one", "two")]
    path = tmp_path / "report.html"
    path.write_text(html(Runs([load(run) for run in runs], ["A", "B"])), encoding="utf-8")
    return path


def test_page_is_quiet_offline_and_drawn(page_file: Path) -> None:
    with browser() as chromium:
        page = Page(chromium, page_file)
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
def test_page_fits_a_phone_and_can_be_read(page_file: Path, dark: bool) -> None:
    with browser() as chromium:
        page = Page(chromium, page_file, width=360, dark=dark)
        wide = page.value("document.documentElement.scrollWidth")
        ratios = page.value(CONTRAST)
    assert wide <= 360
    assert min(ratios) >= 4.5, "text needs a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3)"
