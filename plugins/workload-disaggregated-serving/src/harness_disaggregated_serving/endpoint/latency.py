"""The field's metrics of one request, from the times of its chunks; defined in docs/serving-metrics.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from harness_disaggregated_serving.endpoint.answer import Answer


class ChunkTokens(NamedTuple):
    """Output tokens of each chunk.

    Attributes:
        counts: one a chunk; they add up to the tokens that came as text.
        estimated: whether they are shares of the text, since the server does not say them.
    """

    counts: tuple[int, ...]
    estimated: bool


def chunk_tokens(answer: Answer) -> ChunkTokens | None:
    """How many tokens each chunk holds; None without a count of the whole.

    As the server says where it says it in each chunk. One each where there are as many chunks as tokens, or one less
    in an answer that a stop token ended, which has no text. Else each chunk has its share of the text, one at least.
    """
    chunks, total = len(answer.times), answer.output_tokens
    if total is None or not chunks:
        return None
    said = [count for count in answer.counted if count is not None]
    if len(said) == chunks and all(a <= b for a, b in pairwise(said)) and said[-1] <= total:
        return ChunkTokens(tuple(b - a for a, b in pairwise([0, *said])), estimated=False)
    if total == chunks or (total == chunks + 1 and answer.ended_by == "stop"):
        return ChunkTokens((1,) * chunks, estimated=False)
    if chunks == 1:
        return ChunkTokens((total,), estimated=False)
    least = 1 if total >= chunks else 0
    whole, upto, counts = sum(answer.lengths), 0, []
    characters = 0
    for number, length in enumerate(answer.lengths):
        characters += length
        wanted = round(total * characters / whole)
        reached = min(max(wanted, upto + least), total - least * (chunks - 1 - number))
        counts.append(reached - upto)
        upto = reached
    return ChunkTokens(tuple(counts), estimated=True)


def tpot_s(answer: Answer, tokens: ChunkTokens | None) -> float | None:
    """(last chunk - first chunk) / tokens after the first chunk; None where nothing came after the first chunk.

    The tokens of the first chunk were there when the clock began: dividing by all but one of them would make a
    server fast that sends several at once.
    """
    if tokens is None or len(answer.times) < 2:
        return None
    after = sum(tokens.counts[1:])
    return (answer.times[-1] - answer.times[0]) / after if after else None


def gaps_s(answer: Answer) -> list[float]:
    """Inter-token latencies: the time between each two chunks, as a reader of the stream sees it."""
    return [after - before for before, after in pairwise(answer.times)]


def quantile(ordered: Sequence[float], level: float) -> float | None:
    """A quantile of sorted values, interpolated linearly; None of none."""
    if not ordered:
        return None
    place = level * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def tokens_between(answer: Answer, begin_s: float, end_s: float) -> int | None:
    """Output tokens whose chunk came within a span, begin included; None where they were not counted."""
    tokens = chunk_tokens(answer)
    if tokens is None:
        return 0 if answer.finished and answer.output_tokens == 0 else None
    return sum(count for at, count in zip(answer.times, tokens.counts, strict=True) if begin_s <= at < end_s)


def columns(answer: Answer) -> dict[str, float | None]:
    """Latencies and counts of a request that finished; its TTFT counts from the scheduled arrival and from sending."""
    due_s, sent_s = answer.due_s, answer.sent_s
    assert sent_s is not None
    tokens = chunk_tokens(answer)
    gaps = sorted(gaps_s(answer))
    latency_s = None if answer.last_s is None else answer.last_s - due_s
    output = answer.output_tokens
    return {
        "first_token_s": answer.first_s,
        "end_s": answer.last_s,
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": output,
        "ttft_s": None if answer.first_s is None else answer.first_s - due_s,
        "ttft_sent_s": None if answer.first_s is None else answer.first_s - sent_s,
        "tpot_s": tpot_s(answer, tokens),
        "itl_mean_s": sum(gaps) / len(gaps) if gaps else None,
        "itl_p50_s": quantile(gaps, 0.5),
        "itl_p95_s": quantile(gaps, 0.95),
        "itl_p99_s": quantile(gaps, 0.99),
        "latency_s": latency_s,
        "latency_sent_s": None if answer.last_s is None else answer.last_s - sent_s,
        "normalised_latency_s": latency_s / output if latency_s is not None and output else None,
        "queue_s": sent_s - due_s,
        "chunks": len(answer.times),
        "first_chunk_tokens": None if tokens is None else tokens.counts[0],
    }
