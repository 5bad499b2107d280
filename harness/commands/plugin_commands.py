"""Which sub-commands plugins add: read from their source, so that `harness --help` imports none of them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from harness.commands.console import loaded_registry

GROUP: Final = "harness"
_HOOK: Final = b"harness_commands"


def summaries() -> dict[str, str]:
    """Name -> summary of each sub-command of a plugin, sorted.

    A plugin that says neither in plain text is imported and asked, as all plugins are when a command is called.
    """
    found: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        written = _written(entry)
        if written is None:
            return {name: offer.spec.summary for name, offer in loaded_registry().commands.items()}
        found |= written
    return dict(sorted(found.items()))


def _written(entry: EntryPoint) -> dict[str, str] | None:
    """The commands of a plugin as its module spells them out; None where it does not."""
    try:
        top = importlib.util.find_spec(entry.module.partition(".")[0])
        source = _file(top.origin, entry.module) if top is not None else None
        text = source.read_bytes() if source is not None else b""
        if _HOOK not in text:
            return {}
        tree = ast.parse(text)
    except (ImportError, OSError, SyntaxError, ValueError):
        return {}  # it is broken: what a command would say of it is not the help's business
    hooks = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.encode() == _HOOK]
    specs = [list(_specs(node)) for node in hooks]
    if not specs or not all(specs) or any(None in each for each in specs):
        return None
    return {pair[0]: pair[1] for each in specs for pair in each if pair is not None}


def _file(origin: str | None, module: str) -> Path | None:
    """The source of a module, by where its top-level package lies."""
    if origin is None or not origin.endswith(".py"):
        return None
    inner = module.split(".")[1:]
    if not inner:
        return Path(origin)
    place = Path(origin).parent.joinpath(*inner)
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _specs(hook: ast.FunctionDef) -> Iterator[tuple[str, str] | None]:
    """Name and summary of each `CommandSpec(...)`; None for one that computes them."""
    for node in ast.walk(hook):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if not isinstance(node, ast.Call) or name != "CommandSpec":
            continue
        given = {each.arg: each.value for each in node.keywords}
        texts = [value.value for key in ("name", "summary") if isinstance(value := given.get(key), ast.Constant)]
        yield (str(texts[0]), str(texts[1])) if len(texts) == 2 else None
