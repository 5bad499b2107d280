"""Two processes train together: what is counted once, what is charged to both, and that they are one training."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.testing import until

pytestmark = pytest.mark.slow


class FakeWindow:
    """Ends after so many steps; keeps what is written."""

    def __init__(self, index: int, steps: int) -> None:
        self.index, self._left = index, steps + 1
        self.iteration = 0
        self.items: list[dict[str, Any]] = []
        self.devices: list[str] = []

    def wants_more(self) -> bool:
        self._left -= 1
        return self._left > 0

    def now_s(self) -> float:
        return float(len(self.items))

    def item(self, name: str, **columns: Any) -> None:
        self.items.append({"id": name, **columns})

    def device(self, uuid: str, **_: float) -> None:
        self.devices.append(uuid)


@pytest.fixture
def training(tmp_path: Path) -> Any:
    """Opens a training; all that were opened are closed."""
    import torch
    from harness_semantic_segmentation.workloads.options import TrainingOptions
    from harness_semantic_segmentation.workloads.training import Training

    opened = []

    def start(folder: str, **options: Any) -> Any:
        (tmp_path / folder).mkdir()
        made = Training(
            TrainingOptions(
                model="fpn",
                choices={"backbone": "tiny", "channels": 16},
                size=(32, 64),
                steps=6,
                batch=2,
                images=8,
                validation_images=2,
                **options,
            )
        )
        opened.append(made)
        cpu = torch.device("cpu")
        context = SimpleNamespace(
            backend=SimpleNamespace(device=cpu, devices=(cpu,)),
            seed=3,
            folder=tmp_path / folder,
            progress=lambda *_: None,
        )
        made.prepare(context)
        return made

    yield start
    for each in opened:
        each.close()


def ran(training: Any, index: int, steps: int) -> FakeWindow:
    window = FakeWindow(index, steps)
    training.run(window)
    if index >= 0:
        training.after_window(window)
    return window


def test_two_processes_are_one_training_whose_steps_are_counted_once(training: Any, tmp_path: Path) -> None:
    import torch

    whole = training("whole", processes=2)
    (pid,) = whole.processes().values()
    assert list(whole.processes()) == ["rank1"]
    assert pid != os.getpid()
    ran(whole, -1, 1)
    first, second = ran(whole, 0, 2), ran(whole, 1, 2)
    items = [*first.items, *second.items]
    assert [item["id"] for item in items] == ["step-1", "step-2", "step-3", "step-4"]
    assert [item["images"] for item in items] == [4.0] * 4
    assert sum(item["optimizer_steps"] for item in items) == 4
    assert first.devices == ["cpu"]
    assert whole.facts()["processes"] == 2
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["checkpoint.pt"], "rank 0 alone writes"

    whole.close()
    before = training("before", processes=2)
    losses = [item["loss"] for item in ran(before, 0, 2).items]
    before.close()
    after = training("after", processes=2, resume=str(tmp_path / "before" / "checkpoint.pt"))
    losses += [item["loss"] for item in ran(after, 0, 2).items]
    assert losses == pytest.approx([item["loss"] for item in items], rel=1e-6), "stopped and resumed is the same"
    weights = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state_dict"] for name in ("whole", "after")
    ]
    assert all(torch.allclose(value, weights[1][key], atol=1e-6) for key, value in weights[0].items())


def test_the_energy_of_all_processes_is_charged(training: Any) -> None:
    from harness.builtin.cpu_time import CpuTimeMeter, CpuTimeOptions
    from harness.meter import MeterContext

    meter = CpuTimeMeter(CpuTimeOptions(watts_per_core=10.0))
    meter.open(MeterContext(pid=os.getpid()))
    both = training("both", processes=2)
    meter.attach(both.processes())
    before = meter.read()
    ran(both, 0, 4)
    after = meter.read()
    spent = {name: after.joules[name].joules - before.joules[name].joules for name in after.joules}
    assert spent["n0/process:rank1"] > 0
    assert spent["n0/process"] >= spent["n0/process:rank1"], "the tree of the trial holds its ranks"


def test_a_process_that_is_gone_fails_the_trial_and_leaves_none(training: Any) -> None:
    import psutil

    from harness import MeasurementError

    both = training("both", processes=2)
    (pid,) = both.processes().values()
    psutil.Process(pid).kill()
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises((MeasurementError, RuntimeError)):
        ran(both, 0, 2)
    both.close()
    assert not psutil.pid_exists(pid)


def test_processes_that_fit_no_devices_are_refused() -> None:
    import torch
    from harness_backend_torch.together import member_devices

    from harness import UsageError

    cards = [torch.device("cuda", number) for number in range(2)]
    assert member_devices(cards, None) == tuple(cards)
    assert member_devices(cards, 2) == tuple(cards)
    with pytest.raises(UsageError, match="3 processes on 2 devices"):
        member_devices(cards, 3)
    assert len(member_devices([torch.device("cpu")], 3)) == 3
