"""What requests say: drawn words, texts of a file, conversations, rows of a data set; with shared beginnings and turns.

Everything is drawn from a seed before a window opens. With the model's tokenizer a drawn prompt has exactly as many
tokens as asked for; without it, as many words.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import Field, model_validator

from harness.errors import MeasurementError, UsageError
from harness.options import Duration, Options
from harness.suite_paths import SuitePath
from harness_disaggregated_serving.load import traces

WORDS: Final = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state")
"""Prompts are drawn from these: most tokenizers take one token for each; the true number is the server's."""
_ATTEMPTS: Final = 40


class PromptOptions(Options):
    """Where the text of requests comes from.

    Attributes:
        source: `words`, drawn ones of the lengths asked for; `file`, lines of a text file or the key `column` of JSON
            Lines; `sharegpt`, conversations in that layout, turn by turn; `dataset`, a local folder of a data set in
            Arrow, Parquet or JSON Lines.
        path: of the file or folder.
        column: of a data set or JSON Lines with the prompt.
        output_column: of these with the number of output tokens; lengths are drawn where a row has none.
        shared_prefix: this many tokens (words without a tokenizer) at the beginning of each prompt are the same in a
            group of requests, as a system prompt is.
        prefix_groups: how many different beginnings there are.
        turns: turns of a conversation; each sends what was said before. Of `sharegpt` at most so many.
        think_time: between an answer and the next turn; seconds, or `2s`.
    """

    source: Literal["words", "file", "sharegpt", "dataset"] = "words"
    path: SuitePath = ""
    column: str = "prompt"
    output_column: str = "output_tokens"
    shared_prefix: Annotated[int, Field(ge=0)] = 0
    prefix_groups: Annotated[int, Field(ge=1)] = 1
    turns: Annotated[int, Field(ge=1, le=1000)] = 1
    think_time: Annotated[Duration, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _with_path(self) -> PromptOptions:
        if bool(self.path) == (self.source == "words"):
            raise ValueError("a path belongs to the sources file, sharegpt and dataset, and they need one")
        return self


class Tokenizer(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    Attributes:
        text: what the user says.
        output_tokens: how many tokens are asked for; None where the source does not say.
    """

    text: str
    output_tokens: int | None = None


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a saved or cached model; raises MeasurementError where there is none."""
    try:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the library raises many kinds
        first = str(error).partition("\n")[0]
        raise MeasurementError(f"no tokenizer can be loaded from {name!r}: {type(error).__name__}: {first}") from None
    return _Plain(loaded)


class _Plain:
    """A tokenizer of transformers, without special tokens and clean-up."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def encode(self, text: str) -> list[int]:
        return list(self._loaded.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._loaded.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Words:
    """Draws texts of a given length.

    Args:
        tokenizer: counts tokens; None counts words.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer

    def draw(self, generator: random.Random, length: int, prefix: str = "") -> str:
        """A text of exactly so many tokens (words without a tokenizer), which begins with `prefix` as far as it fits.

        Raises:
            MeasurementError: the tokenizer makes no text of that length out of any words.
        """
        if self._tokenizer is None:
            begun = prefix.split(" ") if prefix else []
            return " ".join([*begun, *(generator.choice(WORDS) for _ in range(length - len(begun)))][:length])
        for _ in range(_ATTEMPTS):
            text = prefix
            while len(ids := self._tokenizer.encode(text)) < length:
                lacking = length - len(ids)
                more = " ".join(generator.choice(WORDS) for _ in range(lacking))
                text = f"{text} {more}" if text else more
            found = self._cut(text, ids, length)
            if found is not None:
                return found
        raise MeasurementError(f"the tokenizer makes no prompt of exactly {length} tokens", accepted="another length")

    def _cut(self, text: str, ids: Sequence[int], length: int) -> str | None:
        """The text without what it has too much; None where what is left is encoded otherwise."""
        assert self._tokenizer is not None
        cut = text if len(ids) == length else self._tokenizer.decode(ids[:length])
        return cut if len(self._tokenizer.encode(cut)) == length else None

    def count(self, text: str) -> int | None:
        """Tokens of a text; None without a tokenizer."""
        return None if self._tokenizer is None else len(self._tokenizer.encode(text))


class Prompts(ABC):
    """A source of conversations, by number: the same one for the same number and seed."""

    @abstractmethod
    def conversation(self, number: int, prompt_tokens: int, output_tokens: int) -> tuple[Turn, ...]:
        """The turns of a conversation; lengths are used where the source has none of its own."""


class DrawnPrompts(Prompts):
    """Words of the lengths asked for; each turn has them anew.

    Args:
        words: draws texts.
        options: shared beginnings and turns.
        seed: of all of them.
    """

    def __init__(self, words: Words, options: PromptOptions, seed: int) -> None:
        self._words, self._options, self._seed = words, options, seed
        self._prefix = lru_cache(maxsize=None)(self._beginning)

    def conversation(self, number: int, prompt_tokens: int, output_tokens: int) -> tuple[Turn, ...]:
        """Turns with the beginning of the conversation's group."""
        generator = _generator(self._seed, "conversation", number)
        group = generator.randrange(self._options.prefix_groups)
        prefix = self._prefix(group) if self._options.shared_prefix else ""
        texts = [self._words.draw(generator, prompt_tokens, prefix)]
        texts += [self._words.draw(generator, prompt_tokens) for _ in range(self._options.turns - 1)]
        return tuple(Turn(text, output_tokens) for text in texts)

    def _beginning(self, group: int) -> str:
        return self._words.draw(_generator(self._seed, "prefix", group), self._options.shared_prefix)


class BlockPrompts:
    """Prompts of a trace that says which blocks of tokens are the same: equal ids are equal text."""

    def __init__(self, words: Words, seed: int) -> None:
        self._words, self._seed = words, seed
        self._block = lru_cache(maxsize=4096)(self._drawn)

    def prompt(self, blocks: Sequence[int], prompt_tokens: int, scale: float) -> str:
        """A prompt whose blocks are `scale` times as long as in the trace."""
        size = max(1, round(traces.MOONCAKE_BLOCK * scale))
        text = " ".join(self._block(each, size) for each in blocks[: -(-prompt_tokens // size)])
        return self._words.draw(_generator(self._seed, "rest", tuple(blocks)), prompt_tokens, text)

    def _drawn(self, block: int, size: int) -> str:
        return self._words.draw(_generator(self._seed, "block", block), size)


class ListedPrompts(Prompts):
    """Conversations of a file or data set, shuffled, from the beginning again when all were used."""

    def __init__(self, entries: Sequence[tuple[Turn, ...]], options: PromptOptions, words: Words, seed: int) -> None:
        if not entries:
            raise UsageError("no prompt was found", where=options.path, accepted="at least one")
        self._entries, self._options, self._words, self._seed = entries, options, words, seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def conversation(self, number: int, prompt_tokens: int, output_tokens: int) -> tuple[Turn, ...]:  # noqa: ARG002
        """The conversation's turns; its output length is drawn where the source has none."""
        again, place = divmod(number, len(self._entries))
        turns = self._entries[self._order(again)[place]]
        return tuple(
            turn if turn.output_tokens is not None else Turn(turn.text, output_tokens)
            for turn in turns[: self._options.turns]
        )

    def _shuffled(self, again: int) -> list[int]:
        order = list(range(len(self._entries)))
        _generator(self._seed, "order", again).shuffle(order)
        return order


def source(options: PromptOptions, words: Words, seed: int) -> tuple[Prompts, Mapping[str, int]]:
    """The source that options name, and what of it was left out, by reason; raises UsageError."""
    if options.source == "words":
        return DrawnPrompts(words, options, seed), {}
    path = Path(options.path)
    if options.source == "sharegpt":
        trace = traces.read(path)
        entries = [conversation_of(row.turns, words) for row in trace.rows if row.turns]
        return ListedPrompts(entries, options, words, seed), trace.left_out
    rows = dataset_rows(path) if options.source == "dataset" else file_rows(path, options.column)
    entries = []
    left = 0
    for row in rows:
        text, output = row.get(options.column), row.get(options.output_column)
        if isinstance(text, str) and text:
            known = output if isinstance(output, int) and not isinstance(output, bool) and output > 0 else None
            entries.append((Turn(text, known),))
        else:
            left += 1
    return ListedPrompts(entries, options, words, seed), {f"no text in {options.column!r}": left} if left else {}


def conversation_of(turns: Sequence[str], words: Words) -> tuple[Turn, ...]:
    """Turns of a conversation with its answers' lengths, where a tokenizer can count them."""
    asked, answered = turns[::2], turns[1::2]
    return tuple(
        Turn(text, max(1, count) if (count := words.count(answer)) is not None else None)
        for text, answer in zip(asked, [*answered, *[""] * (len(asked) - len(answered))], strict=True)
    )


def file_rows(path: Path, column: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a file: JSON Lines, or a prompt a line."""
    if path.suffix in {".jsonl", ".json", ".ndjson"}:
        yield from (row for _, row in traces.json_lines(path))
    else:
        yield from ({column: line} for line in traces.lines_of(traces.read_text(path)) if line.strip())


def dataset_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a data set that was saved to a folder; raises UsageError where it holds no table.

    `*.arrow` is what `Dataset.save_to_disk` writes, `*.parquet` what the hub holds.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".arrow", ".parquet", ".jsonl"})
    if not files:
        raise UsageError("holds no *.arrow, *.parquet or *.jsonl", where=str(folder), accepted="a saved data set")
    for path in files:
        if path.suffix == ".jsonl":
            yield from (row for _, row in traces.json_lines(path))
        else:
            yield from _table(path)


def _table(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError(
            "pyarrow is needed to read it", where=str(path), hint="pip install 'joule-harness[parquet]'"
        ) from None
    try:
        batches = pq.ParquetFile(path).iter_batches() if path.suffix == ".parquet" else _arrow(pa, path)
        for batch in batches:
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None


def _arrow(pa: Any, path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as file:
        try:
            yield from pa.ipc.open_stream(file)
        except pa.ArrowInvalid:
            file.seek(0)
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def _generator(*seed: object) -> random.Random:
    return random.Random(repr(seed))  # noqa: S311 - prompts, no secrets
