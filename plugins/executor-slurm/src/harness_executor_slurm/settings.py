"""Options of the executor `slurm`: what `sbatch` is asked for besides what a case requires."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from harness.options import Duration, Options

Word = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f]+$", max_length=200)]
"""One word on a line of a batch script: a line break in it would begin a line of shell."""
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]
Flag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Limit = Annotated[Duration, Field(gt=0)]

TAKEN: Final = frozenset(
    {
        "array", "comment", "constraint", "cpus-per-task", "error", "exclusive", "export", "gres", "job-name",
        "licenses", "mem", "no-requeue", "nodes", "ntasks", "open-mode", "output", "partition", "account", "qos",
        "requeue", "signal", "time", "wait", "wrap",
    }
)  # fmt: skip
"""Options of sbatch that this executor sets itself."""


class SlurmOptions(Options):
    """Options of the executor `slurm`.

    Attributes:
        partition: partition of the cluster; its default one if not set.
        account: account that the jobs are charged to; the user's default one if not set.
        qos: quality of service; the cluster's default if not set.
        constraint: features that every node must have, as sbatch writes them (`fast&ib`).
        time: time limit of each job; the partition's default if not set.
        grace: how long before that limit a trial is ended, to say why; Slurm may be a minute early.
        exclusive: whether a trial has a whole node; if not set, trials that measure a device have, modelled ones not.
        requeue: whether a trial runs again from its start after its node failed or another job took it.
        at_most: how many elements of one array run at once; no limit if not set.
        queue: how long a trial may wait in the queue before it fails; for ever if not set.
        licenses: names among a case's `resources` that are licences; the others are generic resources (gres).
        python: interpreter on the nodes; the path of this one if not set.
        poll: the longest time between two queries of the queue.
        extra: further options of sbatch, by their long names.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    time: Limit | None = None
    grace: Annotated[Limit, Field(le=65_535)] = 60.0
    exclusive: bool | None = None
    requeue: bool = True
    at_most: PositiveInt | None = None
    queue: Limit | None = None
    licenses: tuple[Word, ...] = ()
    python: Line | None = None
    poll: Annotated[Duration, Field(ge=1)] = 10.0
    extra: dict[Flag, bool | int | Line] = Field({})

    @field_validator("extra")
    @classmethod
    def _not_taken(cls, extra: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        taken = sorted(TAKEN & extra.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)} is set by the executor; accepted: other long options of sbatch")
        return extra

    @model_validator(mode="after")
    def _time_to_run(self) -> Self:
        if self.time is not None and self.grace >= self.time:
            raise ValueError(f"a grace of {self.grace:g} s leaves nothing of {self.time:g} s; accepted: less than time")
        return self
