"""Stored runs with known numbers, for tests of what is done with records and of what shows them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from harness.backend import Device
from harness.functional_unit import UnitCount, per_unit
from harness.impact import Factor
from harness.planning.point import Choice, Point
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.files import write_json, write_measurement, write_record
from harness.records.paths import ENERGY, ITEMS, MEASUREMENT, RECORD, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, SeenCondition, Span, UnitResult, WarmUp
from harness.sample import Scope
from harness.testing import InProcessExecutor, cost_in_process

StoredRun = Callable[..., Path]
SCOPE = "n0/host"
ENVIRONMENT = {
    "cpu": "a processor",
    "cores_logical": 8,
    "cores_allowed": 8,
    "cpu_limit": None,
    "governor": "performance",
    "system": "Linux",
    "machine": "x86_64",
    "virtualised": False,
    "python": "3.11.9",
    "variables": {},
    "load_1min": 0.5,
    "packages": {"torch": "2.13.0"},
}


def trial(
    point: Point,
    run: str,
    number: int,
    joules: float | None,
    *,
    seconds: float = 40.0,
    reward: float = 0.75,
    method: Method = Method.COUNTER,
    started: str = "2026-01-02T03:04:05+00:00",
    environment: Mapping[str, object] | None = None,
    card: str = "GPU-1",
    driver: str = "575.1",
    factor: str = "",
    flags: tuple[str, ...] = (),
    invalid: bool = False,
    check: float | None = None,
    gain: float = 0.05,
) -> Record:
    """A finished trial of 10 tokens; the energy is what the tests look at."""
    energy: Value = Unavailable("the counter is gone")
    if joules is not None:
        energy = Amount.of(joules, "J", method, low=joules * (1 - gain), high=joules * (1 + gain))
    readings = [Reading(span="window", window=0, meter="lamp", scope=SCOPE, primary=True, value=energy)]
    if check is not None:
        other = Amount.of(check, "J", Method.WALL)
        readings.append(Reading(span="window", window=0, meter="plug", scope=SCOPE, primary=False, value=other))
    seen = SeenCondition(kind="throttled", scope="n0/gpu:1", detail="heat", fails=True, count=1, first_ns=0)
    measurement = Measurement(
        run=run,
        trial_id=f"{point.id}-t{number:03d}",
        trial=number,
        point=point.to_json(),
        started_utc=started,
        environment={**ENVIRONMENT, **(environment or {})},
        backend={"name": "host", "load_average": [number]},
        devices=(Device(kind="gpu", uuid=card, name="a card"),),
        plugins={"joule-harness": "0.1.0"},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=int(seconds * 1e9), start_utc_s=1000.0, flags=flags),),
        readings=tuple(readings),
        uses=(),
        meters=(MeterReport(name="lamp", asked=True, scopes={SCOPE: Scope(method=method)}, facts={"driver": driver}),),
        conditions=(seen,) if invalid else (),
    )
    duration = Amount.exact(seconds, "s")
    costs: dict[str, Value] = {"duration_s": duration.times(0.1, "s/token", method=Method.MEASURED)}
    totals: dict[str, Value] = {"duration_s": duration, "energy_j": energy}
    costs["energy_j"] = energy.times(0.1, "J/token", method=Method.MEASURED) if isinstance(energy, Amount) else energy
    factors = []
    if factor:
        carbon = energy.times(0.001, "g") if isinstance(energy, Amount) else energy
        totals["carbon_g"] = carbon
        factors = [Factor(name="grid", value=0.001, unit="g/J", source="a test", id=factor)]
    unit = UnitResult(
        unit="tokens",
        count=UnitCount(achieved=10.0, items=4, qualifying=4, failed=0),
        costs=costs,
        rate=Amount.exact(10 / seconds, "token/s"),
    )
    return Record(
        measurement=measurement,
        totals=totals,
        units={"token": unit},
        columns={"reward": {"mean": Amount.exact(reward, "1")}},
        factors=tuple(factors),
    )


@pytest.fixture
def stored_run(tmp_path: Path) -> StoredRun:
    """Writes a run: name, then joules a trial by label; `None` for a reading that is missing."""

    def make(
        name: str,
        points: Mapping[str, Sequence[float | None]],
        *,
        store: Path | None = None,
        options: Mapping[str, object] | None = None,
        parent: str = "",
        **facts: object,
    ) -> Path:
        folder = (store or tmp_path / "store") / name
        folder.mkdir(parents=True)
        for label, energies in points.items():
            point = Point(
                id=(label * 12)[:11] + ("0" if options is None else "1"),
                suite="s",
                label=label,
                workload="w",
                options=options or {},
                backend=Choice("host"),
                functional_units={"token": {"sum": "tokens"}},
            )
            for number, joules in enumerate(energies):
                finished = trial(point, name, number, joules, **facts)  # type: ignore[arg-type]
                target = folder / finished.measurement.trial_id
                target.mkdir()
                write_measurement(target, finished.measurement)
                write_record(target, finished)
        (folder / RUN).write_text(json.dumps({"run": name, "parent": parent, "points": []}), encoding="utf-8")
        return folder

    return make


Harness = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def harness_in_process() -> Harness:
    """The `harness` command without a process: its driver, probes, trials and costing all run in this one.

    For what a command does and says. Limits, signals, kills and what outlives a trial need real processes.
    """

    def call(
        *arguments: object, environment: Mapping[str, str] | None = None, plugins: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        from harness import cli
        from harness.builtin import local
        from harness.discovery.registry import load_plugins
        from harness.planning import probe
        from harness.running import finishing
        from harness.running import run as driver

        said, complained = io.StringIO(), io.StringIO()
        command = ["harness", *map(str, arguments)]
        known = set(sys.modules)
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
        ):
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            if plugins is not None:
                patch.syspath_prepend(plugins)
            patch.setattr(sys, "argv", command)
            patch.setattr(tempfile, "tempdir", None)
            patch.setattr(local, "LocalExecutor", lambda **_: InProcessExecutor())
            for module in (driver, finishing):
                patch.setattr(module, "finish", lambda run, *, again=False, **_: cost_in_process(run, again=again))
            patch.setattr(probe, "ask_probe", lambda question, **_: probe._answer(question, load_plugins()))
            try:
                cli.main()
                code: object = 0
            except SystemExit as ended:
                code = ended.code
        for name in set(sys.modules) - known:
            if plugins is not None and (plugins / f"{name}.py").exists():
                del sys.modules[name]
        return subprocess.CompletedProcess(command, int(str(code or 0)), said.getvalue(), complained.getvalue())

    return call


GPU, CPU = "n0/gpu:GPU-1", "n0/cpu-package:0"
FILLED = "column 'empty' was never filled"

MakeRun = Callable[..., Path]


def trial_record(
    point: int, number: int, label: str, *, method: Method = Method.COUNTER, slower: float = 1.0
) -> Record:
    """A record with two windows, two scopes, a cross-check, carbon, water, and a column that was never filled."""
    joules = 100.0 * (point + 1) * slower + number
    gpu = Amount.of(joules * 0.75, "J", method, low=joules * 0.7, high=joules * 0.8)
    cpu = Amount.of(joules * 0.25, "J", Method.ESTIMATED)
    energy = Amount(joules, "J", {method: joules * 0.75, Method.ESTIMATED: joules * 0.25})
    totals = {
        "duration_s": Amount.exact(4.0, "s"),
        f"energy_j:{GPU}": gpu,
        f"energy_j:{CPU}": cpu,
        "energy_j": energy,
        "carbon_operational_g": energy.times(1e-4, "g"),
        "carbon_embodied_g": Amount.of(0.002, "g", Method.ESTIMATED),
        "water_onsite_l": energy.times(1e-6, "L"),
        "water_offsite_l": energy.times(2e-6, "L"),
    }
    count = UnitCount(achieved=1000.0, items=20, qualifying=20, failed=0)
    readings = [
        Reading(span="window", window=window, meter=meter, scope=scope, primary=primary, value=value, coverage=1.0)
        for window in range(2)
        for meter, scope, primary, value in (
            ("nvml", GPU, True, gpu.times(0.5, "J", method=Method.MEASURED)),
            ("tdp", CPU, True, cpu.times(0.5, "J", method=Method.MEASURED)),
            ("codecarbon", GPU, False, gpu.times(0.48, "J", method=Method.MEASURED)),
        )
    ]
    readings += [
        Reading(
            span=f"role:{role}",
            window=0,
            meter="nvml",
            scope=GPU,
            primary=True,
            value=gpu.times(share, "J", method=Method.MEASURED),
        )
        for role, share in (("draft", 0.1), ("target", 0.3))
    ]
    scopes = {"nvml": {GPU: Scope(method=method, gain=0.05)}, "tdp": {CPU: Scope(method=Method.ESTIMATED)}}
    seconds = 0.02 * (point + 1) * slower
    columns = {
        "latency_s": {name: Amount.of(seconds * factor, "s", Method.MEASURED) for name, factor in
                      (("mean", 1.0), ("p50", 1.0), ("p95", 1.2))},
        "reward": {name: Amount.of(1.0 + point, "1", Method.MEASURED) for name in ("mean", "p50", "p95")},
        "empty": {name: Unavailable(FILLED) for name in ("mean", "p50", "p95")},
    }  # fmt: skip
    return Record(
        measurement=Measurement(
            run="made-up", trial_id=f"p{point:04d}-t{number:03d}", trial=number,
            point={"id": f"p{point:04d}", "label": label, "suite": "s", "options": {"label": label},
                   "functional_units": {"token": {"sum": "output_tokens", "where": {}}}},
            started_utc="2026-01-02T03:04:05+00:00", environment={"cpu": "Example CPU", "python": "3.12"},
            backend={"name": "torch"}, devices=(Device(kind="gpu", uuid="GPU-1", name=label),), plugins={"p": "1"},
            workload={"grid": "grid.png"}, warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
            spans=tuple(Span(name="window", window=w, start_ns=w * 2 * 10**9, end_ns=(w + 1) * 2 * 10**9,
                             start_utc_s=1.0) for w in range(2)),
            readings=tuple(readings), uses=(), conditions=(),
            meters=tuple(MeterReport(name=name, asked=True, scopes=found) for name, found in scopes.items()),
        ),
        totals=totals, columns=columns,
        units={"token": UnitResult(
            unit="output_tokens", count=count, rate=Amount.of(250.0 / slower, "token/s", Method.MEASURED),
            costs={name: per_unit(value, "token", count) for name, value in totals.items()},
        )},
        factors=(Factor(name="grid_intensity", value=360.0, unit="g/kWh", source=label, licence="CC BY 4.0",
                        date="2024", id="grid:1"),),
    )  # fmt: skip


def write_trial(folder: Path, finished: Record, *, items: int = 20) -> None:
    """The record with side-cars: a steady 75 W on the GPU, items whose latency rises."""
    folder.mkdir(parents=True)
    write_measurement(folder, finished.measurement)
    write_record(folder, finished)
    lines = [json.dumps({"anchor": {"monotonic_ns": 0, "utc_s": 1.0}})]
    lines += [json.dumps({"t": at * 10**8, "m": "nvml", "j": {GPU: 7.5 * at}}) for at in range(41)]
    (folder / ENERGY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        {"item_id": str(n), "window": 0, "status": "ok", "output_tokens": 50, "latency_s": 0.01 * (n + 1)}
        for n in range(items)
    ]
    (folder / ITEMS).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run of some points and returns its folder; `label` goes into every text that a stranger may choose."""

    def make(name: str = "run", *, points: int = 3, trials: int = 2, label: str = "point", **changes: object) -> Path:
        folder = tmp_path / name
        for point in range(points):
            for number in range(trials):
                finished = trial_record(point, number, f"{label} {point}", **changes)  # type: ignore[arg-type]
                write_trial(folder / finished.measurement.trial_id, finished)
        described = {
            "run": name, "status": "ok", "started_utc": "2026-01-02T03:04:05+00:00", "finished_utc": None,
            "suite_files": [label], "command": ["harness", "run", label], "seed": 0,
            "points": [{"id": f"p{at:04d}", "label": f"{label} {at}", "suite": "s", "trials": trials}
                       for at in range(points)],
            "skipped": [{"label": label, "reason": label}],
        }  # fmt: skip
        write_json(folder / RUN, described)
        return folder

    return make


@pytest.fixture
def hold_measurement() -> Callable[[Path], None]:
    """Makes the record of a trial one of before records referred to their measurement: it holds it itself."""

    def change(trial: Path) -> None:
        content = json.loads((trial / RECORD).read_text(encoding="utf-8"))
        content["measurement"] = json.loads((trial / MEASUREMENT).read_text(encoding="utf-8"))
        write_json(trial / RECORD, content)

    return change


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3-compatible server of this session, with its keys in the environment."""
    server_module = pytest.importorskip("moto.server", reason="the S3 server of the tests is moto's")
    pytest.importorskip("s3fs", reason="stores in S3 need s3fs")
    logging.getLogger("werkzeug").setLevel("ERROR")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    """The URL of a new bucket."""
    import fsspec

    name = f"bucket-{secrets.token_hex(4)}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def open_page() -> Iterator[Callable[..., object]]:
    """Opens a page in a headless browser: file, then `width` in pixels and `dark`; skips where there is no browser."""
    from tests.browser import BROWSER, BROWSERS, Page, browser

    if BROWSER is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with browser() as chromium:
        yield functools.partial(Page, chromium)
