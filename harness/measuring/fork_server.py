"""The fork server: `python -m harness.worker --forks FOLDER`, a process that forks the processes of trials.

It has imported the harness and the plugins that the job in FOLDER names, and opened nothing: no backend, meter or work.
A trial's process then starts in a few milliseconds in place of half a second of imports. All of them share what was
drawn once, when this process started: the layout of memory, the hash seed of Python, the order of sets and dicts of
text. So no statement about a difference between two trees may rest on them, and the record says how its trial started.

Requests come as packets over the socket that is standard input: JSON, with the descriptors of the trial's standard
input, log, messages and of a socket of its own. On that socket the server says `pid`, or `refused` with the reason, and
at the end `code` and what it found `left` running. The process stays a zombie, so that its number cannot be taken
by another, until the other end of the trial's socket closes. The server ends with its driver; so do its trials.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from harness.executor import FORK_DESCRIPTORS, FORK_PACKET_BYTES, MESSAGES
from harness.machine import leftovers

_SET_PARENT_DEATH_SIGNAL: Final = 1
"""prctl(2), Linux 2.1.57."""

Trial = Callable[[Path], int]
"""What the process of a trial does; its exit code."""


def threads() -> int:
    """Threads of this process, those that Python knows nothing of included; 1 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone are counted
    except OSError:
        return 1


class ForkServer:
    """Forks trials until its driver closes the socket.

    Args:
        control: the socket of the driver.
        trial: what a forked process does with its trial's folder.
    """

    def __init__(self, control: socket.socket, trial: Trial) -> None:
        self._control = control
        self._trial = trial
        self._trials: dict[int, socket.socket] = {}
        self._told: set[int] = set()
        self._woken, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Returns in the server alone, when the driver is gone."""
        leftovers.adopt_orphans()  # a trial that is killed leaves its children here, not to the whole machine
        for end in (self._woken, self._wake):
            end.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the descriptor below is written to
        signal.set_wakeup_fd(self._wake.fileno())
        gc.collect()
        gc.freeze()  # a collection in a trial does not copy every page it inherited
        self._selector.register(self._control, selectors.EVENT_READ, self._control)
        self._selector.register(self._woken, selectors.EVENT_READ, self._woken)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                elif key.fileobj is not self._control:
                    self._reap(key.data)
                elif not self._accept():
                    return
            self._tell_ended()

    def _accept(self) -> bool:
        """Takes one request; False where the driver is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, FORK_PACKET_BYTES, FORK_DESCRIPTORS)
        if not data:
            return False
        if len(descriptors) != FORK_DESCRIPTORS:
            for each in descriptors:
                os.close(each)
            return True
        own = socket.socket(fileno=descriptors[-1])
        refused = _why_not()
        server = os.getpid()
        try:
            pid = -1 if refused else os.fork()
        except OSError as error:
            pid, refused = -1, f"no process could be forked: {error.strerror}"
        if pid == 0:
            self._become(server, data, descriptors[:-1], own)
        for each in descriptors[:-1]:
            os.close(each)
        with contextlib.suppress(OSError):
            own.send(json.dumps({"refused": refused} if refused else {"pid": pid}).encode())
        if refused:
            own.close()
        else:
            self._trials[pid] = own
            self._selector.register(own, selectors.EVENT_READ, pid)
        return True

    def _become(self, server: int, data: bytes, descriptors: list[int], own: socket.socket) -> NoReturn:
        """Turns the forked process into a trial's, as if it had been started, and ends it."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            _end_with(server)
            request: Mapping[str, Any] = json.loads(data)
            stdin, log, messages = descriptors
            for given, standard in ((stdin, 0), (log, 1), (log, 2)):
                os.dup2(given, standard)
            os.close(stdin)
            os.close(log)
            self._selector.close()
            for each in (self._control, self._woken, self._wake, own, *self._trials.values()):
                each.close()
            for name in request["unset"]:
                os.environ.pop(name, None)
            os.environ.update(request["set"])
            os.environ[MESSAGES] = str(messages)
            code = self._trial(Path(request["folder"]))
        except BaseException:  # noqa: BLE001 - nothing may return into the loop of the server
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _tell_ended(self) -> None:
        """Tells the driver of every trial that ended, and what a killed one left here; leaves the zombies."""
        for pid in self._trials.keys() - self._told:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self._told.add(pid)
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            left = leftovers.end_strays(self._trials) if code else []
            with contextlib.suppress(OSError):
                self._trials[pid].send(json.dumps({"code": code, "left": left}).encode())

    def _reap(self, pid: int) -> None:
        """The driver is done with a trial, or gone: its process goes, if it has not yet."""
        own = self._trials.pop(pid)
        self._selector.unregister(own)
        own.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._told.discard(pid)


def _why_not() -> str:
    """Why a fork of this process would not be a whole one; empty where it would."""
    others = threads() - 1
    return f"importing the plugins started {others} threads, which a fork would lose" if others else ""


def _end_with(server: int) -> None:
    """Ends this process when the server is killed; a driver that dies closes standard input."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)  # it was killed before


def serve(trial: Trial) -> None:
    """Serves the driver whose socket is standard input."""
    ForkServer(socket.socket(fileno=os.dup(0)), trial).serve()
