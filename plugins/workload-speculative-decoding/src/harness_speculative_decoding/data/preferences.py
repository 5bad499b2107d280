"""Preference pairs: read from JSON Lines, as HH-RLHF or TRL's chats, or made offline by ranking samples of a model.

Two forms of texts are read. With `prompt`, `chosen` and `rejected` (Dahoas/full-hh-rlhf) the last two are answers. With
only `chosen` and `rejected` (Anthropic/hh-rlhf) both hold a whole dialogue, turns begun by a blank line and `Human:` or
`Assistant:`; the prompt is then what both share, up to and with the last `Assistant:` of it.

Chats are lists of messages, which the tokenizer's chat template writes. `prompt` (or `messages`) is the conversation up
to the answer, `chosen` and `rejected` the answers: a text, a message, or a list with that one message. Without a
prompt both answers hold the whole conversation, which differs in its last message alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness_speculative_decoding.data.chat import (
    Message,
    answer_text,
    encode_rendered,
    is_conversation,
    messages_of,
    prompt_text,
)
from harness_speculative_decoding.data.prompts import encode

ASSISTANT = "\n\nAssistant:"
FORMS = (
    '{"prompt": ..., "chosen": ..., "rejected": ...}, or {"chosen": ..., "rejected": ...} with whole dialogues; '
    "texts, or lists of messages for a chat template"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse answer, as text.

    Attributes:
        prompt: what is answered.
        chosen: the better answer.
        rejected: the worse one.
        chat: whether a chat template wrote them, so that all special tokens stand in them, ends included.
    """

    prompt: str
    chosen: str
    rejected: str
    chat: bool = False


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as token ids; the prompt has at least one, each answer too (an end token where it ended)."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Pairs to train on, pairs held out, and what was left out.

    Attributes:
        train: pairs to train on.
        held_out: pairs that no training sees.
        left_out: number of pairs not used, by reason.
        digest: sha256 of both lists.
    """

    train: tuple[TokenPair, ...]
    held_out: tuple[TokenPair, ...]
    left_out: Mapping[str, int]
    digest: str


def read_pairs(path: Path, tokenizer: Any = None) -> list[Pair]:
    """Pairs of a JSON Lines file, one a line; empty lines are skipped.

    Args:
        path: of the file.
        tokenizer: whose chat template writes conversations; without one rows of texts alone are read.

    Raises:
        UsageError: names file, line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the pairs in {path} cannot be read: {error}", accepted=f"UTF-8 JSON Lines: {FORMS}"
        ) from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"not JSON: {error}", where=where, accepted=FORMS) from None
        if not isinstance(row, dict):
            raise UsageError(f"a row is an object, not {type(row).__name__}", where=where, accepted=FORMS)
        chat = "messages" in row or any(is_conversation(row.get(key)) for key in ("prompt", "chosen", "rejected"))
        pairs.append(_chat_pair(row, tokenizer, where) if chat else _pair(row, where))
    if not pairs:
        raise UsageError(f"there is no pair in {path}", accepted=FORMS)
    return pairs


def _pair(row: Mapping[str, object], where: str) -> Pair:
    chosen, rejected = _text(row, "chosen", where), _text(row, "rejected", where)
    if "prompt" in row:
        prompt = _text(row, "prompt", where)
        if not prompt:
            raise UsageError("field 'prompt' is empty", where=where, accepted=FORMS)
        return Pair(prompt, chosen, rejected)
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 - texts, compared character by character
    turn = shared.rfind(ASSISTANT)
    if turn < 0:
        raise UsageError(
            "there is no field 'prompt', and fields 'chosen' and 'rejected' share no dialogue up to an answer",
            where=where,
            accepted=f"{FORMS} that begin alike and hold {ASSISTANT!r} before they part",
        )
    cut = turn + len(ASSISTANT)
    return Pair(shared[:cut], chosen[cut:], rejected[cut:])


def _chat_pair(row: Mapping[str, Any], tokenizer: Any, where: str) -> Pair:
    """A row that holds messages, written by the chat template."""
    if tokenizer is None:
        raise UsageError("messages need the tokenizer whose chat template writes them", where=where, accepted=FORMS)
    given = [field for field in ("prompt", "messages") if field in row]
    if len(given) > 1:
        raise UsageError("both 'prompt' and 'messages', where one is asked", where=where, accepted=FORMS)
    if given:
        asked = messages_of(row[given[0]], given[0], where)
        chosen, rejected = (_answer(row, field, where) for field in ("chosen", "rejected"))
    else:
        whole = [messages_of(row.get(field), field, where) for field in ("chosen", "rejected")]
        asked = whole[0][:-1]
        if not asked or whole[1][:-1] != asked:
            raise UsageError(
                "there is no prompt, and 'chosen' and 'rejected' differ before their last message",
                where=where,
                accepted=FORMS,
            )
        chosen, rejected = (_assistants(each[-1], where) for each in whole)
    better, worse = (answer_text(tokenizer, asked, answer, where) for answer in (chosen, rejected))
    return Pair(prompt_text(tokenizer, asked, where), better, worse, chat=True)


def _answer(row: Mapping[str, Any], field: str, where: str) -> Message:
    """The one message that a field holds, as it is or in a list; a text is the assistant's."""
    found = row.get(field)
    if isinstance(found, str):
        return {"role": "assistant", "content": found}
    messages = messages_of([found] if isinstance(found, dict) else found, field, where)
    if len(messages) > 1:
        raise UsageError(f"field {field!r} holds several messages", where=where, accepted="one, of the assistant")
    return _assistants(messages[0], where)


def _assistants(message: Message, where: str) -> Message:
    if message["role"] != "assistant":
        raise UsageError(f"an answer is of {message['role']!r}", where=where, accepted="role assistant")
    return message


def _text(row: Mapping[str, object], field: str, where: str) -> str:
    if field not in row:
        raise UsageError(f"field {field!r} is missing", where=where, accepted=FORMS)
    value = row[field]
    if not isinstance(value, str):
        raise UsageError(f"field {field!r} is a text, not {type(value).__name__}", where=where, accepted=FORMS)
    return value


def tokenized(
    pairs: Sequence[Pair], tokenizer: Any, context: int | None, ends: Collection[int] = ()
) -> tuple[list[TokenPair], dict[str, int]]:
    """Pairs as token ids, and how many were left out for which reason.

    Prompt and answer are encoded apart, as they are when the model answers, and every answer is ended by one end token
    where there is any: what a chat template writes behind its own is left out, and an answer without one gets the
    tokenizer's. A pair that is longer than `context` loses the beginning of its prompt, never a part of an answer; one
    whose answer alone leaves no room for a prompt token is left out, and so is one with equal answers.

    Args:
        pairs: as texts.
        tokenizer: the model's.
        context: longest prompt and answer together, in tokens; None for any.
        ends: ids at which the model ends an answer, beside the tokenizer's end token.
    """
    own = tokenizer.eos_token_id
    known = {*ends, *(() if own is None else (own,))}
    kept: list[TokenPair] = []
    left_out = {"equal answers": 0, "longer than the context": 0, "no token": 0}
    for pair in pairs:
        prompt = tuple(encode_rendered(tokenizer, pair.prompt) if pair.chat else encode(tokenizer, pair.prompt))
        chosen, rejected = (
            _ended(encode_rendered(tokenizer, text), known, own) for text in (pair.chosen, pair.rejected)
        )
        room = len(prompt) if context is None else context - max(len(chosen), len(rejected))
        if chosen == rejected:
            left_out["equal answers"] += 1
        elif room < 1:
            left_out["longer than the context"] += 1
        elif not (prompt and chosen and rejected):
            left_out["no token"] += 1
        else:
            kept.append(TokenPair(prompt[-room:], chosen, rejected))
    return kept, left_out


def _ended(ids: list[int], known: Collection[int], own: int | None) -> tuple[int, ...]:
    """An answer up to its first end token, which is the tokenizer's where it has none."""
    for place, token in enumerate(ids, start=1):
        if token in known:
            return tuple(ids[:place])
    return (*ids, *(() if own is None else (own,)))


def split(pairs: Sequence[TokenPair], left_out: Mapping[str, int], one_in: int = 16) -> Preferences:
    """Holds out about one pair in `one_in`, by a hash of its prompt, so that a prompt never changes sides.

    Raises:
        UsageError: a side would be empty.
    """
    train: list[TokenPair] = []
    held_out: list[TokenPair] = []
    for pair in pairs:
        number = int.from_bytes(hashlib.sha256(json.dumps(pair.prompt).encode()).digest()[:4])
        (held_out if number % one_in == 0 else train).append(pair)
    if not train or not held_out:
        raise UsageError(
            f"{len(pairs)} usable pairs give {len(train)} to train on and {len(held_out)} to hold out"
            f" (left out: {dict(left_out)})",
            accepted=f"pairs with enough different prompts; one in {one_in} is held out",
        )
    content = json.dumps([[[p.prompt, p.chosen, p.rejected] for p in side] for side in (train, held_out)])
    return Preferences(tuple(train), tuple(held_out), dict(left_out), hashlib.sha256(content.encode()).hexdigest())
