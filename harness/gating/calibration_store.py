"""Where calibrations are kept, and whether one holds for a gate: same runner, suites and meter cards, and not old."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from platformdirs import user_data_path

from harness.errors import MeasurementError
from harness.gating.calibration import Calibration
from harness.machine import fingerprint
from harness.machine.fingerprint import digest
from harness.planning.point import Point
from harness.planning.suite import GateRule
from harness.records.paths import CALIBRATIONS

VALID: Final = timedelta(days=30)
_MACHINE: Final = ("cpu", "cores_logical", "cores_allowed", "cpu_limit", "governor", "virtualised", "system", "machine")


def runner_of(points: Iterable[Point], cards: Path | None = None) -> dict[str, Any]:
    """What of this machine a calibration holds for: processors, limits, system, Python, devices, meter cards.

    The host's name is not in it: a hosted runner has a new one for every job.
    """
    points = list(points)
    environment = fingerprint.environment()
    meters = {meter.name for point in points for meter in point.meters}
    devices = {f"{device['kind']} {device['name']} {device['uuid']}" for point in points for device in point.devices}
    return {
        **{key: environment[key] for key in _MACHINE},
        "memory_gib": round(environment["memory_bytes"] / 2**30),
        "python": ".".join(environment["python"].split(".")[:2]),
        "devices": sorted(devices),
        "meter_cards": sorted(_cards(meters, cards or user_data_path("joule-harness") / "meter-cards")),
    }


def _cards(meters: set[str], folder: Path) -> Iterable[str]:
    for path in folder.glob("*.json") if folder.is_dir() else ():
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(card, dict) and card.get("meter") in meters:
            yield str(card.get("id"))


def revision(points: Iterable[Point], rules: Mapping[str, Sequence[GateRule]]) -> str:
    """Digest of what is measured and which metrics are compared; tolerances do not enter."""
    measured = sorted(map(_measured, points))
    compared = sorted(
        [suite, rule.metric, rule.per or "", rule.direction or ""]
        for suite, listed in rules.items()
        for rule in listed
        if rule.worse_by_at_most is not None
    )
    return digest([measured, compared])


def _measured(point: Point) -> str:
    rested = [] if point.cool_down is None else [asdict(point.cool_down)]
    return digest([point.id, asdict(point.warm_up), point.idle_seconds, point.seed, *rested])


def path_of(store: Path, suites: Iterable[str], runner: Mapping[str, Any]) -> Path:
    """Where the calibration of suites on a runner is kept in a store."""
    return store / CALIBRATIONS / f"{_stem(suites)}-{digest(runner, 8)}.json"


def _stem(suites: Iterable[str]) -> str:
    return "+".join(suites)[:80]


def find(
    store: Path, suites: Sequence[str], runner: Mapping[str, Any], wanted: str, pairs: int, now: datetime | None = None
) -> tuple[Calibration | None, str]:
    """The calibration that holds, or why none does.

    Args:
        store: folder of runs.
        suites: their names, in the order of the command line.
        runner: what this machine is.
        wanted: revision of what is measured.
        pairs: that the gate measures at most.
        now: the time, with its zone.
    """
    why = "there is no calibration; `harness calibrate` makes one"
    kept = path_of(store, suites, runner)
    others = sorted(set(kept.parent.glob(f"{_stem(suites)}-????????.json")) - {kept})
    for path in [*others, kept] if kept.exists() else others:
        try:
            calibration = Calibration.read(path)
        except MeasurementError as error:
            why = str(error)
            continue
        reason = stale(calibration, runner, wanted, pairs, now or datetime.now(UTC))
        if not reason:
            return calibration, ""
        why = f"the calibration of {calibration.made_utc[:10]} does not hold: {reason}"
    return None, why


def stale(calibration: Calibration, runner: Mapping[str, Any], wanted: str, pairs: int, now: datetime) -> str:
    """Why a calibration does not hold, or an empty string."""
    for key, value in runner.items():
        if calibration.runner.get(key) != value:
            return f"the runner's {key} was {calibration.runner.get(key)!r} and is {value!r}"
    if calibration.revision != wanted:
        return "what the suites measure or compare has changed"
    if calibration.pairs > pairs:
        return f"it was made for {calibration.pairs} pairs, and at most {pairs} are measured"
    age = now - datetime.fromisoformat(calibration.made_utc)
    return f"it is {age.days} days old" if age >= VALID else ""
