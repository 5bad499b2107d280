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
    """Options of the executor `slurm`."""

    partition: Word | None = Field(None, description="of the cluster; its default one without it")
    account: Word | None = Field(None, description="that the jobs are charged to")
    qos: Word | None = Field(None, description="quality of service")
    constraint: Word | None = Field(
        None, description="features that every node must have, as sbatch writes them (`fast&ib`)"
    )
    time: Limit | None = Field(None, description="limit of each job; the partition's default without it")
    grace: Annotated[Limit, Field(le=65_535)] = Field(
        60.0, description="how long before that limit a trial is ended, to say why; Slurm may be a minute early"
    )
    exclusive: bool | None = Field(
        None,
        description="a whole node per trial; without it, for trials that measure a device and not for modelled ones",
    )
    requeue: bool = Field(
        default=True,
        description="whether a trial runs again from its start after its node failed or another job took it",
    )
    at_most: PositiveInt | None = Field(None, description="how many elements of one array run at once")
    queue: Limit | None = Field(
        None, description="how long a trial may wait in the queue before it fails; for ever without it"
    )
    licenses: tuple[Word, ...] = Field(
        (), description="names among a case's `resources` that are licences; the others are generic resources (gres)"
    )
    python: Line | None = Field(None, description="interpreter on the nodes; the path of this one without it")
    poll: Annotated[Duration, Field(ge=1)] = Field(10.0, description="the longest time between two looks at the queue")
    extra: dict[Flag, bool | int | Line] = Field({}, description="further options of sbatch, by their long names")

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
