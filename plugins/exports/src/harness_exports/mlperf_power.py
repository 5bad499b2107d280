"""A power log as MLPerf Training's logging library writes and reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

from harness import Amount, Exported, LoadedRun, MeasurementError, Method, NoOptions, Value, total
from harness.units import seconds
from harness_exports.trials import ENERGY, Trial, counting

LINE: Final = ":::MLLOG "
_HEAD: Final = (
    "# Power of measured windows in the log format of MLPerf Training. This is not an MLPerf result: no rules of a "
    "round were\n# followed, and MLCommons verified nothing. Each window is a measurement of its own.\n"
)
_MEASURED: Final = frozenset({Method.COUNTER, Method.WALL, Method.MEASURED, Method.INTEGRATED})


def export(run: LoadedRun, _target: str, _options: NoOptions) -> Exported:
    """For each window `power_measurement_start`, its mean power as `power_reading` in W, `power_measurement_stop`.

    The keys, and the energy as power times the time since the last reading, are those of mlperf-logging 4.1
    (Apache-2.0). What is only estimated is left out: such a log holds measured power.

    Raises:
        MeasurementError: no trial was measured by counter, wall meter or sampled power.
    """
    trials, left_out = counting(run, "an MLPerf power log")
    lines: list[str] = []
    for trial in trials:
        energy = trial.amount(ENERGY)
        if energy is None:
            left_out.append(f"{trial.name}: no energy: {trial.why_missing(ENERGY)}")
        elif not set(energy.composition) <= _MEASURED:
            left_out.append(f"{trial.name}: its energy is {energy.label}, and an MLPerf log holds measured power")
        else:
            lines += _windows(trial, energy)
    if not lines:
        raise MeasurementError(
            "no trial can be exported to an MLPerf power log", where=run.name, hint="; ".join(left_out[:3])
        )
    return Exported(content=_HEAD + "\n".join(lines) + "\n", left_out=tuple(left_out))


def _windows(trial: Trial, energy: Amount) -> Iterator[str]:
    found = list(_energies(trial))
    if not math.isclose(math.fsum(joules.value for _, joules in found), energy.value, rel_tol=1e-6):
        raise MeasurementError("the energies of the windows do not add up to the trial's", where=trial.name)
    for window, joules in found:
        begun_ms = window.start_utc_s * 1e3
        duration_s = seconds(window.end_ns - window.start_ns)
        ended_ms = begun_ms + duration_s * 1e3
        said = {
            "point": trial.point.label, "point_id": trial.point.id, "trial": trial.trial.number,
            "window": window.window, "method": joules.label.value, "scopes": sorted(trial.scopes),
            **{f"{end}_w": value / duration_s for end, value in (("low", joules.low), ("high", joules.high))
               if value is not None},
        }  # fmt: skip
        yield _line(begun_ms, "power_measurement_start", None, said)
        yield _line(ended_ms, "power_reading", joules.value / duration_s, said)
        yield _line(ended_ms, "power_measurement_stop", None, said)


def _energies(trial: Trial) -> Iterator[tuple[Any, Amount]]:
    """Each window with the sum of its scopes."""
    measurement = trial.trial.record.measurement
    for window in measurement.windows:
        values: list[Value] = [
            reading.value
            for reading in measurement.readings
            if reading.primary and reading.span == "window" and reading.window == window.window
            and reading.scope in trial.scopes
        ]  # fmt: skip
        amounts = [value for value in values if isinstance(value, Amount)]
        if amounts and len(amounts) == len(values):
            yield window, total(amounts)


def _line(time_ms: float, key: str, value: float | None, metadata: dict[str, Any]) -> str:
    content = {"namespace": "", "time_ms": time_ms, "event_type": "POINT_IN_TIME", "key": key, "value": value}
    return LINE + json.dumps({**content, "metadata": metadata}, allow_nan=False)
