"""Conversations through a tokenizer's chat template: the prompt that a model was tuned to answer, and answers to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import UsageError

Message = Mapping[str, Any]
"""A turn: `role` and `content`, and what else a template reads."""
MESSAGES = '[{"role": "user", "content": "text"}, ...]'


def is_conversation(found: object) -> bool:
    """Whether a field of a row holds messages, and not a text."""
    return isinstance(found, list)


def messages_of(found: object, field: str, where: str) -> list[Message]:
    """Messages of a field of a row.

    Raises:
        UsageError: the field holds none, or one of them has no role or no text; names file, line and field.
    """
    if not isinstance(found, list) or not found:
        raise UsageError(f"field {field!r} holds no messages", where=where, accepted=MESSAGES)
    for number, message in enumerate(found, start=1):
        sound = isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
        if not sound or not message["role"]:
            raise UsageError(
                f"message {number} of field {field!r} has no role or no text", where=where, accepted=MESSAGES
            )
    return found


def prompt_text(tokenizer: Any, messages: Sequence[Message], where: str = "") -> str:
    """A conversation as the template writes it, up to where the answer begins.

    Raises:
        UsageError: there is no template, it refuses the conversation, or the last turn is an answer already.
    """
    if messages[-1]["role"] == "assistant":
        raise UsageError("the conversation ends with an answer", where=where, accepted="one that ends with a question")
    return _rendered(tokenizer, messages, where, opened=True)


def answer_text(tokenizer: Any, messages: Sequence[Message], answer: Message, where: str = "") -> str:
    """What the template writes behind `prompt_text` for an answer, the end of the turn included.

    Raises:
        UsageError: the template changes the prompt where an answer follows, so that it is no answer to that prompt.
    """
    begun = prompt_text(tokenizer, messages, where)
    whole = _rendered(tokenizer, [*messages, answer], where, opened=False)
    if not whole.startswith(begun):
        raise UsageError(
            "the chat template writes the prompt differently where an answer follows",
            where=where,
            accepted="texts instead of messages, as the model reads them",
        )
    return whole[len(begun) :]


def encode_rendered(tokenizer: Any, text: str) -> list[int]:
    """Token ids of what a template wrote, which holds every special token already: none is added."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def prompt_ids(tokenizer: Any, messages: Sequence[Message], where: str = "") -> list[int]:
    """Token ids of `prompt_text`."""
    return encode_rendered(tokenizer, prompt_text(tokenizer, messages, where))


def template_digest(tokenizer: Any) -> str | None:
    """sha256 of the chat template; None where there is none."""
    try:
        template = tokenizer.get_chat_template()
    except (ValueError, AttributeError):
        return None
    return hashlib.sha256(str(template).encode()).hexdigest()


def _rendered(tokenizer: Any, messages: Sequence[Message], where: str, *, opened: bool) -> str:
    from jinja2 import TemplateError

    if template_digest(tokenizer) is None:
        raise UsageError(
            "the tokenizer has no chat template, which messages are written with",
            where=where,
            accepted="a model that chats, or texts instead of messages",
        )
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        what = f"the chat template refuses the conversation: {type(error).__name__}: {error}"
        raise UsageError(what, where=where, accepted=f"what the model was tuned on, such as {MESSAGES}") from None
    return str(text)
