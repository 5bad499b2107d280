"""What a correct answer costs, from the suite to the record; and the suite that comes with the harness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness_lm_eval.checks import cannot_run, check
from harness_lm_eval.options import LmEvalOptions

from harness import Amount, Undefined, load_record

SUITES = Path(__file__).parents[3] / "suites"
RUN = """
suite: own
backend: {{name: torch, device: cpu}}
place: aws-frankfurt
meters: [cpu_time: {{watts_per_core: 4}}, fuel, scarf]
trials: 1
windows: {{count: 1, min_seconds: 0.1}}
warm_up: {{min_iterations: 0, max_iterations: 0}}
cases:
  - workload: lm-eval
    options: {{model: "builtin:tiny", include_path: {folder}}}
    matrix: {{tasks: [[own_choice], [own_never]]}}
    functional_units: {{correct_answer: {{sum: correct}}}}
"""
COSTS = ("energy_j", "carbon_operational_g", "water_l")


@pytest.mark.slow
def test_joules_grams_and_litres_per_correct_answer(task_folder: Path, tmp_path: Path) -> None:
    suite = tmp_path / "own.yaml"
    suite.write_text(RUN.format(folder=task_folder), encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(suite), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {}
    for file in (tmp_path / "store").rglob("record.json"):
        record = load_record(file.parent)
        (task,) = record.measurement.point["options"]["tasks"]
        records[task] = record
    right = records["own_choice"].units["correct_answer"]
    rows = len(records["own_choice"].measurement.workload["results"])
    assert rows == 1
    for name in COSTS:
        total, each = records["own_choice"].totals[name], right.costs[name]
        assert isinstance(total, Amount)
        assert isinstance(each, Amount), f"{name}: {each}"
        assert isinstance(right.count.achieved, float)
        assert each.value == pytest.approx(total.value / right.count.achieved)
    never = records["own_never"].units["correct_answer"]
    assert never.count.achieved == 0
    for name in COSTS:
        found = never.costs[name]
        assert isinstance(found, Undefined)
        assert "no answer was right by exact_match,first-word" in found.reason
        assert isinstance(records["own_never"].totals[name], Amount), "what it cost is known all the same"


def cases() -> list[LmEvalOptions]:
    content = yaml.safe_load((SUITES / "lm-eval.yaml").read_text(encoding="utf-8"))
    (case,) = content["cases"]
    folder = str(SUITES / case["options"]["include_path"])
    options = [{**case["options"], "include_path": folder, "model": model} for model in case["matrix"]["model"]]
    return [LmEvalOptions.model_validate(each) for each in options]


def test_the_suite_needs_nothing_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for options in cases():
        assert list(check(options)) == []
        assert cannot_run(options) is None


def test_the_suites_questions_have_one_right_answer_each_and_say_what_guessing_gets() -> None:
    shares = []
    for name in ("words", "grammar"):
        lines = (SUITES / "lm-eval" / f"documentation-{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({row["sentence"] + row["choices"][row["answer"]] for row in rows}) == len(rows)
        for row in rows:
            assert len(set(row["choices"])) == len(row["choices"]) >= 2
            assert 0 <= row["answer"] < len(row["choices"])
            shares.append(1 / len(row["choices"]))
    guessed = sum(shares) / len(shares)
    assert f"Guessing gets {guessed:.0%} of them right".replace("%", " %") in (SUITES / "lm-eval.yaml").read_text()


@pytest.mark.slow
def test_the_larger_model_of_the_suite_knows_more(asked: object) -> None:
    right = {}
    for options in cases():
        workload, _ = asked(**options.model_dump(exclude_unset=True))  # type: ignore[operator]
        results = workload.facts()["results"]
        right[options.model] = round(48 * results["documentation_words"]["acc,none"]) + round(
            82 * results["documentation_grammar"]["acc,none"]
        )
    assert 130 * 0.3 < right["builtin:tiny"] < right["builtin:small"] < 130
