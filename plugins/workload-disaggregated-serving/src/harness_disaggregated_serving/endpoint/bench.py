"""Workload `serve-bench`: another load generator, whose results get the energy of the server over its run."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.backend import Device
from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness.sample import Scope
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.endpoint import results, server
from harness_disaggregated_serving.endpoint.bench_options import BenchOptions
from harness_disaggregated_serving.load.slo import targets

SHARE: Final = 0.8
"""Where the tool's own load lasts for less of the window than this, much of the energy is that of its start."""
SLACK_S: Final = 1.0
"""A start that lies further outside of the run than this is told by another clock."""
TAIL_CHARACTERS: Final = 600


class ServeBench(Workload):
    """Runs `vllm bench serve`, guidellm or aiperf, and reads what it wrote."""

    def __init__(self, options: BenchOptions) -> None:
        self._options = options
        self._slo = targets(options.slo)
        self._folder = Path()
        self._pid: int | None = None
        self._runs = 0
        self._done: tuple[Path, dict[str, float], float] | None = None
        self._place = Path()
        self._facts: dict[str, object] = {}
        self._flags: dict[str, None] = {}

    def devices(self) -> Sequence[Device]:
        """The server's GPUs, where the suite names them."""
        return [Device(kind="gpu", uuid=uuid, name=name) for uuid, name in self._options.server.gpus.items()]

    def processes(self) -> Mapping[str, int]:
        """The server's process, where it is one of this machine."""
        return {} if self._pid is None else {server.ROLE: self._pid}

    def elsewhere(self) -> bool:
        """Whether the server is another machine's, which this one's processor and memory are no part of."""
        return server.elsewhere(self._options.server, self._pid)

    def charged(self, read: Mapping[tuple[str, str], Scope]) -> Collection[str] | Unavailable:
        """The server's scopes, never the tool's."""
        found = server.charged(self._options.server, self._options.url, self._pid, read)
        if not isinstance(found, Unavailable):
            shared = server.shared_with_client(found, read)
            self._flags |= dict.fromkeys(f"{scope} holds the load generator too" for scope in shared)
        return found

    def prepare(self, context: TrialContext) -> None:
        """Finds the server; raises MeasurementError where it does not run."""
        self._folder = context.folder.absolute()
        self._place = context.suite_folder
        self._pid = server.running_pid(self._options.server)

    @property
    def _words(self) -> list[str]:
        run = self._options.run
        return shlex.split(run) if isinstance(run, str) else run

    def step(self, window: Window) -> None:
        """One run of the tool, with a folder of its own for `{results}`."""
        self._runs += 1
        folder = self._folder / f"results-{self._runs}"
        folder.mkdir()
        words = [word.replace("{results}", str(folder)) for word in self._words]
        began_s = window.now_s()
        opened = {"unix": time.time() - began_s, "perf_counter": time.perf_counter() - began_s}
        with (folder / "log").open("wb") as log:
            try:
                done = subprocess.run(
                    words, cwd=self._place, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    check=False, timeout=self._options.timeout,
                )  # fmt: skip
            except OSError as error:
                raise MeasurementError(f"cannot be started: {error.strerror or error}", where=words[0]) from None
            except subprocess.TimeoutExpired:
                raise MeasurementError(f"took longer than {self._options.timeout:g} s", where=words[0]) from None
        if done.returncode:
            said = (folder / "log").read_text("utf-8", "replace")[-TAIL_CHARACTERS:].strip()
            raise MeasurementError(f"ended with exit code {done.returncode}", where=shlex.join(words), hint=said)
        self._done = folder, opened, window.now_s()

    def run(self, window: Window) -> None:
        """One run of the tool."""
        self.step(window)

    def after_window(self, window: Window) -> None:
        """Reads what it wrote, which the window is not charged for."""
        if self._done is not None:
            self._write(window, *self._done)
            self._done = None

    def _write(self, window: Window, folder: Path, opened: Mapping[str, float], lasted_s: float) -> None:
        """Rows of what it wrote, whose times count from sending: the tools tell no scheduled arrivals."""
        found = sorted(path for path in folder.rglob(self._options.results) if path.name != "log")
        if len(found) != 1:
            raise MeasurementError(
                f"{len(found)} files match {self._options.results!r}", where=str(folder), accepted="one file"
            )
        told = results.read(found[0])
        begun = [None if each.begin_s is None else each.begin_s - opened[told.clock] for each in told.requests]
        if not all(begin_s is None or -SLACK_S <= begin_s <= lasted_s + SLACK_S for begin_s in begun):
            begun = [None] * len(begun)
            self._flags[f"{told.tool} tells starts by another clock than this machine's: they are left out"] = None
        for number, (each, begin_s) in enumerate(zip(told.requests, begun, strict=True)):
            known = each.ttft_s is not None and each.output_tokens is not None
            met = self._slo.met(each.ttft_s, each.tpot_s) if known or not each.ok else None
            window.item(
                f"r{number}",
                status="ok" if each.ok else "failed",
                start_s=None if begin_s is None else max(0.0, begin_s),
                prompt_tokens=each.prompt_tokens,
                output_tokens=each.output_tokens,
                ttft_s=each.ttft_s,
                tpot_s=each.tpot_s,
                latency_s=each.latency_s,
                meets_slo=None if met is None else float(met),
            )
        share = None if told.duration_s is None else told.duration_s / lasted_s
        self._facts = {
            "tool": told.tool, "load_s": told.duration_s, "run_s": lasted_s, "pid": self._pid,
            "words": self._words,
            "reasons": sorted({each.reason for each in told.requests if each.reason}),
        }  # fmt: skip
        if share is not None and share < SHARE:
            self._flags[
                f"the load lasted {share:.0%} of the window: the energy holds what the server drew while "
                f"{told.tool} started and ended"
            ] = None

    def facts(self) -> Mapping[str, object]:
        """The tool, its command, and how long its load lasted."""
        return self._facts

    def flags(self) -> Sequence[str]:
        """What of the window was not the tool's load."""
        return tuple(self._flags)
