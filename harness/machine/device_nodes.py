"""The node under /dev of a device, found without its driver's library."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NVIDIA: Final = Path("/proc/driver/nvidia/gpus")
"""A folder a card, with a file `information`; containers of NVIDIA's toolkit see those of their cards."""


def device_node(uuid: str, root: Path = NVIDIA, dev: Path = Path("/dev")) -> Path | None:
    """The node of a device by its UUID; None for a processor, a part of a card, or a driver that does not say.

    Args:
        uuid: as the driver names it.
        root: folder of NVIDIA's cards.
        dev: folder of the nodes.
    """
    if not uuid.startswith("GPU-"):
        return None
    try:
        files = sorted(root.glob("*/information"))
        for file in files:
            said = _fields(file.read_text(encoding="utf-8", errors="replace"))
            if said.get("GPU UUID") == uuid and said.get("Device Minor", "").isdigit():
                return dev / f"nvidia{said['Device Minor']}"
    except OSError:
        return None
    return None


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
