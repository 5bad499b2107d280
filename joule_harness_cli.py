"""The command `joule-harness`: always that of this project, in a module that no other distribution has.

Another distribution on the public index is called `harness` and installs a package and a command of that name. Where
both are installed, files of one lie over those of the other, and `harness` is whichever came last: it is said here.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "joule-harness"
PACKAGE: Final = "harness"
_BROKEN: Final = 70
"""`ExitCode.INTERNAL` of `harness.errors`, which may be another's here."""
_APART: Final = "or keep the two in environments of their own: python -m venv"


def main() -> None:
    """The console script: says what is wrong with the installation, and runs the command where it can."""
    broken, mixed = faults(Path(__file__).parent)
    for line in (*broken, *mixed):
        sys.stderr.write(f"{'error' if line in broken else 'warning'}: {line}\n")
    if broken:
        sys.exit(_BROKEN)
    from harness.__main__ import main as command

    command()


def faults(home: Path, path: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """What is wrong with an installation, in sentences: what keeps it from running, and what may.

    Args:
        home: folder that this module lies in, with the package `harness` beside it.
        path: where distributions are looked for; `sys.path` if not given.
    """
    searched = sys.path if path is None else list(path)
    others = sorted({f"{name} {version}" for name, version in _others(searched)})
    remedy = f"pip uninstall {' '.join(each.partition(' ')[0] for each in others)}" if others else ""
    again = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    cure = f"{' && '.join(filter(None, (remedy, again)))}; {_APART}"
    whose = f" by {', '.join(others)}" if others else ""
    found = _imported(searched if path is not None else None)
    if found is None or found.parent.resolve() != (home / PACKAGE).resolve():
        where = f"is imported from {found}" if found else "cannot be found"
        return [f"the package {PACKAGE!r} {where}, not from {home / PACKAGE}{whose}: {cure}"], []
    changed = _changed(searched)
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        return [f"{changed[0]}{more} of {DISTRIBUTION} replaced{whose}: {cure}"], []
    if others:
        return [], [f"{', '.join(others)} also installs files under {PACKAGE}/, beside those of {DISTRIBUTION}: {cure}"]
    return [], []


def _imported(path: Sequence[str] | None) -> Path | None:
    """The file that `import harness` would run."""
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
    else:
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(PACKAGE, list(path))
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _others(path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Distributions besides this one whose records list files of a top-level package `harness`."""
    for distribution in metadata.distributions(path=list(path)):
        name = distribution.name or ""
        if name.replace("_", "-").lower() == DISTRIBUTION:
            continue
        listed = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""
        lines = (line.strip().removeprefix("../") for line in listed.splitlines())
        if any(line.startswith(f"{PACKAGE}/") for line in lines):
            yield name, distribution.version


def _changed(path: Sequence[str]) -> list[str]:
    """Files of the package that are not those that this distribution recorded; an editable one records none."""
    for distribution in metadata.distributions(name=DISTRIBUTION, path=list(path)):
        changed = []
        for file in distribution.files or ():
            if file.parts[0] != PACKAGE or file.hash is None or file.hash.mode != "sha256":
                continue
            try:
                digest = hashlib.sha256(Path(str(distribution.locate_file(file))).read_bytes()).digest()
            except OSError:
                digest = b""
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                changed.append(str(file))
        return changed
    return []


if __name__ == "__main__":
    main()
