from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness_speculative_decoding.checks import check
from harness_speculative_decoding.options import BestOfNOptions, DraftAlignmentOptions, VanillaOptions


def test_missing_models_prompts_and_rewards_are_found_without_torch(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wrong = BestOfNOptions(target="builtin:smal", prompts=str(tmp_path / "gone.txt"), reward="./gone")
    found = list(check(wrong))
    assert [fault.option for fault in found] == ["target", "prompts", "reward"]
    assert found[0].hint == "did you mean 'small'?"
    assert "config.json" in next(iter(check(VanillaOptions(target=str(tmp_path / "empty"))))).message
    assert [fault.option for fault in check(DraftAlignmentOptions(data=str(tmp_path / "gone")))] == ["data"]
    assert not list(check(VanillaOptions(target="facebook/opt-125m")))
    code = "import sys, harness_speculative_decoding.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
