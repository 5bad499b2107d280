"""Stored runs with known numbers, for tests of what is done with records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness import record
from harness.backend import Device
from harness.functional_unit import UnitCount
from harness.meter import Factor
from harness.point import Choice, Point
from harness.quantity import Amount, Method, Unavailable, Value
from harness.record import (
    Measurement,
    MeterReport,
    Reading,
    Record,
    SeenCondition,
    Span,
    UnitResult,
    WarmUp,
)
from harness.sample import Scope

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
    costs: dict[str, Value] = {"duration_s": duration.times(0.1, "s/token")}
    totals: dict[str, Value] = {"duration_s": duration, "energy_j": energy}
    costs["energy_j"] = energy.times(0.1, "J/token") if isinstance(energy, Amount) else energy
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
                record.dump(target / record.MEASUREMENT, finished.measurement)
                record.dump(target / record.RECORD, finished)
        (folder / record.RUN).write_text(json.dumps({"run": name, "parent": parent, "points": []}), encoding="utf-8")
        return folder

    return make
