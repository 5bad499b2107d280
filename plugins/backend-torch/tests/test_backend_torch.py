from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness_backend_torch import TorchOptions, harness_backends, nvidia, power
from pydantic import ValidationError

from harness import MeasurementError, Unavailable


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global TorchBackend, devices, matrix_load, torch
    import torch
    from harness_backend_torch import devices
    from harness_backend_torch.backend import TorchBackend
    from harness_backend_torch.load import matrix_load


UUIDS = ("11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
(SPEC,) = harness_backends()


@pytest.fixture(autouse=True)
def process_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def two_cards(monkeypatch):
    """A process that sees two cards, in an order of the scheduler's choosing; returns the order, to be changed."""
    order = [0, 1]

    def properties(index):
        return SimpleNamespace(uuid=UUIDS[order[index]], name=f"Card {order[index]}", total_memory=10**9)

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(order))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return order


def test_offer_imports_no_torch():
    code = (
        "import sys, harness_backend_torch as m; assert list(m.harness_backends());"
        "sys.exit(any(n in sys.modules for n in ('torch', 'numpy', 'pynvml')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    "device", ["auto", "cpu", "cuda", "cuda:3", "mps", f"GPU-{UUIDS[0]}", f"cuda-{UUIDS[0]}", f"MIG-{UUIDS[1]}"]
)
def test_devices_accepted(device):
    assert TorchOptions(device=device).device == device


@pytest.mark.parametrize(
    "bad", [{"device": "gpu"}, {"device": "cuda:-1"}, {"device": "cuda:x"}, {"threads": 0}, {"x": 1}]
)
def test_options_refused(bad):
    with pytest.raises(ValidationError):
        TorchOptions(**bad)


def test_cpu_probe_names_the_processor_and_its_memory():
    (device,) = SPEC.probe(TorchOptions(device="cpu"))
    assert (device.kind, device.uuid, device.parent) == ("cpu", "cpu", None)
    assert device.name
    assert device.memory_bytes is not None
    assert device.memory_bytes > 10**8


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", f"GPU-{UUIDS[0]}"])
def test_cuda_absent_is_unavailable_with_the_reason(monkeypatch, wanted):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    why = SPEC.probe(TorchOptions(device=wanted))
    assert isinstance(why, Unavailable)
    assert why.reason.startswith("no CUDA device: ")
    assert "built without CUDA" in why.reason
    backend = SPEC.factory(TorchOptions(device=wanted))
    with pytest.raises(MeasurementError, match="no CUDA device"):
        backend.open()
    backend.close()


def test_hidden_cards_are_named_as_hidden(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    why = SPEC.probe(TorchOptions(device="cuda"))
    assert why == Unavailable("no CUDA device: none is visible (CUDA_VISIBLE_DEVICES='')")


def test_a_card_is_found_by_uuid_when_renumbered(two_cards):
    for order in ([0, 1], [1, 0]):
        two_cards[:] = order
        for wanted in (f"GPU-{UUIDS[1]}", f"cuda-{UUIDS[1]}", f"cuda:GPU-{UUIDS[1]}"):
            found = devices.find(wanted)
            assert isinstance(found, devices.Found)
            assert found.device.uuid == f"GPU-{UUIDS[1]}"
            assert found.device.name == "Card 1"
            assert found.torch_device == torch.device("cuda", order.index(1))


def test_an_index_beyond_the_visible_cards_is_refused(two_cards):
    found = devices.find("cuda:2")
    assert isinstance(found, Unavailable)
    assert "2 visible" in found.reason


def test_an_unknown_uuid_lists_what_is_there(two_cards):
    found = devices.find("GPU-00000000-0000-0000-0000-000000000000")
    assert isinstance(found, Unavailable)
    assert all(uuid in found.reason for uuid in UUIDS)


def test_a_partition_carries_its_parent(two_cards, monkeypatch):
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(uuid=UUIDS[0], name="NVIDIA A100 MIG 1g.5gb", total_memory=5 * 10**9),
    )
    monkeypatch.setattr(devices, "mig_parent", lambda uuid: f"GPU-{UUIDS[1]}" if uuid == f"MIG-{UUIDS[0]}" else None)
    found = devices.find("cuda")
    assert isinstance(found, devices.Found)
    assert (found.device.uuid, found.device.parent) == (f"MIG-{UUIDS[0]}", f"GPU-{UUIDS[1]}")


def test_cpu_has_one_thread_by_default_and_gives_it_back():
    torch.set_num_threads(2)
    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    assert backend.device == torch.device("cpu")
    assert torch.get_num_threads() == backend.fingerprint()["threads"] == 1
    backend.synchronize()
    backend.close()
    backend.close()
    assert torch.get_num_threads() == 2


def test_deterministic_holds_while_open_only():
    backend = TorchBackend(TorchOptions(device="cpu", threads=2, deterministic=True))
    backend.open()
    assert torch.are_deterministic_algorithms_enabled()
    assert backend.fingerprint()["deterministic"] is True
    assert backend.fingerprint()["threads"] == 2
    backend.close()
    assert not torch.are_deterministic_algorithms_enabled()


def test_before_open_there_is_no_device():
    backend = TorchBackend(TorchOptions())
    with pytest.raises(MeasurementError, match="not open"):
        _ = backend.device
    backend.close()


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5])
def test_a_seed_repeats_every_generator(seed):
    import numpy as np

    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()

    def draw():
        backend.seed(seed)
        return random.random(), torch.rand(4).tolist(), np.random.rand(4).tolist()  # noqa: NPY002 - the legacy generator is what is seeded

    first = draw()
    assert draw() == first
    backend.seed(seed + 1)
    assert torch.rand(4).tolist() != first[1]
    backend.close()


def test_fingerprint_is_json_and_names_the_version():
    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    facts = backend.fingerprint()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["torch"] == torch.__version__
    backend.close()


def test_a_card_without_nvml_is_described_as_such(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvidia.describe("GPU-x")["driver"] is None
    assert nvidia.mig_parent("MIG-x") is None


def test_nvml_answers_and_refusals_are_told_apart(monkeypatch):
    class NVMLError(Exception):
        pass

    def refused(*args):
        raise NVMLError("Not Supported")

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"570.1",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetVbiosVersion=lambda handle: "96.0",
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 300_000,
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: 1000 * kind,
        nvmlDeviceGetApplicationsClock=refused,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    facts = nvidia.describe("GPU-x")
    assert facts["driver"] == "570.1"
    assert facts["power_limit_w"] == pytest.approx(300.0)
    assert facts["max_sm_clock_mhz"] == 1000
    assert facts["application_sm_clock_mhz"] == "unavailable: Not Supported"


def test_the_functions_used_exist_in_nvidias_module():
    pynvml = pytest.importorskip("pynvml")
    source = Path(nvidia.__file__).read_text() + Path(power.__file__).read_text()
    names = set(re.findall(r"(?:library|_nvml)\.((?:nvml|NVML)\w+)", source))
    assert len(names) > 16
    assert [name for name in names if not hasattr(pynvml, name)] == []


@pytest.mark.gpu
def test_real_card_by_uuid():
    (device,) = SPEC.probe(TorchOptions(device="cuda"))
    assert re.fullmatch(r"(GPU|MIG)-[0-9a-f-]{36}", device.uuid)
    backend = TorchBackend(TorchOptions(device=device.uuid))
    assert list(backend.open()) == [device]
    backend.seed(1)
    product = torch.rand(256, 256, device=backend.device) @ torch.rand(256, 256, device=backend.device)
    backend.synchronize()
    assert torch.isfinite(product).all()
    facts = backend.fingerprint()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["driver"]
    backend.close()


def test_the_load_works_while_it_is_busy_and_ends_with_its_context():
    waited = []

    def synchronize():
        waited.append(threading.current_thread().name)

    with matrix_load(torch.device("cpu"), synchronize) as load:
        assert load.switch_s > 0
        assert load.true_joules() is None
        settled = len(waited)
        load.busy()
        until = time.monotonic() + 20
        while len(waited) < settled + 3 and time.monotonic() < until:
            time.sleep(0.01)
        load.idle()
    assert len(waited) >= settled + 3
    assert set(waited) == {"harness-load"}
    assert "harness-load" not in [thread.name for thread in threading.enumerate()]


def test_what_ends_a_load_is_raised():
    def broken():
        raise RuntimeError("the card fell off the bus")

    with pytest.raises(RuntimeError, match="fell off"), matrix_load(torch.device("cpu"), broken):
        pass


@pytest.fixture
def rocm(two_cards, monkeypatch):
    """The same process with a torch built for ROCm; returns the buses of its devices, to be changed."""
    buses = [0xC1, 0x3]

    def properties(index):
        return SimpleNamespace(
            name="AMD Instinct MI300X", gcnArchName="gfx942:sramecc+:xnack-", total_memory=10**9,
            pci_domain_id=0, pci_bus_id=buses[index], pci_device_id=0,
        )  # fmt: skip

    monkeypatch.setattr(torch.version, "hip", "6.4.43482")
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return buses


def test_an_amd_device_is_named_by_its_pci_address(rocm):
    found = devices.find("cuda:1")
    assert isinstance(found, devices.Found)
    assert (found.device.uuid, found.device.parent) == ("PCI-0000:03:00.0", None)
    again = devices.find("PCI-0000:C1:00.0")
    assert isinstance(again, devices.Found)
    assert again.torch_device.index == 0
    assert TorchOptions(device="PCI-0000:c1:00.0")


def test_partitions_of_an_amd_card_have_numbers_and_one_parent(rocm):
    rocm[1] = rocm[0]
    every = [devices.find(f"cuda:{index}").device for index in range(2)]
    assert [each.uuid for each in every] == ["PCI-0000:c1:00.0#0", "PCI-0000:c1:00.0#1"]
    assert {each.parent for each in every} == {"PCI-0000:c1:00.0"}


@pytest.mark.parametrize("kind", ["two_cards", "rocm"])
def test_a_workload_names_a_device_as_the_backend_does(kind, request):
    request.getfixturevalue(kind)
    for index in range(2):
        found = devices.find(f"cuda:{index}")
        assert isinstance(found, devices.Found)
        assert devices.device_uuid(found.torch_device) == found.device.uuid
    assert devices.device_uuid(torch.device("cpu")) == "cpu"


def test_a_backend_without_pytorch_has_no_device_of_it():
    with pytest.raises(MeasurementError, match="the backend object has no PyTorch device"):
        devices.torch_device(object())
