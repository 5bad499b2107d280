"""Points of `spin` while workers and drivers are killed at random: none lost, none twice, the driver stays small."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import pytest

from harness.records.files import records_of
from harness.storing.check import check
from harness.storing.places import open_store

LANES: Final = 2
"""Runs side by side, each with device locks of its own: one keeps one core busy."""
FLAT: Final = 1.10
SETTLED: Final = 5
"""Trials after which a driver has imported and opened all that it needs."""

SUITE = """\
suite: soak-{lane}
backend: host
meters: [cpu_time: {{watts_per_core: 10}}]
trials: 1
windows: {{count: 1, min_seconds: 0}}
warm_up: {{max_seconds: 1, max_iterations: 0, min_iterations: 0}}
limits: {{trial: 60s, silence: 30s}}
cases:
  - workload: spin
    matrix: {{iterations: [{points}]}}
"""

# Only the plugins that are built in: what others import would be most of the time.
BUILT_IN_ONLY = """\
import importlib.metadata as metadata
_all = metadata.entry_points
metadata.entry_points = lambda **wanted: [each for each in _all(**wanted) if each.name == "builtin"]
"""


class Lane:
    """One run that is killed and resumed until it is done.

    Args:
        folder: everything lies in it.
        number: of the lane, and seed of its kills.
        points: how many.
        kills: how often something is killed.
    """

    def __init__(self, folder: Path, number: int, points: int, kills: int) -> None:
        self.store = folder / f"store-{number}"
        temporary = folder / f"tmp-{number}"
        temporary.mkdir()
        (folder / "sitecustomize.py").write_text(BUILT_IN_ONLY, encoding="utf-8")
        self.environment = {
            **os.environ,
            "TMPDIR": str(temporary),
            "HARNESS_LOCKS": str(temporary / "locks"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(folder),
        }
        self.suite = folder / f"soak-{number}.yaml"
        values = ", ".join(str(100 + each) for each in range(points))
        self.suite.write_text(SUITE.format(lane=number, points=values), encoding="utf-8")
        self.generator = random.Random(number)
        self.kills = kills
        self.killed: list[str] = []
        self.first_seen: dict[str, tuple[int, int]] = {}
        self.growth: list[float] = []

    @property
    def run(self) -> Path:
        (folder,) = self.store.iterdir()
        return folder

    def look(self) -> int:
        """Notes each measurement when it is first there; how many there are."""
        for path in self.store.glob("*/*/measurement.json"):
            about = path.stat()
            self.first_seen.setdefault(path.parent.name, (about.st_mtime_ns, about.st_ino))
        return len(self.first_seen)

    def drive(self) -> int:
        """Drives the run to its end or to a kill; the exit code."""
        begun = self.store.exists() and any(self.store.glob("*/run.json"))
        what = ["--resume", str(self.run)] if begun else [str(self.suite), "--store", str(self.store)]
        driver = subprocess.Popen(
            [sys.executable, "-m", "harness", "run", *what], env=self.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        at_start, sizes = self.look(), []
        due = self.look() + self.generator.randint(2, 8)
        while driver.poll() is None:
            time.sleep(0.02)
            before, done = len(self.first_seen), self.look()
            if done > before and done - at_start >= SETTLED:  # at a new measurement: it drives, and makes no report yet
                sizes.append(_size(driver.pid))
            if done >= due and len(self.killed) < self.kills:
                due = done + self.generator.randint(2, 8)
                time.sleep(self.generator.random())
                self.kill(driver)
        sizes = [size for size in sizes if size]
        if len(sizes) >= 6:
            self.growth.append(median(sizes[-3:-1]) / median(sizes[:3]))
        return driver.wait()

    def kill(self, driver: subprocess.Popen[bytes]) -> None:
        victims = self.generator.choice(["worker", "worker", "worker", "driver", "both"])
        try:
            workers = [
                child for child in psutil.Process(driver.pid).children(recursive=True)
                if "harness.worker" in child.cmdline()
            ]  # fmt: skip
            for worker in workers if victims != "driver" else ():
                worker.send_signal(signal.SIGKILL)
            if victims != "worker":
                driver.kill()
            self.killed.append(victims)
        except psutil.Error:
            return

    def to_the_end(self) -> None:
        for _ in range(self.kills + 2):
            if self.drive() == 0:
                return
        raise AssertionError(f"not done after {self.killed}")

    def check(self) -> None:
        planned = {f"{point['id']}-t000" for point in json.loads((self.run / "plan.json").read_text())}
        kept = [finished.measurement.trial_id for finished in records_of(self.run)]
        assert len(kept) == len(set(kept)), "a trial has two records"
        assert set(kept) == planned, "a trial was lost"
        assert not list(self.run.glob("*/failure.json"))
        now = {path.parent.name: (path.stat().st_mtime_ns, path.stat().st_ino)
               for path in self.run.glob("*/measurement.json")}  # fmt: skip
        assert now == self.first_seen, "a finished trial was measured again"
        assert all(growth <= FLAT for growth in self.growth), self.growth
        store = open_store(self.store)
        assert [str(each) for each in check(store) if each.fault] == []
        removed = self.generator.choice(sorted(self.run.glob("*/items.jsonl")))
        removed.unlink()
        assert [removed.parent.name in each.where for each in check(store) if each.fault] == [True]


def _size(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def soak(folder: Path, points: int, kills: int) -> list[Lane]:
    lanes = [Lane(folder, number, points // LANES, kills // LANES) for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(Lane.to_the_end, lanes))
    for lane in lanes:
        lane.look()
        lane.check()
        assert len(lane.killed) == lane.kills, "less was killed than meant"
    assert any(lane.growth for lane in lanes), "no driver lived long enough to be looked at"
    return lanes


@pytest.mark.slow
def test_a_hundred_points_with_random_kills(tmp_path: Path) -> None:
    soak(tmp_path, 100, 12)


@pytest.mark.soak
def test_a_thousand_points_with_random_kills(tmp_path: Path) -> None:
    began = time.monotonic()
    lanes = soak(tmp_path, 1000, 100)
    killed = [victims for lane in lanes for victims in lane.killed]
    growth = max(growth for lane in lanes for growth in lane.growth)
    print(f"1000 points in {time.monotonic() - began:.0f} s, killed {killed}, memory of a driver x {growth:.3f}")  # noqa: T201
