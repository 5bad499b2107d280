"""Options that name files: relative to the suite that names them, and checked while planning.

A suite is read from many working folders: by a person, by a gate in another checkout, by a job of a cluster. What it
names therefore lies beside it, and not where somebody happened to call `harness`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, ValidationInfo

SUITE_FOLDER: Final = "suite_folder"
"""Key of pydantic's context: the folder of the suite that the options stand in."""


class OptionFault(NamedTuple):
    """What is wrong with an option, found before anything runs.

    Attributes:
        option: its key, as the suite writes it.
        message: what is wrong.
        accepted: what would be right.
        hint: what was probably meant.
    """

    option: str
    message: str
    accepted: str = ""
    hint: str = ""


def _folder(info: ValidationInfo) -> Path | None:
    context: Any = info.context
    return context[SUITE_FOLDER] if isinstance(context, dict) and SUITE_FOLDER in context else None


def _beside_the_suite(text: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    return text if folder is None or not text else str(folder / Path(text).expanduser())


def _file_beside_the_suite(path: Path, info: ValidationInfo) -> Path:
    folder = _folder(info)
    if folder is None:
        return path
    found = folder / path.expanduser()
    if not found.is_file():
        raise ValueError(f"there is no file {found}; accepted: a file that exists, relative to the suite's file")
    return found


def _name_or_path(text: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    if folder is None or not text:
        return text
    path = folder / Path(text).expanduser()
    return str(path) if looks_like_a_path(text) or path.exists() else text


def looks_like_a_path(text: str) -> bool:
    """Whether a text that may be a name as well can only be a path: `./model`, `../model`, `~/model`, `/model`."""
    return text.startswith(("./", "../", "~", "/")) or text in {".", ".."}


SuitePath = Annotated[str, AfterValidator(_beside_the_suite)]
"""A file or folder; a relative one lies beside the suite. Resolved where a workload has a `check`; empty for none."""
SuiteFile = Annotated[Path, AfterValidator(_file_beside_the_suite)]
"""A file that must exist, as a `Path`: of meters and impact meters, whose paths planning resolves without a `check`."""
SuiteSource = Annotated[str, AfterValidator(_name_or_path)]
"""A name (`builtin:small`, a hub id) or a path: what begins with `.`, `~` or `/`, or lies beside the suite."""


def missing(option: str, path: str, *, folder: bool = False) -> Iterator[OptionFault]:
    """A fault where a path, made absolute by its type, does not exist; an empty one is no path.

    Args:
        option: whose path it is.
        path: the path.
        folder: whether it must be a folder.
    """
    found = Path(path).expanduser()
    if not path or (found.is_dir() if folder else found.is_file()):
        return
    kind = "folder" if folder else "file"
    hint = f"it is a {'file' if folder else 'folder'}" if found.exists() else ""
    yield OptionFault(option, f"there is no {kind} {path}", f"a {kind} that exists, relative to the suite's file", hint)
