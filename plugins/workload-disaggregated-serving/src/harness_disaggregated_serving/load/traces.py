"""Traces of requests as they are published, told apart by their columns: no file has to be rewritten first.

| layout | time | lengths |
|---|---|---|
| own CSV | `arrival_s` | `prompt_tokens`, `output_tokens` |
| Azure LLM inference, 2023 and 2024 (CSV) | `TIMESTAMP`, date and time | `ContextTokens`, `GeneratedTokens` |
| BurstGPT (CSV) | `Timestamp`, seconds | `Request tokens`, `Response tokens` |
| Mooncake (JSON Lines) | `timestamp`, ms | `input_length`, `output_length`; `hash_ids` of blocks of 512 tokens |
| `vllm bench serve` (JSON Lines) | none | `prompt`, `output_tokens` |
| ShareGPT (JSON) | none | the texts of a conversation |

Times count from the first arrival. A row without output, or with a length that is no whole number above 0, is left out
and counted under its reason.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from harness import csv_table
from harness.csv_table import CsvTable, Row
from harness.errors import UsageError
from harness_disaggregated_serving.load.fields import number, whole

MOONCAKE_BLOCK: Final = 512
"""Tokens that one of a Mooncake trace's `hash_ids` stands for (README of the trace)."""
NO_OUTPUT: Final = "no output tokens"
NO_PROMPT: Final = "no prompt tokens"
UNREADABLE: Final = "lengths or time are no numbers"


class TraceRow(NamedTuple):
    """A request of a trace.

    Attributes:
        arrival_s: seconds after the first arrival; None where the layout has no times.
        prompt_tokens: None where the trace has a text instead.
        output_tokens: None where only a tokenizer can tell.
        turns: texts of the user and answers to them, in turn; empty where the trace has no text.
        blocks: ids of the blocks of tokens that the prompt begins with; equal ids are equal texts.
    """

    arrival_s: float | None
    prompt_tokens: int | None
    output_tokens: int | None
    turns: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that was read.

    Attributes:
        layout: as named in this module's table.
        rows: in order of time.
        left_out: reason -> how many rows.
    """

    layout: str
    rows: tuple[TraceRow, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether its rows have times."""
        return bool(self.rows) and self.rows[0].arrival_s is not None


_Any = TypeVar("_Any")


def lines_of(text: str) -> list[str]:
    """Lines of JSON Lines or plain text: they end at LF alone, since JSON may hold U+2028 and its like as it is."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_text(path: Path) -> str:
    """A file's text without a byte order mark; raises UsageError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, object) of a file of JSON Lines; raises UsageError with the line of one that is none."""
    for place, line in enumerate(lines_of(read_text(path)), start=1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise UsageError("this line is no JSON object", where=f"{path}:{place}", accepted="JSON Lines")
            yield place, found


def read(path: Path) -> Trace:
    """A trace in one of the layouts above; raises UsageError with file and line."""
    start = _beginning(path)
    if start.startswith(b"["):
        return _trace("ShareGPT", _documents(path), share_gpt)
    if start.startswith(b"{"):
        rows = [row for _, row in json_lines(path)]
        keys = set(rows[0]) if rows else set()
        if {"timestamp", "input_length", "output_length"} <= keys:
            return _trace("Mooncake", rows, _mooncake)
        if "conversations" in keys:
            return _trace("ShareGPT", rows, share_gpt)
        if "prompt" in keys:
            return _trace("vllm bench", rows, _vllm_bench)
        raise UsageError(f"no trace has the keys {', '.join(sorted(keys))}", where=str(path), accepted=_ACCEPTED)
    return _csv(path)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None


def _csv(path: Path) -> Trace:
    with csv_table.opened(path) as table:
        return _of_table(table)


def _of_table(table: CsvTable) -> Trace:
    names = set(table.columns)
    layouts: list[tuple[str, set[str], Callable[[Row], TraceRow | str]]] = [
        ("own", {"arrival_s", "prompt_tokens", "output_tokens"}, _own),
        ("Azure LLM inference", {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}, _azure),
        ("BurstGPT", {"Timestamp", "Request tokens", "Response tokens"}, _burst_gpt),
    ]
    for name, wanted, row in layouts:
        if wanted <= names:
            return _trace(name, table, row)
    if "arrival_s" in names:
        lacking = [name for name in ("prompt_tokens", "output_tokens") if name not in names]
        raise UsageError(f"no column {', '.join(lacking)}", where=table.name, accepted=_ACCEPTED)
    raise UsageError(f"no trace has the columns {table.found()}", where=table.name, accepted=_ACCEPTED)


_ACCEPTED: Final = (
    "CSV with arrival_s, prompt_tokens, output_tokens; or a trace of Azure, BurstGPT, Mooncake, ShareGPT or vllm bench"
)


def _trace(layout: str, rows: Iterable[_Any], read_row: Callable[[_Any], TraceRow | str]) -> Trace:
    left: Counter[str] = Counter()
    found = []
    for row in rows:
        made = read_row(row)
        if isinstance(made, str):
            left[made] += 1
        else:
            found.append(made)
    timed = [row.arrival_s for row in found if row.arrival_s is not None]
    if timed:
        first = min(timed)
        found = [row._replace(arrival_s=(row.arrival_s or 0.0) - first) for row in found]
        found.sort(key=lambda row: row.arrival_s or 0.0)
    return Trace(layout, tuple(found), dict(left))


def _checked(arrival_s: float | None, prompt: int, output: int, blocks: tuple[int, ...] = ()) -> TraceRow | str:
    if arrival_s is not None and not math.isfinite(arrival_s):
        return UNREADABLE
    if output < 1:
        return NO_OUTPUT
    if prompt < 1:
        return NO_PROMPT
    return TraceRow(arrival_s, prompt, output, (), blocks)


def _whole(value: object) -> int:
    """A count that a trace writes as 12, "12" or 12.0; raises ValueError for 12.5 or none."""
    number = float(str(value))
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def _own(row: Row) -> TraceRow | str:
    try:
        return _checked(number(row, "arrival_s"), *_lengths(row, "prompt_tokens", "output_tokens"))
    except UsageError:
        return UNREADABLE


def _lengths(row: Row, prompt: str, output: str) -> tuple[int, int]:
    return whole(row, prompt, least=0), whole(row, output, least=0)


def _azure(row: Row) -> TraceRow | str:
    try:
        return _checked(moment_s(row["TIMESTAMP"]), *_lengths(row, "ContextTokens", "GeneratedTokens"))
    except (ValueError, OverflowError, UsageError):
        return UNREADABLE


def moment_s(text: str) -> float:
    """Seconds of a date with a time of the day, with up to any number of decimals; UTC unless it says its zone."""
    date, decimals = text.strip(), ""
    if "." in date:
        date, _, rest = date.partition(".")
        digits = len(rest) - len(rest.lstrip("0123456789"))
        decimals, zone = rest[:digits], rest[digits:]
        date += zone
    moment = datetime.fromisoformat(date)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() + (float(f"0.{decimals}") if decimals else 0.0)


def _burst_gpt(row: Row) -> TraceRow | str:
    try:
        return _checked(number(row, "Timestamp"), *_lengths(row, "Request tokens", "Response tokens"))
    except UsageError:
        return UNREADABLE


def _mooncake(row: Mapping[str, Any]) -> TraceRow | str:
    try:
        blocks = tuple(int(each) for each in row.get("hash_ids") or ())
        arrival_s = float(row["timestamp"]) / 1000
        return _checked(arrival_s, _whole(row["input_length"]), _whole(row["output_length"]), blocks)
    except (KeyError, TypeError, ValueError, OverflowError):
        return UNREADABLE


def _vllm_bench(row: Mapping[str, Any]) -> TraceRow | str:
    prompt, output = row.get("prompt"), row.get("output_tokens", row.get("output_len"))
    if not isinstance(prompt, str) or not prompt:
        return NO_PROMPT
    if output is None:
        return TraceRow(None, None, None, (prompt,))
    try:
        asked = _whole(output)
    except (TypeError, ValueError, OverflowError):
        return UNREADABLE
    return TraceRow(None, None, asked, (prompt,)) if asked >= 1 else NO_OUTPUT


def share_gpt(row: Mapping[str, Any]) -> TraceRow | str:
    """A conversation: what people said and what was answered, in turn, as far as they take turns."""
    said = row.get("conversations") or row.get("conversation")
    turns: list[str] = []
    for each in said if isinstance(said, list) else ():
        speaker, text = (each.get("from"), each.get("value")) if isinstance(each, dict) else (None, None)
        wanted = {"human", "user"} if len(turns) % 2 == 0 else {"gpt", "assistant", "chatgpt", "bing", "bard"}
        if speaker not in wanted or not isinstance(text, str) or not text:
            if not turns and speaker == "system":
                continue
            break
        turns.append(text)
    turns = turns[: len(turns) // 2 * 2]
    return TraceRow(None, None, None, tuple(turns)) if turns else "no question with an answer"


def _documents(path: Path) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is no JSON: {error}", where=str(path)) from None
    return [each if isinstance(each, dict) else {} for each in found]
