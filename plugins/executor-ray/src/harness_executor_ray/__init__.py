"""Executor `ray`: trials on the nodes of an existing Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PositiveInt

from harness import Duration, Executor, ExecutorSpec, Options, hookimpl

_ADDRESS: Final = re.compile(r"auto|(ray://)?[\w.-]+:\d+|(ray://)?\[[0-9A-Fa-f:.]+\]:\d+")


def _address(text: str) -> str:
    if _ADDRESS.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no address of a cluster; accepted: auto, HOST:PORT or ray://HOST:PORT")
    return text


class RayOptions(Options):
    """Options of the executor `ray`."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        "auto",
        description="The cluster: `auto` (RAY_ADDRESS, else the one on this machine), HOST:PORT or ray://HOST:PORT.",
    )
    timeout_s: Annotated[Duration, Field(gt=0)] = Field(
        600.0, description="How long a trial waits for its place while no other trial of the run is under way."
    )
    at_most: PositiveInt | None = Field(
        None, description="Trials asked for side by side; by default as many as the cluster has nodes and processors."
    )
    environment: Literal["check", "ship", "ignore"] = Field(
        "check",
        description="`check`: a node with other versions or sources fails the trial; `ship`: nodes run this machine's "
        "harness and plugins.",
    )
    python: str = Field(
        "", description="Interpreter of the trials on the nodes; by default the one that Ray runs on there."
    )
    share_nodes: bool = Field(
        default=False,
        description="Whether trials that measure on GPUs of their own may share a node; meters of the whole host then "
        "read all of them.",
    )
    autoscaling: bool = Field(
        default=False, description="Whether the cluster starts nodes on demand, so that what no node has is waited for."
    )


def _make(options: RayOptions) -> Executor:
    from harness_executor_ray.executor import RayExecutor

    return RayExecutor(options)


@hookimpl
def harness_executors() -> Iterable[ExecutorSpec]:
    """Offers `ray`."""
    yield ExecutorSpec(
        name="ray",
        summary="trials on the nodes of an existing Ray cluster, by label and resource",
        factory=_make,
        options=RayOptions,
        remote=True,
    )
