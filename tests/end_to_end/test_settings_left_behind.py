"""What a trial set on a device is put back, whichever process is killed: the worker, or its driver too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.testing import until

SUITE = """
suite: limited
backend: {name: example_desk, limit: 40W}
meters: []
trials: 1
windows: {count: 1, min_seconds: 600}
cases: [{workload: example_sum}]
"""
SHORT = SUITE.replace("600", "0.1").replace(", limit: 40W", "")


class Desk:
    """The desk of a test, and runs on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.register = folder / "register"
        self.register.write_text("100.0")
        (folder / "suite.yaml").write_text(SUITE)
        (folder / "short.yaml").write_text(SHORT)

    @property
    def limit(self) -> str:
        return self.register.read_text()

    def start(self, suite: str) -> subprocess.Popen[str]:
        code = "import sys; from harness.cli import main; sys.exit(main())"
        variables = {"HARNESS_EXAMPLE_DESK": str(self.register), "HARNESS_LOCKS": str(self.folder / "locks")}
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", suite, "--store", "store"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, **variables, "NO_COLOR": "1", "COLUMNS": "300"},
        )

    def worker_of(self, driver: subprocess.Popen[str]) -> psutil.Process:
        """The worker, once it has set the limit."""
        until(lambda: self.limit == "40.0", what="the limit")
        children = psutil.Process(driver.pid).children(recursive=True)
        return next(child for child in children if "harness.worker" in child.cmdline())

    @property
    def files(self) -> list[Path]:
        return list((self.folder / "locks").glob("*.settings"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_driver_puts_back_what_a_killed_worker_left(desk: Desk) -> None:
    driver = desk.start("suite.yaml")
    desk.worker_of(driver).kill()
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 3
    assert "left behind by a process that was killed: limit of desk-0 put back from 40 W to 100 W" in said
    assert desk.limit == "100.0"
    assert not desk.files


def test_an_interrupted_run_puts_it_back(desk: Desk) -> None:
    driver = desk.start("suite.yaml")
    desk.worker_of(driver)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert desk.limit == "100.0"
    assert not desk.files


def test_the_next_run_puts_back_what_a_killed_run_left(desk: Desk) -> None:
    driver = desk.start("suite.yaml")
    worker = desk.worker_of(driver)
    worker.suspend()  # so that it does not end by itself, and put it back, when its driver is gone
    driver.kill()
    driver.communicate(timeout=120)
    worker.kill()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)  # an init that reaps nobody
    assert desk.limit == "40.0"
    assert len(desk.files) == 1
    after = desk.start("short.yaml")
    _, said = after.communicate(timeout=120)
    assert after.returncode == 0, said
    assert "limit of desk-0 put back from 40 W to 100 W" in said
    assert desk.limit == "100.0"
    assert not desk.files
