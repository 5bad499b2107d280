"""The metrics of a request by hand: 20 ms a token is 20 ms a token, however the chunks are cut."""

from __future__ import annotations

from itertools import accumulate

import pytest
from harness_disaggregated_serving.endpoint.answer import Answer
from harness_disaggregated_serving.endpoint.latency import (
    chunk_tokens,
    columns,
    gaps_s,
    quantile,
    tokens_between,
    tpot_s,
)
from harness_disaggregated_serving.load.slo import Slo

WORD = 5


def answer(
    chunks: list[int], *, gap_s: float = 0.02, counted: bool = False, total: int | None = None, ended_by: str = "length"
) -> Answer:
    """Chunks of so many tokens of five characters; each comes as late as its tokens took."""
    upto = list(accumulate(chunks))
    times = [10.2 + gap_s * (each - upto[0]) for each in upto]
    return Answer(
        finished=True,
        due_s=10.0,
        sent_s=10.05,
        end_s=times[-1],
        times=times,
        lengths=[WORD * each for each in chunks],
        counted=[each if counted else None for each in upto],
        ended_by=ended_by,
        prompt_tokens=7,
        output_tokens=sum(chunks) if total is None else total,
    )


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("chunks", [[1] * 24, [4, *[1] * 20], [1, 3, 3, 3], [4, 4, 4, 2], [8, 1]])
def test_time_per_output_token_is_that_of_the_tokens_behind_the_first_chunk(chunks: list[int], counted: bool) -> None:
    found = answer(chunks, counted=counted)
    tokens = chunk_tokens(found)
    assert tokens is not None
    assert tokens.counts == tuple(chunks)
    assert tokens.estimated is (not counted and len(set(chunks)) > 1)
    assert tpot_s(found, tokens) == pytest.approx(0.02)


def test_counting_every_token_but_one_would_have_made_it_faster() -> None:
    found = answer([4, *[1] * 20])
    assert (found.times[-1] - found.times[0]) / (24 - 1) == pytest.approx(0.0174, abs=5e-5)


def test_all_tokens_in_one_chunk_have_no_time_per_token_and_meet_no_target() -> None:
    found = answer([24])
    assert tpot_s(found, chunk_tokens(found)) is None
    assert not Slo(10.0, 10.0).met(0.2, tpot_s(found, chunk_tokens(found)))
    assert columns(found)["itl_p50_s"] is None


def test_a_stop_token_has_no_text_and_no_gap() -> None:
    """Five tokens counted, four seen: the last one ended the answer."""
    found = answer([1, 1, 1, 1], total=5, ended_by="stop")
    tokens = chunk_tokens(found)
    assert tokens is not None
    assert (tokens.counts, tokens.estimated) == ((1, 1, 1, 1), False)
    assert tpot_s(found, tokens) == pytest.approx(0.02)


def test_fewer_tokens_than_chunks_are_shared_out_and_none_twice() -> None:
    tokens = chunk_tokens(answer([1] * 6, total=4))
    assert tokens is not None
    assert (sum(tokens.counts), min(tokens.counts), tokens.estimated) == (4, 0, True)


def test_columns_by_hand() -> None:
    found = columns(answer([1, 1, 1, 1, 1]))
    expected = {
        "ttft_s": 0.2, "ttft_sent_s": 0.15, "tpot_s": 0.02, "itl_mean_s": 0.02, "itl_p50_s": 0.02, "itl_p99_s": 0.02,
        "latency_s": 0.28, "latency_sent_s": 0.23, "normalised_latency_s": 0.056, "queue_s": 0.05, "chunks": 5,
        "first_chunk_tokens": 1, "output_tokens": 5,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_a_stall_is_in_the_gaps_and_their_upper_percentiles() -> None:
    stalled = answer([1] * 101)
    stalled.times = [at + (1.0 if number > 50 else 0.0) for number, at in enumerate(stalled.times)]
    gaps = sorted(gaps_s(stalled))
    assert (quantile(gaps, 0.5), quantile(gaps, 1.0)) == (pytest.approx(0.02), pytest.approx(1.02))
    assert len(gaps) == 100


def test_tokens_of_a_span_add_up_wherever_it_is_cut() -> None:
    found = answer([4, 2, 1, 5])
    for cut in (9.0, 10.2, 10.21, 10.24, 10.26, 11.0):
        parts = [tokens_between(found, 0.0, cut), tokens_between(found, cut, 99.0)]
        assert sum(part or 0 for part in parts) == 12


def test_quantiles_are_interpolated() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([1.0], 0.99) == 1.0
