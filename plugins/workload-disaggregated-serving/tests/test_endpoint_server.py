"""Whose joules are charged, and the life of a server that the harness starts: a mock server whose timing is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import harness_disaggregated_serving
import psutil
import pytest
from harness_disaggregated_serving.endpoint.options import EndpointOptions, ServerOptions
from harness_disaggregated_serving.endpoint.server import UNNAMED, charged, container_pid, named_process
from pydantic import ValidationError

from harness.builtin.host import BACKEND as HOST
from harness.errors import MeasurementError
from harness.quantity import Amount, Method, Unavailable
from harness.records.files import records_of
from harness.records.record import Record
from harness.sample import Scope
from harness.testing import RecordingWindow, trial_context, until

MOCK = Path(__file__).parents[3] / "benchmarks" / "mock_openai_server.py"
COMMAND = [sys.executable, str(MOCK), "--port", "{port}", "--ttft", "0.05", "--gap", "0.005"]
SPEC = next(each for each in harness_disaggregated_serving.harness_workloads() if each.name == "serve-endpoint")
QUICK = {"model": "mock", "requests": 6, "qps": 50, "length_scale": 0.05}


def workload_of(**given: Any) -> Any:
    server = {"command": COMMAND, "start_timeout": "30s", **given.pop("server", {})}
    return SPEC.factory(EndpointOptions.model_validate({**QUICK, "server": server, **given}))


@pytest.fixture
def context(tmp_path: Path) -> Any:
    return trial_context(tmp_path, HOST.factory(HOST.options()))


def run(workload: Any, context: Any) -> tuple[RecordingWindow, Any, int]:
    window = RecordingWindow(1)
    try:
        workload.prepare(context)
        pid = workload.processes()["server"]
        workload.run(window)
        workload.after_window(window)
        return window, workload.facts(), pid
    finally:
        workload.close()


def test_a_server_is_started_waited_for_driven_and_ended(context: Any) -> None:
    window, facts, pid = run(workload_of(), context)
    assert [row["status"] for row in window.rows] == ["ok"] * 6
    assert facts["server"]["version"] == "mock 1.0"
    assert facts["server"]["command"][:2] == COMMAND[:2]
    assert "{port}" not in facts["url"]
    until(lambda: not psutil.pid_exists(pid), what="the server to end")
    for row in window.rows:
        assert row["ttft_sent_s"] >= 0.05  # type: ignore[operator]
        assert row["output_tokens"] >= 1  # type: ignore[operator]
        assert row["prompt_tokens"] >= 1  # type: ignore[operator]


def test_what_its_engine_says_of_itself_becomes_columns(context: Any) -> None:
    window, facts, _ = run(workload_of(arrivals="constant", qps=5), context)
    assert facts["server"]["metrics"] == "/metrics"
    assert facts["engine"]["server_cache_use"]["mean"] == 0.25
    assert {row.get("server_cache_use") for row in window.rows[1:]} == {0.25}


def test_a_server_that_ends_is_an_error_with_its_last_words(context: Any) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no such model: {port}')"]
    workload = workload_of(server={"command": words})
    with pytest.raises(MeasurementError, match=r"ended with exit code 1[\s\S]*no such model"):
        run(workload, context)


def test_a_server_that_never_serves_is_given_up_and_ended(context: Any) -> None:
    words = [sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(600) # {port}"]
    workload = workload_of(server={"command": words, "start_timeout": 1.0})
    with pytest.raises(MeasurementError, match=r"not healthy in 1 s[\s\S]*loading"):
        workload.prepare(context)
    pid = workload._server.pid
    workload.close()
    until(lambda: not psutil.pid_exists(pid), what="the server to end")


def test_a_server_that_cannot_be_started_is_an_error(context: Any) -> None:
    with pytest.raises(MeasurementError, match="cannot be started"):
        run(workload_of(server={"command": ["/no/such/program", "{port}"]}), context)


def test_a_server_that_dies_in_a_window_fails_it(context: Any) -> None:
    workload = workload_of()
    try:
        workload.prepare(context)
        psutil.Process(workload.processes()["server"]).kill()
        with pytest.raises(MeasurementError, match="ended with exit code -9"):
            workload.run(RecordingWindow(1))
    finally:
        workload.close()


def test_a_closed_loop_keeps_as_many_requests_in_flight_as_it_has_users(context: Any) -> None:
    window, _, _ = run(workload_of(concurrency=3, requests=12), context)
    assert len(window.rows) == 12
    spans = [(row["start_s"], row["end_s"]) for row in window.rows]
    most = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)  # type: ignore[operator]
    assert most <= 3
    assert sum(end - begin for begin, end in spans) > 1.5 * max(end for _, end in spans)  # type: ignore[operator,type-var]


def test_a_duration_ends_a_closed_loop_that_has_a_ramp(context: Any) -> None:
    window, facts, _ = run(workload_of(concurrency=4, requests=None, duration=1.5, ramp=0.4), context)
    begun = sorted(row["arrival_s"] for row in window.rows)  # type: ignore[type-var]
    alone = sorted((row["arrival_s"], row["end_s"]) for row in window.rows if row["arrival_s"] < 0.09)  # type: ignore[operator]
    assert all(after >= end for (_, end), (after, _) in pairwise(alone))  # the second user comes after 0.1 s
    assert begun[-1] < 1.5  # type: ignore[operator]
    assert window.marks == ["steady"]
    assert len({row["item_id"] for row in window.rows}) == len(window.rows)
    tokens = [row["steady_tokens"] for row in window.rows]
    assert (sum(tokens) > 0) is (facts["steady"]["why_not"] is None)  # type: ignore[arg-type]


def test_several_turns_send_what_was_said_before(context: Any, replay: Any) -> None:
    say = {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    replay.answers([f"data: {json.dumps(say)}\n\n"])
    given = {**QUICK, "url": replay.url, "api": "chat", "requests": 1, "prompts": {"turns": 3, "think_time": 0.05}}
    workload = SPEC.factory(EndpointOptions.model_validate(given))
    window = RecordingWindow(1)
    workload.prepare(context)
    workload.run(window)
    workload.after_window(window)
    workload.close()
    assert [row["item_id"] for row in window.rows] == ["r0.0", "r0.1", "r0.2"]
    assert [row["turn"] for row in window.rows] == [0, 1, 2]
    third = replay.seen[2][2]["messages"]
    assert [each["role"] for each in third] == ["user", "assistant", "user", "assistant", "user"]
    assert third[:3] == replay.seen[1][2]["messages"]
    assert third[1]["content"] == "yes"


def test_windows_send_prompts_of_their_own(context: Any, replay: Any) -> None:
    """What was sent while warming up lies in the server's prefix cache, and would cost nothing in the window."""
    say = {"choices": [{"text": "x", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    replay.answers([f"data: {json.dumps(say)}\n\n"])
    workload = SPEC.factory(EndpointOptions.model_validate({**QUICK, "url": replay.url, "requests": 4}))
    workload.prepare(context)
    for index in (-1, 0, 1):
        window = RecordingWindow(1, index=index)
        workload.run(window)
        if index >= 0:
            workload.after_window(window)
    workload.close()
    sent = [body["prompt"] for _, _, body in replay.seen]
    assert len(set(sent)) == len(sent) == 12


def knee(ttft_s: float, probes: int) -> Any:
    command = [*COMMAND[:4], "--ttft", "0.05", "--gap", "0.005", "--slots", "2"]
    search = {"slo_attainment": 0.5, "resolution": "40%", "probes": probes, "requests": 30}
    return workload_of(
        server={"command": command}, requests=30, qps=8, length_scale=0.01, slo={"ttft": ttft_s, "tpot": 1.0},
        search={"max_qps": search},
    )  # fmt: skip


def test_the_knee_is_found_before_the_windows_run_at_it(context: Any) -> None:
    window, facts, _ = run(knee(0.25, 3), context)
    tried = facts["server"]["search"]
    held = [each["qps"] for each in tried if each["holds"]]
    assert facts["max_qps"] == max(held)
    assert {row["max_qps"] for row in window.rows} == {max(held)}
    assert len(tried) <= 3


def test_targets_that_no_rate_meets_are_an_error(context: Any) -> None:
    with pytest.raises(MeasurementError, match=r"no rate down to 4 requests/s met the targets[\s\S]*0% did"):
        run(knee(0.001, 2), context)


# Whose joules

CLIENT, SERVER, PACKAGE, CARD = "n0/process", "n0/process:server", "n0/cpu-package:0", "n0/gpu:GPU-7"
READ = {
    ("cpu_time", CLIENT): Scope(method=Method.ESTIMATED),
    ("cpu_time", SERVER): Scope(method=Method.ESTIMATED),
    ("rapl", PACKAGE): Scope(method=Method.COUNTER),
    ("nvml", CARD): Scope(method=Method.COUNTER, device="GPU-7"),
    ("prometheus", "far/host"): Scope(method=Method.WALL),
}
GPU = {"GPU-7": "NVIDIA L4"}
HERE, AWAY = "http://127.0.0.1:1/v1", "http://gpu-a:1/v1"


@pytest.mark.parametrize(
    ("server", "url", "pid", "left_out", "expected"),
    [
        ({}, HERE, None, (), UNNAMED),
        ({"pid": 1}, HERE, 1, ("prometheus",), {SERVER, PACKAGE, CARD}),
        ({"pid": 1}, HERE, 1, ("nvml", "rapl", "prometheus"), {SERVER}),
        ({"gpus": GPU}, AWAY, None, (), {CARD}),
        ({"gpus": GPU}, HERE, None, ("prometheus",), {SERVER, PACKAGE, CARD}),
        ({"gpus": GPU}, HERE, None, ("nvml",), "no meter reads the server's GPU GPU-7"),
        ({"meters": ["prometheus"]}, AWAY, None, (), {"far/host"}),
        ({"meters": ["zeusd"]}, AWAY, None, (), "none of the server's meters reads anything: zeusd"),
        ({"gpus": GPU, "meters": ["prometheus"]}, AWAY, None, (), {"far/host", CARD}),
        ({"gpus": GPU, "meters": ["prometheus"]}, AWAY, None, ("nvml",), {"far/host"}),
        ({"gpus": GPU, "meters": ["prometheus"]}, HERE, None, ("nvml",), {"far/host"}),
    ],
)
def test_the_servers_scopes_are_charged_and_the_load_generators_never(
    server: dict[str, Any], url: str, pid: int | None, left_out: tuple[str, ...], expected: Any
) -> None:
    read = {key: scope for key, scope in READ.items() if key[0] not in left_out}
    found = charged(ServerOptions.model_validate(server), url, pid, read)
    assert CLIENT not in (found if not isinstance(found, Unavailable) else ())
    assert (found.reason if isinstance(found, Unavailable) else set(found)) == expected


def test_a_server_that_only_the_load_generators_meter_reads_has_no_energy() -> None:
    found = charged(ServerOptions(pid=1), HERE, 1, {("cpu_time", CLIENT): READ["cpu_time", CLIENT]})
    assert isinstance(found, Unavailable)
    assert "no meter reads the server (process 1)" in found.reason


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = tmp_path / "serve-a-mock"
    program.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(program)])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_found_by_name(sleeper: subprocess.Popen[bytes]) -> None:
    until(lambda: psutil.Process(sleeper.pid).cmdline()[-1].endswith("serve-a-mock"), what="the process to start")
    assert named_process("serve-a-mock") == sleeper.pid
    with pytest.raises(MeasurementError, match="no process is called 'no-such-server'"):
        named_process("no-such-server")


def test_a_container_is_asked_for_its_first_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\n[ "$4" = mine ] && echo 4711 || { echo "no such object" >&2; exit 1; }\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert container_pid("mine") == 4711
    with pytest.raises(MeasurementError, match=r"'yours' was not found: docker: no such object"):
        container_pid("yours")


@pytest.mark.parametrize(
    "given",
    [
        {"server": {"pid": 1, "name": "x"}},
        {"server": {"command": "vllm serve x"}},
        {"url": "http://x/v1", "duration": 5, "requests": 5},
        {"url": "http://x/v1", "concurrency": 5, "search": {"max_qps": {}}},
        {"url": "http://x/v1", "prompts": {"source": "file"}},
        {"url": "http://x/v1", "slo": "quick"},
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EndpointOptions.model_validate({"model": "m", **given})


SUITE = """
suite: mine
backend: host
meters: [{cpu_time: {watts_per_core: 10}}]
trials: 1
windows: {count: 1, min_seconds: 0}
warm_up: {max_seconds: 0.1, max_iterations: 1}
idle_seconds: 0
cases:
  - {name: started, workload: serve-endpoint, options: {model: m, duration: 2s, concurrency: 2, length_scale: 0.05,
     slo: {ttft: 40ms, tpot: 1s}, server: {command: COMMAND}}}
  - {name: unnamed, workload: serve-endpoint, options: {model: m, requests: 4, length_scale: 0.05, qps: 20, url: URL}}
"""


def test_a_run_charges_the_server_and_uses_the_suites_targets(tmp_path: Path, replay: Any) -> None:
    """Every first token comes after 50 ms: with a target of 40 ms no token is good, whatever our own targets are."""
    replay.answers([VLLM_LIKE])
    suite = SUITE.replace("COMMAND", json.dumps(COMMAND)).replace("URL", replay.url)
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (run_folder,) = (tmp_path / "store").glob("*-mine-*")
    records: dict[str, Record] = {str(each.measurement.point["label"]): each for each in records_of(run_folder)}
    started, unnamed = records["started"], records["unnamed"]
    charged_j, servers_j = started.totals["energy_j"], started.totals["energy_j:n0/process:server"]
    assert charged_j == servers_j
    assert isinstance(charged_j, Amount)
    assert charged_j.value > 0
    good = started.units["good_token"]
    assert good.unit == "output_tokens where ttft_s <= 0.04, tpot_s <= 1"
    assert good.count.achieved == 0
    assert "ttft_s <= 0.04" in str(good.costs["energy_j"])
    steady, told = started.units["steady_token"], started.measurement.workload["steady"]
    if told["why_not"] is None:  # type: ignore[index]  # else the machine was too busy to hold the load, and says so
        assert isinstance(steady.costs["energy_j"], Amount), told
        (span,) = [each for each in started.measurement.spans if each.name == "steady"]
        assert isinstance(steady.count.achieved, float)
        assert steady.costs["duration_s"].value == pytest.approx(span.duration_s / steady.count.achieved)  # type: ignore[union-attr]
    assert unnamed.totals["energy_j"] == Unavailable(UNNAMED)
    assert unnamed.units["token"].costs["energy_j"] == Unavailable(UNNAMED)
    assert isinstance(unnamed.totals["energy_j:n0/process"], Amount)
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(MOCK) in (each.info["cmdline"] or [])]


AWAY_SUITE = """
suite: away
backend: host
meters:
  - {cpu_time: {watts_per_core: 10}}
  - {fuel: {grid: 261, embodied: {cpu: {kg: 20, source: me}, dram: {kg: 1, source: me}}}}
trials: 1
windows: {count: 1, min_seconds: 0}
warm_up: {max_seconds: 0.1, max_iterations: 1}
idle_seconds: 0
cases:
  - workload: serve-endpoint
    options: {model: m, requests: 2, length_scale: 0.05, qps: 20, url: URL}
    matrix:
      server:
        - {meters: [cpu_time]}
        - {meters: [cpu_time], gpus: {GPU-7: NVIDIA H100 80GB HBM3}}
        - {pid: PID}
"""


def test_a_server_elsewhere_is_not_charged_for_making_this_machine(tmp_path: Path, replay: Any) -> None:
    pytest.importorskip("harness_meter_fuel")
    replay.answers([VLLM_LIKE])
    suite = AWAY_SUITE.replace("URL", replay.url).replace("PID", str(os.getpid()))
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "suite.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (run_folder,) = (tmp_path / "store").glob("*-away-*")
    making, known = {}, {}
    for each in records_of(run_folder):
        server = each.measurement.point["options"]["server"]
        name = "named" if server["gpus"] else "here" if server["pid"] else "away"
        making[name] = {one.name.split(":")[1] for one in each.factors if one.name.startswith("embodied:")}
        known[name] = isinstance(each.totals["carbon_embodied_g"], Amount)
        assert isinstance(each.totals["carbon_operational_g"], Amount)
    assert making == {"here": {"cpu", "dram"}, "away": set(), "named": {"gpu"}}
    assert known == {"here": True, "away": False, "named": True}


VLLM_LIKE = "".join(
    f"data: {json.dumps(each)}\n\n"
    for each in (
        {"choices": [{"text": "a b", "finish_reason": None}]},
        {"choices": [{"text": "c", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    )
)
"""Two tokens."""
