"""What can be lifted out of a plugin: which of its folders know the harness, and how much of it."""

from __future__ import annotations

import ast
from pathlib import Path

PLUGINS = Path(__file__).parents[2] / "plugins"
KNOWS = {
    "harness_semantic_segmentation": {
        "networks": set[str](),
        "data": {"harness.errors"},
        "training": {"harness.errors"},
    },
    "harness_speculative_decoding": {
        "methods": set[str](),
        "networks": set[str](),
        "data": {"harness.errors"},
        "formats": {"harness.errors"},
        "training": {"harness.errors"},
    },
}
"""By package and folder, what of the harness the folder may import; `workloads` may import what a plugin may."""


def imported(file: Path) -> set[str]:
    """Modules of the harness that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    found = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "harness"}


def test_folders_know_no_more_of_the_harness_than_they_may() -> None:
    breaches = {}
    for package, folders in KNOWS.items():
        (home,) = PLUGINS.glob(f"*/src/{package}")
        assert {path.parent.name for path in home.glob("*/__init__.py")} == {*folders, "workloads"}
        for folder, allowed in folders.items():
            for file in sorted((home / folder).rglob("*.py")):
                if beyond := imported(file) - allowed:
                    breaches[str(file.relative_to(PLUGINS))] = beyond
    assert breaches == {}
