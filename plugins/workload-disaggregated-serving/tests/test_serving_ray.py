"""Roles as actors of a real Ray cluster of two nodes on this machine, started and ended here by process id."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.runtime.cluster import Cluster, ClusterOptions, Place, import_ray
from harness_disaggregated_serving.runtime.driving import Drive, Limits, serve
from harness_disaggregated_serving.runtime.options import SeededModel
from harness_disaggregated_serving.runtime.pair import Pair, PairOptions
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings, Status
from harness_disaggregated_serving.transport.link import Carrier

from harness.errors import MeasurementError
from harness.records.files import adapter, load_record
from harness.records.record import Record
from harness.sample import clock_id
from harness.testing import until

MODEL = {"layers": 2, "hidden": 64, "draft_layers": 1, "context": 256}
PER_TOKEN = 2 * 2 * 2 * 16 * 4
NODES = {"127.0.0.2": {"new_gpu": 3}, "127.0.0.3": {"old_gpu": 3}}
PLACES = {"new": Place(resources={"new_gpu": 1}), "old": Place(labels={"age": "old"})}
PAIR = PairOptions(model=MODEL, carrier=Carrier.TCP, timeout_s=5.0)

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.create_server(("127.0.0.2", 0)) as probe:
        return int(probe.getsockname()[1])


def node(folder: Path, address: str, *more: str) -> subprocess.Popen[bytes]:
    """A node of the cluster; it ends, with all that it started, on SIGTERM."""
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
        "--node-ip-address", address, "--temp-dir", str(folder / address), "--num-cpus", "2",
        "--resources", json.dumps(NODES[address]), "--object-store-memory", "80000000",
        "--include-log-monitor", "false", *more,
    ]  # fmt: skip
    with (folder / f"{address}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes with a token of their own. Sockets have short paths, so the folder is not pytest's."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        folder = Path(made)
        (folder / "token").write_text(secrets.token_hex(32), encoding="ascii")
        (folder / "token").chmod(0o600)
        # amdsmi, which zeus brings, fails with a KeyError where there is no ROCm, and Ray's daemons with it
        (folder / "amdsmi.py").write_text("raise ImportError('no ROCm here')\n", encoding="ascii")
        patch.setenv("PYTHONPATH", made)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import_ray()
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()  # a process that imported Ray before has read its token
        port = free_port()
        there = f"127.0.0.2:{port}"
        started = [node(folder, "127.0.0.2", "--head", "--port", str(port), "--include-dashboard", "false")]
        try:
            until(lambda: _answers(port), every_s=0.1)
            started.append(node(folder, "127.0.0.3", "--address", there, "--labels", "age=old"))
            yield there
        finally:
            for each in reversed(started):
                _end(each)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.2", port), 1):
        return True
    return False


def _end(started: subprocess.Popen[bytes]) -> None:
    """Ends a node and whatever of it does not end by itself."""
    family = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(15)
    for process in [*family, started]:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.kill()
    started.wait()


@pytest.fixture(scope="module")
def cluster(address: str) -> Iterator[Cluster]:
    made = Cluster(ClusterOptions(address=address, places=PLACES), ["new", "old"])
    yield made
    made.close()
    assert not import_ray().is_initialized()


def stream(count: int, gap_s: float = 0.05) -> list[PromptedRequest]:
    return [
        PromptedRequest(f"r{n}", gap_s * n, [(7 * n + k) % 512 for k in range(5 + 3 * n)], 6 + n, n)
        for n in range(count)
    ]


def alone(asked: list[PromptedRequest]) -> list[list[int]]:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, Running
    from harness_disaggregated_serving.runtime.models import build_target

    torch.set_num_threads(1)
    engine = Engine(build_target(SeededModel(**MODEL), torch.float32, torch.device("cpu")), 8)
    found = []
    for request in asked:
        running = Running(list(request.prompt), engine.new_cache(len(request.prompt) + request.output_tokens))
        running.tokens.append(int(engine.prefill(running).argmax()))
        for _ in range(request.output_tokens - 1):
            running.tokens.append(int(engine.advance([running])[0][-1].argmax()))
        found.append(running.tokens[len(request.prompt) :])
    return found


def tokens(outcomes: list[Outcome]) -> list[list[int]]:
    assert {outcome.status for outcome in outcomes} == {Status.FINISHED}, [outcome.reason for outcome in outcomes]
    return [outcome.tokens for outcome in outcomes]


def test_roles_land_on_their_nodes_and_serve_standalones_tokens(cluster: Cluster) -> None:
    assert {role: member.where["host"] for role, member in cluster.members.items()} == {
        "new": "127.0.0.2",
        "old": "127.0.0.3",
    }
    assert {role: member.name for role, member in cluster.members.items()} == {"new": "n0", "old": "n1"}
    asked = stream(6)
    with Pair(PAIR, [Configuration.STANDALONE, Configuration.DPD, Configuration.DSD], cluster) as pair:
        for role, member in cluster.members.items():
            assert psutil.Process(pair.pid(role)).ppid() == member.where["pid"]
        links = psutil.Process(pair.pid("old")).net_connections("tcp")
        assert {link.raddr.ip for link in links if link.status == psutil.CONN_ESTABLISHED} == {"127.0.0.2"}
        standalone = tokens(serve(pair, asked, Settings()))
        outcomes = serve(pair, asked, Settings(configuration=Configuration.DPD))
        drafted = serve(pair, asked, Settings(configuration=Configuration.DSD))
    assert standalone == tokens(outcomes) == tokens(drafted) == alone(asked)
    assert [one.bytes_sent for one in outcomes] == [len(request.prompt) * PER_TOKEN for request in asked]
    assert all(one.transfer_s is not None and one.transfer_s > 0 for one in outcomes)


def test_a_place_that_no_node_has_ends_in_time_and_says_what_there_is(cluster: Cluster, address: str) -> None:
    places = {"new": Place(), "old": Place(resources={"old_gpu": 4}, labels={"age": "ancient"})}
    with pytest.raises(MeasurementError) as caught:
        Cluster(ClusterOptions(address=address, places=places, timeout_s=5.0), ["new", "old"])
    assert "for role new" not in str(caught.value)
    for part in (
        "no place on the Ray cluster in 5 s for role old, which asks for resources {old_gpu: 4}, labels {age: ancient}",
        "127.0.0.2 has resources {CPU: 2, new_gpu: 3}, labels {}",
        "127.0.0.3 has resources {CPU: 2, old_gpu: 3}, labels {age: old}",
    ):
        assert part in str(caught.value)


def test_a_node_answers_for_its_machine(cluster: Cluster) -> None:
    (here, there) = cluster.nodes({}, {"new": 11, "old": 12})
    assert (here.name, here.processes, there.name, there.processes) == ("n0", {}, "n1", {"old": 12})
    assert there.call(clock_id) == clock_id()
    with pytest.raises(ZeroDivisionError):
        there.call(divmod, 1, 0)


@pytest.mark.parametrize(("configuration", "role"), [("dpd", "old"), ("dsd", "new")])
def test_a_killed_actor_is_a_lost_role(address: str, configuration: str, role: str) -> None:
    """Its role's process ends with it; requests go to the other role, or fail with the reason, and nothing hangs."""
    asked = stream(8, gap_s=0.1)
    lost = Cluster(ClusterOptions(address=address, places={role: Place() for role in PLACES}), ["new", "old"])
    with contextlib.closing(lost), Pair(PAIR, [Configuration(configuration)], lost) as pair:
        actor, process = lost.members[role].where["pid"], pair.pid(role)
        threading.Timer(0.25, os.kill, (actor, signal.SIGKILL)).start()
        began = time.monotonic()
        drive = Drive(
            pair, Settings(configuration=Configuration(configuration)), Limits(), lambda: time.monotonic() - began
        )
        outcomes = drive.run(asked)
        assert [name for name, _ in drive.losses] == [role]
        assert "the actor on 127.0.0." in drive.losses[0][1]
        assert not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    if configuration == "dpd":
        assert tokens(outcomes) == alone(asked)
    else:
        assert {one.status for one in outcomes} <= {Status.FINISHED, Status.FAILED}
        assert all(one.reason.startswith("role new was lost") for one in outcomes if one.status is Status.FAILED)
        assert any(one.status is Status.FAILED for one in outcomes)


SUITE = """
suite: two-nodes
backend: host
meters: [cpu_time: {watts_per_core: 10}]
trials: 1
windows: {count: 1, min_seconds: 0}
warm_up: {max_seconds: 0.1, max_iterations: 1}
idle_seconds: 0
cases:
  - workload: greenllm
    options:
      configuration: dpd
      model: {layers: 2, hidden: 64}
      length_scale: 0.1
      requests: 12
      qps: 10
      link: {carrier: tcp}
      cluster:
        address: "${env:TWO_NODES}"
        new: {resources: {new_gpu: 1}}
        old: {labels: {age: old}}
        timeout: 20s
"""


def as_json(record: Record) -> dict[str, Any]:
    values: dict[str, Any] = adapter(Record).dump_python(record, mode="json")
    return values


def run(folder: Path, environment: Mapping[str, str]) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "harness", "run", str(folder / "suite.yaml"), "--store", str(folder / "store")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )
    return done, [as_json(load_record(path.parent)) for path in (folder / "store").glob("*/*/record.json")]


def test_each_nodes_meters_come_back_by_their_scopes(address: str, tmp_path: Path) -> None:
    done, records = run(tmp_path, {"TWO_NODES": address})
    assert done.returncode == 0, done.stderr
    (record,) = records
    facts, totals = record["measurement"]["workload"], record["totals"]
    assert {role: at["address"] for role, at in facts["cluster"].items()} == {"new": "127.0.0.2", "old": "127.0.0.3"}
    assert facts["ended"]["finished"] == 12
    energy = {name.removeprefix("energy_j:"): each["value"] for name, each in totals.items() if "energy_j:n" in name}
    assert energy.keys() == {"n0/process", "n0/process:new", "n1/process", "n1/process:old"}
    for role, scope in (("new", "n0/process:new"), ("old", "n1/process:old")):
        assert energy[scope] == pytest.approx(10 * facts["role_cpu_s"][role], abs=0.6)
    # the trial's own process and the new role's are apart, the old role's lies within its actor's
    apart = energy["n0/process"] + energy["n0/process:new"] + energy["n1/process"]
    assert totals["energy_j"]["value"] == pytest.approx(apart)
    meters = {meter["name"]: meter for meter in record["measurement"]["meters"]}
    assert meters["cpu_time@n1"]["scopes"].keys() == {"n1/process", "n1/process:old"}
    assert meters["cpu_time@n0"]["missing"].keys() == {"n0/process"}
    table = next((tmp_path / "store").glob("*/greenllm-table.md")).read_text(encoding="utf-8")
    assert table.count("(estimated)") >= 2


def test_an_address_that_is_not_set_skips_the_case(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TWO_NODES"}
    done, records = run(tmp_path, environment)
    assert (done.returncode, records) == (0, [])
    assert "TWO_NODES" in done.stdout + done.stderr
