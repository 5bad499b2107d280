"""Energy a call, measured in a window of its own after pytest-benchmark has taken its times.

The window is the core's: its meters, edges, ticks and bounds are those of a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml

from harness import Amount, Method, Unavailable, UsageError, Value
from harness.measuring.instrument import Instrument, Metered

NO_CARBON: Final = Unavailable("no impact meter gives carbon")


def named(meters: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Meters with their options, from one text each as under `meters:` of a suite; raises UsageError."""
    found = []
    for text in meters:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        one = {value: None} if isinstance(value, str) else value
        if not isinstance(one, dict) or len(one) != 1:
            raise UsageError(f"{text!r} is not a meter", accepted="a name, or one name with a mapping of its options")
        ((name, options),) = one.items()
        if not isinstance(options, dict | None):
            raise UsageError(f"the options of meter {name} are {options!r:.60}", accepted="a mapping")
        found.append((str(name), options or {}))
    return found


def open_instrument(meters: Sequence[str], *, backend: str, seconds: float) -> Instrument:
    """The meters of a session, opened; raises UsageError for settings that are wrong."""
    return Instrument(named(meters), backend=backend, seconds=seconds)


def extra_info(metered: Metered) -> dict[str, Any]:
    """What one call cost, as JSON values."""
    shown = {"energy_j": metered.readings["energy_j"], "carbon_g": NO_CARBON, **metered.readings}
    return {
        **{key: each for name, value in shown.items() for key, each in _described(name, value, metered.calls).items()},
        "energy_scopes": list(metered.scopes),
        "energy_window_s": metered.duration_s,
        "energy_calls": metered.calls,
        "energy_flags": list(metered.flags),
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
            self._benchmark.extra_info |= extra_info(self._instrument.measure(lambda: function(*args, **kwargs), batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)
