"""The backend on several devices: which are taken, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness_backend_torch import TorchOptions, harness_backends
from pydantic import ValidationError

from harness import MeasurementError, Unavailable
from harness.testing import FakeCard

UUIDS = ("11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
(SPEC,) = harness_backends()
FIRST, SECOND = (f"GPU-{uuid}" for uuid in UUIDS)


def cards(count: int = 2) -> list[FakeCard]:
    known = [FIRST, SECOND, *(f"GPU-{number:08d}-0000-0000-0000-000000000000" for number in range(2, count))]
    return [FakeCard(uuid=uuid, name=f"Card {number}") for number, uuid in enumerate(known[:count])]


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ("all", [0, 1, 2]),
        ([0, 1], [0, 1]),
        ([1, 0], [1, 0]),
        (["cuda:2"], [2]),
        ([SECOND, 2], [1, 2]),
        ([f"cuda-{UUIDS[0]}"], [0]),
    ],
)
def test_each_device_is_taken_in_the_order_asked_for(
    make_cards: Callable[..., Any], devices: Any, found: list[int]
) -> None:
    import torch
    from harness_backend_torch.backend import TorchBackend

    there = cards(3)
    make_cards(*there)
    options = TorchOptions(devices=devices)
    expected = [there[number].uuid for number in found]
    assert [device.uuid for device in SPEC.probe(options)] == expected
    backend = TorchBackend(options)
    assert [device.uuid for device in backend.open()] == expected
    assert backend.devices == tuple(torch.device("cuda", number) for number in found)
    assert backend.device == backend.devices[0]
    others = backend.fingerprint().get("other_devices", {})
    assert list(others) == expected[1:]
    assert all(facts["power_limit_w"] == 300.0 for facts in others.values())
    backend.close()
    with pytest.raises(MeasurementError, match="not open"):
        _ = backend.devices


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([0, 0], "named twice: 0, 0"),
        ([0, "cuda:0"], "named twice: 0, cuda:0"),
        ([FIRST, f"cuda:{FIRST.lower()}"], "named twice"),
        (["cpu", 0], "several kinds: cpu, cuda"),
        (["cpu", "cpu"], "named twice: cpu, cpu"),
        ([-1], "accepted: an index from 0"),
        ([True], "valid integer"),
        (["auto"], "is not one device"),
        (["cuda"], "is not one device"),
        ([], "at least 1 item"),
        ("some", "all"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_machine_is_asked(devices: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TorchOptions(devices=devices)


def test_device_and_devices_are_not_both_given() -> None:
    with pytest.raises(ValidationError, match="accepted: one of the two"):
        TorchOptions(device="cuda:0", devices=[0, 1])
    assert TorchOptions(device="auto", devices=[0, 1]).devices == [0, 1]


def test_one_card_under_two_names_is_found_out(make_cards: Callable[..., Any]) -> None:
    make_cards(*cards())
    assert SPEC.probe(TorchOptions(devices=[0, FIRST])) == Unavailable(f"devices, 0 and {FIRST}: both are {FIRST}")


def test_an_unknown_device_names_those_that_are_there(make_cards: Callable[..., Any]) -> None:
    make_cards(*cards())
    beyond = SPEC.probe(TorchOptions(devices=[0, 7]))
    assert isinstance(beyond, Unavailable)
    assert beyond.reason == "devices, 7: no CUDA device: index 7 was asked for, 2 visible, counted from 0"
    unknown = SPEC.probe(TorchOptions(devices=["GPU-00000000-0000-0000-0000-000000000000"]))
    assert isinstance(unknown, Unavailable)
    assert FIRST in unknown.reason
    assert SECOND in unknown.reason


def test_a_whole_card_and_a_partition_are_of_two_kinds(
    make_cards: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_backend_torch import devices

    make_cards(FakeCard(uuid=FIRST), FakeCard(uuid=SECOND, name="NVIDIA A100 MIG 1g.5gb"))
    monkeypatch.setattr(devices, "mig_parent", lambda uuid: "GPU-parent")
    found = SPEC.probe(TorchOptions(devices=[0, 1]))
    assert isinstance(found, Unavailable)
    assert "whole cards and partitions" in found.reason


def test_all_devices_of_a_machine_without_any_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    found = SPEC.probe(TorchOptions(devices="all"))
    assert isinstance(found, Unavailable)
    assert "built without CUDA" in found.reason


def test_a_cpu_may_be_listed_alone() -> None:
    (device,) = SPEC.probe(TorchOptions(devices=["cpu"]))
    assert device.kind == "cpu"


def test_a_load_works_every_device() -> None:
    import torch
    from harness_backend_torch.load import matrix_loads

    from harness.testing import until

    waited: list[int] = []
    cpu = torch.device("cpu")
    with matrix_loads([cpu, cpu], lambda device: waited.append(len(waited))) as load:
        settled = len(waited)
        load.busy()
        assert until(lambda: len(waited) > settled + 4)
        load.idle()
    assert load.switch_s > 0
