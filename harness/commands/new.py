"""`harness new`: writes the package of a first plugin from the templates beside this file."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Final

import typer

from harness.commands.console import echo, loaded_registry
from harness.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from harness.discovery.registry import Registry

KINDS: Final = ("workload", "backend", "meter", "executor")
LONGEST: Final = 28
_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""A name of PEP 508 that begins with a letter, so that a class can bear it too."""


def new(
    kind: Annotated[str, typer.Argument(help="workload, backend, meter or executor.", show_default=False)],
    name: Annotated[str, typer.Argument(help="What suites will call it.", show_default=False)],
    *,
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path(),
) -> None:
    """Writes the package of a first plugin, with its test."""
    for line in made(kind, name, folder, loaded_registry()):
        echo(line)


@dataclass(frozen=True, slots=True)
class Names:
    """What a plugin's name becomes in the places that need one.

    Attributes:
        kind: `workload`, `backend`, `meter` or `executor`.
        offer: what a suite writes, normalised by PEP 503.
        distribution: what `pip` installs.
        package: what Python imports.
        type: the class.
    """

    kind: str
    offer: str
    distribution: str
    package: str
    type: str


def names(kind: str, name: str) -> Names:
    """The names of a plugin.

    Raises:
        UsageError: no such kind, or a name that no distribution, package and class can bear.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of plugin", accepted=", ".join(KINDS), hint=did_you_mean(kind, KINDS))
    if _NAME.fullmatch(name) is None or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} is not a valid plugin name",
            accepted=f"at most {LONGEST} letters, digits, '-', '_' and '.', beginning with a letter, "
            "ending with a letter or digit",
        )
    offer = re.sub(r"[-_.]+", "-", name).lower()
    words = offer.split("-")
    return Names(
        kind=kind,
        offer=offer,
        distribution=f"harness-{kind}-{offer}",
        package="_".join(["harness", kind, *words]),
        type="".join(word.capitalize() for word in (words if words[1:] and words[-1] == kind else [*words, kind])),
    )


def write(plugin: Names, parent: Path) -> Path:
    """Writes the package into a new folder of `parent`, whole or not at all; returns the folder.

    Raises:
        UsageError: the folder exists already, or cannot be written.
    """
    folder = parent / plugin.distribution
    if folder.exists() or folder.is_symlink():
        raise UsageError("this already exists and is not overwritten", where=str(folder), accepted="a new folder")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{plugin.distribution}-", dir=parent))
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(parent)) from None
    try:
        draft.chmod(0o755)
        for path, text in content(plugin).items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        draft.rename(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise UsageError(f"cannot be written: {error.strerror}", where=str(folder)) from None
    return folder


def content(plugin: Names) -> dict[str, str]:
    """Path in the package's folder -> text, for every file of a plugin."""
    templates = files("harness.commands") / "templates"
    places = {
        "pyproject.toml": "pyproject.toml.in",
        "README.md": "README.md.in",
        f"src/{plugin.package}/__init__.py": f"{plugin.kind}/plugin.py.in",
        f"tests/test_{plugin.package.removeprefix('harness_')}.py": f"{plugin.kind}/test.py.in",
    }
    values = {name: getattr(plugin, name) for name in Names.__slots__}
    values["use"] = (templates / plugin.kind / "use.md.in").read_text(encoding="utf-8").strip()
    values["use"] = Template(values["use"]).substitute(values)
    written = {
        path: Template((templates / source).read_text(encoding="utf-8")).substitute(values)
        for path, source in places.items()
    }
    return {**written, f"src/{plugin.package}/py.typed": ""}


def made(kind: str, name: str, parent: Path, registry: Registry) -> list[str]:
    """Writes a plugin and returns what to do next, as lines.

    Raises:
        UsageError: the kind or the name is wrong or taken, or the folder exists.
    """
    plugin = names(kind, name)
    taken = registry.find(kind, plugin.offer)
    if taken is not None:
        raise UsageError(f"the {kind} {plugin.offer!r} already exists, in {taken.plugin}", accepted="another name")
    folder = write(plugin, parent)
    return [
        f"written: {folder}",
        f"  pip install -e {folder}",
        f"  pytest {folder}",
        f"  harness plugins --check {plugin.offer}",
    ]
