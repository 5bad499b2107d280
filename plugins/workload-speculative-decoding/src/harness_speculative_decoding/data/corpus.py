"""English prose that every Python carries: `pydoc_data.topics` and the docstrings of the standard library.

The text belongs to the running Python, so two Python versions have two corpora; the digest tells them apart. Paragraphs
are split into training and held-out text by a hash of their own words, so that a paragraph never changes sides.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

READER = 1
"""Version of the rules below; part of the name of the stored copy."""

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib-dynload", "lib2to3", "pydoc_data", "site-packages"}
    | {"test", "tests", "turtledemo", "venv"}
)
"""Not prose, not part of every installation, or somebody else's."""

HELD_OUT_ONE_IN = 16
MIN_PARAGRAPH = 40
MIN_LETTERS = 0.7
"""Characters in a paragraph, and the share of letters and spaces in it, below which it is taken for a table or code."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents made of paragraphs (joined by blank lines), split by paragraph.

    Attributes:
        train: training text, one entry a document.
        held_out: paragraphs that no training document holds.
        digest: sha256 of both.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    digest: str

    @property
    def characters(self) -> int:
        """Length of all text."""
        return sum(map(len, self.train)) + sum(map(len, self.held_out))


def load(cache: Path) -> Corpus:
    """The corpus of the running Python, kept in `cache` because reading it takes seconds."""
    if (found := kept(cache)) is not None:
        return found
    corpus = split(read(Path(sysconfig.get_path("stdlib"))))
    cache.mkdir(parents=True, exist_ok=True)
    stored = _stored(cache)
    temporary = stored.with_name(f"{stored.name}.{os.getpid()}.tmp")
    content = {"train": corpus.train, "held_out": corpus.held_out, "digest": corpus.digest}
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(stored)
    return corpus


def kept(cache: Path) -> Corpus | None:
    """The corpus of the running Python as an earlier `load` kept it; None where it is absent or damaged."""
    try:
        found = json.loads(_stored(cache).read_text(encoding="utf-8"))
        corpus = _corpus(found["train"], found["held_out"])
        return corpus if corpus.digest == found["digest"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stored(cache: Path) -> Path:
    identity = hashlib.sha256(f"{READER}\n{sys.version}\n{sysconfig.get_path('stdlib')}".encode()).hexdigest()[:16]
    return cache / f"corpus-{identity}.json"


def read(stdlib: Path) -> Iterator[str]:
    """Documents in a fixed order: the topics by name, then docstrings by file and line."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]
    for path in sources(stdlib):
        yield from docstrings(path)


def sources(stdlib: Path) -> list[Path]:
    """Python files below a folder in sorted order, without `SKIPPED_FOLDERS`."""
    found: list[Path] = []
    for folder, inner, files in os.walk(stdlib):
        inner[:] = [name for name in inner if name not in SKIPPED_FOLDERS and not name.startswith("config-")]
        found.extend(Path(folder, name) for name in files if name.endswith(".py"))
    return sorted(found, key=lambda path: path.relative_to(stdlib).as_posix())


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a file in the order of its lines; none where it cannot be read or parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escape sequences in other people's files
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 0), text))
    yield from (text for _, text in sorted(found))


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is long enough and made of words."""
    if len(paragraph) < MIN_PARAGRAPH or ">>>" in paragraph:
        return False
    words = sum(character.isalpha() or character == " " for character in paragraph)
    return words >= MIN_LETTERS * len(paragraph)


def is_held_out(paragraph: str) -> bool:
    """Whether a paragraph belongs to the held-out text: one in `HELD_OUT_ONE_IN`, by its hash."""
    return int.from_bytes(hashlib.sha256(paragraph.encode("utf-8", "replace")).digest()[:4]) % HELD_OUT_ONE_IN == 0


def split(documents: Iterable[str]) -> Corpus:
    """Prose paragraphs of the documents, each kept once, with line breaks and indents made single spaces."""
    seen: set[str] = set()
    train: list[str] = []
    held_out: list[str] = []
    for document in documents:
        kept: list[str] = []
        for block in document.replace("\r\n", "\n").split("\n\n"):
            paragraph = " ".join(block.split()).encode("utf-8", "replace").decode("utf-8")
            if paragraph in seen or not is_prose(paragraph):
                continue
            seen.add(paragraph)
            (held_out if is_held_out(paragraph) else kept).append(paragraph)
        if kept:
            train.append("\n\n".join(kept))
    return _corpus(train, held_out)


def _corpus(train: Iterable[str], held_out: Iterable[str]) -> Corpus:
    first, second = tuple(train), tuple(held_out)
    content = json.dumps([first, second], ensure_ascii=True).encode()
    return Corpus(first, second, hashlib.sha256(content).hexdigest())
