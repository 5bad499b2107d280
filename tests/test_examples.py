"""The examples in docstrings of what a plugin author calls show what the code does."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST = 50
"""So many lines that begin with `>>>` are there at least: examples that nobody runs would go unnoticed."""


def modules() -> list[str]:
    """The top of the core and its kit for tests, by name; not the entry points of processes."""
    top = sorted((ROOT / "harness").glob("*.py"))
    kit = sorted((ROOT / "harness" / "testing").glob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in [*top, *kit]]
    return [name for name in names if not name.endswith("__main__")]


def test_every_example_shows_what_the_code_does() -> None:
    results = {name: doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS) for name in modules()}
    assert [name for name, result in results.items() if result.failed] == []
    assert sum(result.attempted for result in results.values()) >= LEAST
