"""`pytest --harness-suite`: points as items, their skips and failures in their own words."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = """\
suite: items
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: 0.05}
warm_up: {max_seconds: 0.1, max_iterations: 2}
cases:
  - workload: spin
    options: {iterations: 500}
    matrix: {crash: [false, true]}
  - workload: spin
    name: needs-a-card
    requires: {gpu: 1}
"""
QUIET = ("-p", "no:cacheprovider", "--harness-store=records")


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for another run's device, and no cache but the test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_points_pass_fail_and_skip(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", items=SUITE)
    pytester.makepyfile("def test_beside():\n    assert False\n")
    result = pytester.runpytest_inprocess(*QUIET, "--harness-suite=items.yaml", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)  # the test beside it is not collected
    text = result.stdout.str()
    assert "requires 1 GPU" in text
    failure = text.partition("_ spin · crash=true _")[2]
    assert "-t000: " in failure
    assert "spin was told to crash" in failure
    assert "suite_items.py" not in text
    runs = list(Path(pytester.path / "records").iterdir())
    assert len(runs) == 1


def test_named_tests_are_collected_too_and_nothing_runs_when_collecting(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", items=SUITE)
    test = pytester.makepyfile("def test_beside():\n    pass\n")
    result = pytester.runpytest_inprocess(*QUIET, test.name, "--harness-suite=items.yaml", "--collect-only", "-q")
    assert "test_beside" in result.stdout.str()
    assert "items.yaml::" in result.stdout.str()
    assert not (pytester.path / "records").exists()


def test_a_suite_that_is_wrong_is_a_collection_error(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", items="suite: items\ncases: []\n")
    result = pytester.runpytest_inprocess(*QUIET, "--harness-suite=items.yaml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*items.yaml:2*cases*"])


def test_yaml_files_are_left_alone_otherwise(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", items=SUITE)
    pytester.makepyfile("def test_it():\n    pass\n")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
