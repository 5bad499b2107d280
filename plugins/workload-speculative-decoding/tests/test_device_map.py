"""A model spread over the devices of the backend, by transformers and accelerate: the same answers, nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.errors import UsageError
from harness.testing import RecordingWindow, trial_context


@pytest.fixture(scope="module")
def base(saved_model: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_model(tmp_path_factory.mktemp("base"), layers=2)


def decoded(base: str, folder: Path, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    import torch
    from harness_speculative_decoding.options import VanillaOptions
    from harness_speculative_decoding.workloads.decoding import Vanilla

    class Cpu(Backend):
        device = torch.device("cpu")
        devices = (torch.device("cpu"),)

        def open(self) -> tuple[()]:
            return ()

    prompts = folder / "prompts.txt"
    folder.mkdir()
    prompts.write_text("yes no\nmaybe\n", encoding="utf-8")
    made = Vanilla(VanillaOptions(target=base, prompts=str(prompts), max_new_tokens=8, **options))
    made.prepare(trial_context(folder, Cpu()))
    window = RecordingWindow(iterations=2)
    made.run(window)
    facts = dict(made.facts())
    made.close()
    return [each["tokens"] for each in window.outputs.values()], facts


def test_a_spread_model_gives_the_same_answers_and_the_record_says_where_it_lies(base: str, tmp_path: Path) -> None:
    plain, _ = decoded(base, tmp_path / "plain", temperature=0, fused=False, compile="off")
    spread, facts = decoded(base, tmp_path / "spread", temperature=0, device_map="balanced")
    assert spread == plain
    assert len(plain) == 2
    assert facts["target"]["device_map"] == {"cpu": 1}


def test_only_the_devices_of_the_backend_may_hold_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from harness_speculative_decoding.loading import Placement

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9 * (1 + device.index), 10**10))
    cards = (torch.device("cuda", 1), torch.device("cuda", 3))
    assert Placement("balanced", cards).settings() == {
        "device_map": "balanced",
        "max_memory": {1: int(1.8e9), 3: int(3.6e9)},
    }


def test_without_accelerate_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from harness_speculative_decoding import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UsageError, match="device_map needs accelerate; accepted: pip install accelerate"):
        loading.Placement("auto", (torch.device("cpu"),)).settings()
