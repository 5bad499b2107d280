"""The offer of the executor `local`, the only one that gates."""

from __future__ import annotations

from pydantic import PositiveInt

from harness.executor import Executor, ExecutorSpec
from harness.options import Options


class LocalOptions(Options):
    """Options of the executor `local`.

    Attributes:
        jobs: trials that run side by side where the workload only models its hardware; measured ones run alone.
    """

    jobs: PositiveInt = 1


def _make(options: LocalOptions) -> Executor:
    from harness.builtin.local_executor import LocalExecutor

    return LocalExecutor(jobs=options.jobs)


EXECUTOR = ExecutorSpec(
    name="local",
    summary="one worker process after another on this machine",
    factory=_make,
    options=LocalOptions,
)
