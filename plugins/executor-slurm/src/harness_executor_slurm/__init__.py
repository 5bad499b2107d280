"""Executor `slurm`: trials as arrays of Slurm jobs, on nodes that share the store with this machine."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Executor, ExecutorSpec, hookimpl
from harness_executor_slurm.settings import SlurmOptions


def _make(options: SlurmOptions) -> Executor:
    from harness_executor_slurm.executor import SlurmExecutor

    return SlurmExecutor(options)


@hookimpl
def harness_executors() -> Iterable[ExecutorSpec]:
    """`slurm`."""
    yield ExecutorSpec(
        name="slurm",
        summary="arrays of Slurm jobs, on nodes that share the store",
        factory=_make,
        options=SlurmOptions,
        remote=True,
    )
