"""Which devices the processes of a command use, found by looking again and again while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import Final, Self

import psutil

from harness.backend import Device
from harness.measuring.meters import Meters
from harness.meter import Meter
from harness.sample import now_ns
from harness.units import seconds, si

LOOK_S: Final = 0.05
"""Pause between two looks: less than a process needs to open a GPU and to do something with it."""
LOOKING: Final = 0.05
"""Share of the time that may be spent looking, where a look takes long."""
LATE_S: Final = 1.0
"""A device whose first user was seen so long after the window's begin is told."""


class DeviceUsers:
    """Looks at the users of every device while the window is open.

    Args:
        meters: opened with `every_device`.
        pid: the process whose tree does the work.
    """

    def __init__(self, meters: Meters, pid: int | None = None) -> None:
        self._channels = [each for each in meters.channels if type(each.meter).users is not Meter.users]
        self._pid = pid or os.getpid()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began_ns = now_ns()
        self.first_ns: dict[str, int] = {}
        """Scope -> when a process of the work was first seen on its device."""
        self.fault = ""
        self._unseen: set[str] = set()

    def __enter__(self) -> Self:
        self._began_ns = now_ns()
        if self._channels:
            self._thread = threading.Thread(target=self._keep_looking, name="harness-users", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _keep_looking(self) -> None:
        while not self._stop.is_set():
            began_ns = now_ns()
            self.look()
            self._stop.wait(max(LOOK_S, seconds(now_ns() - began_ns) / LOOKING))

    def look(self) -> None:
        """Who uses what right now; a meter that is being read, or that raises, is asked again the next time."""
        for channel in self._channels:
            if channel.lock.acquire(blocking=False):
                users: Mapping[str, Collection[int]] = {}
                try:
                    users = channel.meter.users()
                except Exception as error:  # noqa: BLE001 - a plugin's fault costs this look only
                    self.fault = f"meter {channel.name!r} does not say who uses what: {type(error).__name__}: {error}"
                finally:
                    channel.lock.release()
                for scope, pids in users.items():
                    if scope not in self.first_ns:
                        self._take(scope, pids)

    def _take(self, scope: str, pids: Collection[int]) -> None:
        for pid in pids:
            try:
                ours = pid == self._pid or any(each.pid == self._pid for each in psutil.Process(pid).parents())
            except psutil.Error:
                self._unseen.add(scope)
                continue
            if ours:
                self.first_ns[scope] = now_ns()
                return

    # After the window

    def drop_unused(self) -> set[str]:
        """Takes out of the meters what no process of the work used; returns these scopes."""
        dropped: set[str] = set()
        for channel in self._channels:
            unused = {name for name in channel.meter.found() if name in channel.scopes and name not in self.first_ns}
            if unused:
                channel.scopes = {name: scope for name, scope in channel.scopes.items() if name not in unused}
                if not channel.scopes or unused & self._unseen:
                    channel.missing = {**channel.missing, "*": self._why(unused)}
            dropped |= unused
        return dropped

    def _why(self, unused: Collection[str]) -> str:
        doubtful = sorted(set(unused) & self._unseen)
        if doubtful:
            return (
                f"a process on {', '.join(doubtful)} cannot be seen from here (another container, or it had ended), so "
                "its energy is not charged; --backend torch charges the devices that torch uses"
            )
        return f"no process of the command was seen on {'the device' if len(unused) == 1 else f'{len(unused)} devices'}"

    def devices(self) -> list[Device]:
        """The devices that processes of the work used."""
        return [
            device
            for channel in self._channels
            for scope, device in channel.meter.found().items()
            if scope in self.first_ns
        ]

    def late(self) -> Mapping[str, str]:
        """Scope -> what is to be said of a device that was used from some later moment on only."""
        after_s = {scope: seconds(ns - self._began_ns) for scope, ns in self.first_ns.items()}
        return {
            scope: f"{scope} is charged for the whole window; a process was first seen on it after {si(late_s, 's')}"
            for scope, late_s in after_s.items()
            if late_s > LATE_S
        }
