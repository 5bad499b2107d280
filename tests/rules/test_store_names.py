"""The names of a store's files and folders stand in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from harness import executor
from harness.records import paths

ROOT = Path(__file__).parents[2]
NAMES = {value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
FILES = {name for name in NAMES if "." in name.lstrip(".")}
HOMES = {Path(paths.__file__), Path(executor.__file__)}
"""What an executor must know of a trial's folder stands where plugins may import it."""
WORDS = NAMES - FILES - {paths.INDEX}
"""Names that are words too; `index` is a key in many a place that is no path."""


def spelled(tree: ast.AST) -> Iterator[str]:
    """The names in a module's strings; docstrings and texts behind an assignment may speak of them."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            words = node.value.replace("/", " ").split()
            if node.value in WORDS or FILES.intersection(words):
                yield f"line {node.lineno}: {node.value!r}"


def test_no_other_module_spells_a_name_of_the_store() -> None:
    found = {
        str(path.relative_to(ROOT)): breaches
        for path in sorted((ROOT / "harness").rglob("*.py"))
        if path not in HOMES and (breaches := list(spelled(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


def test_the_rule_sees() -> None:
    lines = [
        'a / "job.json"',
        'glob("*/record.json")',
        'x = f"{run}/plan.json"',
        'a / "baselines"',
        'said("no run.json yet")',
    ]
    assert len(list(spelled(ast.parse("\n".join(lines))))) == len(lines)
    assert not list(spelled(ast.parse('def f():\n    """Writes run.json."""\n    return {"index": 1}')))
