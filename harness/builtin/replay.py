"""Meter `replay`: plays a recorded or synthetic trace against the real clock. What it reads is `simulated`.

A trace is a CSV file with a header, or a file of JSON lines, with `t_s`, `scope` and one of `watts` and `joules`. Each
row is one reading made at `t_s` seconds after the meter opened: an empty value is a read that failed, joules that fall
are a counter that was reset. The tests' ground truth.
"""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, PositiveFloat

from harness.counter import CounterTrack, PowerIntegrator
from harness.errors import UsageError
from harness.functional_unit import finite
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Duration, Options, Share
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.suite_paths import SuiteFile
from harness.units import NANOSECONDS_PER_SECOND, nanoseconds, seconds

COLUMNS: Final = {"watts": "integrated", "joules": "counter"}
"""Which column each method reads."""


class ReplayOptions(Options):
    """Options of meter `replay`."""

    file: SuiteFile
    """The trace, CSV (`.csv`) or else JSON lines, with `t_s`, `scope`, and `watts` or `joules`."""
    method: Literal["counter", "integrated"] | None = None
    """What the trace holds: `counter` joules, or watts to be `integrated`; taken from its columns if not set."""
    tick: Duration | None = Field(default=None, gt=0)
    """Update period of the register; the median interval of the rows if not set."""
    gain: Share | None = None
    """Half-width of the meter's proportional error; no bound is known if not set."""
    idle_w: float = Field(default=0.0, ge=0)
    """Least power that may have been drawn in a gap, in W, for its lower bound."""
    max_power_w: PositiveFloat | None = None
    """Greatest power that may have been drawn in a gap, in W; gaps have no upper bound if not set."""


@dataclass(slots=True)
class _Track:
    """The rows of one scope: times in nanoseconds since the opening, and readings."""

    times: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    register: CounterTrack | PowerIntegrator | None = None
    tick_s: float = 0.0
    next: int = 0
    state: Cumulative | None = None


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with file.open(encoding="utf-8", newline="") as stream:
        if file.suffix.lower() == ".csv":
            reader = csv.DictReader(stream)
            for row in reader:
                yield reader.line_num, row
        else:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise TypeError("not an object")
                    yield number, row


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = finite(float(value)) if isinstance(value, str) else finite(value)
    if number is None:
        raise ValueError(f"{value!r} is not a finite number")
    return number


def load(file: Path, method: str | None = None) -> tuple[str, dict[str, _Track]]:
    """The method and the rows per scope of a trace; raises UsageError naming the line."""
    accepted = "columns t_s, scope and one of watts and joules; t_s rising per scope"
    tracks: dict[str, _Track] = {}
    column = {kind: name for name, kind in COLUMNS.items()}.get(method or "")
    number = 1
    try:
        for number, row in _rows(file):
            column = column or next((name for name in COLUMNS if name in row), None)
            time_s, scope = _number(row.get("t_s")), str(row.get("scope") or "")
            if column is None or column not in row or time_s is None or time_s < 0 or not scope:
                raise UsageError("not a row of a trace", where=f"{file}:{number}", accepted=accepted)
            track = tracks.setdefault(scope, _Track())
            moment = nanoseconds(time_s)
            if track.times and moment <= track.times[-1]:
                raise UsageError(f"t_s falls or repeats in {scope!r}", where=f"{file}:{number}", accepted=accepted)
            track.times.append(moment)
            track.values.append(_number(row[column]))
    except OSError as error:
        raise UsageError(f"the trace cannot be read: {error.strerror}", where=str(file)) from None
    except (ValueError, TypeError, csv.Error) as error:
        raise UsageError(f"not a row of a trace: {error}", where=f"{file}:{number}", accepted=accepted) from None
    if column is None:
        raise UsageError("the trace is empty", where=str(file), accepted=accepted)
    return COLUMNS[column], tracks


def _spacing_s(times: Iterable[int]) -> float:
    steps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(steps) / NANOSECONDS_PER_SECOND if steps else 1.0


class ReplayMeter(Meter):
    """Plays each row when its time has come; after the last row there is nothing to read.

    Args:
        options: the trace.
        clock: monotonic nanoseconds.
    """

    def __init__(self, options: ReplayOptions, clock: Callable[[], int] = now_ns) -> None:
        self._options = options
        self._clock = clock
        self._opened_ns = 0
        self._tracks: dict[str, _Track] = {}
        self._method = ""

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Loads the trace and starts it; raises UsageError for a file that is none."""
        options = self._options
        self._method, tracks = load(options.file, options.method)
        self._tracks = {}
        found: dict[str, Scope | Unavailable] = {}
        for written, track in tracks.items():
            name = written if "/" in written else f"{context.node}/{written}"
            spacing_s = _spacing_s(track.times)
            track.tick_s = options.tick or spacing_s
            track.register = (
                CounterTrack(max_power_w=options.max_power_w, tick_s=track.tick_s)
                if self._method == "counter"
                else PowerIntegrator(spacing_s, options.idle_w, options.max_power_w)
            )
            self._tracks[name] = track
            kind, _, uuid = name.partition("/")[2].partition(":")
            found[name] = Scope(
                method=Method.SIMULATED,
                tick_s=track.tick_s,
                gain=options.gain,
                gain_class=f"replay of {options.file}",
                max_power_w=options.max_power_w,
                device=uuid if kind in {"gpu", "module"} else None,
                note=f"replay of {options.file}, {self._method}",
            )
        shortest_s = min(track.tick_s for track in self._tracks.values())
        self.sample_hz = min(10.0, max(1.0, 1.0 / shortest_s))
        self._opened_ns = self._clock()
        return found

    def read(self) -> Snapshot:
        """Plays the rows whose time has come."""
        now = self._clock()
        joules = {name: self._play(track, now - self._opened_ns) for name, track in self._tracks.items()}
        return Snapshot(now, joules, self._clock() - now)

    @staticmethod
    def _play(track: _Track, at_ns: int) -> Cumulative | Unavailable:
        assert track.register is not None
        while track.next < len(track.times) and track.times[track.next] <= at_ns:
            state = track.register.update(track.times[track.next], track.values[track.next])
            # What the counter counted before the trace began is not in it; all its joules are the model's.
            track.state = replace(state, other_j={})
            track.next += 1
        if track.state is None:
            return Unavailable("the trace has not begun")
        if at_ns > track.times[-1] + nanoseconds(2 * track.tick_s):
            return Unavailable(f"the trace ended at {seconds(track.times[-1]):g} s")
        if track.values[track.next - 1] is None:
            return Unavailable(f"the trace holds a failed read at {seconds(track.times[track.next - 1]):g} s")
        return track.state

    def facts(self) -> Mapping[str, object]:
        """The trace and how it was read."""
        return {"file": str(self._options.file), "method": self._method, "scopes": sorted(self._tracks)}

    def close(self) -> None:
        """Nothing is held."""
        self._tracks = {}


METER: Final = MeterSpec(
    name="replay",
    summary="plays a power or counter trace; simulated",
    factory=ReplayMeter,
    options=ReplayOptions,
    fork_safe=True,
)
