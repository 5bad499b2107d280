"""Times of a convolution's ways, taken once a machine and kept in the cache, so that all trials choose the same way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from filelock import FileLock

from harness.backend import processor_name
from harness_semantic_segmentation.networks.kernels import ConvShape, Seconds, Timer, measured, ways

FORMAT: Final = 1
"""Grows when the ways are computed otherwise, so that older times no longer hold."""
Tell = Callable[[str, float | None], None]


def machine() -> dict[str, Any]:
    """What times hold for: JSON values."""
    return {
        "cpu": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "format": FORMAT,
    }


class KeptTimes:
    """Times by shape from a file of this machine; what it lacks is measured and added, by one process at a time.

    A file that cannot be read counts as empty. What cannot be written is measured again in the next trial.

    Args:
        cache: folder that runs share.
        tell: told of what is measured; it takes seconds.
        timer: measures.

    Attributes:
        measured: shapes that this object had to measure.
    """

    def __init__(self, cache: Path, tell: Tell, timer: Timer = measured) -> None:
        self.machine = machine()
        digest = hashlib.sha256(json.dumps(self.machine, sort_keys=True).encode()).hexdigest()[:16]
        self.path = cache / "segmentation" / f"convolutions-{digest}.json"
        self.measured: list[str] = []
        self._tell, self._timer = tell, timer

    def __call__(self, shape: ConvShape) -> Seconds:
        """Seconds by way."""
        name = str(shape)
        times = self._read()
        if _whole(times.get(name), shape):
            return times[name]  # type: ignore[no-any-return]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                return self._added(shape)
        except OSError:  # a cache that cannot be written
            return self._added(shape)

    def _added(self, shape: ConvShape) -> Seconds:
        """Measured now, unless another process did so while this one waited."""
        name, times = str(shape), self._read()
        if not _whole(times.get(name), shape):
            self._tell(f"timing a convolution of {name}", None)
            times[name] = dict(self._timer(shape))
            self.measured.append(name)
            self._write(times)
        return times[name]  # type: ignore[no-any-return]

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        times = content.get("seconds") if isinstance(content, dict) else None
        return times if isinstance(times, dict) else {}

    def _write(self, times: dict[str, Any]) -> None:
        content = json.dumps({"machine": self.machine, "seconds": times}, indent=1)
        part = self.path.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):
            part.write_text(content, encoding="utf-8")
            part.replace(self.path)


def _whole(times: object, shape: ConvShape) -> bool:
    """Whether these are positive times of all ways of the shape."""
    return (
        isinstance(times, dict)
        and set(times) == set(ways(shape))
        and all(isinstance(took, float) and 0 < took < float("inf") for took in times.values())
    )
