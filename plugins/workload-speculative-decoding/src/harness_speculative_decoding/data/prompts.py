"""Prompts as token ids: held-out prose, or a file of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness_speculative_decoding.data.chat import (
    Message,
    encode_rendered,
    is_conversation,
    messages_of,
    prompt_text,
)

BUILTIN = "builtin"
ROW = (
    '{"prompt": "text"}, or {"messages": [{"role": "user", "content": "text"}, ...]}; '
    'beside either, where a reward needs it, "reference": "text"'
)
BUILTIN_COUNT = 64
"""Built-in prompts, spread evenly over the held-out paragraphs."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and as token ids.

    Attributes:
        text: what the ids stand for; of a conversation, what the chat template made of it.
        ids: token ids, at least one.
        reference: what a right answer says, for rewards that judge by it.
        chat: whether a chat template wrote the text.
    """

    text: str
    ids: tuple[int, ...]
    reference: str | None = None
    chat: bool = False


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

    A row of a JSON Lines file has a `prompt`, or `messages`, which the tokenizer's chat template writes; a `prompt`
    that is a list is read as messages, too (TRL's form). A `reference` may stand beside it; other keys are not read.

    Raises:
        UsageError: names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the prompts in {path} cannot be read: {error}",
            accepted=f"{BUILTIN}, or a UTF-8 file: one prompt a line, or JSON Lines with a key 'prompt' or 'messages'",
        ) from None
    prompts = []
    for number, asked, reference in _lines(path, text):
        where = f"{path}:{number}"
        if isinstance(asked, str):
            written, ids = asked, encode(tokenizer, asked)
        else:
            written = prompt_text(tokenizer, asked, where)
            ids = encode_rendered(tokenizer, written)
        if not ids:
            raise UsageError("the prompt has no token", where=where)
        prompts.append(Prompt(written, tuple(ids), reference, chat=not isinstance(asked, str)))
    if not prompts:
        raise UsageError(f"there is no prompt in {path}", accepted="at least one line that is not empty")
    return prompts


def _lines(path: Path, text: str) -> Iterator[tuple[int, str | list[Message], str | None]]:
    """Number of the line, prompt or messages, reference."""
    as_json = path.suffix.lower() in {".jsonl", ".ndjson", ".json"}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if not as_json:
            yield number, line.rstrip("\r"), None
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"not JSON: {error}", where=where) from None
        if not isinstance(row, dict) or not row.keys() & {"prompt", "messages"}:
            raise UsageError("no prompt", where=where, accepted=ROW)
        if {"prompt", "messages"} <= row.keys():
            raise UsageError("both 'prompt' and 'messages', where one is asked", where=where, accepted=ROW)
        field = "messages" if "messages" in row else "prompt"
        asked: Any = row[field]
        if field == "messages" or is_conversation(asked):
            asked = messages_of(asked, field, where)
        elif not isinstance(asked, str):
            raise UsageError("no prompt", where=where, accepted=ROW)
        reference = row.get("reference")
        if reference is not None and not (isinstance(reference, str) and reference.strip()):
            raise UsageError("the reference is no text", where=where, accepted=ROW)
        yield number, asked, reference


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
