"""Workload `lm-eval`: asks documents inside windows, scores them after."""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backend import Backend, Device
from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.sample import Scope
from harness.workload import FetchContext, TrialContext, Window, Workload
from harness_lm_eval import server_energy
from harness_lm_eval.documents import Answered, Answerer, Document
from harness_lm_eval.options import LmEvalOptions
from harness_lm_eval.quiet import quiet

if TYPE_CHECKING:
    import torch


def torch_device(backend: Backend) -> torch.device:
    """The device of a backend that runs PyTorch; raises MeasurementError for another."""
    import torch

    device = getattr(backend, "device", None)
    if not isinstance(device, torch.device):
        raise MeasurementError(
            f"the backend {type(backend).__name__} has no PyTorch device", accepted="`backend: torch` in the suite"
        )
    return device


def device_uuid(device: torch.device) -> str:
    """The device as its driver names it: `cpu`, `mps`, or a CUDA device's UUID with its prefix."""
    if device.type != "cuda":
        return device.type
    import torch

    properties = torch.cuda.get_device_properties(device)
    raw = str(properties.uuid).removeprefix("GPU-").removeprefix("MIG-")
    return f"MIG-{raw}" if " MIG " in str(properties.name) else f"GPU-{raw}"


def _without_right_answer(task: str, numbers: Sequence[int], kind: object, most: int = 5) -> str:
    """What a reader is told of documents that cannot be answered rightly; no colon, so that the overview shows it."""
    listed = ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
    one = len(numbers) == 1
    who = f"document {listed} of {task} has" if one else f"{len(numbers)} documents of {task} ({listed}) have"
    if kind == "generate_until":
        return f"{who} an empty text or None as right answer, and any other counts as wrong"
    whose, count = ("its", "counts") if one else ("their", "count")
    return f"{who} no right answer among {whose} choices and {count} as wrong"


class LmEval(Workload):
    """A window asks every document of the tasks, once or several times; a document is a work item.

    All of them, however long the window is to be: points that answered other questions could not be compared. An
    iteration is one batch of documents, or one document of an endpoint.
    """

    def __init__(self, options: LmEvalOptions) -> None:
        self._options = options
        self._answerer: Answerer | None = None
        self._tasks: dict[str, Any] = {}
        self._documents: list[Document] = []
        self._answered: list[tuple[int, Answered]] = []
        self._device = ""
        self._known: dict[str, dict[str, object]] = {}
        self._unanswerable: dict[str, list[int]] = {}
        self._results: dict[str, dict[str, float | None]] = {}
        self._metrics: dict[str, tuple[str, str] | None] = {}
        self._passes = 0
        self._digest = ""
        self._faults: dict[str, int] = {}
        self._right = 0.0
        self._shared: Sequence[str] = ()

    # What is read

    def devices(self) -> Sequence[Device]:
        """The server's GPUs, where the suite names them."""
        endpoint = self._options.endpoint
        gpus = endpoint.server.gpus if endpoint is not None else {}
        return [Device(kind="gpu", uuid=uuid, name=name) for uuid, name in gpus.items()]

    def processes(self) -> Mapping[str, int]:
        """The server's process, where it is one of this machine."""
        endpoint = self._options.endpoint
        pid = endpoint.server.pid if endpoint is not None else None
        return {} if pid is None else {server_energy.ROLE: pid}

    def charged(self, read: Mapping[tuple[str, str], Scope]) -> Collection[str] | Unavailable | None:
        """All that is read where the model is here; the server's scopes where it is not."""
        endpoint = self._options.endpoint
        if endpoint is None:
            return None
        found = server_energy.charged(endpoint, read)
        if not isinstance(found, Unavailable):
            self._shared = server_energy.shared_with_client(found, read)
        return found

    # Before the windows

    def fetch(self, context: FetchContext) -> None:
        """Downloads or builds the model, and has `datasets` download what tasks take from the hub."""
        from harness_speculative_decoding import fetch_causal_lm

        from harness_lm_eval.checks import leaf_tasks
        from harness_lm_eval.task_files import hub_data_set, read_config

        if self._options.model:
            fetch_causal_lm(self._options.model, context.cache, context.progress)
        leaves = list(leaf_tasks(self._options))
        if len(leaves) == len(self._options.tasks) and not any(hub_data_set(read_config(path)) for _, path in leaves):
            return
        context.progress(f"fetching the data of {', '.join(self._options.tasks)}", None)
        with quiet(), tempfile.TemporaryDirectory() as folder:
            from harness_lm_eval import tasks

            tasks.load(self._options, Path(folder))

    def prepare(self, context: TrialContext) -> None:
        """Loads model and tasks, builds every request and tokenises it.

        Raises:
            UsageError: an option does not fit the tasks or the model.
            MeasurementError: the model or a task's data cannot be had, or no server listens.
        """
        context.progress("loading lm-eval", None)
        with quiet():
            from harness_lm_eval import tasks

            self._answerer = self._opened(context)
            context.progress(f"loading {', '.join(self._options.tasks)}", None)
            with tasks.seeded(self._options.seed):
                self._tasks = tasks.load(self._options, context.folder)
                documents = tasks.build(self._tasks, self._options, self._answerer.lm)
            own = {name: [each for each in documents if each.task == name] for name in self._tasks}
            self._unanswerable = {
                name: tasks.without_right_answer(task, own[name]) for name, task in self._tasks.items()
            }
            self._documents = self._answerer.prepare(documents)
            self._known = {name: tasks.facts_of(task, own[name]) for name, task in self._tasks.items()}
            self._digest = tasks.digest(documents)

    def _opened(self, context: TrialContext) -> Answerer:
        if self._options.endpoint is not None:
            from harness_lm_eval.endpoint import Endpoint

            return Endpoint(self._options)
        from harness_lm_eval.local_model import LocalModel

        device = torch_device(context.backend)
        self._device = device_uuid(device)
        return LocalModel(self._options, device, context.cache, context.progress)

    # A window

    def step(self, window: Window) -> None:
        """The whole window; an iteration is part of a pass over the documents."""
        self.run(window)

    def run(self, window: Window) -> None:
        """Asks all documents, again until the window is long enough; warming up ends within a pass."""
        assert self._answerer is not None, "prepare() comes first"
        self._answered = []
        busy_s, passes, more = 0.0, 0, window.wants_more()
        while more:
            with contextlib.closing(self._answerer.answers(self._documents, window.now_s)) as batches:
                for batch in batches:
                    busy_s += batch[-1].end_s - batch[0].start_s
                    self._answered += [(passes, each) for each in batch]
                    more = window.wants_more()
                    if window.index < 0 and not more:
                        break
            passes += 1
        self._passes = passes
        if self._device:
            window.device(self._device, busy_s=busy_s, reserved_s=max(window.now_s(), busy_s))

    def after_window(self, window: Window) -> None:
        """Scores the answers by lm-eval's filters and metrics, and writes the rows."""
        answered, self._answered = self._answered, []
        self._faults = {}
        with quiet():
            for name in self._tasks:
                mine = [(number, each) for number, each in answered if each.document.task == name]
                self._write(window, name, mine)

    def _write(self, window: Window, name: str, answered: Sequence[tuple[int, Answered]]) -> None:
        from harness_lm_eval import scoring

        task = self._tasks[name]
        good = [each for _, each in answered if not each.fault]
        scores = scoring.score(task, good)
        if scores:
            self._metrics[name] = scoring.choose(scores[0], self._options.metric, name)
            self._results[name] = scoring.aggregates(task, scores)
        rest: Iterator[scoring.Scores] = iter(scores)
        for number, each in answered:
            item_id = f"w{window.index}-p{number}-{name}-{each.document.number}"
            columns: dict[str, float | None] = {
                "start_s": each.start_s,
                "end_s": each.end_s,
                "latency_s": each.end_s - each.start_s,
                "requests": len(each.instances),
                "input_tokens": each.input_tokens,
                "output_tokens": each.output_tokens,
            }
            if each.fault:
                self._faults[each.fault] = self._faults.get(each.fault, 0) + 1
                window.item(item_id, status="error", **columns)
                window.output(item_id, {"task": name, "document": each.document.number, "fault": each.fault})
                continue
            found = next(rest)
            columns |= scoring.columns_of(found, self._metrics[name])
            self._right += columns.get("correct") or 0.0
            window.item(item_id, status="ok", **columns)
            told = {",".join(key): scoring.plain(value) for key, value in found.items()}
            resps = [scoring.plain(instance.resps) for instance in each.instances]
            output = {"task": name, "document": each.document.number, "metrics": told, "answers": resps}
            window.output(item_id, output)

    # What is told

    def why_zero(self) -> Mapping[str, str]:
        """By which metric no answer was right."""
        if self._right:
            return {}
        named = dict.fromkeys(",".join(key) for key in self._metrics.values() if key is not None)
        return {"correct": f"no answer was right by {' and '.join(named)}"} if named else {}

    def flags(self) -> Sequence[str]:
        """Documents that did not fit or failed, and what repeats of a question may hide."""
        found = list(self._answerer.flags()) if self._answerer is not None else []
        found += [f"{scope} holds the process that asks too" for scope in self._shared]
        if self._options.endpoint is not None and self._passes > 1:
            found.append(
                f"the window asked every document {self._passes} times: a server that keeps prefixes answers the later "
                "ones with less work"
            )
        found += [
            _without_right_answer(name, numbers, self._known[name]["output_type"])
            for name, numbers in self._unanswerable.items()
            if numbers
        ]
        found += [f"{count} documents of the last window failed: {fault}" for fault, count in self._faults.items()]
        if any(key is None for key in self._metrics.values()) and len(set(self._metrics.values())) > 1:
            without = [name for name, key in self._metrics.items() if key is None]
            found.append(f"{', '.join(without)} has neither acc nor exact_match: `correct` is missing there")
        return found

    def facts(self) -> Mapping[str, object]:
        """Model, tasks, and lm-eval's own aggregated results over the last window."""
        if self._answerer is None:
            return {}
        metrics = {name: ",".join(key) if key is not None else None for name, key in self._metrics.items()}
        chosen = ", ".join(f"{name} by {metrics.get(name) or 'no metric'}" for name in self._tasks)
        return {
            "lm_eval": importlib.metadata.version("lm-eval"),
            "model": self._answerer.facts(),
            "tasks": self._known,
            "metric": metrics,
            "results": self._results,
            "documents": len(self._documents),
            "documents_sha256": self._digest,
            "passes": self._passes,
            "ranked_as": f"{chosen}; {len(self._documents)} documents, sha256 {self._digest[:12]}",
        }

    def close(self) -> None:
        """Lets go of model, tasks and connections."""
        answerer, self._answerer = self._answerer, None
        if answerer is not None:
            answerer.close()
        self._tasks, self._documents, self._answered = {}, [], []
