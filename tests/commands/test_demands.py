"""What continuous integration insists on: no answer is a failure, and nothing measured is no success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from harness.executor import ask_probe
from harness.planning.probe import plan_probed
from harness.planning.suite import loads

SUITE = """\
suite: demanding
backend: {name: host}
meters: []
trials: 1
windows: {count: 1, min_seconds: 0.01}
warm_up: {max_seconds: 0.1}
cases:
  - {workload: spin, options: {iterations: 100}}
  - {workload: spin, options: {iterations: 200}, name: second, requires: {accelerator: H100}}
"""


@pytest.fixture(autouse=True)
def _suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli._code([*arguments])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 0, ""),
        (("--require", "1"), 0, ""),
        (("--require", "2"), 3, "1 of the 2 points that --require asks for; skipped: second"),
        (("--no-skips",), 3, "1 skipped, and --no-skips allows none: second"),
    ],
)
def test_a_plan_can_be_insisted_on(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, said: str
) -> None:
    found, error = ended(capsys, "plan", "suite.yaml", *options)
    assert (found, said in error) == (code, True), error


def test_a_run_is_refused_before_it_measures_and_judged_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = ended(capsys, "run", "suite.yaml", "--no-skips")
    assert (code, "--no-skips allows none: second" in error) == (3, True)
    assert not Path("reports").exists()
    assert ended(capsys, "run", "suite.yaml", "--require", "1")[0] == 0
    (run,) = Path("reports").glob("2*")
    code, error = ended(capsys, "run", "--resume", str(run), "--no-skips")
    assert (code, "--no-skips allows none: second" in error) == (3, True)
    code, error = ended(capsys, "run", "--resume", str(run), "--require", "2")
    assert (code, "1 of the 2 points" in error) == (3, True)


def test_a_probe_that_does_not_answer_in_time_is_a_failure_and_no_skip(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(question: object) -> dict[str, object]:
        return ask_probe({}, limit_s=0.01)

    monkeypatch.setattr("harness.planning.probe.ask_probe", late)
    code, error = ended(capsys, "plan", "suite.yaml")
    assert (code, "the probe took longer than 0.01 s" in error) == (3, True)
    code, error = ended(capsys, "run", "suite.yaml")
    assert code == 3
    assert "failed: spin" in error
    assert "skipped:" not in error
    (run,) = Path("reports").glob("2*")
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert described["status"] == "failed"
    assert [each["failed"] for each in described["skipped"]] == [True, True]
    assert ended(capsys, "run", "--resume", str(run))[0] == 3, "going on makes no success of it"


def test_a_probe_that_says_no_is_a_skip() -> None:
    from harness.discovery.registry import load_plugins

    planned = plan_probed([loads(SUITE)], load_plugins())
    assert [(each.point.label, each.failed) for each in planned.skipped] == [("second", False)]
