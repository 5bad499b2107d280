"""Results of other load generators, request by request, as they write them: `vllm bench serve`, guidellm, aiperf.

| tool | file | what is read |
|---|---|---|
| `vllm bench serve --save-detailed` | one JSON object | `input_lens`, `output_lens`, `ttfts`, `itls`, `errors` |
| guidellm | `benchmarks.json` | `requests` of each of its benchmarks: `successful`, `errored`, `incomplete` |
| aiperf | `profile_export.jsonl` | `metrics` and `metadata` of each line |

Their times count from sending. A time per output token is (last - first) / tokens after the first chunk where the
chunks are told, which vLLM does; of the other tools it is their own mean, which takes the first chunk for one token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.errors import MeasurementError
from harness_disaggregated_serving.load.traces import lines_of, read_text

TOOLS: Final = "a result of vllm bench serve (--save-detailed), guidellm or aiperf (profile_export.jsonl)"
_MS: Final = 1e-3
_NS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Result:
    """One request.

    Attributes:
        ok: whether it was answered whole.
        prompt_tokens: None where the tool does not say.
        output_tokens: likewise.
        ttft_s: from sending to the first token.
        tpot_s: time per output token after the first.
        latency_s: from sending to the end.
        begin_s: Unix time of its start; None where the tool does not say.
        reason: why it failed.
    """

    ok: bool
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None
    begin_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What a tool wrote.

    Attributes:
        tool: its name.
        requests: one by one.
        duration_s: how long its load lasted; None where that is not told.
    """

    tool: str
    requests: tuple[Result, ...]
    duration_s: float | None


def read(path: Path) -> Results:
    """The results of a file; raises MeasurementError where it is of no known tool."""
    text = read_text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _lines(text, path)
    if isinstance(found, dict) and isinstance(found.get("metrics"), dict) and isinstance(found.get("metadata"), dict):
        found = [found]
    if isinstance(found, list):
        return _results("aiperf", [_aiperf(each) for each in found])
    if isinstance(found, dict) and isinstance(found.get("benchmarks"), list):
        return _results("guidellm", list(_guidellm(found)))
    if isinstance(found, dict) and "output_lens" in found:
        requests = tuple(_vllm(found))
        return Results("vllm bench serve", requests, _number(found.get("duration")))
    if isinstance(found, dict) and "total_output_tokens" in found:
        raise MeasurementError("it holds sums and no requests", where=str(path), accepted=TOOLS)
    raise MeasurementError("it is no result of a known tool", where=str(path), accepted=TOOLS)


def _lines(text: str, path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in lines_of(text) if line.strip()]
    except (ValueError, RecursionError):
        raise MeasurementError("it is neither JSON nor JSON Lines", where=str(path), accepted=TOOLS) from None


def _results(tool: str, requests: Sequence[Result]) -> Results:
    """With the time from the first request's start to the last one's end."""
    spans = [(each.begin_s, each.begin_s + (each.latency_s or 0.0)) for each in requests if each.begin_s is not None]
    duration_s = max(end for _, end in spans) - min(begin for begin, _ in spans) if spans else None
    return Results(tool, tuple(requests), duration_s)


def _number(value: object) -> float | None:
    """A finite number at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _count(value: object) -> int | None:
    number = _number(value)
    return None if number is None else round(number)


def _times(value: object, unit: float) -> float | None:
    number = _number(value)
    return None if number is None else number * unit


def _vllm(found: Mapping[str, Any]) -> Iterator[Result]:
    outputs = found["output_lens"]
    size = len(outputs)
    columns = [found.get(key) or [None] * size for key in ("input_lens", "ttfts", "itls", "errors", "start_times")]
    for prompt, ttft, gaps, error, begin, output in zip(*columns, outputs, strict=True):
        if error:
            yield Result(ok=False, reason=str(error)[:200])
            continue
        told = [gap for gap in gaps or () if _number(gap) is not None]
        first_s, tokens = _number(ttft), _count(output)
        after = None if not told or not tokens else tokens - tokens / (len(told) + 1)
        yield Result(
            ok=True,
            prompt_tokens=_count(prompt),
            output_tokens=tokens,
            ttft_s=first_s,
            tpot_s=math.fsum(told) / after if after else None,
            latency_s=None if first_s is None else first_s + math.fsum(told),
            begin_s=None if begin is None else _number(begin),
        )


def _guidellm(found: Mapping[str, Any]) -> Iterator[Result]:
    for benchmark in found["benchmarks"]:
        requests = benchmark.get("requests") or {}
        for row in requests.get("successful") or ():
            output = _count(row.get("output_tokens"))
            yield Result(
                ok=True,
                prompt_tokens=_count(row.get("prompt_tokens")),
                output_tokens=output,
                ttft_s=_times(row.get("time_to_first_token_ms"), _MS),
                tpot_s=_times(row.get("inter_token_latency_ms"), _MS) if (output or 0) > 1 else None,
                latency_s=_number(row.get("request_latency")),
                begin_s=_number(row.get("request_start_time")),
            )
        for status in ("errored", "incomplete"):
            for _ in requests.get(status) or ():
                yield Result(ok=False, reason=status)


def _aiperf(row: object) -> Result:
    if not isinstance(row, dict):
        return Result(ok=False, reason="the line is no object")
    metadata, metrics = row.get("metadata") or {}, row.get("metrics") or {}
    if row.get("error") or metadata.get("was_cancelled"):
        return Result(ok=False, reason=str(row.get("error") or "cancelled")[:200])
    output = _count(_value(metrics, "output_sequence_length") or _value(metrics, "output_token_count"))
    return Result(
        ok=True,
        prompt_tokens=_count(_value(metrics, "input_sequence_length")),
        output_tokens=output,
        ttft_s=_value(metrics, "time_to_first_token", time=True),
        tpot_s=_value(metrics, "inter_token_latency", time=True) if (output or 0) > 1 else None,
        latency_s=_value(metrics, "request_latency", time=True),
        begin_s=_times(metadata.get("request_start_ns"), _NS),
    )


_UNITS: Final = {"s": 1.0, "sec": 1.0, "ms": _MS, "us": 1e-6, "ns": _NS}


def _value(metrics: Mapping[str, Any], name: str, *, time: bool = False) -> float | None:
    """A metric that is a number, or one with its unit; times in s, ms where none is told."""
    found = metrics.get(name)
    unit = "ms"
    if isinstance(found, dict):
        unit, found = str(found.get("unit") or unit), found.get("value")
    if time and unit not in _UNITS:
        return None
    return _times(found, _UNITS[unit] if time else 1.0)
