"""Options of workload `serve-bench`, as a suite writes them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from pydantic import Field, model_validator

from harness.options import Duration, Options
from harness_disaggregated_serving.endpoint.options import ServerOptions, check_words
from harness_disaggregated_serving.load.slo import SloOption


class BenchOptions(Options):
    """Options of workload `serve-bench`.

    Attributes:
        run: command of the tool: a list of words, or a text that is split as a shell does; `{results}` becomes a folder
            of the run's own, which the tool is told to write into.
        results: the file in that folder that holds the requests, as a pattern: `*.json`, `profile_export.jsonl`.
        url: address that the tool sends to; whether the server is on this machine is judged by it.
        server: what serves, so that its energy is charged: a process that runs already, GPUs, or meters of its host.
        slo: latency targets that a request has to meet, as of `serve-endpoint`; times count from sending here.
        timeout: the longest that a run may take; seconds, or `1h`.
    """

    run: str | list[str]
    results: Annotated[str, Field(min_length=1)] = "*.json"
    url: str = ""
    server: ServerOptions = ServerOptions()
    slo: SloOption = "longbench"
    timeout: Annotated[Duration, Field(gt=0)] = 3600.0

    @model_validator(mode="after")
    def _consistent(self) -> BenchOptions:
        if self.server.command:
            raise ValueError("the tool needs a server that runs; accepted: pid, name, container, gpus or meters")
        check_words(self.run)
        if PurePath(self.results).is_absolute() or ".." in PurePath(self.results).parts:
            raise ValueError(
                f"results is {self.results!r}; accepted: a pattern within the run's folder, such as *.json"
            )
        if not self.run or "{results}" not in (self.run if isinstance(self.run, str) else " ".join(self.run)):
            raise ValueError("run does not say where results go; accepted: a command with {results} in it")
        return self
