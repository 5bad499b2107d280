"""What another program measured, kept as trials of a run: read, costed, reported and compared like any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.impact import ImpactMeterSpec
from harness.planning.point import Choice, Point
from harness.quantity import Value
from harness.records.paths import ENERGY, ITEMS, OUTPUTS
from harness.records.record import Measurement, MeterReport, Reading, Span, WarmUp
from harness.running.order import Scheduled
from harness.sample import Scope
from harness.session.block import WORKLOAD
from harness.session.kept_run import NO_WARM_UP, ONE_WINDOW, SUITE, KeptRun, identified
from harness.session.meters import choose, with_place
from harness.units import nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A stretch of work that another program measured.

    Attributes:
        label: what was measured; stretches of one label are trials of one point.
        started_utc_s: its start, seconds since the Unix epoch.
        duration_s: its length in s.
        energy: scope -> J, or why there are none; scopes that may be summed, such as `n0/gpu:0`.
        scopes: scope -> how its joules were obtained.
        columns: further numbers of the program's own, kept as columns of the work item.
        facts: what the program says of itself, of the machine and of the work.
        flags: what a reader must know.
    """

    label: str
    started_utc_s: float
    duration_s: float
    energy: Mapping[str, Value]
    scopes: Mapping[str, Scope]
    columns: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def keep_imported(
    stretches: Sequence[Imported], store: str | Path, *, tool: str, grid: str | None = None, site: str | None = None
) -> Path:
    """Keeps stretches as one run and returns its folder; the functional unit is one stretch, `run`.

    Args:
        stretches: at least one, in any order.
        store: folder of runs.
        tool: program and version that measured; stands where a meter's name does.
        grid: of meter `fuel`, for carbon by this harness's factors.
        site: of meter `scarf`, for water.

    Raises:
        UsageError: there is none, a duration is not above 0, or the place is unknown.
    """
    if not stretches:
        raise UsageError("there is nothing to keep", accepted="at least one stretch of work")
    for each in stretches:
        if not 0 < each.duration_s < float("inf"):
            raise UsageError(f"{each.label!r} lasts {each.duration_s} s", accepted="a finite duration above 0")
    registry = load_plugins()
    impacts = _impacts(registry, grid, site)
    points = {label: _point(label, tool, impacts) for label in dict.fromkeys(each.label for each in stretches)}
    run = KeptRun(Path(store), list(points.values()), registry)
    trials: dict[str, int] = {}
    status = "failed"
    try:
        for each in sorted(stretches, key=lambda stretch: stretch.started_utc_s):
            point = points[each.label]
            number = trials.get(point.id, 0)
            folder, job = run.begin(Scheduled(point, number))
            run.keep(folder, _written(_measurement(each, point, tool, registry), each, folder, job))
            trials[point.id] = number + 1
        status = "ok"
    finally:
        run.close(status, trials)
    return run.folder


def _impacts(registry: Registry, grid: str | None, site: str | None) -> tuple[Choice, ...]:
    if grid is None and site is None:
        return ()
    named = choose(with_place([], grid=grid, site=site), registry)
    return tuple(each for each in named if isinstance(registry.get("meter", each.name).spec, ImpactMeterSpec))


def _point(label: str, tool: str, impacts: tuple[Choice, ...]) -> Point:
    return identified(
        Point(
            id="",
            suite=SUITE,
            label=label,
            workload=WORKLOAD,
            options={"call": f"{label}, measured by {tool}"},
            backend=Choice("host"),
            meters=impacts,
            trials=1,
            windows=ONE_WINDOW,
            warm_up=NO_WARM_UP,
            functional_units={"run": {"sum": "items", "where": {}}},
        )
    )


def _measurement(each: Imported, point: Point, tool: str, registry: Registry) -> Measurement:
    span = Span(
        name="window",
        window=0,
        start_ns=0,
        end_ns=nanoseconds(each.duration_s),
        start_utc_s=each.started_utc_s,
        iterations=1,
    )
    readings = tuple(
        Reading(span="window", window=0, meter=tool, scope=scope, primary=True, value=value)
        for scope, value in each.energy.items()
    )
    return Measurement(
        run="",
        trial_id="",
        trial=0,
        point=point.to_json(),
        started_utc=datetime.fromtimestamp(each.started_utc_s, UTC).isoformat(timespec="milliseconds"),
        environment={"imported": tool},
        backend={"name": "host"},
        devices=(),
        plugins=registry.versions(),
        workload=dict(each.facts),
        warm_up=WarmUp(iterations=0, seconds=0.0, converged=False),
        spans=(span,),
        readings=readings,
        uses=(),
        meters=(MeterReport(name=tool, asked=True, scopes=dict(each.scopes)),),
        conditions=(),
        flags=(f"measured by {tool}, not by this harness", *each.flags),
    )


def _written(found: Measurement, each: Imported, folder: Path, job: Mapping[str, Any]) -> Measurement:
    row = {"item_id": "0", "window": 0, "status": "ok", "latency_s": each.duration_s, **each.columns}
    sizes = {}
    for name, content in {ITEMS: json.dumps(row) + "\n", OUTPUTS: "", ENERGY: ""}.items():
        (folder / name).write_text(content, encoding="utf-8")
        sizes[name] = len(content.encode())
    return replace(found, run=job["run"], trial_id=job["trial_id"], trial=job["trial"], side_cars=sizes)
