"""Energy a call, measured in a window of its own after pytest-benchmark has taken its times.

The window is the core's: its meters, edges, ticks and bounds are those of a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness import Amount, Block, Method, Session, Unavailable, Value

NO_CARBON: Final = Unavailable("no impact meter gives carbon")
NOT_OF_A_CALL: Final = frozenset({"duration_s", "energy_above_idle_j"})
"""Readings of the window that are not told of a call: its time is pytest-benchmark's."""


@dataclass(slots=True)
class Instrument:
    """The opened meters of a pytest session, and what was measured with them.

    Attributes:
        session: the meters.
        seconds: least length of a window.
        measured: name of a benchmark -> what one call of it cost.
    """

    session: Session
    seconds: float
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    def measure(self, work: Callable[[], object], batch: int = 1) -> Block:
        """A window of calls after a lead-in."""
        return self.session.repeat(work, seconds=self.seconds, batch=batch)


def open_instrument(meters: Sequence[str], *, backend: str, seconds: float) -> Instrument:
    """The meters of a session, opened; raises UsageError for settings that are wrong."""
    Session.check_length(seconds)
    return Instrument(Session(meters, backend=backend), seconds)


def extra_info(block: Block) -> dict[str, Any]:
    """What one call cost, as JSON values."""
    calls = block.iterations
    costs = {name: value for name, value in block.per_unit.items() if ":" not in name and name not in NOT_OF_A_CALL}
    shown = {"carbon_g": NO_CARBON, **{name: block.readings[name] for name in costs}}
    return {
        **{key: each for name, value in shown.items() for key, each in _described(name, value, calls).items()},
        "energy_scopes": list(block.scopes),
        "energy_window_s": block.duration,
        "energy_calls": calls,
        "energy_flags": list(block.flags),
    }


def _described(name: str, value: Value, calls: int) -> dict[str, Any]:
    """A reading of the window as that of one call, under its name; without one, null and the reason."""
    if not isinstance(value, Amount):
        return {name: None, f"{name}_unavailable": value.reason}
    one = value.times(1 / calls, value.unit, method=Method.MEASURED)
    return {
        name: one.value,
        f"{name}_low": one.low,
        f"{name}_high": one.high,
        f"{name}_method": one.label.value,
        f"{name}_composition": {method.value: part for method, part in one.composition.items()},
    }


class EnergyBenchmark:
    """pytest-benchmark's fixture with energy in `extra_info`; everything else is that fixture's.

    Args:
        benchmark: pytest-benchmark's fixture.
        instrument: measures.
    """

    def __init__(self, benchmark: Any, instrument: Instrument) -> None:
        self._benchmark = benchmark
        self._instrument = instrument

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Takes times as pytest-benchmark does, then the energy; returns what the function returns."""
        result = self._benchmark(function, *args, **kwargs)
        self._add(function, args, kwargs)
        return result

    def pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As pytest-benchmark's `pedantic`, then the energy; not with set-up or teardown, which would be in it."""
        result = self._benchmark.pedantic(target, args=args, kwargs=kwargs, **options)
        if options.get("setup") or options.get("teardown"):
            missing = Unavailable("a set-up or teardown in each round would be part of the window")
            self._benchmark.extra_info |= {
                **_described("energy_j", missing, 1),
                **_described("carbon_g", missing, 1),
            }
        else:
            self._add(target, args, kwargs or {})
        return result

    def _add(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self._benchmark.enabled:
            batch = self._benchmark.stats.iterations
            info = extra_info(self._instrument.measure(lambda: function(*args, **kwargs), batch))
            self._benchmark.extra_info |= info
            self._instrument.measured[str(self._benchmark.name)] = info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)
