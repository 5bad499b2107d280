"""What is wrong with the options, and what is missing here, found without lm-eval, torch or a network."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harness_speculative_decoding import model_faults

from harness import Unavailable
from harness.errors import did_you_mean
from harness.suite_paths import OptionFault, missing
from harness_lm_eval import task_files
from harness_lm_eval.options import LmEvalOptions

_TRUE: Final = frozenset({"1", "on", "yes", "true"})
"""Values of a variable that mean yes to huggingface_hub."""
MOST_SHOWN: Final = 8


def check(options: LmEvalOptions) -> Iterator[OptionFault]:
    """Tasks and models that are not there, metrics that a task has not, requests that an endpoint cannot answer."""
    yield from missing("include_path", options.include_path, folder=True)
    if options.model:
        yield from model_faults("model", options.model)
    elif options.endpoint is not None:
        yield from missing("endpoint.ca", options.endpoint.ca)
    known = indexes(options)
    for name in options.tasks:
        if not any(name in index for index in known):
            yield _unknown(name, options, known)
    for name, path in leaf_tasks(options):
        try:
            config = task_files.read_config(path)
        except (OSError, ValueError) as error:
            yield OptionFault("tasks", f"task {name} cannot be read: {error}", "a task file of lm-eval")
            continue
        yield from _faults_of_a_task(name, path, config, options)


def indexes(options: LmEvalOptions) -> list[task_files.TaskIndex]:
    """What `tasks` may name: own tasks first, which go before those of lm-eval."""
    own = options.include_path and Path(options.include_path).is_dir()
    known = [task_files.read_index(Path(options.include_path))] if own else []
    if not known or not all(name in known[0] for name in options.tasks):
        known.append(task_files.own_index())
    return known


def leaf_tasks(options: LmEvalOptions) -> Iterator[tuple[str, Path]]:
    """Names and files of the tasks that are named themselves; lm-eval knows what is in groups and tags."""
    known = indexes(options)
    for name in options.tasks:
        holder = next((index for index in known if name in index), None)
        if holder is not None and name in holder.tasks:
            yield name, holder.tasks[name]


def _unknown(name: str, options: LmEvalOptions, known: list[task_files.TaskIndex]) -> OptionFault:
    own = known[0].names if options.include_path and len(known) > 1 else []
    accepted = f"a task, group or tag of lm-eval {importlib.metadata.version('lm-eval')}"
    if own:
        listed = ", ".join(own[:MOST_SHOWN]) + (", ..." if len(own) > MOST_SHOWN else "")
        accepted = f"{listed}; or {accepted}"
    elif options.include_path:
        accepted += f"; no file in {options.include_path} names a task"
    hint = did_you_mean(name, own) or did_you_mean(name, known[-1].names)
    return OptionFault("tasks", f"there is no task {name!r}", accepted, hint)


def _faults_of_a_task(
    name: str, path: Path, config: Mapping[str, Any], options: LmEvalOptions
) -> Iterator[OptionFault]:
    if config.get("unsafe_code"):
        yield OptionFault("tasks", f"task {name} runs code that the model writes", "a task that does not")
    _, gone = task_files.data_files(config, path.parent)
    if gone:
        where = f"beside {path}, or in the working folder"
        yield OptionFault("tasks", f"task {name} names data that are not there: {', '.join(gone)}", where)
    metrics = task_files.metrics_of(config)
    metric, _, chosen = options.metric.partition(",")
    if metric and metrics is not None and metric not in metrics:
        told = f"task {name} has no metric {metric!r}"
        yield OptionFault("metric", told, ", ".join(metrics), did_you_mean(metric, metrics))
    filters = task_files.filters_of(config)
    if chosen and "class" not in config and chosen not in filters:
        told = f"task {name} has no filter {chosen!r}"
        yield OptionFault("metric", told, ", ".join(filters), did_you_mean(chosen, filters))
    if options.endpoint is not None and config.get("output_type", "generate_until") != "generate_until":
        needs = f"task {name} needs log-likelihoods"
        if options.endpoint.api == "chat":
            yield OptionFault("endpoint.api", f"{needs}, which the chat API has not", "completions")
        elif not options.endpoint.tokenizer:
            yield OptionFault("endpoint.tokenizer", f"{needs}", "the model's tokenizer, to know where a context ends")


def cannot_run(options: LmEvalOptions) -> Unavailable | None:
    """Why it cannot run here: offline, with a data set of the hub that was never fetched."""
    if not any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")):
        return None
    for name, path in leaf_tasks(options):
        try:
            wanted = task_files.hub_data_set(task_files.read_config(path))
        except (OSError, ValueError):
            continue  # `check` tells it
        if wanted and not is_cached(wanted):
            return Unavailable(
                f"the data set {wanted} of task {name} is not here, and this machine is told to stay offline "
                "(HF_HUB_OFFLINE): run it once without that, on a network"
            )
    return None


def is_cached(data_set: str) -> bool:
    """Whether a data set of the hub was fetched before, as its folder's name in the caches of Hugging Face says."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    places = (os.environ.get("HF_DATASETS_CACHE") or home / "datasets", os.environ.get("HF_HUB_CACHE") or home / "hub")
    wanted = _letters(data_set)
    folders = [each for place in places if (path := Path(place)).is_dir() for each in path.iterdir() if each.is_dir()]
    return any(_letters(each.name.removeprefix("datasets--")) == wanted for each in folders)


def _letters(text: str) -> str:
    """A name without what caches replace: `allenai/ai2_arc`, `allenai___ai2_arc`, `datasets--allenai--ai2_arc`."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())
