"""Results of other load generators, request by request, as they write them: `vllm bench serve`, guidellm, aiperf.

| tool | file | what is read |
|---|---|---|
| `vllm bench serve --save-detailed` | object | `input_lens`, `output_lens`, `ttfts`, `itls`, `errors`, `start_times` |
| guidellm | `benchmarks.json` | `requests` of each of its benchmarks: `successful`, `errored`, `incomplete` |
| aiperf | `profile_export.jsonl` | `metrics` and `metadata` of each line |

Their times count from sending. vLLM tells starts by Python's `perf_counter` (`endpoint_request_func.py`), the others by
Unix time. A time per output token is (last - first) / tokens after the first chunk where the
chunks are told, which vLLM does; of the other tools it is their own mean, which takes the first chunk for one token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from harness.errors import MeasurementError, UsageError
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
        begin_s: its start, on the clock of the `Results`; None where the tool does not say.
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
        clock: that starts are told by: `unix`, or `perf_counter`, which counts from no moment that is known elsewhere.
    """

    tool: str
    requests: tuple[Result, ...]
    duration_s: float | None
    clock: Literal["unix", "perf_counter"] = "unix"


@dataclass(frozen=True, slots=True)
class _Field:
    """A value in a file, with its place for messages: `itls[3]`."""

    path: Path
    name: str
    value: Any

    def fault(self, accepted: str) -> MeasurementError:
        """That it is something else."""
        what = "is missing" if self.value is None else f"is {self.value!r:.60}"
        return MeasurementError(f"{self.name or 'the file'} {what}", where=str(self.path), accepted=accepted)

    def __getitem__(self, key: str) -> _Field:
        if not isinstance(self.value, dict):
            raise self.fault("an object")
        return _Field(self.path, f"{self.name}.{key}".lstrip("."), self.value.get(key))

    def items(self, size: int | None = None) -> list[_Field]:
        """Those of a list; none of a missing one, or `size` missing ones. Raises for a list of another size."""
        value = [None] * (size or 0) if self.value is None else self.value
        if not isinstance(value, list):
            raise self.fault("a list")
        if size is not None and len(value) != size:
            raise MeasurementError(
                f"{self.name} has {len(value)} values", where=str(self.path), accepted=f"{size}, one for each request"
            )
        return [_Field(self.path, f"{self.name}[{place}]", each) for place, each in enumerate(value)]

    def number(self, unit: float = 1.0) -> float | None:
        """A finite number at least 0, times `unit`; None where it is missing."""
        value = self.value
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.fault("a finite number, 0 or more")
        return float(value) * unit

    def count(self) -> int | None:
        """A whole number at least 0; None where it is missing."""
        found = self.number()
        if found is not None and not found.is_integer():
            raise self.fault("a whole number")
        return None if found is None else int(found)


def read(path: Path) -> Results:
    """The results of a file; raises MeasurementError for one of no known tool, or with the field that is odd."""
    found = _document(path)
    value = found.value
    if isinstance(value, dict) and isinstance(value.get("metrics"), dict) and isinstance(value.get("metadata"), dict):
        value = [value]
    if isinstance(value, list):
        if any(isinstance(each, dict) and "output_lens" in each for each in value):
            raise MeasurementError("it holds several results", where=str(path), accepted="one: without --append-result")
        rows = [_Field(path, f"line {number}", each) for number, each in enumerate(value, start=1)]
        told = _results("aiperf", [_aiperf(row) for row in rows])
    elif isinstance(value, dict) and "benchmarks" in value:
        told = _results("guidellm", list(_guidellm(found)))
    elif isinstance(value, dict) and "output_lens" in value:
        told = Results("vllm bench serve", tuple(_vllm(found)), found["duration"].number(), "perf_counter")
    elif isinstance(value, dict) and "total_output_tokens" in value:
        raise MeasurementError("it holds sums and no requests", where=str(path), accepted=TOOLS)
    else:
        raise MeasurementError("it is no result of a known tool", where=str(path), accepted=TOOLS)
    if not told.requests:
        raise MeasurementError(f"a result of {told.tool} without requests", where=str(path), accepted="at least one")
    return told


def _document(path: Path) -> _Field:
    """The file as JSON, or its lines as a list."""
    try:
        text = read_text(path)
    except UsageError as error:
        raise MeasurementError(str(error)) from None
    try:
        return _Field(path, "", json.loads(text))
    except (ValueError, RecursionError):
        pass
    found = []
    for number, line in enumerate(lines_of(text), start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError):
            where = f"{path}:{number}" if found else str(path)
            raise MeasurementError("it is neither JSON nor JSON Lines", where=where, accepted=TOOLS) from None
    return _Field(path, "", found)


def _results(tool: str, requests: Sequence[Result]) -> Results:
    """With the time from the first request's start to the last one's end."""
    spans = [(each.begin_s, each.begin_s + (each.latency_s or 0.0)) for each in requests if each.begin_s is not None]
    duration_s = max(end for _, end in spans) - min(begin for begin, _ in spans) if spans else None
    return Results(tool, tuple(requests), duration_s)


def _vllm(found: _Field) -> Iterator[Result]:
    outputs = found["output_lens"].items()
    names = ("input_lens", "ttfts", "itls", "errors", "start_times")
    columns = (found[name].items(len(outputs)) for name in names)
    for output, prompt, ttft, gaps, error, begin in zip(outputs, *columns, strict=True):
        begin_s, first_s, tokens = begin.number(), ttft.number(), output.count()
        told = [gap for each in gaps.items() if (gap := each.number()) is not None]
        if error.value or not (tokens or first_s):  # a refusal without a text has an empty error
            yield Result(ok=False, begin_s=begin_s, reason=str(error.value or "nothing was answered")[:200])
            continue
        after = None if not told or not tokens else tokens - tokens / (len(told) + 1)
        yield Result(
            ok=True,
            prompt_tokens=prompt.count(),
            output_tokens=tokens,
            ttft_s=first_s,
            tpot_s=math.fsum(told) / after if after else None,
            latency_s=None if first_s is None else first_s + math.fsum(told),
            begin_s=begin_s,
        )


def _guidellm(found: _Field) -> Iterator[Result]:
    for benchmark in found["benchmarks"].items():
        requests = benchmark["requests"]
        if requests.value is None:
            continue
        for row in requests["successful"].items():
            output = row["output_tokens"].count()
            yield Result(
                ok=True,
                prompt_tokens=row["prompt_tokens"].count(),
                output_tokens=output,
                ttft_s=row["time_to_first_token_ms"].number(_MS),
                tpot_s=row["inter_token_latency_ms"].number(_MS) if (output or 0) > 1 else None,
                latency_s=row["request_latency"].number(),
                begin_s=row["request_start_time"].number(),
            )
        for status in ("errored", "incomplete"):
            for _ in requests[status].items():
                yield Result(ok=False, reason=status)


def _aiperf(row: _Field) -> Result:
    metadata, metrics, error = row["metadata"], row["metrics"], row["error"].value
    cancelled = metadata.value is not None and metadata["was_cancelled"].value
    if error or cancelled:
        return Result(ok=False, reason=str(error or "cancelled")[:200])
    output = _value(metrics, "output_sequence_length") or _value(metrics, "output_token_count")
    return Result(
        ok=True,
        prompt_tokens=_rounded(_value(metrics, "input_sequence_length")),
        output_tokens=_rounded(output),
        ttft_s=_value(metrics, "time_to_first_token", time=True),
        tpot_s=_value(metrics, "inter_token_latency", time=True) if (output or 0) > 1 else None,
        latency_s=_value(metrics, "request_latency", time=True),
        begin_s=None if metadata.value is None else metadata["request_start_ns"].number(_NS),
    )


_UNITS: Final = {"s": 1.0, "sec": 1.0, "ms": _MS, "us": 1e-6, "ns": _NS}


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _value(metrics: _Field, name: str, *, time: bool = False) -> float | None:
    """A metric that is a number, or one with its unit; times in s, ms where none is told."""
    found, unit = metrics[name], "ms"
    if isinstance(found.value, dict):
        unit, found = str(found["unit"].value or unit), found["value"]
    if time and unit not in _UNITS:
        raise MeasurementError(
            f"{metrics.name}.{name} is in {unit!r}", where=str(found.path), accepted=", ".join(_UNITS)
        )
    return found.number(_UNITS[unit] if time else 1.0)
