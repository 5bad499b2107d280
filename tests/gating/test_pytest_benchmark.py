"""Times from files that pytest-benchmark itself wrote, on a clock that the test turns."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from harness.errors import ExitCode, UsageError
from harness.gating.outputs import lines
from harness.gating.pytest_benchmark import BLOCKS, Saved, blocks, envelope, judge, load
from harness.gating.verdict import Verdict
from harness.statistics.unpaired import shift

CLOCK = """
import random

now = 0.0
noise = random.Random({seed})


def read():
    return now


def work(seconds):
    global now
    now += seconds * {factor} * (1 + noise.uniform(-0.02, 0.02))
"""
TESTS = """
import turned_clock


def test_quick(benchmark):
    benchmark.pedantic(turned_clock.work, args=(0.001,), rounds={rounds})


def test_slow(benchmark):
    benchmark.pedantic(turned_clock.work, args=(0.5,), rounds={rounds}, iterations=2)
{extra}
"""
EXTRA = """

def test_new(benchmark):
    benchmark.pedantic(turned_clock.work, args=(1,), rounds=9)
"""


def written(folder: Path, *, factor: float, seed: int, raw: bool, extra: str = "") -> Path:
    """A file as pytest-benchmark writes it."""
    folder.mkdir()
    (folder / "turned_clock.py").write_text(CLOCK.format(seed=seed, factor=factor), encoding="utf-8")
    (folder / "test_timed.py").write_text(TESTS.format(rounds=12, extra=extra), encoding="utf-8")
    options = ["-p", "no:cacheprovider", "-q", "--benchmark-timer=turned_clock.read"]
    # --benchmark-save leaves the rounds out, --benchmark-json keeps them
    options += ["--benchmark-json=times.json"] if raw else ["--benchmark-save=times", "--benchmark-storage=."]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_timed.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    found = list(folder.rglob("*times.json"))
    assert found, done.stdout + done.stderr
    return found[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base and a head that takes 1.5 times as long, with their rounds and without."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "base": written(folder / "base", factor=1.0, seed=0, raw=True),
        "slow": written(folder / "slow", factor=1.5, seed=1, raw=True, extra=EXTRA),
        "base, no rounds": written(folder / "base0", factor=1.0, seed=0, raw=False),
        "slow, no rounds": written(folder / "slow0", factor=1.5, seed=1, raw=False),
    }


def changed(path: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Saved:
    """The same file with a change made to its content."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    (folder / "changed.json").write_text(json.dumps(content), encoding="utf-8")
    return load(folder / "changed.json")


@pytest.mark.parametrize("rounds", ["", ", no rounds"])
def test_a_slowdown_regresses_and_the_same_again_passes(files: dict[str, Path], rounds: str) -> None:
    base, head = load(files[f"base{rounds}"]), load(files[f"slow{rounds}"])
    slow = judge(base, head)
    assert slow.verdict is Verdict.REGRESSED
    assert slow.verdict.exit_code is ExitCode.REGRESSED
    assert {judged.name for judged in slow.cells} == {
        "test_timed.py::test_quick: seconds per call",
        "test_timed.py::test_slow: seconds per call",
    }
    for judged in slow.cells:
        estimate, low, high = judged.estimate, judged.low, judged.high
        assert estimate is not None
        assert low is not None
        assert high is not None
        assert low <= estimate <= high
        assert estimate == pytest.approx(0.5, abs=0.03)
    assert judge(base, base, tolerance=0.05).verdict is Verdict.PASS
    assert judge(head, base).verdict is Verdict.IMPROVED
    assert any("benchmark-save-data" in note for note in slow.notes) is bool(rounds)


def test_bounds_from_rounds_are_those_of_the_rank_bound(files: dict[str, Path]) -> None:
    base, head = (
        [math.log(seconds) for seconds in json.loads(files[name].read_text())["benchmarks"][0]["stats"]["data"]]
        for name in ("base", "slow")
    )
    wanted = shift(base, head)
    judged = judge(load(files["base"]), load(files["slow"])).cells[0]
    assert (judged.low, judged.high) == pytest.approx(wanted.ratio[1:])


def test_bounds_from_statistics_hold_those_from_rounds(files: dict[str, Path]) -> None:
    """The clock is turned alike in both, so the files without rounds describe the same ones."""
    whole = judge(load(files["base"]), load(files["slow"])).cells
    outside = judge(load(files["base, no rounds"]), load(files["slow, no rounds"])).cells
    for outer, inner in zip(outside, whole, strict=True):
        assert outer.low is not None
        assert outer.high is not None
        assert inner.low is not None
        assert inner.high is not None
        assert outer.low <= inner.low
        assert inner.high <= outer.high


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=BLOCKS))
@settings(max_examples=200, deadline=None)
def test_envelope_holds_every_round(data: list[float]) -> None:
    stats = Stats()  # type: ignore[no-untyped-call]
    stats.data = data
    low, high = envelope(stats.min, stats.q1, stats.median, stats.q3, stats.max, rounds=len(data))
    slack = 1 + 1e-12  # quartiles are interpolated
    for least, seconds, greatest in zip(low, sorted(data), high, strict=True):
        assert least <= seconds * slack
        assert seconds <= greatest * slack


def test_many_rounds_count_as_forty() -> None:
    assert len(blocks([1.0] * 5000)) == BLOCKS
    assert blocks([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
    assert blocks([float(number) for number in range(80)])[:2] == [0.5, 2.5]
    assert [len(side) for side in envelope(1, 2, 3, 4, 5, rounds=100_000)] == [BLOCKS, BLOCKS]


def test_few_rounds_decide_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    def cut(content: dict[str, Any]) -> None:
        for benchmark in content["benchmarks"]:
            del benchmark["stats"]["data"][2:]

    found = judge(changed(files["base"], tmp_path, cut), changed(files["slow"], tmp_path, cut))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too few" in found.cells[0].reason


def test_another_machine_is_not_comparable(files: dict[str, Path], tmp_path: Path) -> None:
    def move(content: dict[str, Any]) -> None:
        content["machine_info"]["cpu"]["brand_raw"] = "Another"
        content["machine_info"]["node"] = "another-host"

    found = judge(load(files["base"]), changed(files["slow"], tmp_path, move))
    assert found.verdict.exit_code is ExitCode.MEASUREMENT
    assert "not comparable: cpu: base" in found.reason
    assert "node" not in found.reason
    assert next(lines(found)).startswith("INVALID: not comparable")


def test_what_only_one_file_has_is_told(files: dict[str, Path]) -> None:
    found = judge(load(files["base"]), load(files["slow"]))
    assert "test_timed.py::test_new: only head has it" in found.notes
    assert len(found.cells) == 2


def test_a_time_of_zero_and_another_clock_are_no_ground(files: dict[str, Path], tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["benchmarks"][0]["stats"]["data"][0] = 0.0
        content["benchmarks"][1]["options"]["timer"] = "monotonic"

    found = judge(load(files["base"]), changed(files["base"], tmp_path, spoil))
    assert found.verdict is Verdict.INVALID
    assert [judged.reason for judged in found.cells] == [
        "head: a time of 0 or less has no ratio",
        "measured by another clock: monotonic, base by read",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine_info": {}, "benchmarks": [{"fullname": "x"}]}', "null"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"x\.json: not a file of pytest-benchmark"):
        load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_nothing_in_common_is_a_usage_error(files: dict[str, Path]) -> None:
    base = load(files["base"])
    with pytest.raises(UsageError, match="no benchmark in common"):
        judge(base, Saved(base.machine, {}))
