"""Cards that torch and NVML agree on, without a driver: their power limits and clocks can be set."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.testing import FakeCard, FakeClock, FakeNvml


class WallClock(FakeClock):
    """The machine's own time since the start; a read costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._began_s = time.monotonic()

    @property
    def s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began_s

    def sleep(self, duration_s: float) -> None:
        """It passes by itself."""


@pytest.fixture
def make_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., FakeNvml]:
    """Installs cards, seen by torch under CUDA in this order, and by NVML; locks lie in a folder of the test."""
    import pynvml
    import torch

    def install(*cards: FakeCard, clock: FakeClock | None = None) -> FakeNvml:
        fake = FakeNvml(pynvml, clock or FakeClock(), *cards)

        def properties(index: int) -> SimpleNamespace:
            card = cards[index]
            return SimpleNamespace(uuid=card.uuid.removeprefix("GPU-"), name=card.name, total_memory=10**9)

        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path / "locks"))
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        for name, answer in {
            "is_available": lambda: True,
            "device_count": lambda: len(cards),
            "get_device_properties": properties,
            "get_device_capability": lambda _: (9, 0),
            "set_device": lambda _: None,
            "synchronize": lambda _: None,
            "empty_cache": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        return fake

    return install


@pytest.fixture
def wall_clock() -> WallClock:
    """Real time, for cards that are measured in it."""
    return WallClock()
