"""A cluster of two nodes on this machine, each with a temporary folder and labels of its own, ended by PID."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness.testing import until

ROOT = Path(__file__).parents[3]
START_S = 60.0


@dataclass
class TwoNodes:
    """Two nodes: `left` on 127.0.0.2 and `right` on 127.0.0.3, with a pretended H100 and two licences."""

    folder: Path
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, side: str) -> dict[str, str]:
        """Variables of a node or of the driver: its own token, folder and locks, no amdsmi without a card."""
        stubs = self.folder / "stubs"
        path = [str(stubs), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "TMPDIR": str(self.tmp(side)),
            "HARNESS_LOCKS": str(self.tmp(side) / "locks"),
        }

    def tmp(self, side: str) -> Path:
        """Where a node's trials have their folders and its locks lie."""
        folder = self.folder / side / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, side: str, *words: str) -> None:
        """Starts a node and waits until it says so."""
        log = self.folder / f"{side}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "2"]
        command += ["--object-store-memory", "100000000", "--memory", "2000000000", "--labels", f"side={side}"]
        command += ["--temp-dir", str(self.folder / side / "ray"), *words]
        with log.open("wb") as stream:
            self.processes[side] = subprocess.Popen(
                command, env=self.environment(side), stdout=stream, stderr=stream, start_new_session=True
            )

        def ready() -> bool:
            assert self.processes[side].poll() is None, log.read_text()
            return "Ray runtime started" in log.read_text()

        until(ready, limit_s=START_S, every_s=0.2, what=log.read_text)

    def end(self, side: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the processes of a node that were started here, and no others."""
        process = self.processes.pop(side, None)
        if process is None:
            return
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if how is signal.SIGTERM:
            process.terminate()
            psutil.wait_procs(family, timeout=10)
        process.kill()
        for each in family:
            if each.is_running():
                each.kill()
        psutil.wait_procs(family, timeout=10)
        process.wait()

    def trials(self, *sides: str) -> list[psutil.Process]:
        """The processes of trials that run on nodes: keepers' children and workers."""
        folders = [f"{self.tmp(side)}/joule-harness-trial-" for side in sides or ("left", "right")]
        found = []
        for process in psutil.process_iter():
            try:
                if any(word.startswith(folder) for word in process.cmdline()[1:] for folder in folders):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def workers(self, *sides: str) -> list[psutil.Process]:
        """The processes that measure."""
        return [each for each in self.trials(*sides) if "harness.worker" in each.cmdline()]

    def left(self) -> list[object]:
        """Processes and folders of trials that are there."""
        return [*self.trials(), *self.folder.glob("*/tmp/joule-harness-trial-*")]

    def leaves_nothing(self) -> bool:
        """Waits until no process and no folder of a trial is there; fails if one stays."""
        return until(lambda: not self.left(), every_s=0.2, what=lambda: f"the end of {self.left()}")


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster for all tests of this folder."""
    if sys.platform != "linux":
        pytest.skip("two nodes on one machine need the addresses 127.0.0.2 and 127.0.0.3")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of sockets are limited
    (folder / "stubs").mkdir()
    (folder / "stubs/amdsmi.py").write_text('raise ImportError("no ROCm on this node")\n')
    (folder / "token").write_text(secrets.token_hex(16))
    cluster = TwoNodes(folder)
    try:
        cluster.start("left", "--head", "--port", "0", "--node-ip-address", "127.0.0.2", "--include-dashboard", "false")
        cluster.address = (folder / "left/ray/ray_current_cluster").read_text().strip()
        offered = '{"accelerator_type:H100": 1, "licence": 2}'
        where = ["--address", cluster.address, "--node-ip-address", "127.0.0.3"]
        cluster.start("right", *where, "--num-gpus", "1", "--resources", offered)
        yield cluster
    finally:
        for side in ("right", "left"):
            cluster.end(side)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def connected(two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """This process may connect to the cluster."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, two_nodes.environment("driver")[name])
    return {"address": two_nodes.address}
