"""Requirements of a suite in Ray's words, and which nodes meet them."""

from __future__ import annotations

from typing import Any

import pytest
from harness_executor_ray.placement import HOLD, SHARED, Request, accelerators, describe, request, selected
from hypothesis import given, settings
from hypothesis import strategies as st


def node(labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    given = {name.replace("__", ":"): amount for name, amount in resources.items()}
    return {"Resources": {"CPU": 4.0, "memory": 8e9, "node:10.1.2.3": 1.0, **given}, "Labels": labels or {}}


PLAIN = node({"side": "left", "ray.io/node-id": "abc"})
H100 = node({"side": "right"}, GPU=2.0, accelerator_type__H100=1.0, licence=2.0)


def asked(requires: dict[str, Any], *, measured: bool = True, share_nodes: bool = False) -> Request:
    return request(requires, [PLAIN, H100], measured=measured, share_nodes=share_nodes)


def test_nothing_required_is_one_processor_and_the_node():
    assert asked({}).options() == {"num_cpus": 1.0, "resources": {HOLD: 1.0}}


def test_everything_required():
    requires = {
        "gpu": 2,
        "cpu": 3,
        "accelerator": "h100",
        "memory": 40_000_000_000,
        "labels": {"side": "right"},
        "resources": {"licence": 1.5},
    }
    assert asked(requires).options() == {
        "num_cpus": 3.0,
        "num_gpus": 2.0,
        "label_selector": {"side": "right"},
        "resources": {"accelerator_type:H100": 0.001, "licence": 1.5, HOLD: 1.0},
    }


def test_memory_is_the_hosts_unless_gpus_are_required():
    assert asked({"memory": 5_000_000_000}).options()["memory"] == 5_000_000_000
    assert "memory" not in asked({"memory": 5_000_000_000, "gpu": 1}).options()


def test_an_accelerator_alone_is_one_gpu():
    assert asked({"accelerator": "H100"}).options()["num_gpus"] == 1.0


def test_who_may_share_a_node():
    assert asked({}).resources[HOLD] == 1.0
    assert asked({}, share_nodes=True).resources[HOLD] == 1.0
    assert asked({"gpu": 1}).resources[HOLD] == 1.0
    assert asked({"gpu": 1}, share_nodes=True).resources[HOLD] == SHARED
    assert asked({}, measured=False).resources[HOLD] == SHARED


def test_the_name_of_the_hold_is_rays():
    ray_constants = pytest.importorskip("harness_executor_ray.cluster").import_ray()
    assert HOLD.startswith(ray_constants._raylet.IMPLICIT_RESOURCE_PREFIX)


@pytest.mark.parametrize(
    ("requires", "fitting"),
    [
        ({}, [PLAIN, H100]),
        ({"labels": {"side": "left"}}, [PLAIN]),
        ({"labels": {"side": "!left"}}, [H100]),
        ({"labels": {"side": "in(left,right)"}}, [PLAIN, H100]),
        ({"accelerator": "H100"}, [H100]),
        ({"accelerator": "B200"}, []),
        ({"gpu": 3}, []),
        ({"cpu": 4}, [PLAIN, H100]),
        ({"cpu": 5}, []),
        ({"memory": 9_000_000_000}, []),
        ({"resources": {"licence": 2.0}}, [H100]),
        ({"resources": {"licence": 2.5}}, []),
    ],
)
def test_which_nodes_fit(requires: dict[str, Any], fitting: list[dict[str, Any]]):
    wanted = asked(requires)
    assert [each for each in (PLAIN, H100) if wanted.fits(each)] == fitting


def test_a_part_of_an_accelerators_name_means_all_that_have_it():
    small, large = (
        node(GPU=1.0, **{"accelerator_type__A100-40G": 1.0}),
        node(GPU=1.0, accelerator_type__A100=1.0),
    )
    assert accelerators("a100", [small]) == ["A100-40G"]
    assert accelerators("a100", [small, large]) == ["A100"]
    other = node(GPU=1.0, **{"accelerator_type__A100-80G": 1.0})
    both = request({"accelerator": "a100"}, [small, other], measured=True, share_nodes=False)
    assert both.labels == {"ray.io/accelerator-type": "in(A100-40G,A100-80G)"}
    assert not any(name.startswith("accelerator_type") for name in both.resources)


@pytest.mark.parametrize(
    ("selector", "value", "is_selected"),
    [
        ("a", "a", True),
        ("a", None, False),
        ("!a", None, True),
        ("!a", "a", False),
        ("in(a, b)", "b", True),
        ("!in(a,b)", "b", False),
        ("!in(a,b)", "c", True),
    ],
)
def test_selectors(selector: str, value: str | None, is_selected: bool):
    assert selected(selector, value) is is_selected


def test_a_cluster_is_described_without_addresses():
    text = describe([PLAIN, PLAIN, H100])
    assert text.startswith("2 x [CPU 4, memory 8 GB, labels side=left], 1 x [CPU 4, GPU 2, accelerator H100, licence 2")
    assert "10.1.2.3" not in text
    assert "abc" not in text
    assert describe([]) == "no nodes"


def test_many_kinds_of_nodes_are_not_all_listed():
    assert "and 12 other kinds of nodes" in describe([node({"rack": str(n)}) for n in range(20)])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 4), st.integers(1, 8), st.integers(0, 4))
def test_more_never_fits_less(cpu: int, gpu: int, more_cpu: int, more_gpu: int):
    """A node that takes a trial takes one that requires less, and a larger node takes it too."""
    wanted = asked({"cpu": cpu, "gpu": gpu})
    has = node(CPU=float(more_cpu), GPU=float(more_gpu))
    if wanted.fits(has):
        assert asked({"cpu": max(1, cpu - 1), "gpu": max(0, gpu - 1)}).fits(has)
        assert wanted.fits(node(CPU=more_cpu + 1.0, GPU=more_gpu + 1.0))
