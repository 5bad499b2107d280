"""Tasks of every kind with data beside them, a small model that answers, and no network."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend, Device
from harness.testing import RecordingWindow, trial_context

ROWS = [
    ("The function returns a", ["list", "lists", "listing"], 0),
    ("If the file does not", ["existing", "exist"], 1),
    ("Raise an exception if the argument is not", ["a string", "an string", "string a"], 0),
    ("The two values are", ["equals to", "equal"], 1),
    ("Open the file in binary", ["moods", "modes of", "mode"], 2),
    ("The decimal point is followed by six", ["files", "digits"], 1),  # too hard for `tiny`
]
MULTIPLE_CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
LIKELIHOOD = """
task: own_likelihood
dataset_path: json
dataset_kwargs: {data_files: {test: [choice.jsonl]}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{choices[answer]}}"
"""
ROLLING = """
task: own_rolling
dataset_path: json
dataset_kwargs: {data_files: choice.jsonl}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}. {{long}}"
"""
GENERATE = """
task: own_generation
tag: own_tag
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl, train: solved.jsonl}}
test_split: test
fewshot_split: train
num_fewshot: 2
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n\\n", "."], max_gen_toks: 12, do_sample: false}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
  - name: letter
    filter: [{function: regex, regex_pattern: "([a-z])"}, {function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
"""
TASKS = {
    "own_choice": MULTIPLE_CHOICE,
    "own_likelihood": LIKELIHOOD,
    "own_rolling": ROLLING,
    "own_generation": GENERATE,
}
NEVER = (
    GENERATE.replace("own_generation", "own_never")
    .replace("own_tag", "other_tag")
    .replace('doc_to_target: "{{choices[answer]}}"', 'doc_to_target: "no model says this"')
)
GROUP = """
group: own_group
task: [own_choice, own_likelihood]
"""


def long_text(number: int) -> str:
    """More than one context of words, of which no stretch is like another."""
    return " ".join(f"Line {1000 * number + 7 * line} of the file is read." for line in range(60))


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": question, "choices": choices, "answer": answer, "long": long_text(number)}
        for number, (question, choices, answer) in enumerate(ROWS)
    ]
    for name, listed in (("choice", rows), ("solved", rows[::-1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    for name, text in {**TASKS, "own_never": NEVER, "own_group": GROUP}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets are prepared in a folder of this session."""
    place = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(place))
        import datasets  # type: ignore[import-untyped]

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", place)
        yield


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches for another machine fails."""
    reach = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1"}:
            raise AssertionError(f"reached for {address}")
        reach(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


class Cpu(Backend):
    """The CPU as PyTorch sees it, on one thread."""

    @property
    def device(self) -> Any:
        import torch

        return torch.device("cpu")

    def open(self) -> Sequence[Device]:
        import torch

        torch.set_num_threads(1)
        return [Device(kind="cpu", uuid="cpu", name="test")]


@pytest.fixture
def cpu() -> Backend:
    return Cpu()


Asked = Callable[..., tuple[Any, list[RecordingWindow]]]


@pytest.fixture
def asked(tmp_path: Path, data_sets: None, cpu: Backend) -> Iterator[Asked]:
    """Prepares the workload and runs windows; returns it, still open, and them."""
    opened: list[Any] = []

    def run(*, windows: int = 1, iterations: int = 1, **options: Any) -> tuple[Any, list[RecordingWindow]]:
        from harness_lm_eval.options import LmEvalOptions
        from harness_lm_eval.workload import LmEval

        cpu.open()
        made = LmEval(LmEvalOptions.model_validate(options))
        opened.append(made)
        made.prepare(trial_context(tmp_path, cpu))
        found = []
        for index in range(windows):
            window = RecordingWindow(iterations, index=index)
            made.run(window)
            made.after_window(window)
            found.append(window)
        return made, found

    yield run
    for each in opened:
        each.close()


@pytest.fixture
def evaluated(task_folder: Path, data_sets: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What lm-eval itself makes of tasks; its relative data files are read in the working folder."""

    def evaluate(lm: Any, tasks: Sequence[str], **options: Any) -> dict[str, Any]:
        import lm_eval  # type: ignore[import-untyped]
        from harness_lm_eval.quiet import quiet
        from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

        monkeypatch.chdir(task_folder)
        with quiet():
            manager = TaskManager(include_path=str(task_folder), include_defaults=False)
            found: dict[str, Any] = lm_eval.simple_evaluate(
                model=lm, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options
            )
        return found

    return evaluate


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """lm-eval's own model object with the weights of `builtin:tiny`."""

    def load(batch: int = 1) -> Any:
        import harness_speculative_decoding
        from harness_lm_eval.quiet import quiet
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped]
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = str(Path(str(harness_speculative_decoding.__file__)).parent / "models" / "tiny")
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)

    return load
