"""The meter `zeusd`: Zeus' own client against a server that answers as the daemon does (zeus.utils.zeusd of 0.16)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from harness_meter_zeusd import ZeusdOptions, harness_meters
from harness_meter_zeusd.meter import ZeusdMeter
from pydantic import ValidationError

from harness import MeterContext, Method, Scope, Unavailable
from harness.quantity import Amount
from harness.testing import FakeClock, Request, WebServer, check_meter, check_offers
from harness.units import nanoseconds


class Daemon:
    """Two GPUs of 100 and 250 W, one package of 40 W with memory of 5 W, all counted by a clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.token = ""
        self.groups = ["gpu-read", "cpu-read"]
        self.broken = self.no_rapl = False
        self.server = WebServer(self.asked)
        self.host = self.server.host

    def asked(self, asked: Request) -> tuple[int, Any]:
        return self.answer(asked.path, asked.query, asked.authorization.removeprefix("Bearer "))

    def answer(self, path: str, query: Mapping[str, str], given: str) -> tuple[int, Any]:
        if path == "/discover":
            gpus = [{"id": 0, "name": "NVIDIA A40"}, {"id": 1, "name": "NVIDIA A40"}]
            cpus = [{"id": 0, "dram_available": True}]
            known = {"gpus": gpus, "cpus": cpus, "enabled_api_groups": self.groups}
            return 200, {**known, "auth_required": bool(self.token)}
        if self.token and given != self.token:
            return 401, "wrong token"
        if self.broken:
            return 500, "NVML lost the GPU"
        if self.no_rapl and path.startswith("/cpu"):
            return 500, "RAPL is not readable"
        if path == "/auth/whoami":
            return 200, {"sub": "bench", "scopes": ["gpu-read", "cpu-read"], "exp": None}
        if path == "/gpu/get_power_limit":
            return 200, {str(index): {"power_limit_mw": 300_000} for index in (0, 1)}
        now_s = self.clock.s
        if path == "/gpu/get_cumulative_energy":
            watts = {0: 100, 1: 250}
            wanted = [int(index) for index in query["gpu_ids"].split(",")]
            return 200, {str(index): {"energy_mj": int(1000 * watts[index] * now_s)} for index in wanted}
        if path == "/cpu/get_cumulative_energy":
            return 200, {"0": {"cpu_energy_uj": int(40e6 * now_s), "dram_energy_uj": int(5e6 * now_s)}}
        return 404, "no such path"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def daemon(clock: FakeClock) -> Iterator[Daemon]:
    pytest.importorskip("zeus.utils.zeusd")
    made = Daemon(clock)
    yield made
    made.server.close()


@pytest.fixture
def made(clock: FakeClock) -> Iterator[Any]:
    meters: list[ZeusdMeter] = []

    def make(**options: Any) -> ZeusdMeter:
        meters.append(ZeusdMeter(ZeusdOptions.model_validate(options), clock=clock, threaded=False))
        return meters[-1]

    yield make
    for meter in meters:
        meter.close()


def test_devices_of_another_machine_by_the_daemons_numbers(daemon: Daemon, clock: FakeClock, made: Any) -> None:
    meter = made(host=daemon.host, node="gpu-7", gpus=[1])
    found = meter.open(MeterContext())
    assert set(found) == {"gpu-7/gpu:zeusd-1", "gpu-7/cpu-package:0", "gpu-7/dram:0"}
    gpu = found["gpu-7/gpu:zeusd-1"]
    assert isinstance(gpu, Scope)
    assert (gpu.method, gpu.max_power_w, gpu.device) == (Method.COUNTER, 300.0, None)
    for _ in range(200):
        clock.advance(0.2)
        meter.poll()
    energies = meter.between(nanoseconds(5.05), nanoseconds(35.05))
    for name, watts in (("gpu:zeusd-1", 250), ("cpu-package:0", 40), ("dram:0", 5)):
        amount = energies[f"gpu-7/{name}"].amount
        assert isinstance(amount, Amount)
        assert amount.value == pytest.approx(30 * watts, rel=1e-3)


def test_a_daemon_that_goes_away_is_its_reason(daemon: Daemon, clock: FakeClock, made: Any) -> None:
    meter = made(host=daemon.host)
    assert isinstance(meter.open(MeterContext()), Mapping)
    daemon.broken = True
    for _ in range(100):
        clock.advance(0.2)
        meter.poll()
    lost = meter.between(nanoseconds(2.0), nanoseconds(20.0))["n0/gpu:zeusd-0"].amount
    assert isinstance(lost, Unavailable)
    assert "NVML lost the GPU" in lost.reason


def test_processors_that_are_not_read_cost_no_gpu(daemon: Daemon, clock: FakeClock, made: Any) -> None:
    meter = made(host=daemon.host)
    assert isinstance(meter.open(MeterContext()), Mapping)
    daemon.no_rapl = True
    for _ in range(100):
        clock.advance(0.2)
        meter.poll()
    found = meter.between(nanoseconds(5.0), nanoseconds(15.0))
    gpu, package = found["n0/gpu:zeusd-0"].amount, found["n0/cpu-package:0"].amount
    assert isinstance(gpu, Amount)
    assert gpu.value == pytest.approx(1000, rel=1e-3)
    assert isinstance(package, Unavailable)
    assert "RAPL is not readable" in package.reason


def test_tokens(daemon: Daemon, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.token = "s3cret"
    refused = made(host=daemon.host).open(MeterContext())
    assert isinstance(refused, Unavailable)
    assert "token" in refused.reason
    unset = made(host=daemon.host, token_env="BENCH_TOKEN").open(MeterContext())
    assert isinstance(unset, Unavailable)
    assert "BENCH_TOKEN" in unset.reason
    monkeypatch.setenv("BENCH_TOKEN", "s3cret")
    meter = made(host=daemon.host, token_env="BENCH_TOKEN")
    opened = meter.open(MeterContext())
    assert isinstance(opened, Mapping)
    assert "s3cret" not in repr((opened, meter.facts()))


def test_what_the_daemon_does_not_let_us_read(daemon: Daemon, made: Any) -> None:
    daemon.groups = []
    none = made(host=daemon.host).open(MeterContext())
    assert isinstance(none, Unavailable)
    gone = made(host="127.0.0.1:9").open(MeterContext())
    assert isinstance(gone, Unavailable)
    assert "127.0.0.1:9" in gone.reason


def test_without_zeus(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus.utils.zeusd", None)
    absent = made(host="127.0.0.1:9").open(MeterContext())
    assert isinstance(absent, Unavailable)
    assert "pip install zeus" in absent.reason


def test_it_keeps_the_contract(daemon: Daemon, clock: FakeClock, made: Any) -> None:
    (spec,) = harness_meters()
    assert not spec.auto
    check_offers("harness_meter_zeusd")
    meter = made(host=daemon.host)

    def later() -> None:
        clock.advance(0.2)
        meter.poll()

    check_meter(meter, MeterContext(), between=later)


@pytest.mark.parametrize("given", [{}, {"host": "a:1", "socket": "/run/zeusd.sock"}, {"host": "no-port"}])
def test_options_that_cannot_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ZeusdOptions.model_validate(given)
