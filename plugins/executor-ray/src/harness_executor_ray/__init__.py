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
        raise ValueError(f"{text!r} is not the address of a cluster; accepted: auto, HOST:PORT or ray://HOST:PORT")
    return text


class RayOptions(Options):
    """Options of the executor `ray`.

    Attributes:
        address: address of the cluster: `auto` (RAY_ADDRESS, else the one on this machine), HOST:PORT or ray://HOST:PORT.
        timeout_s: how long a trial waits for its place while no other trial of the run is under way.
        at_most: trials asked for side by side; as many as the cluster has nodes and processors if not set.
        environment: what happens where a node has other versions or sources: `check` fails the trial, `ship` has nodes
            run this machine's harness and plugins, `ignore` runs what is there.
        python: interpreter of the trials on the nodes; the one that Ray runs on there if empty.
        share_nodes: whether trials that measure on GPUs of their own may share a node; meters of the whole host then
            read all of them.
        autoscaling: whether the cluster starts nodes on demand, so that what no node has is waited for.
    """

    address: Annotated[str, AfterValidator(_address)] = "auto"
    timeout_s: Annotated[Duration, Field(gt=0)] = 600.0
    at_most: PositiveInt | None = None
    environment: Literal["check", "ship", "ignore"] = "check"
    python: str = ""
    share_nodes: bool = False
    autoscaling: bool = False


def _make(options: RayOptions) -> Executor:
    from harness_executor_ray.executor import RayExecutor

    return RayExecutor(options)


@hookimpl
def harness_executors() -> Iterable[ExecutorSpec]:
    """`ray`."""
    yield ExecutorSpec(
        name="ray",
        summary="trials on the nodes of an existing Ray cluster, by label and resource",
        factory=_make,
        options=RayOptions,
        remote=True,
    )
