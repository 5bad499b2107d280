"""Task files of lm-evaluation-harness, read without importing it: names, metrics and data, while a suite is planned.

Importing lm-eval and building its own index takes ten seconds of processor time; this takes less than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_KEY: Final = re.compile(r"^[\"']?(task|group|tag)[\"']?[ \t]*:[ \t]*(.*)$")
_IGNORED: Final = frozenset({"__pycache__", ".ipynb_checkpoints"})
_SUFFIXES: Final = frozenset({".yaml", ""})
"""Of task files, and of the templates that they include: `_default_template_yaml`, `naijarc`."""
_LARGEST_TEMPLATE: Final = 100_000
_MOST_INCLUDES: Final = 16
DEFAULT_METRICS: Final = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
"""By output type, the metrics of a task that lists none (`DEFAULT_METRIC_REGISTRY` of `lm_eval.api.registry`)."""


@dataclass(slots=True)
class TaskIndex:
    """What a folder of task files holds.

    Attributes:
        tasks: name of a task -> its file.
        groups: name of a group -> its file.
        tags: name of a tag -> the files that bear it.
    """

    tasks: dict[str, Path] = field(default_factory=dict)
    groups: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, list[Path]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.tasks or name in self.groups or name in self.tags

    @property
    def names(self) -> list[str]:
        """Of tasks, groups and tags."""
        return [*self.tasks, *self.groups, *self.tags]


class FunctionName(str):
    """A function that a task file names by `!function`; it is not imported."""

    __slots__ = ()


def folder_of(package: str) -> Path | None:
    """The folder of an installed package, which is not imported; None where it is not installed."""
    found = find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) if places else None


@lru_cache(maxsize=1)
def own_index() -> TaskIndex:
    """The tasks that come with lm-eval, read once a process."""
    home = folder_of("lm_eval")
    return TaskIndex() if home is None else read_index(home / "tasks")


def read_index(folder: Path) -> TaskIndex:
    """Names of tasks, groups and tags in the YAML files below a folder, from the lines that give them."""
    found = TaskIndex()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and _IGNORED.isdisjoint(path.parts) and _is_text(path):
            _add(found, path, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return found


def _is_text(path: Path) -> bool:
    """Whether a file is as small as a task file or a template, and no program's data."""
    return path.is_file() and (path.suffix != "" or path.stat().st_size <= _LARGEST_TEMPLATE)


def _add(index: TaskIndex, path: Path, lines: list[str]) -> None:
    said: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if (match := _KEY.match(line)) is not None:
            said[match[1]] = _values(match[2]) or (list(_listed(lines[number + 1 :])) if match[1] == "tag" else [])
    whole = path.suffix == ".yaml"  # others are templates: what they hold belongs to the files that include them
    of_python = any(line.startswith("class:") for line in lines)  # a task, whatever group it names
    if whole and (group := said.get("group")) and not of_python:
        index.groups.setdefault(group[0], path)
    elif whole and (task := said.get("task")):
        index.tasks.setdefault(task[0], path)
    for tag in said.get("tag", ()):
        index.tags.setdefault(tag, []).append(path)


def _values(text: str) -> list[str]:
    """What stands behind the colon: one name, a list in brackets, or nothing."""
    bare = text.partition(" #")[0].strip()
    return [word for part in bare.strip("[]").split(",") if (word := part.strip().strip("\"'")) and word[0] != "#"]


def _listed(lines: list[str]) -> Iterator[str]:
    """The entries of a list that begins on the next line."""
    for line in lines:
        bare = line.strip()
        if bare.startswith("- "):
            yield from _values(bare[2:])
        elif bare and not bare.startswith("#"):
            return


def read_config(path: Path, depth: int = 0) -> dict[str, Any]:
    """A task file with what it includes; functions stay names.

    Raises:
        ValueError: it is not a mapping, or not YAML, or includes without end.
        OSError: it cannot be read.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes `!function module.name` for a name."""

    def named(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> FunctionName:
        return FunctionName(loader.construct_scalar(node))

    Loader.add_constructor("!function", named)
    try:
        found = Loader(path.read_text(encoding="utf-8")).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a mapping")  # noqa: TRY004 - of the file, not of an argument
    if depth > _MOST_INCLUDES:
        raise ValueError(f"{path} includes itself, or more than {_MOST_INCLUDES} files within each other")
    included = found.pop("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged |= {k: v for k, v in read_config(path.parent / str(name), depth + 1).items() if k != "task_list"}
    return merged | found


def metrics_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of a task's metrics; None where only its code knows them."""
    if "class" in config:
        return None
    listed = config.get("metric_list")
    if listed is None:
        return None if "process_results" in config else DEFAULT_METRICS.get(str(config.get("output_type")))
    names = [each.get("metric") for each in listed if isinstance(each, Mapping)]
    if any(isinstance(name, FunctionName) for name in names):
        return None  # a function may return several metrics
    return tuple(str(name) for name in names)


def filters_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a task's filters; `none` where it has none, as lm-eval's results say."""
    return tuple(str(each.get("name")) for each in config.get("filter_list") or () if isinstance(each, Mapping)) or (
        "none",
    )


def hub_data_set(config: Mapping[str, Any]) -> str:
    """The hub id of a task's data set; empty where its data are files, or made by its code."""
    name = str(config.get("dataset_path") or "")
    modules = folder_of("datasets")
    local = "class" in config or "custom_dataset" in config or not name or Path(name).exists()
    return "" if local or (modules is not None and (modules / "packaged_modules" / name).is_dir()) else name


def data_files(config: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A task's `dataset_kwargs` with its data files made absolute where they lie beside it, and those that are nowhere.

    lm-eval reads a relative file in the working folder; a task that is kept with its data is read from anywhere.

    Args:
        config: of the task.
        folder: of its file.
    """
    settings = dict(config.get("dataset_kwargs") or {})
    gone: list[str] = []

    def found(text: str) -> str:
        beside = folder / Path(text).expanduser()
        if "://" in text or any(char in text for char in "*?["):
            return text
        if beside.exists():
            return str(beside)
        if not Path(text).exists():
            gone.append(text)
        return text

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return found(value)
        if isinstance(value, list):
            return [replaced(each) for each in value]
        return {key: replaced(each) for key, each in value.items()} if isinstance(value, dict) else value

    if "data_files" in settings and not hub_data_set(config):
        settings["data_files"] = replaced(settings["data_files"])
    return settings, gone
