"""What a large run costs its driver: `python benchmarks/capacity.py [--points N] [--nodes M] [--seconds S]`.

Plans N points and runs them through the driver's own code on an executor that pretends to have M nodes: each trial
takes S seconds there and brings the files of one real trial. Nothing is measured but the driver: its memory, its
processor time per trial, the store it leaves, and the costing at the end (a sample, extrapolated and said so).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import psutil

from harness.builtin.local import LocalExecutor
from harness.discovery.registry import load_plugins
from harness.executor import Executor, Job, Listener, Outcome
from harness.planning.planner import expand
from harness.planning.suite import Suite, loads
from harness.records.files import trial_folders, write_json
from harness.records.paths import MEASUREMENT, RECORD
from harness.running.run import Run, finish
from harness.running.run_folder import create

SUITE = """\
suite: capacity-%s
meters: [{tdp: {watts: 10}}]
trials: 1
windows: {count: 2, min_seconds: 0.02}
warm_up: {max_seconds: 0.1, max_iterations: 1}
cases:
  - workload: spin
    matrix: {iterations: [%s]}
"""
COSTED = 200
POINTS_A_SUITE = 10_000
PROCESS = psutil.Process()


class PretendedNodes(Executor):
    """So many nodes; a trial takes its time there and comes back with the files of a real one."""

    def __init__(self, nodes: int, seconds: float, files: Mapping[str, bytes]) -> None:
        self._nodes = nodes
        self._seconds = seconds
        self._files = {name: data for name, data in files.items() if name != MEASUREMENT}
        self._measurement = json.loads(files[MEASUREMENT])

    @property
    def at_once(self) -> int:
        """One trial a node."""
        return self._nodes

    def begin(self, jobs: Iterable[Job]) -> None:
        """Submits nothing ahead."""

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Waits, then writes what a node would send."""
        listener({"type": "progress", "phase": "window", "text": "", "done": None})
        time.sleep(self._seconds)
        for name, data in self._files.items():
            (job.folder / name).write_bytes(data)
        described = {**self._measurement, "run": job.folder.parent.name, "trial_id": job.trial_id}
        write_json(job.folder / MEASUREMENT, described)
        return Outcome(ok=True)


class Peak:
    """The largest resident memory seen, bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.bytes = max(self.bytes, PROCESS.memory_info().rss)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def one_trial(store: Path) -> dict[str, bytes]:
    """The files of one real trial, as its worker left them."""
    plan = expand([loads(SUITE % ("one", "1000"))], load_plugins())
    folder = create(store, plan, ["capacity"], ["capacity"], 0, name="one")
    work = Run(folder, plan.points, 0, registry=load_plugins(), executor=LocalExecutor(), watcher=lambda _event: None)
    assert work.execute().measured == 1
    (trial,) = trial_folders(folder)
    return {path.name: path.read_bytes() for path in trial.iterdir() if path.name != RECORD}


def suites_of(points: int) -> list[Suite]:
    """Suites with so many points in all; one file holds 20,000 values at most."""
    found = []
    for first in range(0, points, POINTS_A_SUITE):
        numbers = range(first + 1, min(first + POINTS_A_SUITE, points) + 1)
        found.append(loads(SUITE % (first, ", ".join(map(str, numbers)))))
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    wanted = parser.parse_args()
    rows: list[tuple[str, str]] = []
    folder = Path(tempfile.mkdtemp(prefix="capacity-"))
    try:
        files = one_trial(folder / "sample")
        base = PROCESS.memory_info().rss
        began = time.perf_counter()
        registry = load_plugins()
        plan = expand(suites_of(wanted.points), registry)
        run = create(folder / "store", plan, ["capacity"], ["capacity"], 0)
        rows.append(("planning and writing the plan", f"{time.perf_counter() - began:.1f} s"))
        rows.append(("plan.json", f"{(run / 'plan.json').stat().st_size / 1e6:.1f} MB"))
        rows.append(("driver's memory with the plan", f"{(PROCESS.memory_info().rss - base) / 1e6:.0f} MB more"))
        work = Run(
            run,
            plan.points,
            0,
            registry=registry,
            executor=PretendedNodes(wanted.nodes, wanted.seconds, files),
            watcher=lambda _event: None,
        )
        work._finish = lambda: None  # type: ignore[method-assign]
        began, cpu = time.perf_counter(), time.process_time()
        with Peak() as peak:
            tally = work.execute()
        wall, busy = time.perf_counter() - began, time.process_time() - cpu
        assert tally.measured == wanted.points, tally.failed[:3]
        rows.append(("trials", f"{wanted.points} on {wanted.nodes} nodes, {wanted.seconds:g} s each"))
        rows.append(("wall time", f"{wall:.1f} s, ideal {wanted.seconds * wanted.points / wanted.nodes:.1f} s"))
        rows.append(("driver's processor time per trial", f"{1000 * busy / wanted.points:.2f} ms"))
        rows.append(("trials a second that the driver takes", f"{wanted.points / wall:.0f}"))
        rows.append(("driver's memory, peak", f"{(peak.bytes - base) / 1e6:.0f} MB more"))
        count, size = 0, 0
        for _, _, names in os.walk(run):
            count += len(names)
        for path in next(trial_folders(run)).iterdir():
            size += path.stat().st_size
        rows.append(("files", f"{count}, {count / wanted.points:.1f} a trial before costing"))
        rows.append(("a trial of this workload", f"{size / 1e3:.1f} kB"))
        for path in list(trial_folders(run))[COSTED:]:
            shutil.rmtree(path)
        began = time.perf_counter()
        assert finish(run) == ""
        each = (time.perf_counter() - began) / min(COSTED, wanted.points)
        rows.append(
            ("costing", f"{1000 * each:.1f} ms a record, so {each * wanted.points:.0f} s for all (from {COSTED})")
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
