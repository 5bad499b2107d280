"""What every file of the project keeps to: size, names, no unfinished work, nothing that runs code from data."""

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


def unsafe_loads(tree: ast.AST) -> Iterator[str]:
    """Calls and imports that run code from data: pickle in any form, torch.load that does not say weights_only=True."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                if module.partition(".")[0] in {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal"}:
                    yield f"line {node.lineno}: imports {module}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "torch.load",
            "yaml.load",
            "numpy.load",
            "np.load",
        }:
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if ast.unparse(node.func) == "torch.load" and keywords.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"
            if keywords.get("allow_pickle", "False") != "False":
                yield f"line {node.lineno}: allow_pickle"
            if ast.unparse(node.func) == "yaml.load" and "Safe" not in ast.unparse(node):
                yield f"line {node.lineno}: yaml.load without a safe loader"


@pytest.mark.parametrize("path", product(), ids=name)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    lengths = {
        function.name: (function.end_lineno or function.lineno) - function.lineno + 1
        for function in functions(ast.parse(text))
    }
    assert {function: length for function, length in lengths.items() if length > FUNCTION_LINES} == {}


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


@pytest.mark.parametrize("path", product(), ids=name)
def test_data_never_runs_as_code(path: Path) -> None:
    assert list(unsafe_loads(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load(f)", "torch.load(f, weights_only=False)", "yaml.load(f)"],
)
def test_the_rule_about_data_sees(code: str) -> None:
    assert list(unsafe_loads(ast.parse(code)))


def test_the_rule_about_data_lets_pass() -> None:
    assert not list(unsafe_loads(ast.parse("torch.load(f, weights_only=True)\nyaml.load(f, SafeLoader)\njson.load(f)")))


def test_plugins_folder_is_no_package() -> None:
    assert not (ROOT / "plugins" / "__init__.py").exists()
    assert not list(ROOT.glob("plugins/*/__init__.py"))
    assert not list(ROOT.glob("plugins/*/tests/__init__.py"))


def test_distributions_are_typed() -> None:
    packages = [path.parent for path in files("harness", "plugins", "tests/example_plugin") if is_top(path)]
    assert [name(package) for package in packages if not (package / "py.typed").exists()] == []


def is_top(path: Path) -> bool:
    return path.name == "__init__.py" and (path.parent.parent.name == "src" or path.parent == ROOT / "harness")
