"""Roles on a cluster, without one: what is asked, what is said, and an actor that is gone. Ray is a stand-in here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import harness_disaggregated_serving
import pytest
from harness_disaggregated_serving.runtime.cluster import Cluster, ClusterOptions, Member, Place, import_ray, offer
from harness_disaggregated_serving.runtime.options import PairRunOptions
from harness_disaggregated_serving.runtime.workload import cluster_of
from pydantic import ValidationError

from harness.backend import Device
from harness.errors import MeasurementError, UsageError


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


class RayTaskError(RayError):
    pass


class Actor:
    """Calls are made when their answer is asked for."""

    def __init__(self, place: dict[str, Any], **methods: Callable[..., Any]) -> None:
        self.place = place
        self.methods = {"where": lambda: {"host": "10.0.0.2", "node": place["node"], "pid": 7}, **methods}

    def __getattr__(self, name: str) -> Any:
        method = self.methods[name]
        return SimpleNamespace(remote=lambda *arguments: lambda: method(*arguments))


class Ray(ModuleType):
    """The part of the library that the cluster uses."""

    exceptions = SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError, RayTaskError=RayTaskError)
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")

    def __init__(self, *, waits: bool = False) -> None:
        super().__init__("ray")
        self.waits = waits
        self.connected = False
        self.asked: list[dict[str, Any]] = []
        self.killed: list[Actor] = []
        self.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "own")

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, **options: Any) -> None:
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            self.asked.append(given)
            node = "own" if given["label_selector"].get("here") else f"node {given['resources']}"
            return SimpleNamespace(remote=lambda: Actor({"node": node}))

        return SimpleNamespace(options=options)

    def wait(self, answers: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return ([], answers) if self.waits else (answers, [])

    def get(self, answer: Callable[[], Any], timeout: float | None = None) -> Any:
        return answer()

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def nodes(self) -> list[dict[str, Any]]:
        return NODES

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 3.0, "memory": 5.0}


NODES = [
    {
        "Alive": True,
        "NodeManagerAddress": "10.0.0.2",
        "Resources": {"CPU": 4.0, "new_gpu": 1.0, "node:10.0.0.2": 1.0, "memory": 9e9, "object_store_memory": 1e9},
        "Labels": {"ray.io/node-id": "ab", "age": "new"},
    },
    {"Alive": False, "NodeManagerAddress": "10.0.0.3", "Resources": {"GPU": 8.0}, "Labels": {}},
]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    library = Ray()
    monkeypatch.setitem(sys.modules, "ray", library)
    return library


def wanted(**places: Place) -> ClusterOptions:
    return ClusterOptions(address="auto", places=places, timeout_s=3.0)


def test_an_offer_says_what_living_nodes_have_and_leaves_out_rays_own() -> None:
    said = offer(NODES, {"CPU": 3.0, "object_store_memory": 1.0})
    assert said == "10.0.0.2 has resources {CPU: 4, new_gpu: 1}, labels {age: new}; free in all: {CPU: 3}"
    assert offer([], {}) == "no node is alive; free in all: {}"


def test_a_place_asks_ray_for_its_own_resources_by_their_own_names() -> None:
    place = Place(resources={"GPU": 1, "CPU": 2, "old_gpu": 1}, labels={"age": "old"})
    asked = {"num_cpus": 2, "num_gpus": 1, "resources": {"old_gpu": 1}, "label_selector": {"age": "old"}}
    assert place.options() == asked


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        import_ray()
    assert "[ray]" in caught.value.message
    spec = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "greenllm")
    assert spec.probe is not None
    reason = spec.probe(PairRunOptions.model_validate({"cluster": {}}))
    assert reason is not None
    assert "[ray]" in reason.reason


def test_a_driver_library_that_breaks_on_import_is_hidden_from_ray(monkeypatch: pytest.MonkeyPatch, ray: Ray) -> None:
    broken = ModuleType("amdsmi")
    monkeypatch.setitem(sys.modules, "amdsmi", broken)

    def fail(name: str) -> None:
        raise KeyError("libamd_smi.so")

    monkeypatch.setattr("importlib.import_module", fail)
    assert import_ray() is ray
    assert sys.modules["amdsmi"] is None


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"address": "nowhere"}, "address"),
        ({"address": "host:port"}, "address"),
        ({"new": {"resources": {"GPU": 0}}}, "greater than 0"),
        ({"timeout": "0s"}, "timeout"),
    ],
)
def test_what_no_cluster_can_be_asked_is_refused(cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PairRunOptions.model_validate({"cluster": cluster})


def test_roles_on_gpus_ask_for_one_and_nodes_are_named_in_order(ray: Ray) -> None:
    options = {
        "configuration": "dpd", "new": {"device": "cuda:0"},
        "cluster": {"new": {"labels": {"here": "yes"}}, "old": {"resources": {"old_gpu": 1}}},
    }  # fmt: skip
    cluster = cluster_of(PairRunOptions.model_validate(options))
    assert cluster is not None
    assert [asked["num_gpus"] for asked in ray.asked] == [1, 0]
    assert {role: member.name for role, member in cluster.members.items()} == {"new": "n0", "old": "n1"}
    card = Device(kind="gpu", uuid="GPU-1", name="L4")
    here, there = cluster.nodes({"new": card}, {"new": 1, "old": 2})
    assert (here.name, here.devices, here.processes) == ("n0", (card,), {})  # its processes are read from here
    assert (there.name, there.devices, there.processes) == ("n1", (), {"old": 2})
    cluster.close()
    assert len(ray.killed) == 2
    assert not ray.connected


def test_two_roles_on_one_node_are_one_node(ray: Ray) -> None:
    cluster = Cluster(wanted(new=Place(), old=Place()), ["new", "old"])
    (node,) = cluster.nodes({}, {"new": 1, "old": 2})
    assert (node.name, node.processes) == ("n1", {"new": 1, "old": 2})


def test_what_nobody_can_place_is_a_reason_and_leaves_nothing_behind(ray: Ray) -> None:
    ray.waits = True
    with pytest.raises(MeasurementError, match=r"in 3 s for role new, which asks for resources \{x: 1\}.*10\.0\.0\.2"):
        Cluster(wanted(new=Place(resources={"x": 1})), ["new"])
    assert len(ray.killed) == 1
    assert not ray.connected


def test_an_address_where_nothing_listens_is_said_at_once(ray: Ray) -> None:
    with pytest.raises(MeasurementError, match=r"no Ray cluster at 127\.0\.0\.1:9: "):
        Cluster(ClusterOptions(address="127.0.0.1:9", places={"new": Place()}, timeout_s=3.0), ["new"])


def test_a_connection_of_somebody_else_stays(ray: Ray) -> None:
    ray.connected = True
    Cluster(wanted(new=Place()), ["new"]).close()
    assert ray.connected


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"), [(RayError("one\nit died"), "is gone: RayError: it died"), (GetTimeoutError(), "did not answer")]
)
def test_an_actor_that_is_gone_stays_gone_with_its_reason(ray: Ray, error: Exception, said: str) -> None:
    actor = Actor({"node": "x"}, call=raises(error), ended=lambda wait_s: None, kill=lambda: None)
    member = Member(ray, actor, "n1", {"host": "10.0.0.2"})
    assert member.ended() is None
    with pytest.raises(MeasurementError, match=said):
        member.call(len, "ab")
    assert member.lost
    ended = member.ended()
    assert ended is not None
    assert said in ended
    member.kill()
    assert ray.killed == [actor]


def test_what_a_function_raises_over_there_loses_nobody(ray: Ray) -> None:
    member = Member(ray, Actor({"node": "x"}, call=raises(RayTaskError("bad"))), "n1", {"host": "10.0.0.2"})
    with pytest.raises(RayTaskError):
        member.call(len, "ab")
    assert not member.lost


def test_a_lost_actor_is_placed_anew_for_the_next_pair(ray: Ray) -> None:
    cluster = Cluster(wanted(new=Place(resources={"x": 1})), ["new"])
    first = cluster.members["new"]
    first._lost = MeasurementError("killed")
    launched: list[Any] = []
    ray.remote = lambda kind: SimpleNamespace(  # type: ignore[method-assign]
        options=lambda **_: SimpleNamespace(remote=lambda: Actor({"node": "another"}, launch=launched.append))
    )
    assert cluster.launch("new", {"role": "new"}) is cluster.members["new"] is not first
    assert launched == [{"role": "new"}]
    assert cluster.members["new"].name == "n2"  # n1 was the first one's
