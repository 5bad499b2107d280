"""What a case requires, in Slurm's words: a generic resource, a constraint, processors, memory, licences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness_executor_slurm.cluster import Nodes, shown


class RefusalError(Exception):
    """Trials that cannot be submitted.

    Args:
        reason: why.
        skipped: nothing there has what the point requires, which is no failure of the run.
    """

    def __init__(self, reason: str, *, skipped: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.skipped = skipped


@dataclass(slots=True)
class Request:
    """What each job of an array asks for.

    Attributes:
        gres: `gpu:a100` -> how many.
        features: each a set of names of which a node must have one.
        cpus: processors.
        memory_mb: host memory, in MiB.
        licenses: name -> how many.
    """

    gres: dict[str, int] = field(default_factory=dict)
    features: list[tuple[str, ...]] = field(default_factory=list)
    cpus: int | None = None
    memory_mb: int | None = None
    licenses: dict[str, int] = field(default_factory=dict)

    def met_by(self, nodes: Nodes) -> bool:
        """Whether nodes have all of it."""
        return (
            nodes.cpus >= (self.cpus or 0)
            and nodes.memory_mb >= (self.memory_mb or 0)
            and all(nodes.gres.get(name, 0) >= count for name, count in self.gres.items())
            and all(nodes.features.intersection(names) for names in self.features)
        )

    def flags(self, constraint: str | None = None) -> dict[str, str]:
        """Options of sbatch, by their long names.

        Args:
            constraint: features that the user asks for as well, as sbatch writes them.
        """
        terms = [names[0] if len(names) == 1 else f"({'|'.join(names)})" for names in self.features]
        if constraint:
            terms.insert(0, f"({constraint})" if terms and "|" in constraint else constraint)
        found = {
            "gres": ",".join(f"{name}:{count}" for name, count in self.gres.items()),
            "constraint": "&".join(terms),
            "cpus-per-task": str(self.cpus or ""),
            "mem": f"{self.memory_mb}M" if self.memory_mb else "",
            "licenses": ",".join(f"{name}:{count}" for name, count in self.licenses.items()),
        }
        return {name: value for name, value in found.items() if value}


def request(requires: Mapping[str, Any], offer: Sequence[Nodes], licenses: Sequence[str] = ()) -> Request:
    """What to ask of Slurm for what a case requires.

    An accelerator is part of the name of a GPU's type (`--gres`), else of a feature (`--constraint`), in any case of
    letters. A label `arch: zen4` is the feature `arch=zen4`, else `zen4`. Slurm does not know a GPU's memory: `memory`
    asks for as much of the host's, so that a point which needs a large GPU names the accelerator too.

    Args:
        requires: of a job.
        offer: what the cluster has.
        licenses: names among the resources that are licences.

    Raises:
        RefusalError: no node has it.
    """
    made = Request(cpus=requires.get("cpu"))
    if requires.get("memory"):
        made.memory_mb = math.ceil(requires["memory"] / 2**20)
    model, gpus = requires.get("accelerator"), requires.get("gpu") or 0
    if model:
        _accelerator(made, model, max(1, gpus), offer)
    elif gpus:
        made.gres["gpu"] = gpus
    for name, value in sorted((requires.get("labels") or {}).items()):
        known = [word for word in (f"{name}={value}", value) if any(word in nodes.features for nodes in offer)]
        made.features.append((known[0] if known else f"{name}={value}",))
    for name, amount in sorted((requires.get("resources") or {}).items()):
        (made.licenses if name in licenses else made.gres)[name] = math.ceil(amount)
    if any(requires.values()) and not any(made.met_by(nodes) for nodes in offer):
        asked = " ".join(f"--{name}={value}" for name, value in made.flags().items())
        raise RefusalError(f"no node has {asked}; the cluster offers {shown(offer)}", skipped=True)
    return made


def _accelerator(made: Request, model: str, count: int, offer: Sequence[Nodes]) -> None:
    wanted = model.casefold()
    types = sorted({name for nodes in offer for name in nodes.gres if name.startswith("gpu:")})
    close = [name for name in types if wanted in name.removeprefix("gpu:").casefold()]
    exact = [name for name in close if name.removeprefix("gpu:").casefold() == wanted]
    if exact or len(close) == 1:
        made.gres[(exact or close)[0]] = count
        return
    if close:
        raise RefusalError(f"the accelerator {model} may be any of {', '.join(close)}; name one", skipped=False)
    features = sorted({word for nodes in offer for word in nodes.features if wanted in word.casefold()})
    if not features:
        raise RefusalError(f"no node has the accelerator {model}; the cluster offers {shown(offer)}", skipped=True)
    made.gres["gpu"] = count
    made.features.append(tuple(features))
