"""A Slurm of its own for the tests: two virtual nodes on this machine, in a folder, ended by their process ids."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.testing import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=60
MaxArraySize=20
Licenses=matlab:2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000 Gres=gpu:a100:2 Feature=fast
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000 Feature=slow
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 DefaultTime=10 State=UP
PartitionName=one Nodes=n1 MaxTime=5 State=UP
"""
DEVICES = """
NodeName=n1 Name=gpu Type=a100 File=/dev/null
NodeName=n1 Name=gpu Type=a100 File=/dev/zero
"""


def program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def version() -> tuple[int, int]:
    said = subprocess.run([str(program("slurmd")), "-V"], capture_output=True, text=True, check=True).stdout
    year, month = said.split()[1].split(".")[:2]
    return int(year), int(month)


def free_ports(count: int) -> list[int]:
    with_ports = [socket.socket() for _ in range(count)]
    try:
        for each in with_ports:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in with_ports]
    finally:
        for each in with_ports:
            each.close()


class Cluster:
    """Munge, a controller and two nodes, each a process of this one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"SLURM_CONF": str(root / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        root = self.root
        for name in ("state", "n1", "n2"):
            (root / name).mkdir()
        key = root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        facts = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "ports": free_ports(3)}
        (root / "slurm.conf").write_text(CONFIGURATION.format(root=root, **facts))
        (root / "gres.conf").write_text(DEVICES)
        if version() >= (23, 11):  # later ones want control groups even where no plugin of theirs is named
            (root / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        places = {"key-file": key, "socket": root / "munge.socket", "pid-file": root / "munged.pid"}
        places |= {"log-file": root / "munged.log", "seed-file": root / "munge.seed"}
        self._run("munged", "-F", "--force", *(f"--{name}={place}" for name, place in places.items()))
        self._until("munge", (root / "munge.socket").exists)
        self._run("slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            self._run("slurmd", "-D", "-N", node)
        self._until(
            "two idle nodes", lambda: self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%t").split() == ["idle"] * 2
        )

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout

    def quiet(self) -> bool:
        """Whether no job waits or runs."""
        return not self.ask("squeue", "-h").strip()

    def clear(self) -> None:
        self.ask("scancel", f"--user={os.getuid()}")
        self._until("an empty queue", self.quiet)

    def end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, name: str, *arguments: str) -> None:
        path = program(name)
        assert path is not None
        with (self.root / "out").open("ab") as out:
            self._processes.append(
                subprocess.Popen(
                    [path, *arguments],
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _until(self, what: str, true) -> None:
        def said() -> str:
            logs = [path.read_text(errors="replace")[-2000:] for path in self.root.glob("*.log")]
            return f"{what}: {logs} {(self.root / 'out').read_text()[-2000:]}"

        until(true, every_s=0.1, what=said)


@pytest.fixture(scope="session")
def cluster_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: Debian has slurmctld, slurmd, slurm-client and munge")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def slurm(cluster_of_tests: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with an empty queue, as the one of this process."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_"))]:
        monkeypatch.delenv(name)
    for name, value in cluster_of_tests.environment.items():
        monkeypatch.setenv(name, value)
    cluster_of_tests.clear()
    yield cluster_of_tests
    cluster_of_tests.clear()


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands as one script (`fake_slurm.py`): jobs are processes of this machine, one at a time."""
    state, commands = tmp_path / "slurm-state", tmp_path / "slurm-bin"
    state.mkdir()
    commands.mkdir()
    script = Path(__file__).with_name("fake_slurm.py")
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun"):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" {name} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    return state


class Driver:
    """A `harness run` that was started, in a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._out = (folder / "driver.out").open("ab")
        command = [sys.executable, "-m", "harness", "run", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def run(self) -> Path:
        """The folder of the newest run."""
        return max(path for path in self.store.iterdir() if path.is_dir())

    @property
    def said(self) -> str:
        """What it printed, on one line."""
        return " ".join((self.folder / "driver.out").read_text().split())

    def measured(self) -> set[str]:
        return {path.parent.name for path in self.store.glob("*/*/measurement.json")}

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 150) -> int:
        try:
            return self._process.wait(timeout=seconds)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._out.close()


@pytest.fixture
def drive(tmp_path: Path):
    """Starts drivers of a suite in a folder of their own."""
    drivers: list[Driver] = []

    def start(*arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, *arguments, "--store", "store"))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.send(signal.SIGKILL)
        driver.wait()
