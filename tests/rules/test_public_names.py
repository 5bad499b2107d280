"""Every name in `harness.__all__` can be imported and is documented where it is defined."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[2]


def documented(module: str) -> dict[str, str]:
    """Docstrings of a module's classes, functions and assigned names; a name in the module's own docstring counts."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            text = text_of(following)
            found.update({target.id: text for target in targets if isinstance(target, ast.Name)})
    about = ast.get_docstring(tree) or ""
    return {name: text or (about if f"`@{name}`" in about else "") for name, text in found.items()}


def text_of(node: ast.stmt | None) -> str:
    """The text of a string that stands alone, as behind an assignment."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    return ""


def home(name: str) -> str:
    return next(module for module, names in harness._HOMES.items() if name in names)


@pytest.mark.parametrize("name", harness.__all__)
def test_public_name(name: str) -> None:
    value = getattr(harness, name)
    assert value is getattr(importlib.import_module(home(name)), name)
    assert documented(home(name))[name], f"{name} has no docstring in {home(name)}"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "harness/__init__.py").read_text(encoding="utf-8"))
    shown = {
        (node.module, alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness.")
        for alias in node.names
    }
    assert shown == {(home(name), name) for name in harness.__all__}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        harness.no_such_name  # noqa: B018 - the access is what is tried


def test_public_methods_say_what_they_do() -> None:
    silent = []
    for name in harness.__all__:
        value = getattr(harness, name)
        if isinstance(value, type) and value.__module__.startswith("harness."):
            silent += [
                f"{name}.{attribute}"
                for attribute, member in vars(value).items()
                if callable(member) and not attribute.startswith("_") and not (member.__doc__ or "").strip()
            ]
    assert silent == []
