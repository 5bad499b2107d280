"""What `harness measure -- sleep 1` takes beside the command, next to hyperfine where it is installed.

Goals: at most 0.25 s of processor time outside the command, at most 2 ms inside its window. Inside the window lies also
what any program pays that starts another; it is shown for comparison.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SLEEP = ("sleep", "1")


def spent(command: list[str], folder: Path) -> float:
    """Processor seconds of a command and what it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare_s() -> float:
    """Seconds from before the start of the command to its end, without anything around it."""
    began = time.monotonic()
    subprocess.run(SLEEP, check=True)
    return time.monotonic() - began


def test_measure_beside_hyperfine(benchmark: Any, tmp_path: Path) -> None:
    ours = [sys.executable, "-m", "harness", "measure", "--json", "out.json", "--", *SLEEP]
    spent(ours, tmp_path)  # compiles what was not yet
    found = {"harness_cpu_s": round(spent(ours, tmp_path), 3)}
    (command,) = json.loads((tmp_path / "out.json").read_text())["commands"]
    (run,) = command["runs"]
    window_s = next(value["value"] for name, value in run["per_unit"]["run"].items() if name == "duration_s")
    found["window_beyond_a_second_ms"] = round(1e3 * (window_s - 1.0), 2)
    found["window_beyond_the_command_ms"] = round(1e3 * (window_s - run["readings"]["duration_s"]["value"]), 2)
    found["bare_process_beyond_a_second_ms"] = round(1e3 * (bare_s() - 1.0), 2)
    if shutil.which("hyperfine"):
        theirs = ["hyperfine", "--runs", "1", " ".join(SLEEP)]
        found["hyperfine_cpu_s"] = round(spent(theirs, tmp_path), 3)
    benchmark.extra_info.update(found)
    benchmark.pedantic(spent, args=(ours, tmp_path), rounds=1)
