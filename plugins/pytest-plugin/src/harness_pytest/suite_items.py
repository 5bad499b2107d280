"""A suite as a file of tests: each point an item, run by the `harness` command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pytest

from harness import HarnessError
from harness.records.files import load_record
from harness.records.paths import FAILURE, RECORD

RECORDS: Final = "records: "
"""Begin of the line in which `harness run` says where its records are."""


class TrialFailure(Exception):  # noqa: N818 - what pytest reports is a failure of the trial, not an error
    """Why a point failed, for people."""


def harness(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the `harness` command of this environment."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=_without_pytest(),
    )


def _without_pytest() -> dict[str, str]:
    """The environment without what pytest tells its own tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


class SuiteFile(pytest.File):
    """A suite; its points are run together, when the first of them is due."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item a point; a point that cannot run here carries its reason."""
        done = harness("plan", str(self.path), "--json", folder=self.config.invocation_params.dir)
        if done.returncode:
            raise self.CollectError(done.stderr.strip())
        planned = json.loads(done.stdout)
        for point in planned["points"]:
            yield SuitePoint.from_parent(self, name=point["label"], identity=point["id"], trials=point["trials"])
        for skipped in planned["skipped"]:
            item = SuitePoint.from_parent(self, name=skipped["label"], identity="", trials=0)
            item.add_marker(pytest.mark.skip(reason=skipped["reason"]))
            yield item

    @cached_property
    def run_folder(self) -> Path:
        """The folder of the one run of this suite; raises TrialFailure where there is none."""
        store = str(self.config.getoption("--harness-store"))
        folder = self.config.invocation_params.dir
        done = harness("run", str(self.path), "--store", store, folder=folder)
        named = [line for line in done.stdout.splitlines() if line.startswith(RECORDS)]
        if not named:
            raise TrialFailure(f"harness run ended with exit code {done.returncode}:\n{done.stderr.strip()}")
        return folder / named[-1].removeprefix(RECORDS)


class SuitePoint(pytest.Item):
    """One point of a suite.

    Args:
        identity: id of the point.
        trials: how many it has.
    """

    def __init__(self, *, identity: str, trials: int, **pytests: Any) -> None:
        super().__init__(**pytests)
        self.identity = identity
        self.trials = trials

    def runtest(self) -> None:
        """Runs the suite if that was not done yet, then looks at this point's trials."""
        assert isinstance(self.parent, SuiteFile)
        run = self.parent.run_folder
        self.user_properties.append(("harness_run", str(run)))
        faults = [fault for trial in range(self.trials) if (fault := _fault(run / f"{self.identity}-t{trial:03d}"))]
        if faults:
            raise TrialFailure("\n".join(faults))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A trial's failure in its own words, without a traceback."""
        if isinstance(excinfo.value, TrialFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """The suite and the point's label; pytest wants a line for a skip, and a point of a matrix has none."""
        return self.path, 0, self.name


def _fault(trial: Path) -> str:
    """Why a trial failed or is not valid, with the end of its log; empty where it did not."""
    if (trial / FAILURE).exists():
        failure = json.loads((trial / FAILURE).read_text(encoding="utf-8"))
        return _listed(f"{trial.name}: {failure.get('reason')}", failure.get("log_tail") or ())
    try:
        invalid = load_record(trial).measurement.invalid
    except HarnessError as error:
        return f"{trial.name}: no {RECORD}: {error}"
    return f"{trial.name}: not valid: {'; '.join(invalid)}" if invalid else ""


def _listed(first: str, lines: Sequence[str]) -> str:
    return "\n".join([first, *(f"    {line}" for line in lines)])
