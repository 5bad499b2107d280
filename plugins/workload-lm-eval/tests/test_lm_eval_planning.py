"""What is wrong with a suite is said while it is planned: without lm-eval, torch or a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness_lm_eval import task_files
from harness_lm_eval.checks import cannot_run, check, is_cached, leaf_tasks
from harness_lm_eval.options import LmEvalOptions
from harness_lm_eval.scoring import PREFERRED
from pydantic import ValidationError

from harness import Unavailable
from harness.suite_paths import OptionFault

ENDPOINT = {"url": "http://127.0.0.1:9/v1", "model": "m"}


def faults(**options: Any) -> list[OptionFault]:
    return list(check(LmEvalOptions.model_validate({"model": "builtin:tiny", **options})))


def test_tasks_of_lm_eval_and_own_ones_are_known(task_folder: Path) -> None:
    own = ["own_choice", "own_tag", "own_group", "own_generation"]
    known = ["arc_easy", "gsm8k", "mmlu", "ai2_arc", "wikitext", "hellaswag"]
    assert faults(tasks=own, include_path=str(task_folder)) == []
    assert faults(tasks=[*own, *known], include_path=str(task_folder)) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("own_choise", "own_choice"), ("arc_esay", "arc_easy"), ("own_taks", "own_tag")],
    ids=["own", "of lm-eval", "tag"],
)
def test_an_unknown_task_is_refused_with_the_nearest_name(task_folder: Path, name: str, hint: str) -> None:
    (fault,) = faults(tasks=[name], include_path=str(task_folder))
    assert (fault.option, fault.message) == ("tasks", f"there is no task {name!r}")
    assert "own_choice" in fault.accepted
    assert fault.hint == f"did you mean {hint!r}?"


def test_a_folder_without_tasks_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    (fault,) = faults(tasks=["own"], include_path=str(tmp_path))
    assert f"no file in {tmp_path} names a task" in fault.accepted
    first = faults(tasks=["arc_easy"], include_path=str(tmp_path / "gone"))
    assert [fault.option for fault in first] == ["include_path"]


@pytest.mark.parametrize(
    ("task", "metric", "accepted"),
    [
        ("own_choice", "acc_nrm", "acc, acc_norm"),
        ("own_rolling", "acc", "word_perplexity, byte_perplexity, bits_per_byte"),
        ("own_generation", "exact_match,leter", "first-word, letter"),
        ("gsm8k", "acc", "exact_match"),
    ],
)
def test_a_metric_that_a_task_has_not_is_refused(task_folder: Path, task: str, metric: str, accepted: str) -> None:
    (fault,) = faults(tasks=[task], include_path=str(task_folder), metric=metric)
    assert (fault.option, fault.accepted) == ("metric", accepted)


def test_a_metric_that_a_task_has_is_taken(task_folder: Path) -> None:
    assert faults(tasks=["own_choice"], include_path=str(task_folder), metric="acc_norm") == []
    assert faults(tasks=["own_generation"], include_path=str(task_folder), metric="exact_match,letter") == []


def test_data_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "task: a\ndataset_path: json\ndataset_kwargs: {data_files: {test: gone.jsonl}}\noutput_type: multiple_choice\n"
    )
    (fault,) = faults(tasks=["a"], include_path=str(tmp_path))
    assert "gone.jsonl" in fault.message
    (tmp_path / "gone.jsonl").write_text("{}\n")
    assert faults(tasks=["a"], include_path=str(tmp_path)) == []


def test_a_task_that_runs_code_or_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\nunsafe_code: true\ndataset_path: json\n")
    (tmp_path / "b.yaml").write_text("task: b\nmetric_list: [\n")
    (tmp_path / "c.yaml").write_text("task: c\ninclude: c.yaml\n")
    found = faults(tasks=["a", "b", "c"], include_path=str(tmp_path))
    assert ["runs code" in found[0].message, "not YAML" in found[1].message, "includes" in found[2].message] == [
        True
    ] * 3


def test_a_model_that_is_not_there_is_refused() -> None:
    (fault,) = faults(tasks=["arc_easy"], model="builtin:tinny")
    assert (fault.option, fault.hint) == ("model", "did you mean 'tiny'?")


def test_log_likelihoods_need_a_tokenizer_and_the_completions_api(task_folder: Path) -> None:
    own = {"include_path": str(task_folder), "model": ""}
    (fault,) = faults(tasks=["own_choice"], endpoint=ENDPOINT, **own)
    assert fault.option == "endpoint.tokenizer"
    (fault,) = faults(tasks=["own_choice"], endpoint={**ENDPOINT, "api": "chat"}, **own)
    assert fault.option == "endpoint.api"
    assert faults(tasks=["own_generation"], endpoint={**ENDPOINT, "api": "chat"}, **own) == []


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": ["a"]},
        {"tasks": ["a"], "model": "m", "endpoint": ENDPOINT},
        {"tasks": [], "model": "m"},
        {"tasks": ["a", "a"], "model": "m"},
        {"tasks": ["a"], "endpoint": ENDPOINT, "batch": 4},
        {"tasks": ["a"], "endpoint": {**ENDPOINT, "url": "http://key:secret@host/v1"}},
        {"tasks": ["a"], "endpoint": {**ENDPOINT, "url": "host:80"}},
        {"tasks": ["a"], "model": "m", "limit": 0},
    ],
    ids=["neither", "both", "no task", "twice", "batch of a server", "secret", "no scheme", "limit"],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LmEvalOptions.model_validate(options)


def test_a_hub_task_is_skipped_offline_unless_its_data_were_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    options = LmEvalOptions(tasks=["arc_easy"], model="builtin:tiny")
    assert cannot_run(options) is None, "there may be a network"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = cannot_run(options)
    assert isinstance(found, Unavailable)
    assert "allenai/ai2_arc" in found.reason
    assert "HF_HUB_OFFLINE" in found.reason
    for folder in ("datasets/allenai___ai2_arc", "hub/datasets--allenai--ai2_arc"):
        (tmp_path / folder).mkdir(parents=True)
        assert is_cached("allenai/ai2_arc")
        assert cannot_run(options) is None
        (tmp_path / folder).rmdir()


def test_local_data_need_no_network(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = LmEvalOptions(tasks=["own_choice"], include_path=str(task_folder), model="builtin:tiny")
    assert cannot_run(options) is None


def test_own_tasks_go_before_those_of_lm_eval(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: arc_easy\ndataset_path: json\n")
    options = LmEvalOptions(tasks=["arc_easy"], include_path=str(tmp_path), model="builtin:tiny")
    assert dict(leaf_tasks(options)) == {"arc_easy": tmp_path / "mine.yaml"}


def test_a_group_of_own_tasks_alone_does_not_wait_for_those_of_lm_eval(task_folder: Path, tmp_path: Path) -> None:
    from harness_lm_eval.tasks import is_own

    index = task_files.read_index(task_folder)
    assert is_own("own_group", index)
    assert is_own("own_tag", index)
    (tmp_path / "mixed.yaml").write_text("group: mixed\ntask: [own_choice, arc_easy]\n")
    mixed = task_files.read_index(tmp_path)
    mixed.tasks |= index.tasks
    assert not is_own("mixed", mixed)
    assert not is_own("arc_easy", mixed)


def test_planning_imports_neither_lm_eval_nor_torch(task_folder: Path) -> None:
    code = (
        "import sys\n"
        "from harness_lm_eval.checks import check, cannot_run\n"
        "from harness_lm_eval.options import LmEvalOptions\n"
        "options = LmEvalOptions(tasks=['arc_easy', 'own_choice'], include_path=sys.argv[1], model='builtin:tiny')\n"
        "assert not list(check(options)) and cannot_run(options) is None\n"
        "print(sorted({'torch', 'lm_eval', 'datasets', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(task_folder)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.slow
def test_the_index_has_every_name_of_lm_evals_own() -> None:
    from harness_lm_eval.quiet import quiet

    with quiet():
        from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY  # type: ignore[import-untyped]
        from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

        manager = TaskManager()
    index = task_files.own_index()
    assert {name for name in manager.all_tasks if name not in index} == set()
    assert set(index.tasks) - set(manager.all_tasks) == set()
    assert {kind: list(names) for kind, names in task_files.DEFAULT_METRICS.items()} == DEFAULT_METRIC_REGISTRY


def test_the_preferred_metrics_are_columns() -> None:
    from harness_lm_eval.columns import METRICS

    assert set(PREFERRED) <= set(METRICS)
