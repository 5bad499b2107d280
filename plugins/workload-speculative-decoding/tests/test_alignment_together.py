"""Two processes align a draft together: the same losses as one process, each pair counted once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.testing import RecordingWindow, trial_context

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(saved_model: Callable[..., str], tmp_path: Path, data: str) -> tuple[str, str]:
    """A base model, and a file of pairs."""
    return saved_model(tmp_path / "base"), data


def aligned(folders: tuple[str, str], folder: Path, processes: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of one window, and the quality afterwards."""
    import torch
    from harness_speculative_decoding.options import DraftAlignmentOptions
    from harness_speculative_decoding.workloads.draft_alignment import DraftAlignment

    from harness.backend import Backend

    class Cpu(Backend):
        @property
        def device(self) -> torch.device:
            return torch.device("cpu")

        def open(self) -> tuple[()]:
            return ()

    base, data = folders
    options = DraftAlignmentOptions(
        base=base, data=data, batch=10, epochs=1, fine_tune=True, warm_up_steps=0, processes=processes, accumulate=2
    )
    workload = DraftAlignment(options)
    folder.mkdir()
    try:
        workload.prepare(trial_context(folder, Cpu()))
        assert len(workload.processes()) == processes - 1
        window = RecordingWindow(iterations=1)
        workload.run(window)
        assert workload.facts()["processes"] == processes
        return list(window.rows), dict(workload.validate())
    finally:
        workload.close()


def test_two_processes_are_the_same_alignment_as_one(folders: tuple[str, str], tmp_path: Path) -> None:
    alone, quality = aligned(folders, tmp_path / "one", 1)
    both, same = aligned(folders, tmp_path / "two", 2)
    assert len(alone) == len(both) > 4
    for one, two in zip(alone, both, strict=True):
        for column in ("pairs", "answers", "tokens"):
            assert two[column] == one[column], "each is counted once"
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert same == pytest.approx(quality, rel=1e-3, abs=1e-4)
