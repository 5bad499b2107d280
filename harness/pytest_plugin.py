"""Fixtures for tests of plugins, loaded by pytest through an entry point; imports nothing until one is asked for.

`harness_clock`, `harness_powercap`, `harness_accelerator`, `harness_nvml`: fakes of what a machine has.
`harness_contract`: the checks of `harness plugins --check`, as one assertion per plugin spec.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.builtin.simulated_accelerator import SimulatedAccelerator
    from harness.testing import Check, FakeCard, FakeClock, FakeNvml, PowercapTree


@pytest.fixture
def harness_clock() -> FakeClock:
    """A monotonic clock that goes only when it is told to."""
    from harness.testing import FakeClock

    return FakeClock()


@pytest.fixture
def harness_powercap(tmp_path: Path) -> PowercapTree:
    """An empty powercap tree in a folder."""
    from harness.testing import PowercapTree

    return PowercapTree(tmp_path / "powercap")


@pytest.fixture
def harness_accelerator(harness_clock: FakeClock) -> Iterator[SimulatedAccelerator]:
    """An accelerator with a known power curve on `harness_clock`, which meter `simulated` finds as `SIM-0`."""
    from harness.builtin.simulated_accelerator import SimulatedAccelerator, attach, detach

    made = SimulatedAccelerator(clock=harness_clock)
    attach(made)
    yield made
    detach(made.uuid)


@pytest.fixture
def harness_nvml(harness_clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Puts a fake `pynvml` with the given cards, one by default, in the place of the installed one."""
    real = pytest.importorskip("pynvml")
    from harness.testing import FakeCard, FakeNvml

    def install(*cards: FakeCard) -> FakeNvml:
        fake = FakeNvml(real, harness_clock, *(cards or (FakeCard(),)))
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


@pytest.fixture
def harness_contract() -> Callable[[str], list[Check]]:
    """Checks the plugin specs of a name or distribution against their contracts; fails with each check that failed."""
    from harness.discovery.registry import load_plugins
    from harness.testing.contract import check_offer, chosen

    def run(name: str) -> list[Check]:
        registry = load_plugins()
        found: list[Check] = []
        for kind, offer in chosen(registry, name):
            checks = check_offer(kind, offer, registry)
            failed = [f"{check.sentence}: {check.detail}" for check in checks.failed]
            assert not failed, f"conformance check of {kind} {offer.spec.name} failed: " + "; ".join(failed)
            found += checks.found
        return found

    return run
