"""Loads tasks and builds their requests as `lm_eval.simple_evaluate` does, with data files found beside task files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from lm_eval.api.task import ConfigurableTask  # type: ignore[import-untyped]
from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

from harness.errors import HarnessError, MeasurementError, UsageError
from harness_lm_eval import task_files
from harness_lm_eval.checks import indexes, leaf_tasks
from harness_lm_eval.documents import Document
from harness_lm_eval.options import LmEvalOptions

EXAMPLES_SEED: Final = 1234
"""lm-eval's own seed of few-shot examples and of NumPy (`DEFAULT_OTHER_SEED`); that of `random` is 0."""
_FAR: Final = frozenset(
    {"ConnectionError", "DatasetNotFoundError", "OfflineModeIsEnabled", "HfHubHTTPError", "RequestError"}
)
"""Classes of errors that say that the hub was not reached, or has no such data set."""
_BLANK: Final = frozenset({"", "None"})
"""What a template makes of an answer that is not there."""
_MOST_GROUPS: Final = 16
"""Groups within each other."""
_NOT_SUPPORTED: Final = {"UNSAFE_CODE": "runs code that the model writes", "MULTIMODAL": "shows pictures or sound"}
"""Attribute of lm-eval's tasks -> what it says of one."""


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seeds what tasks may draw from while they are loaded, as `simple_evaluate` does; afterwards all is as before.

    Args:
        seed: of all generators; None for lm-eval's own seeds.
    """
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - which tasks draw from
    random.seed(0 if seed is None else seed)
    np.random.seed(EXAMPLES_SEED if seed is None else seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def load(options: LmEvalOptions, folder: Path) -> dict[str, Any]:
    """The tasks by name, groups and tags resolved, set as the options say.

    Args:
        options: of the workload.
        folder: where files are written that name a task's data by absolute paths.

    Raises:
        UsageError: there is no such task, two are one, or one needs what is not supported.
        MeasurementError: its data cannot be had.
    """
    files = dict(leaf_tasks(options))
    own = indexes(options)[0] if options.include_path else task_files.TaskIndex()
    made = folder / "lm-eval-tasks"
    included = [*([options.include_path] if options.include_path else [])]
    included += [str(made)] if _write(own.tasks, made) else []
    alone = all(name in files or is_own(name, own) for name in options.tasks)
    manager = TaskManager(include_path=included or None, include_defaults=not alone)
    found: dict[str, Any] = {}
    for name in options.tasks:
        spec = str(files[name]) if name in files and name not in own.tasks else name
        try:
            loaded = manager.load([spec])["tasks"]
        except KeyError as error:
            raise UsageError(f"lm-eval does not load task {name!r}: {error}", where="tasks") from None
        except Exception as error:
            raise _not_loaded(name, error) from error
        if twice := sorted(found.keys() & loaded.keys()):
            raise UsageError(f"{name} names again what came before: {', '.join(twice)}", where="tasks")
        found |= loaded
    for name, task in found.items():
        for mark, why in _NOT_SUPPORTED.items():
            if getattr(task, mark, False):
                raise UsageError(f"task {name} {why}", where="tasks", accepted="a task of text that does not")
        _configure(task, options)
    return found


def is_own(name: str, own: task_files.TaskIndex, depth: int = 0) -> bool:
    """Whether a name and all that is in it are own tasks: reading lm-eval's takes seconds, and is then not needed."""
    if name not in own.groups or depth > _MOST_GROUPS:
        return name in own.tasks or name in own.tags
    try:
        members = task_files.read_config(own.groups[name]).get("task") or []
    except (OSError, ValueError):
        return False
    names = [each if isinstance(each, str) else None for each in (members if isinstance(members, list) else [members])]
    return all(each is not None and is_own(each, own, depth + 1) for each in names)


def _not_loaded(name: str, error: Exception) -> HarnessError:
    """What a person is told, whatever datasets, yaml or the task's own code raised."""
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    far = _FAR & {each.__name__ for each in type(error).__mro__}
    hint = "its data come from the hub: a first run needs a network, later ones do not" if far else ""
    return MeasurementError(f"task {name} cannot be loaded: {said}", where="tasks", hint=hint)


def _write(tasks: Mapping[str, Path], folder: Path) -> bool:
    """Writes files that include own tasks and name their data by absolute paths; says whether there are any."""
    written = False
    for name, path in tasks.items():
        try:
            config = task_files.read_config(path)
        except (OSError, ValueError):
            continue  # where it is asked for, lm-eval says what is wrong with it
        settings, _ = task_files.data_files(config, path.parent)
        if settings == (config.get("dataset_kwargs") or {}):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        content = {"include": str(path.resolve()), "task": name, "dataset_kwargs": settings}
        made = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.yaml"
        made.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        written = True
    return written


def _configure(task: Any, options: LmEvalOptions) -> None:
    """What `simple_evaluate` sets before it builds requests."""
    if task.get_config("output_type") == "generate_until" and options.gen_kwargs:
        task.set_config(key="generation_kwargs", value=dict(options.gen_kwargs), update=True)
    own = task.get_config("num_fewshot")
    if options.num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=options.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=EXAMPLES_SEED if options.seed is None else options.seed)


def build(tasks: Mapping[str, Any], options: LmEvalOptions, lm: Any) -> list[Document]:
    """The documents of all tasks with their requests, in lm-eval's order; nothing is cached.

    Raises:
        MeasurementError: a task's documents or templates do not fit together.
    """
    found = []
    for name, task in tasks.items():
        try:
            task.build_all_requests(
                limit=options.limit,
                rank=0,
                world_size=1,
                cache_requests=False,
                rewrite_requests_cache=False,
                system_instruction=options.system_instruction or None,
                apply_chat_template=options.chat,
                fewshot_as_multiturn=True,
                chat_template=lm.apply_chat_template if options.chat else None,
                tokenizer_name=lm.tokenizer_name if options.chat else "",
            )
        except Exception as error:
            told = f"requests of task {name} cannot be built: {type(error).__name__}: {error}"
            hint = "apply_chat_template needs a tokenizer with a chat template" if options.chat else ""
            raise MeasurementError(told, where="tasks", hint=hint) from error
        by_number: dict[int, list[Any]] = {}
        for instance in task.instances:
            by_number.setdefault(int(instance.doc_id), []).append(instance)
        for number, instances in by_number.items():
            instances.sort(key=lambda each: each.idx)
            found.append(Document(name, number, str(instances[0].request_type), tuple(instances)))
    return found


def without_right_answer(task: Any, documents: Sequence[Document]) -> list[int]:
    """Numbers of the documents whose right answer is none of their choices, or no text that a model would generate.

    lm-eval counts each of them as wrong whatever the model says, and only logs it; it does not even log a label of -1,
    which stands for a hidden one in many a test split, nor an answer that a template made an empty text or `None`.

    Raises:
        MeasurementError: a document has no right answer at all. lm-eval cannot score a choice without one, and
            compares a generated text with the text `None`; as a choice's number of a generated text, it takes -1 for
            the last choice.
    """
    own_code = type(task).process_results is not ConfigurableTask.process_results
    if own_code or callable(task.config.process_results) or "bypass" in task.aggregation():
        return []  # a task that scores by its own code, or not at all, knows what its documents hold
    if task.OUTPUT_TYPE not in {"multiple_choice", "generate_until"}:
        return []
    generated = task.OUTPUT_TYPE == "generate_until"
    found = []
    for each in documents:
        doc = each.instances[0].doc
        right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        answers = [answer for answer in (right if isinstance(right, list) else [right]) if answer is not None]
        choices = None if generated and task.config.doc_to_choice is None else task.doc_to_choice(doc)
        known = any(
            str(answer).strip() not in _BLANK if choices is None else _is_choice(answer, choices) for answer in answers
        )
        if not answers or (generated and choices is not None and not known):
            raise MeasurementError(
                f"document {each.number} of task {each.task} has no right answer: its target is {right!r}",
                where="tasks",
                hint="give it one, or take it out of the data",
            )
        if not known:
            found.append(each.number)
    return found


def _is_choice(answer: object, choices: Sequence[str]) -> bool:
    """Whether an answer, an index or a text, is one of the choices."""
    return 0 <= answer < len(choices) if isinstance(answer, int) else answer in choices


def digest(documents: list[Document]) -> str:
    """sha256 of the documents' own content, whatever prompts are made of it."""
    content = [[each.task, each.number, each.instances[0].doc] for each in documents]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def facts_of(task: Any, documents: list[Document]) -> dict[str, object]:
    """Of one task, for the record."""
    requests = [[str(part) for part in instance.args] for each in documents for instance in each.instances]
    return {
        "version": str(task.VERSION),
        "output_type": str(task.OUTPUT_TYPE),
        "num_fewshot": task.get_config("num_fewshot"),
        "data_set": str(task.get_config("dataset_path") or ""),
        "subset": task.get_config("dataset_name"),
        "documents": len(documents),
        "requests": len(requests),
        "requests_sha256": hashlib.sha256(json.dumps(requests).encode()).hexdigest(),
    }
