"""Prompts as token ids: held-out prose, or a file of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError

BUILTIN = "builtin"
ROW = '{"prompt": "text"}, or {"prompt": "text", "reference": "text"}'
BUILTIN_COUNT = 64
"""Built-in prompts, spread evenly over the held-out paragraphs."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and as token ids.

    Attributes:
        text: what the ids stand for.
        ids: token ids, at least one.
        reference: what a right answer says, for rewards that judge by it.
    """

    text: str
    ids: tuple[int, ...]
    reference: str | None = None


def from_held_out(paragraphs: Sequence[str], tokenizer: Any, tokens: int) -> list[Prompt]:
    """Prompts of exactly so many tokens: the beginning of a held-out paragraph, with the next ones where it is short.

    Raises:
        UsageError: all held-out prose together has fewer tokens.
    """
    count = min(BUILTIN_COUNT, len(paragraphs))
    prompts = []
    for number in range(count):
        first = number * len(paragraphs) // count
        text = ""
        ids: list[int] = []
        for following in range(len(paragraphs)):
            text += ("\n\n" if text else "") + paragraphs[(first + following) % len(paragraphs)]
            # A token is at least one byte, so a shorter text need not be looked at.
            if len(text.encode()) >= tokens:
                ids = encode(tokenizer, text)
            if len(ids) >= tokens:
                break
        else:
            raise UsageError(f"the held-out prose has no {tokens} tokens", accepted="fewer `prompt_tokens`")
        prompts.append(Prompt(tokenizer.decode(ids[:tokens], skip_special_tokens=True), tuple(ids[:tokens])))
    return prompts


def from_file(path: Path, tokenizer: Any) -> list[Prompt]:
    """Prompts of a text file, one a line, or of a JSON Lines file; empty lines are skipped.

    A row of a JSON Lines file is `{"prompt": ...}` or `{"prompt": ..., "reference": ...}`; other keys are not read.

    Raises:
        UsageError: names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the prompts in {path} cannot be read: {error}",
            accepted=f"{BUILTIN}, or a UTF-8 file: one prompt a line, or JSON Lines with a key 'prompt'",
        ) from None
    prompts = []
    for number, written, reference in _lines(path, text):
        ids = encode(tokenizer, written)
        if not ids:
            raise UsageError("the prompt has no token", where=f"{path}:{number}")
        prompts.append(Prompt(written, tuple(ids), reference))
    if not prompts:
        raise UsageError(f"there is no prompt in {path}", accepted="at least one line that is not empty")
    return prompts


def _lines(path: Path, text: str) -> Iterator[tuple[int, str, str | None]]:
    """Number of the line, prompt, reference."""
    as_json = path.suffix.lower() in {".jsonl", ".ndjson", ".json"}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if not as_json:
            yield number, line.rstrip("\r"), None
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"not JSON: {error}", where=f"{path}:{number}") from None
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise UsageError("no prompt", where=f"{path}:{number}", accepted=ROW)
        reference = row.get("reference")
        if reference is not None and not (isinstance(reference, str) and reference.strip()):
            raise UsageError("the reference is no text", where=f"{path}:{number}", accepted=ROW)
        yield number, row["prompt"], reference


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, with the special tokens that the tokenizer itself puts in front."""
    ids = tokenizer(text, verbose=False)["input_ids"]
    return list(ids)


def digest(prompts: Sequence[Prompt]) -> str:
    """sha256 of the token ids, and of the references where there are any."""
    content: list[object] = [prompt.ids for prompt in prompts]
    if any(prompt.reference is not None for prompt in prompts):
        content = [content, [prompt.reference for prompt in prompts]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
