"""The contract of meters and impact meters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from harness.impact import Costed, ImpactMeter, ImpactMeterSpec
from harness.meter import Meter, MeterContext
from harness.power_limit import PowerLimit
from harness.quantity import Amount, Method, Unavailable, Undefined
from harness.sample import Cumulative, Scope, Snapshot
from harness.testing.checks import Checks, NotTriedError
from harness.units import seconds

CLOCK_SLACK_S: Final = 0.1
"""Two readings may lie so much closer than the times of their snapshots say."""


def _cumulative(name: str, value: float | Cumulative | Unavailable) -> Cumulative | None:
    if isinstance(value, Unavailable):
        assert value.reason.strip(), f"{name} is Unavailable without a reason"
        return None
    state = value if isinstance(value, Cumulative) else Cumulative(value)
    for part in ("joules", "over_j", "under_j", "gap_s"):
        number = getattr(state, part)
        assert 0 <= number < math.inf, f"{part} of {name} is {number}"
    return state


def _check_snapshot(snapshot: Snapshot, opened: Mapping[str, Scope | Unavailable], last: dict[str, Cumulative]) -> None:
    read = {name for name, scope in opened.items() if isinstance(scope, Scope)}
    missing = read - snapshot.joules.keys()
    assert not missing, f"read() left out {sorted(missing)}: a failed read is Unavailable, not absent"
    for name, value in snapshot.joules.items():
        assert name in opened, f"read() returned {name!r}, which open() did not announce"
        state = _cumulative(name, value)
        if state is None:
            continue
        assert name in read, f"{name!r} was Unavailable at open() and must not read {state.joules} J"
        before = last.get(name)
        if before is not None:
            for part in ("joules", "over_j", "under_j", "gap_s", "resets", "dropped"):
                assert getattr(state, part) >= getattr(before, part), f"{part} of {name} went back"
        last[name] = state


def _check_limits(snapshots: Sequence[Snapshot], opened: Mapping[str, Scope | Unavailable]) -> None:
    """No register grows by more, from one snapshot to a later one, than its scope's declared limit allows."""
    limited = {name: scope for name, scope in opened.items() if isinstance(scope, Scope) and scope.max_power_w}
    if not limited:
        raise NotTriedError("no scope declares max_power_w")
    for name, scope in limited.items():
        assert 0 < (scope.max_power_w or 0.0) < math.inf, f"max_power_w of {name} is {scope.max_power_w}"
        limit = PowerLimit(scope.max_power_w, scope.gain or 0.0, scope.offset_w)
        shown = [(one, one.joules[name]) for one in snapshots if name in one.joules]
        known = [(one, state) for one, value in shown if (state := _cumulative(name, value)) is not None]
        for (one, before), (other, after) in pairwise(known):
            length_s = seconds(other.monotonic_ns + other.took_ns - one.monotonic_ns)
            grown_j = after.joules - before.joules
            most_j = limit.most_j(length_s + (scope.tick_s or 0.0) + CLOCK_SLACK_S)
            assert grown_j <= most_j, (
                f"{name} grew by {grown_j:.6g} J in {length_s:.3g} s; its max_power_w of {scope.max_power_w:g} W "
                f"allows {most_j:.6g} J: declare the limit and tick_s as they are, or count through harness.counter"
            )


def _announced(opened: Mapping[str, Scope | Unavailable] | Unavailable, node: str) -> Mapping[str, Scope | Unavailable]:
    if isinstance(opened, Unavailable):
        assert opened.reason.strip(), "open() is Unavailable without a reason"
        return {}
    for name, scope in opened.items():
        assert name.startswith(f"{node}/"), f"scope {name!r} does not begin with its node {node!r}"
        if isinstance(scope, Unavailable):
            assert scope.reason.strip(), f"{name} is Unavailable without a reason"
    return opened


def _reasons(opened: Mapping[str, Scope | Unavailable] | Unavailable) -> str:
    """Why a meter reads nothing."""
    if isinstance(opened, Unavailable):
        return opened.reason
    return "; ".join(scope.reason for scope in opened.values() if isinstance(scope, Unavailable))


def check_meter(
    meter: Meter,
    context: MeterContext,
    *,
    reads: int = 3,
    between: Callable[[], object] = lambda: None,
    checks: Checks | None = None,
) -> list[Snapshot]:
    """Holds a meter to its contract; returns the snapshots of its first opening.

    It is opened, read and closed twice; it announces every scope with its node; what it reads is cumulative, finite
    and never falls, and stays within the power limit that its scopes declare; what was Unavailable at `open` never
    turns into joules.

    Args:
        meter: not yet opened.
        context: what to open it with.
        reads: snapshots per opening; at least 1.
        between: called between two reads, to let time pass or to do work.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.

    Examples:
        >>> from harness.testing import FakeClock
        >>> clock = FakeClock()
        >>> class Lamp(Meter):
        ...     def open(self, context): return {"n0/lamp:0": Scope(method=Method.ESTIMATED)}
        ...     def read(self): return Snapshot(clock.advance(1.0), {"n0/lamp:0": 5.0 * clock.s})
        ...     def close(self): pass
        >>> [snapshot.joules["n0/lamp:0"] for snapshot in check_meter(Lamp(), MeterContext())]
        [10.0, 15.0, 20.0]
    """
    held = checks or Checks(strict=True)
    with held.that("it says how often it must be read"):
        assert meter.sample_hz > 0, f"sample_hz is {meter.sample_hz}"
    openings: list[list[Snapshot]] = []
    for _ in range(2):
        opened: Mapping[str, Scope | Unavailable] = {}
        snapshots: list[Snapshot] = []
        openings.append(snapshots)
        with held.that("open() announces scopes of its node, or says why not; it may be opened again"):
            answer = meter.open(context)
            opened = _announced(answer, context.node)
        with held.that("read() gives every scope, cumulative and finite; what is unavailable is never 0 J"):
            last: dict[str, Cumulative] = {}
            for _ in range(max(1, reads)):
                snapshots.append(meter.read())
                _check_snapshot(snapshots[-1], opened, last)
                between()
            assert snapshots == sorted(snapshots, key=lambda one: one.monotonic_ns), "the snapshots' times went back"
            if not last:
                raise NotTriedError(_reasons(answer) or "nothing was read")
        with held.that("what it counts stays within the max_power_w that its scopes declare"):
            _check_limits(snapshots, opened)
        with held.that("facts are JSON values, and conditions and temperatures can be asked for"):
            json.dumps([dict(meter.facts()), dict(meter.temperatures())], allow_nan=False)
            list(meter.conditions())
        with held.that("close() may be called twice"):
            meter.close()
            meter.close()
    return openings[0]


def made_up(spec: ImpactMeterSpec, energy_j: float = 3600.0) -> Costed:
    """A window of 10 s on one made-up GPU, with every reading that an impact meter needs.

    Args:
        spec: whose needs are met: `energy_j` by `energy_j`, any other reading by 1 of unit 1.
        energy_j: what the GPU drew.

    Examples:
        >>> spec = ImpactMeterSpec(name="g", summary="g", factory=lambda options: None, needs=("energy_j",),
        ...                        yields={"carbon_g": "g"})
        >>> made_up(spec).readings["energy_j"].value
        3600.0
    """
    energy = Amount.of(energy_j, "J", Method.COUNTER)
    readings = {name: energy if name == "energy_j" else Amount.of(1.0, "1", Method.ESTIMATED) for name in spec.needs}
    return Costed(duration_s=10.0, start_utc_s=1_700_000_000.0, energy={"n0/gpu:X": energy}, readings=readings)


def check_impact_meter(
    meter: ImpactMeter, spec: ImpactMeterSpec, costed: Costed, *, checks: Checks | None = None
) -> None:
    """Holds an impact meter to its contract.

    It yields what it declares in the declared units, the same for the same input; without energy nothing that was
    proportional to it turns into 0; every factor says where it comes from.

    Args:
        meter: as its factory makes it.
        spec: the plugin spec.
        costed: a window with every reading in `spec.needs`; `made_up` makes one.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    impact = None
    with held.that("it yields its declared readings and no other, in their units"):
        impact = meter.apply(costed)
        undeclared = impact.readings.keys() - spec.yields.keys()
        assert not undeclared, f"it yields undeclared {sorted(undeclared)}"
        added = {"energy_j"} if impact.energy else set()
        missing = spec.yields.keys() - impact.readings.keys() - added
        assert not missing, f"it left out {sorted(missing)}: what cannot be said is Unavailable, not absent"
        for name, value in impact.readings.items():
            if isinstance(value, Amount):
                assert value.unit == spec.yields[name], f"{name} is in {value.unit}, declared {spec.yields[name]}"
            else:
                assert value.reason.strip(), f"{name} is {value.kind} without a reason"
    with held.that("ratios are among what it yields"):
        assert set(spec.ratios) <= set(spec.yields), f"{sorted(set(spec.ratios) - set(spec.yields))}"
    with held.that("the same input gives the same"):
        if impact is None:
            raise NotTriedError("it raised")
        assert meter.apply(costed) == impact, "the second result differs"
    with held.that("every factor is finite and names its source"):
        for factor in impact.factors if impact else ():
            assert factor.source.strip(), f"factor {factor.name} has no source"
            assert factor.value is None or math.isfinite(factor.value), f"factor {factor.name} is {factor.value}"
    with held.that("without energy it says Unavailable, never 0"):
        lost = Unavailable("no energy, for this check")
        bare = replace(costed, energy={}, readings=dict.fromkeys(costed.readings, lost))
        for name, value in meter.apply(bare).readings.items():
            if isinstance(value, Unavailable | Undefined):
                continue
            assert value.value != 0, f"{name} is 0 {value.unit}"
