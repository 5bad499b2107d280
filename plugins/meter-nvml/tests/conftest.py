"""The fakes of `harness.testing`, under the names that these tests use."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pynvml
import pytest

from harness.testing import FakeCard, FakeClock, FakeNvml


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_nvml(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Installs a fake `pynvml` with the given cards."""

    def install(*cards: FakeCard) -> FakeNvml:
        fake = FakeNvml(pynvml, clock, *cards)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    return install


@pytest.fixture
def make_card() -> type[FakeCard]:
    return FakeCard
