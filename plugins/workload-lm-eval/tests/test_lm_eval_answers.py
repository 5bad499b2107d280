"""A local model's answers: lm-eval's own to the item, asked anew in every window, counted in tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness_lm_eval as plugin
import pytest
from harness_lm_eval.columns import UNITS
from harness_lm_eval.documents import Answered, Document
from harness_lm_eval.options import LmEvalOptions
from harness_lm_eval.scoring import score

from harness import Amount, Method, Undefined, UsageError
from harness.backend import Backend
from harness.errors import MeasurementError
from harness.functional_unit import count, per_unit
from harness.testing import RecordingWindow, check_offers, check_workload

pytestmark = pytest.mark.usefixtures("no_network")
KINDS = ("own_choice", "own_likelihood", "own_rolling", "own_generation")
(SPEC,) = plugin.harness_workloads()


def by_document(window: RecordingWindow, task: str, asked: int = 0) -> dict[int, dict[str, Any]]:
    mark = f"w{window.index}-p{asked}-{task}-"
    return {
        int(str(row["item_id"]).removeprefix(mark)): row for row in window.rows if str(row["item_id"]).startswith(mark)
    }


def metrics_of(window: RecordingWindow, task: str, asked: int = 0) -> dict[tuple[int, str], Any]:
    """(document, filter's metric) -> value, as the window's outputs tell them."""
    found = {}
    for document, row in by_document(window, task, asked).items():
        told: Any = window.outputs[str(row["item_id"])]
        found |= {(document, name): value for name, value in told["metrics"].items()}
    return found


def of_lm_eval(results: dict[str, Any], task: str) -> dict[tuple[int, str], Any]:
    found = {}
    for sample in results["samples"][task]:
        for metric in sample["metrics"]:
            value = sample[metric]
            value = list(value) if isinstance(value, tuple) else float(value)
            found[int(sample["doc_id"]), f"{metric},{sample['filter']}"] = value
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_every_document_scores_as_in_lm_evals_own_evaluation(
    asked: Any, evaluated: Any, tiny: Any, task_folder: Path, batch: int
) -> None:
    workload, (window,) = asked(
        tasks=list(KINDS), include_path=str(task_folder), model="builtin:tiny", batch=batch, dtype="float32"
    )
    results = evaluated(tiny(batch), KINDS)
    for task in KINDS:
        expected = of_lm_eval(results, task)
        assert len(expected) >= 5
        found = metrics_of(window, task)
        assert found.keys() == expected.keys()
        if batch == 1:
            assert found == expected
        else:  # other neighbours in a batch, other padding: the last bits of a log-likelihood differ
            assert found == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}
        own = {key: value for key, value in results["results"][task].items() if "," in key and "stderr" not in key}
        assert workload.facts()["results"][task] == pytest.approx(own, rel=1e-6)
    correct = [row["correct"] for row in by_document(window, "own_choice").values()]
    assert sum(correct) / len(correct) == results["results"]["own_choice"]["acc,none"]
    assert 0 < sum(correct) < len(correct)


def test_fewer_documents_and_other_examples_are_lm_evals_too(
    asked: Any, evaluated: Any, tiny: Any, task_folder: Path
) -> None:
    settings = {"limit": 3, "num_fewshot": 1, "gen_kwargs": {"max_gen_toks": 5}, "system_instruction": "Answer."}
    _, (window,) = asked(
        tasks=["own_generation"], include_path=str(task_folder), model="builtin:tiny", seed=7, **settings
    )
    results = evaluated(tiny(), ["own_generation"], fewshot_random_seed=7, **settings)
    assert metrics_of(window, "own_generation") == of_lm_eval(results, "own_generation")
    told: Any = list(window.outputs.values())
    samples = {sample["doc_id"]: sample["resps"] for sample in results["samples"]["own_generation"]}
    assert {each["document"]: each["answers"] for each in told} == samples
    assert len(told) == 3


def test_a_group_and_a_tag_are_their_tasks(asked: Any, task_folder: Path) -> None:
    _, (window,) = asked(tasks=["own_group", "own_tag"], include_path=str(task_folder), model="builtin:tiny", limit=1)
    tasks = {told["task"] for told in window.outputs.values()}
    assert tasks == {"own_choice", "own_likelihood", "own_generation"}


def test_every_window_computes_anew_and_holds_whole_passes(
    asked: Any, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_lm_eval.local_model import CountingModel

    passes: list[int] = []
    computed = CountingModel._model_call

    def call(self: Any, inps: Any, *more: Any) -> Any:
        passes.append(inps.numel())
        return computed(self, inps, *more)

    monkeypatch.setattr(CountingModel, "_model_call", call)
    workload, windows = asked(
        windows=2, iterations=7, tasks=["own_choice"], include_path=str(task_folder), model="builtin:tiny"
    )
    assert [len(window.rows) for window in windows] == [12, 12], "two passes of six documents are the least over seven"
    assert len(passes) % 4 == 0
    quarter = len(passes) // 4
    assert passes == passes[:quarter] * 4
    first, second = windows
    assert metrics_of(first, "own_choice") == metrics_of(first, "own_choice", 1) == metrics_of(second, "own_choice")
    warming = RecordingWindow(1, index=-1)
    workload.run(warming)
    assert warming.iteration == 1
    assert len(passes) < 5 * quarter


def test_generated_tokens_are_those_that_the_model_made(
    asked: Any, task_folder: Path, tiny: Callable[..., Any]
) -> None:
    workload, (window,) = asked(
        tasks=["own_generation"], include_path=str(task_folder), model="builtin:tiny", gen_kwargs={"until": []}
    )
    lm = tiny()
    for document in workload._documents:
        ids = lm.tokenizer(document.instances[0].args[0], return_tensors="pt")
        made = lm.model.generate(**ids, max_new_tokens=12, do_sample=False)
        row = by_document(window, "own_generation")[document.number]
        assert row["input_tokens"] == ids["input_ids"].shape[1]
        assert row["output_tokens"] == made.shape[1] - ids["input_ids"].shape[1]


def test_log_likelihoods_have_no_output_tokens_and_perplexity_has_words(asked: Any, task_folder: Path) -> None:
    _, (window,) = asked(
        tasks=["own_choice", "own_rolling"], include_path=str(task_folder), model="builtin:tiny", limit=2
    )
    choice, rolling = by_document(window, "own_choice"), by_document(window, "own_rolling")
    assert [row["output_tokens"] for row in (*choice.values(), *rolling.values())] == [None] * 4
    assert [row["requests"] for row in choice.values()] == [2, 3] or [row["requests"] for row in choice.values()] == [
        3,
        2,
    ]
    assert all("correct" not in row for row in rolling.values())
    assert all(row["logprob"] < 0 < row["words"] < row["bytes"] for row in rolling.values())
    assert all(row["input_tokens"] > 256 for row in rolling.values()), "several stretches of the model's context"


def choices_with(task_folder: Path, folder: Path, *answers: int | None) -> str:
    """A folder with a task of multiple choice whose documents have these right answers; returns it."""
    documents = [
        {"question": f"The file number {at} has a", "choices": ["list", "name"], "answer": answer}
        for at, answer in enumerate(answers)
    ]
    own = folder / "own tasks"
    own.mkdir()
    (own / "choice.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
    task = (task_folder / "own_choice.yaml").read_text(encoding="utf-8")
    (own / "t.yaml").write_text(task.replace("own_choice", "own_holes"), encoding="utf-8")
    return str(own)


def test_a_document_without_a_right_answer_is_named_before_a_window(
    asked: Any, task_folder: Path, tmp_path: Path
) -> None:
    own = choices_with(task_folder, tmp_path, 0, None, 1)
    with pytest.raises(MeasurementError, match="document 1 of task own_holes has no right answer: its target is None"):
        asked(tasks=["own_holes"], include_path=own, model="builtin:tiny", windows=0)


def test_a_right_answer_that_is_no_choice_counts_as_wrong_and_is_told(
    asked: Any, task_folder: Path, tmp_path: Path
) -> None:
    """As lm-eval counts it: a label behind the last choice, and the -1 of a test split whose labels are hidden."""
    own = choices_with(task_folder, tmp_path, 0, 7, 1, -1)
    workload, (window,) = asked(tasks=["own_holes"], include_path=own, model="builtin:tiny")
    found = by_document(window, "own_holes")
    assert found[1]["correct"] == found[3]["correct"] == 0.0
    told = "2 documents of own_holes (1, 3) have no right answer among their choices and count as wrong"
    assert told in workload.flags()


def generation_with(folder: Path, target: str, *answers: object, more: str = "") -> str:
    """A folder with a task of generation whose documents have these right answers; returns it."""
    rows = [{"question": f"The file number {at} has a", "answer": answer} for at, answer in enumerate(answers)]
    (folder / "own.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    (folder / "own.yaml").write_text(
        "task: own_gaps\ndataset_path: json\ndataset_kwargs: {data_files: {test: own.jsonl}}\ntest_split: test\n"
        f"output_type: generate_until\ndoc_to_text: question\ndoc_to_target: {target}\n{more}"
        "generation_kwargs: {until: ['.'], max_gen_toks: 4}\n",
        encoding="utf-8",
    )
    return str(folder)


@pytest.mark.parametrize(
    ("target", "answers", "more"),
    [
        ("answer", ("list", None), ""),
        ("answer", (["list"], []), ""),
        ("answer", (0, -1), "doc_to_choice: [list, name]\n"),
    ],
    ids=["null", "no texts", "last choice"],
)
def test_a_generation_without_a_right_answer_is_named_before_a_window(
    asked: Any, tmp_path: Path, target: str, answers: tuple[object, ...], more: str
) -> None:
    own = generation_with(tmp_path, target, *answers, more=more)
    with pytest.raises(MeasurementError, match="document 1 of task own_gaps has no right answer: its target is "):
        asked(tasks=["own_gaps"], include_path=own, model="builtin:tiny", windows=0)


def test_a_right_answer_that_a_template_left_blank_is_told(asked: Any, tmp_path: Path) -> None:
    own = generation_with(tmp_path, "'{{answer}}'", "list", None, " ", "name")
    workload, (window,) = asked(tasks=["own_gaps"], include_path=own, model="builtin:tiny")
    found = by_document(window, "own_gaps")
    assert found[1]["correct"] == found[2]["correct"] == 0.0
    told = "2 documents of own_gaps (1, 2) have an empty text or None as right answer, and any other counts as wrong"
    assert told in workload.flags()


def test_a_task_that_scores_nothing_needs_no_right_answer(asked: Any, tmp_path: Path) -> None:
    own = generation_with(tmp_path, "answer", "list", None, more="metric_list: [{metric: bypass}]\n")
    workload, (window,) = asked(tasks=["own_gaps"], include_path=own, model="builtin:tiny")
    assert [row["status"] for row in window.rows] == ["ok", "ok"]
    assert not any("right answer" in flag for flag in workload.flags())


def test_an_answer_that_a_task_cannot_score_is_named_by_its_document() -> None:
    class Broken:
        """A task whose own code fails on one document."""

        task_name = "own_broken"

        def __init__(self) -> None:
            self.instances: list[Any] = []

        def apply_filters(self) -> None:
            """Nothing is filtered."""

        def process_results(self, doc: dict[str, int], results: list[Any]) -> dict[str, float]:
            return {"acc": 1.0 / doc["divisor"]}

    requests = [
        SimpleNamespace(doc={"divisor": divisor}, filtered_resps={"none": [(-1.0, False)]}) for divisor in (1, 0)
    ]
    documents = [Document("own_broken", 4 + at, "loglikelihood", (each,)) for at, each in enumerate(requests)]
    answered = [Answered(each, list(each.instances), 0.0, 0.0, None, None) for each in documents]
    with pytest.raises(MeasurementError, match="own_broken does not score its answers of document 5: ZeroDivision"):
        score(Broken(), answered)


def test_no_correct_answer_is_undefined_and_says_why(asked: Any, task_folder: Path) -> None:
    workload, (window,) = asked(tasks=["own_never"], include_path=str(task_folder), model="builtin:tiny")
    counted = count(UNITS["correct_answer"], window.rows)
    assert counted.achieved == 0.0
    found = per_unit(Amount.of(12.0, "J", Method.COUNTER), "correct_answer", counted)
    assert isinstance(found, Undefined)
    assert workload.why_zero() == {"correct": "no answer was right by exact_match,first-word"}


@pytest.mark.parametrize(
    ("metric", "filled"), [("acc_norm", "acc_norm"), ("acc", "acc"), ("", "acc")], ids=["acc_norm", "acc", "default"]
)
def test_the_suite_says_which_metric_counts(asked: Any, task_folder: Path, metric: str, filled: str) -> None:
    workload, (window,) = asked(
        tasks=["own_choice"], include_path=str(task_folder), model="builtin:tiny", metric=metric
    )
    assert [row["correct"] for row in window.rows] == [row[filled] for row in window.rows]
    assert workload.facts()["metric"] == {"own_choice": f"{filled},none"}


def test_a_filter_says_which_of_two_answers_counts(asked: Any, task_folder: Path) -> None:
    _, (window,) = asked(
        tasks=["own_generation"], include_path=str(task_folder), model="builtin:tiny", metric="exact_match,letter"
    )
    told: Any = window.outputs
    for row in window.rows:
        metrics = told[str(row["item_id"])]["metrics"]
        assert row["correct"] == row["exact_match"] == metrics["exact_match,letter"]


@pytest.mark.parametrize("metric", ["acc_nrm", "word_perplexity", "acc,strict"])
def test_a_metric_that_is_no_number_of_a_document_is_refused(asked: Any, task_folder: Path, metric: str) -> None:
    task = "own_rolling" if metric.startswith("word") else "own_choice"
    with pytest.raises(UsageError, match=metric):
        asked(tasks=[task], include_path=str(task_folder), model="builtin:tiny", metric=metric)


def test_answers_longer_than_the_context_are_refused_before_a_window(asked: Any, task_folder: Path) -> None:
    with pytest.raises(UsageError, match="context holds 256"):
        asked(
            tasks=["own_generation"],
            include_path=str(task_folder),
            model="builtin:tiny",
            gen_kwargs={"max_gen_toks": 256},
        )


def test_documents_that_are_cut_are_told(asked: Any, task_folder: Path) -> None:
    workload, _ = asked(
        tasks=["own_generation"], include_path=str(task_folder), model="builtin:tiny", gen_kwargs={"max_gen_toks": 250}
    )
    assert any("do not fit the model's context of 256 tokens" in flag for flag in workload.flags())


def test_a_chat_template_that_is_not_there_is_told(asked: Any, task_folder: Path) -> None:
    with pytest.raises(MeasurementError, match="chat template"):
        asked(tasks=["own_choice"], include_path=str(task_folder), model="builtin:tiny", apply_chat_template=True)


def test_the_workload_keeps_its_contract(task_folder: Path, cpu: Backend, tmp_path: Path, data_sets: None) -> None:
    assert check_offers("harness_lm_eval") == ["workloads:lm-eval"]
    options = {"tasks": ["own_choice"], "include_path": str(task_folder), "model": "builtin:tiny"}
    window = check_workload(SPEC, options, cpu, tmp_path, iterations=2)
    assert len(window.rows) == 6


def test_what_is_fetched_is_there_already(task_folder: Path, tmp_path: Path, data_sets: None) -> None:
    from harness_lm_eval.workload import LmEval

    from harness.workload import FetchContext

    told: list[str] = []
    options = LmEvalOptions(tasks=["own_choice"], include_path=str(task_folder), model="builtin:tiny")
    context = FetchContext(cache=tmp_path, progress=lambda text, _: told.append(text), log=told.append)
    LmEval(options).fetch(context)
    assert not [text for text in told if "fetching" in text]
