"""The actor that keeps one trial on its node: starts it, hands on its messages and its files, ends it.

Standard library and Ray only: the class travels to the node by value, where the harness may be missing. The trial
itself is a process of its own, `harness_executor_ray.node`, in the environment that is to be measured; its standard
input is its leash: when that closes, because the trial is done or because this process is gone, it ends its worker and
its folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

NEWS_KEPT = 1000
"""Messages that nobody fetched; older ones are forgotten, so that a trial never waits for the network."""
CLOSE_S = 5.0
CHECK_S = 120.0
TAIL_LINES = 12
PREFIX = "joule-harness-trial-"


class Keeper:
    """Keeps one trial."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._trial = Path()
        self._held: IO[bytes] | None = None
        self._python = sys.executable
        self._environment = dict(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._news: deque[dict[str, Any]] = deque(maxlen=NEWS_KEPT)
        self._changed = threading.Condition()

    def where(self) -> dict[str, Any]:
        """Where this is, for the record; answered as soon as the trial has its place."""
        import ray

        context = ray.get_runtime_context()
        log = Path("/proc/self/fd/1")  # Ray redirects a worker's output into its log
        return {
            "node": context.get_node_id(),
            "host": platform.node(),
            "task": context.get_task_id(),
            "log": str(log.readlink()) if log.is_symlink() else "",
            "niceness": os.nice(0),
        }

    def prepare(self, python: str, *, threads: bool, parcel: Sequence[Any] = ()) -> None:
        """Settles what the trial runs in.

        Args:
            python: its interpreter; empty for the one that Ray runs on.
            threads: whether it keeps Ray's OMP_NUM_THREADS, the number of processors that it asked for.
            parcel: digest and reference of an archive to run from.
        """
        self._python = python or sys.executable
        if not threads and "OMP_NUM_THREADS" not in _environment_of(os.getppid()):
            self._environment.pop("OMP_NUM_THREADS", None)
        if parcel:
            path = [str(_unpacked(*parcel)), self._environment.get("PYTHONPATH", "")]
            self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    def manifest(self, source: str) -> dict[str, Any]:
        """What `manifest.py`, given as text, says of the trial's environment; `{"fault": reason}` where it fails."""
        try:
            done = subprocess.run(
                [self._python, "-P", "-c", source],  # what lies in the current folder does not count
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=CHECK_S,
                check=True,
            )
            return dict(json.loads(done.stdout.splitlines()[-1]))
        except subprocess.CalledProcessError as error:
            return {"fault": (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]}
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            return {"fault": str(error)}

    def start(self, order: Mapping[str, Any], job: str | None) -> None:
        """Starts the trial.

        Args:
            order: what `harness_executor_ray.node` reads.
            job: text of `job.json`; None if there is none.
        """
        _sweep()
        folder = self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._held = (folder / "held").open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._trial = folder / "trial"
        self._trial.mkdir()
        (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
        if job is not None:
            (self._trial / "job.json").write_text(job, encoding="utf-8")
        with (folder / "node.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "harness_executor_ray.node", str(folder)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process, folder), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Keeps the trial's messages until they are fetched; the end of a process that said none is told for it."""
        ended = False
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with suppress(ValueError):
                    news = json.loads(line)
                    ended = ended or "end" in news
                    self._tell(news)
        if not ended:
            code = process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            said: list[str] = []
            with suppress(OSError):  # the folder goes first where this is the end that was asked for
                said = (folder / "node.log").read_text(encoding="utf-8", errors="replace").splitlines()
            reason = f"the process that runs the trial on {platform.node()} {how}"
            self._tell({"end": {"ok": False, "reason": reason, "log_tail": said[-TAIL_LINES:], "skipped": False}})

    def _tell(self, news: dict[str, Any]) -> None:
        with self._changed:
            self._news.append(news)
            self._changed.notify_all()

    def take(self, wait_s: float) -> list[dict[str, Any]]:
        """The messages since the last call, waiting for some: messages, and last of all `{"end": outcome}`."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, wait_s)
            taken = list(self._news)
            self._news.clear()
        return taken

    def files(self) -> list[tuple[str, int, str]]:
        """Name, size in bytes and SHA-256 of every plain file that the trial wrote."""
        found = []
        for path in sorted(self._trial.rglob("*")):
            name = path.relative_to(self._trial).as_posix()
            if path.is_file() and not path.is_symlink() and name != "job.json":
                with path.open("rb") as stream:
                    found.append((name, path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()))
        return found

    def read(self, name: str, offset: int, length: int) -> bytes:
        """A piece of a file."""
        with (self._trial / name).open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)

    def close(self) -> None:
        """Ends what still runs and removes the folder."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._held is not None:
            self._held.close()


def _environment_of(pid: int) -> dict[str, str]:
    """Variables that a process was started with; none where the system does not say."""
    with suppress(OSError):
        texts = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(text.split("=", 1) for text in texts if "=" in text)
    return {}


def _sweep() -> None:
    """Removes folders of trials whose keeper is gone: Ray kills a worker's children with it when a driver is lost."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / "held").open("r+b") as held:  # another user's, or one that begins
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def unpack(packed: bytes, folder: Path) -> None:
    """Writes the files of a parcel below a folder; raises ValueError for what is none, writing no file outside."""
    head, _, body = packed.partition(b"\n")
    listed = json.loads(head)
    if sum(size for _, size in listed) != len(body):
        raise ValueError("the parcel is not as long as it says")
    at = 0
    for inside, size in listed:
        path = PurePosixPath(inside)
        if path.is_absolute() or ".." in path.parts or size < 0:
            raise ValueError(f"the parcel names {inside!r}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body[at : at + size])
        at += size


def _unpacked(digest: str, reference: Any) -> Path:
    """The folder of a parcel, fetched and unpacked once a node and user."""
    base = Path(tempfile.gettempdir()) / f"joule-harness-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to another user")
    folder = base / f"parcel-{digest}"
    if not folder.is_dir():
        import ray

        making = Path(tempfile.mkdtemp(prefix="parcel-", dir=base))
        unpack(ray.get(reference), making)
        try:
            making.rename(folder)
        except OSError:  # another trial was first
            shutil.rmtree(making, ignore_errors=True)
    return folder
