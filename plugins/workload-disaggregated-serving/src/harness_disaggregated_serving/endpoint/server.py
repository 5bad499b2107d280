"""The server as a process of this machine: found, or started and ended; and which scopes hold its energy."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil

from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.sample import Scope, counts_every_process
from harness_disaggregated_serving.endpoint.options import MODEL, PORT, ServerOptions

ROLE: Final = "server"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
TAIL_CHARACTERS: Final = 1500
"""So much of the end of a server's log is told when it does not start."""
VERSION_S: Final = 60.0
"""A command that prints a version may take so long: engines import their frameworks for it."""
_POLL_S: Final = 0.05
_GPU_NODE: Final = re.compile(r"/dev/(nvidia\d+|kfd)")
UNNAMED: Final = (
    "no meter reads the server: name it under `server` (pid, name, container, gpus, or meters of its host), "
    "or let the harness start it with `command`"
)


class LocalServer:
    """A server that is started here, and ended with its whole process tree.

    Args:
        options: of the server; `command` is set.
        url: base address of its API; of the free port if empty.
        folder: for its log.
        place: folder that the command runs in.
        model: what `{model}` in the command stands for.
    """

    def __init__(self, options: ServerOptions, url: str, folder: Path, place: Path, model: str = "") -> None:
        command = options.command or ()
        words = shlex.split(command) if isinstance(command, str) else list(command)
        self._options, self._place = options, place
        self._log = folder / "server.log"
        port = free_port() if any(PORT in word for word in words) else None
        self.words = [word.replace(PORT, str(port)).replace(MODEL, model) for word in words]
        self.url = url.replace(PORT, str(port)) or f"http://127.0.0.1:{port}/v1"
        self._process: subprocess.Popen[bytes] | None = None
        self.started_in_s = 0.0

    @property
    def pid(self) -> int:
        """Of the root of its process tree."""
        assert self._process is not None
        return self._process.pid

    def start(self, healthy: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Starts it and waits until it is healthy.

        Args:
            healthy: asks it once.
            tell: is told that it is waited for, once a second.

        Raises:
            MeasurementError: it cannot be started, ends, or is not healthy in time; with the end of its log.
        """
        environment = {**os.environ, **self._options.environment}
        if self._options.gpus and "CUDA_VISIBLE_DEVICES" not in self._options.environment:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._options.gpus)
        began_s = time.monotonic()
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self.words, cwd=self._place, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise MeasurementError(
                    f"the server cannot be started: {error.strerror or error}", where=shlex.join(self.words)
                ) from None
        told_s = 0.0
        while not healthy():
            waited_s = time.monotonic() - began_s
            self.check()
            if waited_s > self._options.start_timeout:
                raise self._fault(f"the server was not healthy in {self._options.start_timeout:g} s")
            if waited_s - told_s >= 1.0:
                told_s = waited_s
                tell(f"waiting for the server, {waited_s:.0f} s")
            time.sleep(_POLL_S)
        self.check()
        self.started_in_s = time.monotonic() - began_s

    def check(self) -> None:
        """Raises MeasurementError where the server has ended."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise self._fault(f"the server ended with exit code {code}")

    def _fault(self, message: str) -> MeasurementError:
        with contextlib.suppress(OSError):
            said = self._log.read_bytes()[-TAIL_CHARACTERS:].decode("utf-8", "replace").strip()
            return MeasurementError(message, where=shlex.join(self.words), hint=said or "it printed nothing")
        return MeasurementError(message, where=shlex.join(self.words))

    def stop(self) -> None:
        """Ends its process tree: asked first, killed when it does not heed that. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        tree: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(process.pid)
            tree = [root, *root.children(recursive=True)]
        for each in tree:
            with contextlib.suppress(psutil.Error):
                each.terminate()
        _, living = psutil.wait_procs(tree, timeout=self._options.stop_timeout)
        for each in living:
            with contextlib.suppress(psutil.Error):
                each.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)  # what the tree left behind in its own session
        process.wait()

    def printed_version(self) -> str:
        """What the version's command prints, or `PROGRAM --version`; empty where that tells nothing of the server."""
        given = self._options.version
        if given is None and Path(self.words[0]).name.startswith("python"):
            return ""  # it would tell its own
        words = shlex.split(given) if isinstance(given, str) else given or [self.words[0], "--version"]
        try:
            done = subprocess.run(
                words, capture_output=True, timeout=VERSION_S, check=False, cwd=self._place, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        return said[:200] if done.returncode == 0 else ""


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def running_pid(options: ServerOptions) -> int | None:
    """The root process of a server that runs already; None where the options name none. Raises MeasurementError."""
    if options.pid is not None:
        if not psutil.pid_exists(options.pid):
            raise MeasurementError(f"there is no process {options.pid}", where="server.pid", accepted="one that runs")
        return options.pid
    if options.name:
        return named_process(options.name)
    return container_pid(options.container) if options.container else None


def named_process(name: str) -> int:
    """The root of the one process tree whose program has a name; raises MeasurementError for none or several."""
    own = os.getpid()
    found = {
        each.pid: each.info["ppid"]
        for each in psutil.process_iter(["name", "cmdline", "ppid"])
        if each.pid != own and name in _names(each.info)
    }
    roots = sorted(pid for pid, parent in found.items() if parent not in found)
    if len(roots) != 1:
        listed = f"processes {', '.join(map(str, roots))} are" if roots else "no process is"
        raise MeasurementError(f"{listed} called {name!r}", where="server.name", accepted="one process tree; or a pid")
    return roots[0]


def _names(info: Mapping[str, Any]) -> set[str]:
    """Of a process: its program's, and those of the first two words of its command line, a script's among them."""
    return {str(info.get("name") or ""), *(Path(word).name for word in (info.get("cmdline") or ())[:2])}


def container_pid(container: str) -> int:
    """The first process of a container, as this machine counts it; raises MeasurementError."""
    said = []
    for program in ("docker", "podman"):
        if shutil.which(program) is None:
            said.append(f"there is no {program}")
            continue
        words = [program, "inspect", "--format", "{{.State.Pid}}", container]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            said.append(f"{program}: {error}")
            continue
        if done.returncode == 0 and (pid := done.stdout.strip()).isdigit() and int(pid) > 0:
            return int(pid)
        said.append(f"{program}: {(done.stderr or done.stdout).strip().partition(chr(10))[0] or 'it does not run'}")
    raise MeasurementError(f"container {container!r} was not found: {'; '.join(said)}", where="server.container")


def elsewhere(options: ServerOptions, pid: int | None) -> bool:
    """Whether the server is on another machine: meters that read it there are named, and no process of this one is."""
    return pid is None and bool(options.meters)


def charged(
    options: ServerOptions, url: str, pid: int | None, read: Mapping[tuple[str, str], Scope]
) -> Collection[str] | Unavailable:
    """Scopes that hold the server's energy: never the load generator's own process.

    Args:
        options: what the server is.
        url: base address of its API.
        pid: root of its process tree on this machine; None where it is not known.
        read: (meter, scope) -> the scope, of all that is read.
    """
    remote = {scope for meter, scope in read if meter in options.meters}
    if options.meters and not remote:
        return Unavailable(f"none of the server's meters reads anything: {', '.join(options.meters)}")
    found = set(remote)
    if pid is not None or options.gpus:
        here = {scope: described for (meter, scope), described in read.items() if meter not in options.meters}
        cards = {scope for scope, described in here.items() if described.device in options.gpus}
        whole = pid is not None or (urlsplit(url).hostname in LOOPBACK and not options.meters)  # a tunnel ends here
        found |= {scope for scope in here if _is_the_servers(scope)} if whole else cards
        known = {each.device for each in here.values()}
        lost = [uuid for uuid in options.gpus if uuid not in known and not elsewhere(options, pid)]
        if lost:
            return Unavailable(f"no meter reads the server's GPU {', '.join(lost)}")
        if pid is not None and not any(_is_a_gpu(scope) for scope in found) and (node := gpu_node(pid)):
            return Unavailable(f"the server has {node} open and no meter reads a GPU: name it under `server: gpus`")
    if found:
        return found
    if pid is None and not options.gpus:
        return Unavailable(UNNAMED)
    return Unavailable(f"no meter reads the server (process {pid}): list one, such as cpu_time, rapl or nvml")


def _is_the_servers(scope: str) -> bool:
    part = scope.partition("/")[2]
    return part == f"process:{ROLE}" or not (part == "process" or part.startswith("process:"))


def _is_a_gpu(scope: str) -> bool:
    return scope.partition("/")[2].startswith(("gpu", "module"))


def gpu_node(pid: int) -> str:
    """A GPU's node under /dev that a process tree has open; empty where none is, or the system does not show it."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(OSError), os.scandir(f"/proc/{process.pid}/fd") as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        node = str(Path(entry.path).readlink())
                        if _GPU_NODE.fullmatch(node):
                            return node
    return ""


def shared_with_client(scopes: Collection[str], read: Mapping[tuple[str, str], Scope]) -> Sequence[str]:
    """The charged scopes of this machine that hold the load generator too."""
    return sorted({scope for (_, scope), each in read.items() if scope in scopes and counts_every_process(scope, each)})
