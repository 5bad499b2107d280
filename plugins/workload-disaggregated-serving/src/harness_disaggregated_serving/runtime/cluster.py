"""Roles on the nodes of a Ray cluster: an actor a role, which owns the role's process and answers for its node.

Ray places the actors, tells when one dies and carries small messages: a role's job and meter readings. Caches and
probability rows never enter its object store; they go from role to role over the links of `transport`.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from harness.backend import Device
from harness.errors import MeasurementError, UsageError
from harness_disaggregated_serving.runtime.launching import LocalProcess, RoleProcess

EXTRA: Final = "joule-harness-workload-disaggregated-serving[ray]"
OWN_NODE: Final = "n0"
"""The node that this process is on, as the harness calls it."""
_ANSWER_S: Final = 15.0
"""An actor that does not answer for so long is taken for lost."""
_CALLS: Final = 4
"""Calls that an actor serves at a time: a role that ends must not wait for a meter, nor a meter for it."""
_INTERNAL: Final = ("node:", "object_store_memory", "memory")
"""Resources that Ray adds by itself."""

Answer = TypeVar("Answer")


def import_ray() -> Any:
    """The library; raises UsageError that names the extra, or says why it does not import."""
    try:
        # zeus brings amdsmi, which fails with a KeyError where there is no ROCm; Ray expects an ImportError then.
        importlib.import_module("amdsmi")
    except ImportError:
        pass
    except Exception:  # noqa: BLE001 - whatever else it raises, it is of no use here
        sys.modules["amdsmi"] = None  # type: ignore[assignment] # imports of it raise ImportError from now on
    try:
        import ray
    except ImportError:
        raise UsageError(f"roles on a cluster need Ray: pip install '{EXTRA}', here and on its nodes") from None
    except Exception as error:  # noqa: BLE001 - a library that is broken here is the machine's fault, told as such
        raise UsageError(f"the library ray does not import here: {type(error).__name__}: {error}") from None
    return ray


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a role may run.

    Attributes:
        resources: Ray's resources and amounts, `GPU` and `CPU` among them.
        labels: of the node, as Ray's label selectors write them.
    """

    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """As Ray takes them."""
        own = {name: amount for name, amount in self.resources.items() if name not in {"CPU", "GPU"}}
        return {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "resources": own,
            "label_selector": dict(self.labels),
        }

    def __str__(self) -> str:
        return f"resources {_shown(self.resources)}, labels {_shown(self.labels)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """A cluster and what is asked of it.

    Attributes:
        address: `auto`, or host and port of the cluster's control service.
        places: per role.
        timeout_s: for connecting, and for placing the roles.
    """

    address: str
    places: Mapping[str, Place]
    timeout_s: float = 60.0


def _shown(values: Mapping[str, Any]) -> str:
    listed = ", ".join(
        f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in sorted(values.items())
    )
    return f"{{{listed}}}"


def offer(nodes: Iterable[Mapping[str, Any]], free: Mapping[str, float]) -> str:
    """What a cluster offers, node by node, and what of it is free; arguments as Ray's own functions return them."""

    def ours(resources: Mapping[str, Any]) -> dict[str, Any]:
        return {name: amount for name, amount in resources.items() if not name.startswith(_INTERNAL)}

    alive = [
        f"{node['NodeManagerAddress']} has resources {_shown(ours(node['Resources']))}, labels "
        + _shown({name: value for name, value in node.get("Labels", {}).items() if name != "ray.io/node-id"})
        for node in nodes
        if node["Alive"]
    ]
    return f"{'; '.join(alive) or 'no node is alive'}; free in all: {_shown(ours(free))}"


class RoleActor:
    """What runs on a role's node, in a process of Ray's: starts the role, ends it, and runs the core's functions."""

    def __init__(self) -> None:
        self._process: LocalProcess | None = None

    def where(self) -> dict[str, Any]:
        """The node's address and id, and this process."""
        ray = import_ray()
        context = ray.get_runtime_context()
        return {"host": ray.util.get_node_ip_address(), "node": context.get_node_id(), "pid": os.getpid()}

    def launch(self, job: Mapping[str, Any]) -> None:
        """Starts the role as a child, in place of an earlier one."""
        self.kill()
        self._process = LocalProcess(job)

    def ended(self, wait_s: float) -> str | None:
        """How the role's process ended; None while it runs."""
        return None if self._process is None else self._process.ended(wait_s)

    def kill(self) -> None:
        """Ends the role's process."""
        if self._process is not None:
            self._process.kill()

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a function of an installed module."""
        return function(*arguments)


class Member:
    """A role's actor as this process sees it; a `RoleProcess`.

    Attributes:
        name: of its node, `n0` where this process is on it too.
        where: what the actor said of its place.
    """

    def __init__(self, ray: Any, actor: Any, name: str, where: Mapping[str, Any]) -> None:
        self._ray = ray
        self._actor = actor
        self._lost: MeasurementError | None = None
        self.name = name
        self.where = where

    @property
    def lost(self) -> bool:
        """Whether its actor is gone."""
        return self._lost is not None

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a function of an installed module over there."""
        found: Answer = self._asked(self._actor.call, function, *arguments)
        return found

    def launch(self, job: Mapping[str, Any], timeout_s: float) -> None:
        """Starts a role's process."""
        self._asked(self._actor.launch, job, wait_s=timeout_s)

    def ended(self, wait_s: float = 0.0) -> str | None:
        """How the role's process, or the actor that owned it, ended; None while it runs."""
        try:
            found: str | None = self._asked(self._actor.ended, wait_s, wait_s=wait_s + _ANSWER_S)
        except MeasurementError as error:
            return f"with its actor: {error}"
        return found

    def kill(self) -> None:
        """Ends the role's process; the actor goes on and answers for its node."""
        try:
            self._asked(self._actor.kill)
        except MeasurementError:
            self._ray.kill(self._actor)  # it does not answer: its process is ended, and the role's with it

    def _asked(self, method: Any, *arguments: object, wait_s: float = _ANSWER_S) -> Any:
        if self._lost is not None:
            raise self._lost
        try:
            return self._ray.get(method.remote(*arguments), timeout=wait_s)
        except self._ray.exceptions.GetTimeoutError:
            self._lost = MeasurementError(f"the actor on {self.where['host']} did not answer for {wait_s:g} s")
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            self._lost = MeasurementError(f"the actor on {self.where['host']} is gone: {type(error).__name__}: {last}")
        raise self._lost


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node as the core sees it: a `harness.meter.Node` that a role's actor answers for."""

    name: str
    devices: tuple[Device, ...]
    processes: Mapping[str, int]
    member: Member

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a function of an installed module over there."""
        return self.member.call(function, *arguments)


class Cluster:
    """A connection to a cluster with an actor for each role. A launcher of roles.

    Args:
        options: where it is, and what is asked of it.
        roles: to be placed.

    Raises:
        UsageError: the library is missing.
        MeasurementError: there is no such cluster, or it has no place for a role in time.
    """

    def __init__(self, options: ClusterOptions, roles: Iterable[str]) -> None:
        self._ray = ray = import_ray()
        self._options = options
        self._owned = not ray.is_initialized()
        self.members: dict[str, Member] = {}
        self._actors: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        try:
            if self._owned:
                self._connect()
            self._place(list(roles))
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        address, timeout_s = self._options.address, self._options.timeout_s
        if address != "auto":
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=timeout_s).close()
            except OSError as error:
                raise MeasurementError(f"no Ray cluster at {address}: {error.strerror or error}") from None
        try:
            self._ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MeasurementError(f"no connection to the Ray cluster at {address!r}: {error}") from None

    def _place(self, roles: list[str]) -> None:
        ray = self._ray
        actors = {}
        for role in roles:
            actor = ray.remote(RoleActor).options(max_concurrency=_CALLS, **self._options.places[role].options())
            actors[role] = self._actors[role] = actor.remote()
        names = self._names
        names.setdefault(ray.get_runtime_context().get_node_id(), OWN_NODE)
        answers = {role: actor.where.remote() for role, actor in actors.items()}
        found, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=self._options.timeout_s)
        missing = [role for role, answer in answers.items() if answer not in found]
        if missing:
            asked = " and ".join(f"for role {role}, which asks for {self._options.places[role]}" for role in missing)
            raise MeasurementError(
                f"no place on the Ray cluster in {self._options.timeout_s:g} s {asked}; "
                f"{offer(ray.nodes(), ray.available_resources())}"
            )
        for role, answer in answers.items():
            try:
                where = ray.get(answer)
            except ray.exceptions.RayError as error:
                raise MeasurementError(f"role {role} could not start on the Ray cluster: {error}") from None
            name = names.setdefault(where["node"], f"n{len(names)}")
            self.members[role] = Member(ray, actors[role], name, where)

    def client_host(self) -> str:
        """This node's address, as the others reach it."""
        host: str = self._ray.util.get_node_ip_address()
        return host

    def role_host(self, role: str) -> str:
        """The address of a role's node."""
        host: str = self.members[role].where["host"]
        return host

    def launch(self, role: str, job: Mapping[str, Any]) -> RoleProcess:
        """Starts a role on its node; one whose actor was lost is placed anew first."""
        if self.members[role].lost:
            self._place([role])
        self.members[role].launch(job, self._options.timeout_s)
        return self.members[role]

    def nodes(self, devices: Mapping[str, Device], processes: Mapping[str, int]) -> list[ClusterNode]:
        """The nodes that hold a role, each once.

        Args:
            devices: of the roles that have one which a meter reads.
            processes: of every role.
        """
        found = []
        for name in dict.fromkeys(member.name for member in self.members.values()):
            roles = [role for role, member in self.members.items() if member.name == name]
            taken = dict.fromkeys(devices[role] for role in roles if role in devices)
            # The processes of this process's own node are read from here, like those of a pair without a cluster.
            pids = {role: processes[role] for role in roles if role in processes and name != OWN_NODE}
            found.append(ClusterNode(name, tuple(taken), pids, self.members[roles[0]]))
        return found

    def facts(self) -> dict[str, dict[str, object]]:
        """Where each role is."""
        return {
            role: {
                "node": member.name,
                "address": member.where["host"],
                "ray_node": member.where["node"],
                "asked": str(self._options.places[role]),
            }
            for role, member in self.members.items()
        }

    def close(self) -> None:
        """Ends the actors and the connection, unless it was there before."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        if self._owned and self._ray.is_initialized():
            self._ray.shutdown()
