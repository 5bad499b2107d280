"""What a trial asks of a cluster, in Ray's words, and what the cluster has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

HOLD: Final = "node:__internal_implicit_resource_joule-harness"
"""A resource that every node has one of: the prefix is Ray's, whose Serve limits replicas per node with it."""
SHARED: Final = 0.001
"""How much of it a trial takes that may share its node: a thousand of them, or one that measures, never both."""
ACCELERATOR: Final = "accelerator_type:"
ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"
_SET: Final = re.compile(r"in\((.*)\)")
_NODES_SHOWN: Final = 8

Node = Mapping[str, Any]
"""As `ray.nodes()` gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a trial needs on its node.

    Attributes:
        resources: Ray's name -> amount; `CPU`, `GPU` and `memory` (bytes) among them.
        labels: key -> Ray's selector: a value, `!value`, `in(a,b)` or `!in(a,b)`.
        shared: whether others may be on the node at the same time.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False

    def options(self) -> dict[str, Any]:
        """As `.options()` of a Ray actor takes it."""
        own = {name: amount for name, amount in self.resources.items() if name not in {"CPU", "GPU", "memory"}}
        asked: dict[str, Any] = {"num_cpus": self.resources["CPU"], "resources": own}
        if "GPU" in self.resources:
            asked["num_gpus"] = self.resources["GPU"]
        if "memory" in self.resources:
            asked["memory"] = int(self.resources["memory"])
        if self.labels:
            asked["label_selector"] = dict(self.labels)
        return asked

    def fits(self, node: Node) -> bool:
        """Whether a node could ever take it, alone."""
        has, labels = node["Resources"], node.get("Labels") or {}
        enough = all(amount <= has.get(name, 0.0) for name, amount in self.resources.items() if name != HOLD)
        return enough and all(selected(selector, labels.get(key)) for key, selector in self.labels.items())

    def __str__(self) -> str:
        return shown(self.resources, self.labels)


def request(requires: Mapping[str, Any], nodes: Iterable[Node], *, measured: bool, share_nodes: bool) -> Request:
    """What a trial asks for.

    `memory` is the host's unless GPUs are required: then it is theirs, which Ray does not count; the node looks.

    Args:
        requires: of the point.
        nodes: of the cluster, for the names of accelerators that it has.
        measured: whether a device does the work; then nothing else of the harness is on the node meanwhile.
        share_nodes: unless it is on GPUs of its own and those may share.
    """
    resources = {"CPU": float(requires.get("cpu") or 1)}
    labels = {key: str(value) for key, value in (requires.get("labels") or {}).items()}
    model = requires.get("accelerator") or ""
    gpus = requires.get("gpu") or (1 if model else 0)
    if gpus:
        resources["GPU"] = float(gpus)
    elif requires.get("memory"):
        resources["memory"] = float(requires["memory"])
    if model:
        found = accelerators(model, nodes)
        if len(found) > 1:
            labels.setdefault(ACCELERATOR_LABEL, f"in({','.join(found)})")
        else:
            resources[ACCELERATOR + (found[0] if found else model)] = SHARED
    resources.update(requires.get("resources") or {})
    shared = not measured or (share_nodes and gpus > 0)
    resources[HOLD] = SHARED if shared else 1.0
    return Request(resources=resources, labels=labels, shared=shared)


def accelerators(model: str, nodes: Iterable[Node]) -> list[str]:
    """Types of accelerators in a cluster that a word means: the one of that name, else all whose names hold it."""
    offered = sorted({
        name.removeprefix(ACCELERATOR) for node in nodes for name in node["Resources"] if name.startswith(ACCELERATOR)
    })  # fmt: skip
    exact = [name for name in offered if name.casefold() == model.casefold()]
    return exact or [name for name in offered if model.casefold() in name.casefold()]


def selected(selector: str, value: str | None) -> bool:
    """Whether a node's label is what a selector of Ray asks for."""
    negated = selector.startswith("!")
    words = selector.removeprefix("!")
    listed = _SET.fullmatch(words)
    wanted = {word.strip() for word in listed.group(1).split(",")} if listed else {words}
    return (value in wanted) != negated


def describe(nodes: Sequence[Node]) -> str:
    """What a cluster has: its nodes, equal ones counted, without addresses."""
    kinds = Counter(
        shown(
            node["Resources"],
            {key: value for key, value in (node.get("Labels") or {}).items() if key != "ray.io/node-id"},
        )
        for node in nodes
    )
    listed = [f"{count} x [{kind}]" for kind, count in kinds.most_common(_NODES_SHOWN)]
    if len(kinds) > _NODES_SHOWN:
        listed.append(f"and {len(kinds) - _NODES_SHOWN} other kinds of nodes")
    return ", ".join(listed) or "no nodes"


def shown(resources: Mapping[str, float], labels: Mapping[str, str] | None = None) -> str:
    """Resources and labels for people: `CPU 2, memory 40 GB, labels side=left`; what Ray counts for itself left out."""
    words = []
    for name, amount in sorted(resources.items()):
        if name.startswith(("node:", "object_store_memory")):
            continue
        if name.startswith(ACCELERATOR):
            words.append(f"accelerator {name.removeprefix(ACCELERATOR)}")
        elif name == "memory":
            words.append(f"memory {amount / 1e9:.3g} GB")
        else:
            words.append(f"{name} {amount:g}")
    if labels:
        words.append("labels " + " ".join(f"{key}={value}" for key, value in sorted(labels.items())))
    return ", ".join(words)
