"""The pages of a site: parts are laid out, packed into pages of a bounded size, and linked with each other."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from harness.publishing.parts import Part, divided
from harness.reporting.page import environment as templates

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_BYTES: Final = 500_000
"""No page is larger."""
ROOM: Final = 400_000
"""Bytes of the parts of a page; the rest is for its frame."""
CRUMBS: Final = (
    ("Overview", "index.html"),
    ("Runs", "runs.html"),
    ("Changes", "changes.html"),
    ("Badges", "badges.html"),
)
"""Pages that every other one leads to."""
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_PLAIN_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def slug(text: str, *, run: bool = False) -> str:
    """The name of a file for a name that a stranger chose; equal texts have equal names, others have others.

    Example:
        >>> slug("token energy_j")
        'token-energy_j-ada75abe'
        >>> slug("20260102T030405-ci-8c1f22ab90de", run=True)
        '20260102T030405-ci-8c1f22ab90de'
        >>> slug("../../etc")[:4]
        'etc-'
    """
    if (_PLAIN_RUN if run else _PLAIN).fullmatch(text):
        return text
    plain = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[:60]
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{plain or 'x'}-{digest}"


def relative(page: str, target: str) -> str:
    """The address of a file of the site in one of its pages, for a browser.

    Example:
        >>> relative("runs/a/index.html", "index.html"), relative("index.html", "runs/a/index.html#x")
        ('../../index.html', 'runs/a/index.html#x')
    """
    path, mark, anchor = target.partition("#")
    return "../" * page.count("/") + quote(path) + mark + quote(anchor)


@cache
def environment() -> Environment:
    """The templates of the site, over those of the reports; raises UsageError where jinja2 is missing."""
    made = templates("a site", "harness.publishing")
    made.globals["relative"] = relative
    return made


@cache
def script() -> tuple[str, str]:
    """The script of the pages, and its digest as a content security policy names it."""
    text = resources.files("harness.publishing").joinpath("templates/site.js").read_text(encoding="utf-8")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def numbered(page: str, number: int) -> str:
    """The file of the n-th part of a page, counted from 1: `runs.html`, `runs-2.html`."""
    return page if number == 1 else f"{page.removesuffix('.html')}-{number}.html"


def write_pages(
    folder: Path,
    page: str,
    title: str,
    parts: Iterable[Part],
    *,
    intro: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    searched: bool = False,
) -> int:
    """Writes a page, and further ones where its parts do not fit; returns how many there are.

    Args:
        folder: of the site.
        page: its file, from the site's folder.
        title: its heading.
        parts: what it shows.
        intro: sentences below the heading, on the first page.
        links: (text, page) of what belongs to it, besides those that every page leads to.
        searched: whether its tables may be filtered.
    """
    template = environment().get_template("part.html")
    packed: list[list[tuple[Part, str]]] = [[]]
    filled = 0
    for part in (each for whole in parts for each in divided(whole)):
        text = template.render(part=part, page=page)
        size = len(text.encode())
        if packed[-1] and filled + size > ROOM:
            packed.append([])
            filled = 0
        packed[-1].append((part, text))
        filled += size
    for number, chunk in enumerate(packed, start=1):
        path = folder / numbered(page, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        code, digest = script()
        text = environment().get_template("site.html").render(
            page=page,
            title=title if len(packed) == 1 else f"{title}, page {number} of {len(packed)}",
            intro=intro if number == 1 else (),
            crumbs=[*CRUMBS, *links],
            toc=[(part.anchor, part.title) for part, _ in chunk][:40],
            body="".join(text for _, text in chunk),
            pages=[numbered(page, each) for each in range(1, len(packed) + 1)],
            number=number,
            searched=searched,
            script=code,
            digest=digest,
        )  # fmt: skip
        path.write_text(text, encoding="utf-8")
    return len(packed)
