"""The meter against a real Prometheus that scrapes a real node_exporter: a load of known power lies in the bound."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness_meter_prometheus import PrometheusOptions
from harness_meter_prometheus.meter import PrometheusMeter

from harness import MeasurementError, MeterContext, now_ns
from harness.quantity import Amount, Unavailable
from harness.remote import Server
from harness.testing import until
from harness.testing.sensors import Load, bursts
from harness.units import nanoseconds, seconds

SCRAPE_S, RECORDED_S, WINDOWS = 1.0, 60.0, 200
LOW_W, HIGH_W = 60.0, 240.0
METRIC = "bench_energy_joules_total"


def binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus prometheus-node-exporter)")
    return found


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Counter:
    """A file for the textfile collector, written fifty times a second with what a known load has drawn so far."""

    def __init__(self, folder: Path) -> None:
        self.begin_s = seconds(now_ns())
        rng = random.Random(7)
        self.load: Load = bursts(rng, LOW_W, HIGH_W, 0.0, RECORDED_S + 60.0, 1.5, 2.0)
        self._file = folder / "bench.prom"
        self._stop = threading.Event()
        self.oldest_s = 0.0
        self.write()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def drawn_j(self, opened_s: float, closed_s: float) -> float:
        return self.load.energy_j(opened_s - self.begin_s, closed_s - self.begin_s)

    def write(self) -> None:
        new = self._file.with_suffix(".tmp")
        joules = self.load.energy_j(0.0, seconds(now_ns()) - self.begin_s)
        text = f"# HELP {METRIC} Energy.\n# TYPE {METRIC} counter\n" + f'{METRIC}{{pod="web"}} {joules}\n'
        new.write_text(text, encoding="ascii")
        new.replace(self._file)

    def _keep(self) -> None:
        last_s = time.monotonic()
        while not self._stop.wait(0.02):
            self.write()
            now_s = time.monotonic()
            self.oldest_s, last_s = max(self.oldest_s, now_s - last_s), now_s

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Stack:
    counter: Counter
    server: str
    exporter: str
    prometheus: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    programs = [binary("prometheus"), binary("prometheus-node-exporter")]
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "texts").mkdir()
    ports = [free_port(), free_port()]
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {SCRAPE_S:g}s}}\n"
        f"scrape_configs: [{{job_name: node, static_configs: [{{targets: ['127.0.0.1:{ports[1]}']}}]}}]\n",
        encoding="ascii",
    )
    counter = Counter(folder / "texts")
    commands = [
        [
            programs[0], f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
        ],
        [
            programs[1], "--collector.disable-defaults", "--collector.textfile",
            f"--collector.textfile.directory={folder / 'texts'}", f"--web.listen-address=127.0.0.1:{ports[1]}",
        ],
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        running = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    made = Stack(counter, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/metrics", running[0])
    asked = Server(made.server)

    def scraped() -> bool:
        try:
            found = asked.json("/api/v1/query", {"query": f"count_over_time({METRIC}[1m])"})["data"]["result"]
        except MeasurementError:
            return False
        return bool(found) and float(found[0]["value"][1]) >= 3

    try:
        until(scraped, what=lambda: (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:])
        yield made
    finally:
        asked.close()
        for each in running:
            each.kill()
            each.wait()
        counter.close()


def windows(begin_s: float, end_s: float) -> list[tuple[float, float]]:
    rng = random.Random(11)
    made = []
    for _ in range(WINDOWS):
        opened = rng.uniform(begin_s, end_s - 12.0)
        made.append((opened, rng.uniform(opened + 10.0, end_s)))
    return made


@pytest.mark.slow
def test_200_windows_through_a_real_server_and_from_the_exporter(stack: Stack) -> None:
    query = {"query": METRIC, "unit": "J", "match": {"pod": "web"}, "scope": "pod:{pod}", "gain": "1%", "lag": "100ms"}
    given = ({"server": stack.server}, {"exporter": stack.exporter, "poll": f"{SCRAPE_S}s"})
    meters = [PrometheusMeter(PrometheusOptions.model_validate({**query, **source})) for source in given]
    for meter in meters:
        assert isinstance(meter.open(MeterContext()), dict)
    assert meters[0].facts()["interval_s"] == pytest.approx(SCRAPE_S, abs=0.1)
    began_s = seconds(now_ns())
    time.sleep(RECORDED_S)
    ended_s = seconds(now_ns())
    time.sleep(max(meter.settle_s for meter in meters))
    for meter in meters:
        inside, widths = 0, []
        for opened_s, closed_s in windows(began_s + 2 * SCRAPE_S, ended_s):
            found = meter.between(nanoseconds(opened_s), nanoseconds(closed_s))["n0/pod:web"].amount
            assert isinstance(found, Amount), found
            assert found.low is not None
            assert found.high is not None
            truth_j = stack.counter.drawn_j(opened_s, closed_s)
            inside += found.low <= truth_j <= found.high
            widths.append((found.high - found.low) / 2 - 0.0102 * found.value)
        assert inside >= 0.95 * WINDOWS
        widths.sort()
        assert widths[int(0.95 * WINDOWS)] <= SCRAPE_S * HIGH_W * 1.05
        assert max(widths) <= 1.5 * SCRAPE_S * HIGH_W
    for meter in meters:
        meter.close()


@pytest.mark.slow
def test_a_server_that_is_killed_in_a_window_is_a_reason(stack: Stack) -> None:
    options = {"server": stack.server, "query": METRIC, "unit": "J", "gain": "1%", "poll": "200ms"}
    meter = PrometheusMeter(PrometheusOptions.model_validate(options))
    meter.open(MeterContext())
    opened_ns = now_ns()
    time.sleep(2.0)
    stack.prometheus.kill()
    time.sleep(8.0)
    lost = meter.between(opened_ns, now_ns())["n0/host"].amount
    meter.close()
    assert isinstance(lost, Unavailable)
    assert "refused" in lost.reason
