"""Arrivals and lengths: laws, seeds, files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from harness_disaggregated_serving.load import traces
from harness_disaggregated_serving.load.arrivals import AllAtOnce, Arrivals, Constant, Poisson, requests, trace
from harness_disaggregated_serving.load.lengths import APPLICATIONS, Fixed, Lengths, Table, application
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([Poisson(3.0), Constant(0.7), AllAtOnce()]),
    st.sampled_from([*APPLICATIONS.values(), Fixed(5, 1), Table(((3, 4), (5, 6)))]),
    st.integers(0, 5000),
    st.integers(0, 2**63),
)
def test_streams_are_ordered_repeatable_and_prefixes(
    arrivals: Arrivals, lengths: Lengths, count: int, seed: int
) -> None:
    first = list(requests(arrivals, lengths, count, seed))
    assert len(first) == count
    assert first == list(requests(arrivals, lengths, count, seed))
    assert first == list(requests(arrivals, lengths, count + 17, seed))[:count]
    assert all(one.arrival_s <= two.arrival_s for one, two in pairwise(first))
    assert all(row.prompt_tokens >= 1 and row.output_tokens >= 1 for row in first)


def test_poisson_gaps_are_exponential() -> None:
    times = np.array([row.arrival_s for row in requests(Poisson(4.0), Fixed(1, 1), 40_000, 7)])
    gaps = np.diff(times, prepend=0.0)
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)
    assert np.mean(gaps > 0.25) == pytest.approx(np.exp(-1), abs=0.01)


def test_another_rate_leaves_the_lengths() -> None:
    slow, fast = (list(requests(Poisson(rate), APPLICATIONS["chat"], 500, 3)) for rate in (1.0, 8.0))
    assert [row[1:] for row in slow] == [row[1:] for row in fast]
    assert slow[-1].arrival_s == pytest.approx(8 * fast[-1].arrival_s)


def test_constant_gaps_do_not_drift() -> None:
    times = [row.arrival_s for row in requests(Constant(3.0), Fixed(1, 1), 10_000, 0)]
    assert times[9_999] == 9_999 / 3.0


def test_applications_are_short_medium_and_long() -> None:
    medians = {}
    for name in APPLICATIONS:
        rows = list(requests(AllAtOnce(), application(name), 4000, 1))
        medians[name] = (np.median([row[1] for row in rows]), np.median([row[2] for row in rows]))
        assert min(row[2] for row in rows) >= 2
    assert medians["summarisation"][0] > 5 * medians["chat"][0]
    assert medians["chat"][1] > 2 * medians["code"][1]


def test_table_keeps_pairs() -> None:
    rows = list(requests(AllAtOnce(), Table(((10, 1), (20, 2), (30, 3))), 3000, 5))
    assert {row[1:] for row in rows} == {(10, 1), (20, 2), (30, 3)}


def test_trace_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("arrival_s,prompt_tokens,output_tokens\n0.5,10,3\n0.75,20,1\n")
    assert trace(file) == [(0.5, 10, 3), (0.75, 20, 1)]
    assert Table.read(file).pairs == ((10, 3), (20, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s,prompt_tokens\n0,1\n", "column output_tokens|no column output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n1,1,1\n0,1,1\n", r"trace\.csv:3: arrival 0\.0 s comes before"),
        ("arrival_s,prompt_tokens,output_tokens\n0,x,1\n", r"trace\.csv:2: prompt_tokens is 'x'"),
        ("arrival_s,prompt_tokens,output_tokens\n0,0,1\n", r"trace\.csv:2"),
        ("arrival_s,prompt_tokens,output_tokens\nnan,1,1\n", r"trace\.csv:2"),
    ],
)
def test_bad_traces_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        trace(file)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("arrival_s;prompt_tokens;output_tokens;notes\n0,5;10;3;é\n0,75;20;1;\n", "utf-8-sig"),
        ("arrival_s;prompt_tokens;output_tokens;notes\n0,5;10;3;é\n0,75;20;1;\n", "cp1252"),
        ("arrival_s\tprompt_tokens\toutput_tokens\n0.5\t10\t3\n0.75\t20\t1\n", "utf-16"),
        ("# a comment\narrival_s,prompt_tokens,output_tokens\n\n0.5,10,3\n0.75,20,1.0\n", "utf-8"),
    ],
    ids=["semicolons", "windows", "tabs", "comments"],
)
def test_a_trace_is_read_as_other_programs_write_it(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "trace.csv").write_bytes(text.encode(encoding))
    assert trace(tmp_path / "trace.csv") == [(0.5, 10, 3), (0.75, 20, 1)]
    assert [row[:3] for row in traces.read(tmp_path / "trace.csv").rows] == [(0.0, 10, 3), (0.25, 20, 1)]
    assert Table.read(tmp_path / "trace.csv").pairs == ((10, 3), (20, 1))


def test_a_row_that_is_cut_off_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0.5,10,3\n0.75,2")
    with pytest.raises(UsageError, match=r"trace\.csv:3: row has 2 fields"):
        trace(tmp_path / "trace.csv")


def test_bad_parameters_are_refused() -> None:
    for make in (lambda: Poisson(0), lambda: Constant(float("inf")), lambda: Fixed(0, 1), lambda: Table(())):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(UsageError, match="did you mean 'chat'"):
        application("chats")
    with pytest.raises(UsageError, match="cannot be read"):
        trace(Path("/no/such/file.csv"))
