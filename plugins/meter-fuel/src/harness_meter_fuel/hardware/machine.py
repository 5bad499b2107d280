"""Which accelerators and processors this machine has, read from its files alone: no driver library is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KB_PER_GB: Final = 1e6 / 1.024
"""`MemTotal` counts units of 1024 bytes and calls them kB."""


@dataclass(frozen=True, slots=True)
class Found:
    """A device as the kernel or its driver names it. `kind` is `gpu`, `cpu` or `dram`; `gb` is the size of memory."""

    kind: str
    name: str
    gb: float | None = None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def _fields(text: str, key: str) -> Iterator[str]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key and value.strip():
            yield value.strip()


def read(root: Path = Path("/")) -> list[Found]:
    """Accelerators, one kind of processor and memory; what the system does not tell is not there.

    Args:
        root: where `proc` and `sys` lie.
    """
    found = []
    for each in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        found += [Found("gpu", name) for name in _fields(_text(each), "Model")]
    for each in sorted(root.glob("sys/class/drm/card*/device/product_name")):
        found += [Found("gpu", name) for name in _text(each).splitlines()[:1] if name]
    board = _text(root / "proc/device-tree/model")
    if "Jetson" in board:
        found.append(Found("gpu", board))
    found += [Found("cpu", name) for name in [*_fields(_text(root / "proc/cpuinfo"), "model name")][:1]]
    for size in [*_fields(_text(root / "proc/meminfo"), "MemTotal")][:1]:
        number = size.split()[0]
        if number.isdecimal():
            found.append(Found("dram", "DRAM", int(number) / _KB_PER_GB))
    return found
