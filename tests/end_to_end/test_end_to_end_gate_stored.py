"""`harness gate` against a stored baseline and against files of pytest-benchmark, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
suite: stored
backend: {name: simulated}
meters: [simulated]
trials: 3
windows: {count: 1, min_seconds: 1, min_iterations: 20}
warm_up: {max_seconds: 0.2}
cases:
  - workload: spin
    options: {seconds: 0.02}
gate:
  - {metric: rate, per: operation, worse_by_at_most: 900%}
"""


def harness(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from harness.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "TMPDIR": str(folder), "NO_COLOR": "1", "COLUMNS": "200"},
    )


@pytest.mark.slow
def test_a_baseline_of_this_machine_judges_a_run_and_says_how_weak_it_is(tmp_path: Path) -> None:
    (tmp_path / "stored.yaml").write_text(SUITE, encoding="utf-8")
    assert harness("run", "stored.yaml", folder=tmp_path).returncode == 0
    (run,) = (tmp_path / "reports").glob("*-stored-*")
    assert harness("baseline", "save", "main", run, folder=tmp_path).returncode == 0
    done = harness("gate", "stored.yaml", "--baseline", "main", "--json", "gate.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no error rate is promised" in done.stdout
    assert json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))["verdict"] in {"pass", "improved"}
    missing = harness("gate", "stored.yaml", "--baseline", "mian", folder=tmp_path)
    assert missing.returncode == 2
    assert "main" in missing.stderr


def test_only_one_thing_is_compared_with(tmp_path: Path) -> None:
    (tmp_path / "stored.yaml").write_text(SUITE, encoding="utf-8")
    done = harness("gate", "stored.yaml", "--baseline", "main", "--base", "HEAD", folder=tmp_path)
    assert done.returncode == 2
    assert "--base, --base-python, --baseline and --pytest-benchmark are mutually exclusive" in " ".join(
        done.stderr.split()
    )
    one = harness("gate", "--pytest-benchmark", "stored.yaml", folder=tmp_path)
    assert one.returncode == 2
    assert "two JSON files" in one.stderr
