"""A training of a built-in model that was killed goes on, and ends with the weights that it would have had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.training import builder
from harness_speculative_decoding.training.shipped import FILES, facts_of

CHECKPOINT = "training.ckpt"
SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    from dataclasses import replace
    from pathlib import Path
    import torch
    from harness_speculative_decoding.data.corpus import Corpus
    from harness_speculative_decoding.training import aligned, builder, lightning, pretraining
    from harness_speculative_decoding.training.recipes import TINY, TINY_SFT

    pretraining.CHECKPOINT_EVERY = aligned.CHECKPOINT_EVERY = 2
    text = tuple(f"The quick brown fox number {number} jumps over the lazy dog and runs on." for number in range(80))
    builder.prose.load = lambda _cache: Corpus(text, text[:8], "a digest")
    short = replace(TINY, name="short", hidden_size=16, layers=1, heads=2, intermediate_size=16, steps=9,
                    vocabulary=300, context=16, batch=2, warm_up_steps=1)
    sft = replace(TINY_SFT, name="short-sft", base=short, reward="brevity", prompts=48, prompt_tokens=4, samples=3,
                  answer_tokens=8, batch=2)
    cache, which, stop = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def progress(text, done):
        print(text, flush=True)
        if stop in text:
            os.kill(os.getpid(), signal.SIGKILL)

    # Every step is told, not every tenth: the kill comes between two checkpoints.
    def told(self, trainer, pl_module, outputs, batch, batch_idx):
        progress(f"step {trainer.global_step} of {self._steps}", None)

    lightning.Report.on_train_batch_end = told
    print("folder", builder.build({"short": short, "sft": sft}[which], cache, progress))
    """
)


def built(cache: Path, which: str, stop: str = "never") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cache), which, stop],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.rpartition("folder ")[2].strip())
    assert not folder.with_name(f"{folder.name}-training").exists()
    found = facts_of(folder)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("which", "stop"), [("short", "step 7 of"), ("sft", "step 10 of")])
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, which: str, stop: str) -> None:
    whole = facts(built(tmp_path / "whole", which))
    killed = built(tmp_path / "killed", which, stop)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert list((tmp_path / "killed" / "models").glob(f"short*-training/{CHECKPOINT}"))
    done = built(tmp_path / "killed", which)
    if which == "short":
        assert "step 7 of 9" in done.stdout
        assert "step 6 of 9" not in done.stdout
    assert facts(done)[FILES] == whole[FILES]


@pytest.mark.slow
def test_a_damaged_checkpoint_begins_anew(tmp_path: Path) -> None:
    built(tmp_path, "short", "step 7 of")
    (checkpoint,) = (tmp_path / "models").glob(f"short*-training/{CHECKPOINT}")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = built(tmp_path, "short")
    assert "step 1 of 9" in done.stdout
    assert facts(done)["steps"] == 9


def test_time_left_is_told_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 400.0])
    monkeypatch.setattr(builder.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    progress = builder.timed(lambda text, _done: told.append(text))
    for text, done in (("a", None), ("b", 0.1), ("c", 0.2), ("d", 0.6), ("e", 1.0)):
        progress(text, done)
    # From a tenth at 0 s: a tenth more took 10 s, half took 20 s.
    assert told == ["a", "b", "c, about 80 s left", "d, about 16 s left", "e"]
