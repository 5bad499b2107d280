"""What the README says of measuring anything is run as it stands: its commands, its Python, its guard of a project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_end_to_end_ci import README, Runner

SECTION = README.partition("\n## Measure anything\n")[2].partition("\n## ")[0]
WORK = """\
import time


def parse(text):
    time.sleep({seconds})
    return [int(word) for word in text.split()]


if __name__ == "__main__":
    print("did", sum(len(parse("1 2 3")) for _ in range(5)))
"""


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    return str(text)


def run(folder: Path, *words: str) -> str:
    """What a program prints, with `harness` on its path."""
    (folder / "bin").mkdir()
    program = folder / "bin/harness"
    program.write_text(f"#!{sys.executable}\nfrom harness.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_run() -> None:
    assert re.findall(r"^```(\w+)$", SECTION, re.MULTILINE) == ["bash", "python", "yml"]


def test_the_commands(tmp_path: Path) -> None:
    shown = run(tmp_path, "bash", "-e", "-o", "pipefail", "-c", block("bash"))
    assert "per lines" in shown
    assert "sort -n numbers -o sorted, against sort numbers -o sorted" in shown
    (comparison,) = json.loads((tmp_path / "both.json").read_text())["comparisons"]
    assert comparison["changes"]["duration_s"]["pairs"] == 6
    assert len(list((tmp_path / "reports").iterdir())) == 3


def test_the_python(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block("python"), encoding="utf-8")
    shown = run(tmp_path, sys.executable, "script.py")
    assert "build: time" in shown
    assert re.search(r"^script.py [0-9.e-]+ s$", shown, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "code"), [(0.02, 0), (0.06, 1)], ids=["unchanged", "slower"])
def test_the_guard(tmp_path: Path, seconds: float, code: int) -> None:
    runner = Runner(tmp_path)
    runner.pull_request(
        {"work.py": WORK.format(seconds=0.02), "guard.yaml": block("yml")},
        {"work.py": WORK.format(seconds=seconds), "notes": "what changed"},
    )
    planned = runner.step("harness plan guard.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "2 points" in planned.stdout
    done = runner.step("harness gate guard.yaml --base origin/main --pairs 8")
    assert done.returncode == code, done.stdout + done.stderr
