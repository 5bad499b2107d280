"""The connection of this process to a Ray cluster: to one that is there, never to one that is started for it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from harness import MeasurementError

_REACH_S: Final = 10.0
_NODES_KEPT_S: Final = 20.0
"""How long the list of nodes is believed, which is long on a large cluster."""


def import_ray() -> Any:
    """The module `ray`; raises MeasurementError with the reason where it cannot be imported.

    Ray imports `amdsmi` and expects ImportError where it is not usable; `amdsmi` raises KeyError where the driver's
    library is missing. Zeus brings `amdsmi`. It is hidden from Ray then.
    """
    # A call that comes after the end of the connection must not make Ray start a cluster of its own.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    hidden = False
    if "ray" not in sys.modules and "amdsmi" not in sys.modules:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module("amdsmi")
        except Exception:  # noqa: BLE001 - whatever it is, Ray would fall over it
            sys.modules["amdsmi"] = None  # type: ignore[assignment]
            hidden = True
    try:
        import ray
    except Exception as error:
        raise MeasurementError(f"Ray cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        if hidden:
            del sys.modules["amdsmi"]
    return ray


class Cluster:
    """A cluster that this process is connected to.

    Args:
        address: `auto`, HOST:PORT or ray://HOST:PORT.

    Raises:
        MeasurementError: there is none, or this process is connected to another.
    """

    _lock = threading.Lock()
    _address = ""
    _users = 0

    def __init__(self, address: str) -> None:
        self.ray = import_ray()
        with Cluster._lock:
            if Cluster._users and Cluster._address != address:
                raise MeasurementError(
                    f"this run is connected to the Ray cluster {Cluster._address} already", hint="one cluster a run"
                )
            self._ours = Cluster._users > 0 or not self.ray.is_initialized()
            if not self.ray.is_initialized():
                self._connect(address)
            if self._ours:
                Cluster._address = address
                Cluster._users += 1
        self._nodes: list[dict[str, Any]] = []
        self._seen = -_NODES_KEPT_S

    def _connect(self, address: str) -> None:
        _reach(address)
        try:
            self.ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ImportError, OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise MeasurementError(
                f"no Ray cluster answers at {address}: {said}",
                hint="`ray start --head` starts one; RAY_ADDRESS or the option address names one",
            ) from error

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as Ray describes them; asked anew now and then."""
        now = time.monotonic()
        if now - self._seen >= _NODES_KEPT_S:
            self._nodes = [node for node in self.ray.nodes() if node["Alive"]]
            self._seen = now
        return self._nodes

    def close(self) -> None:
        """Disconnects, unless somebody else in this process is connected or made the connection."""
        with Cluster._lock:
            if not self._ours:
                return
            self._ours = False
            Cluster._users -= 1
            if Cluster._users == 0:
                self.ray.shutdown()


def _reach(address: str) -> None:
    """Raises MeasurementError where nothing listens: Ray itself tries for twenty minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _started_here()
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise MeasurementError(
            f"no Ray cluster answers at {address}: {error}",
            hint="`ray start --head` starts one; RAY_ADDRESS or the option address names one",
        ) from error


def _started_here() -> str:
    """The address that `ray start` left on this machine; empty if there is none."""
    with contextlib.suppress(OSError):
        folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp")  # noqa: S108 - where Ray keeps it
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return ""
