"""What every file of the project keeps to: size, names, no unfinished work."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400
FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b|NotImplemented[E]rror")
GENERATED = {".venv", "__pycache__", "build", "dist", "reports", "node_modules"}


def files(*folders: str, suffix: str = ".py") -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob(f"*{suffix}")):
            if not GENERATED.intersection(path.relative_to(ROOT).parts):
                yield path


def product() -> list[Path]:
    """The code that is shipped: the core and every plugin's src."""
    return [*files("harness"), *(path for path in files("plugins") if "src" in path.relative_to(ROOT).parts)]


def everything() -> list[Path]:
    return [*files("harness", "plugins", "tests", "benchmarks")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def oversized(path: Path) -> Iterator[str]:
    """What of a module is too long."""
    text = path.read_text(encoding="utf-8")
    if (lines := len(text.splitlines())) > MODULE_LINES:
        yield f"{name(path)}: {lines} lines"
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES:
            yield f"{name(path)}: {function.name}: {length} lines"


def test_sizes() -> None:
    assert [breach for path in product() for breach in oversized(path)] == []


def test_the_rule_about_sizes_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "long.py"
    path.write_text("def f() -> None:\n" + "    pass\n" * MODULE_LINES, encoding="utf-8")
    assert list(oversized(path)) == [f"long.py: {MODULE_LINES + 1} lines", f"long.py: f: {MODULE_LINES + 1} lines"]


def test_names_say_what_is_inside() -> None:
    vague = [name(path) for path in everything() if path.stem.strip("_") in VAGUE_NAMES]
    vague += [name(path) for path in everything() if VAGUE_NAMES.intersection(path.relative_to(ROOT).parts[:-1])]
    assert vague == []


def test_test_names_are_unique() -> None:
    seen: dict[str, str] = {}
    for path in [*files("tests", "plugins", "benchmarks")]:
        if path.name.startswith("test_"):
            assert path.name not in seen, f"{name(path)} and {seen[path.name]} have one name"
            seen[path.name] = name(path)


def test_nothing_is_left_unfinished() -> None:
    listed = [*everything(), *files("suites", suffix=".yaml"), *files("docs", suffix=".md"), ROOT / "Makefile"]
    found = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in listed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_plugins_folder_is_no_package() -> None:
    assert not (ROOT / "plugins" / "__init__.py").exists()
    assert not list(ROOT.glob("plugins/*/__init__.py"))
    assert not list(ROOT.glob("plugins/*/tests/__init__.py"))


def test_distributions_are_typed() -> None:
    packages = [path.parent for path in files("harness", "plugins", "tests/example_plugin") if is_top(path)]
    assert [name(package) for package in packages if not (package / "py.typed").exists()] == []


def is_top(path: Path) -> bool:
    return path.name == "__init__.py" and (path.parent.parent.name == "src" or path.parent == ROOT / "harness")
