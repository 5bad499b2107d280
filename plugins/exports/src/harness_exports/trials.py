"""What of a run's trials an export may speak of, and where their joules were spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from harness import Amount, LoadedPoint, LoadedRun, LoadedTrial, MeasurementError, Method
from harness.sample import Scope, disjoint
from harness.units import seconds

ENERGY: Final = "energy_j"
_KINDS: Final = {"gpu": "gpu", "process": "cpu", "dram": "ram"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that counts.

    Attributes:
        point: that it belongs to.
        trial: as `harness.load` gives it.
    """

    point: LoadedPoint
    trial: LoadedTrial

    @property
    def name(self) -> str:
        """For people: `point 0, trial 1`."""
        return f"{self.point.label}, trial {self.trial.number}"

    @property
    def begun(self) -> datetime:
        """When its first window began, by the wall clock."""
        return datetime.fromtimestamp(self.trial.record.measurement.windows[0].start_utc_s, UTC)

    @property
    def ended(self) -> datetime:
        """When its last window ended, by the wall clock."""
        last = self.trial.record.measurement.windows[-1]
        return datetime.fromtimestamp(last.start_utc_s + seconds(last.end_ns - last.start_ns), UTC)

    @property
    def scopes(self) -> Mapping[str, Scope]:
        """The scopes that its energy is the sum of, with their description."""
        found = self.trial.record.measurement
        known = found.scopes
        named = [name for name in known if found.charged is None or name in found.charged]
        return {name: known[name] for name in disjoint(named, known)}

    def amount(self, reading: str) -> Amount | None:
        """A reading over all windows; None where it is missing."""
        value = self.trial.readings.get(reading)
        return value if isinstance(value, Amount) else None

    def why_missing(self, reading: str) -> str:
        """Why there is no such reading."""
        value = self.trial.readings.get(reading)
        return "nothing of the suite gives it" if value is None or isinstance(value, Amount) else value.reason


def component(scope: str) -> str:
    """`cpu`, `gpu` or `ram` that a scope belongs to; empty for another part, or a whole machine.

    Example:
        >>> [component(name) for name in ("n0/gpu:GPU-1", "n0/cpu-package:0", "n0/process", "n0/dram:0", "n0/host")]
        ['gpu', 'cpu', 'cpu', 'ram', '']
    """
    kind = scope.rpartition("/")[2].partition(":")[0]
    return "cpu" if kind.startswith("cpu") else _KINDS.get(kind, "")


def counting(run: LoadedRun, what: str) -> tuple[list[Trial], list[str]]:
    """The trials that may stand in a place without room for labels, and why the others may not.

    Args:
        run: to export.
        what: it is exported to, for the message.

    Raises:
        MeasurementError: none may.
    """
    kept: list[Trial] = []
    left_out = [f"{failure.where}: {failure.reason}" for failure in run.failures]
    for point in run.points:
        for trial in point.trials:
            each = Trial(point, trial)
            reason = _reason(trial)
            if reason:
                left_out.append(f"{each.name}: {reason}")
            else:
                kept.append(each)
    if not kept:
        raise MeasurementError(f"no trial can be exported to {what}", where=run.name, hint="; ".join(left_out[:3]))
    return kept, left_out


def _reason(trial: LoadedTrial) -> str:
    """Why a trial is no measurement of a machine; empty where it is one."""
    record = trial.record
    if not trial.valid:
        return f"not valid: {'; '.join(record.measurement.invalid)}"
    energy = trial.readings.get(ENERGY)
    if record.modelled or (isinstance(energy, Amount) and energy.label is Method.SIMULATED):
        return "simulated: no machine spent this energy"
    if not record.measurement.windows:
        return "it has no window"
    return ""


def environment(trials: list[Trial]) -> Mapping[str, Any]:
    """Of the machine that the first trial ran on."""
    return trials[0].trial.record.measurement.environment


def devices(trial: Trial) -> Iterator[tuple[str, str, int | None, int]]:
    """Kind, name, bytes of memory and number of the devices of a trial; the CPU of the machine if none is listed."""
    measurement = trial.trial.record.measurement
    found: dict[tuple[str, str, int | None], int] = {}
    for device in measurement.devices:
        key = (device.kind, device.name, device.memory_bytes if device.kind != "cpu" else None)
        found[key] = found.get(key, 0) + 1
    if not any(kind == "cpu" for kind, _, _ in found) and (name := measurement.environment.get("cpu")):
        yield "cpu", str(name), None, 1
    yield from ((*key, number) for key, number in found.items())
