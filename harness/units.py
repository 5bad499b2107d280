"""Units: the only place where one is turned into another.

SI units stand in names (`energy_j`, `duration_s`); what people write in a suite (`30s`, `40GB`, `3%`, `300W`) is parsed
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from harness.errors import UsageError

JOULES_PER_KWH: Final = 3.6e6
"""One kilowatt-hour in joules, exact."""

NANOSECONDS_PER_SECOND: Final = 1_000_000_000

_DURATIONS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SIZES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_POWERS: Final = {"mW": 1e-3, "W": 1.0, "kW": 1e3}
_FREQUENCIES: Final = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
_G_PER_KWH: Final = {
    "g/kWh": 1.0,
    "kg/kWh": 1000.0,
    "kg/MWh": 1.0,
    "g/MWh": 1e-3,
    "t/MWh": 1000.0,
    "t/GWh": 1.0,
    "mg/kWh": 1e-3,
    "lb/MWh": 0.45359237,
}
"""1 lb = 453.59237 g exactly."""
_L_PER_KWH: Final = {
    "L/kWh": 1.0,
    "mL/kWh": 1e-3,
    "L/MWh": 1e-3,
    "m3/MWh": 1.0,
    "m³/MWh": 1.0,
    "gal/MWh": 3.785411784e-3,
    "gal/kWh": 3.785411784,
}
"""1 US gallon is 3.785411784 L exactly."""
_CARBON: Final = re.compile(r"CO2(?:eq|e)?", re.IGNORECASE)
_PER_KWH: Final = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z0-9³]+\s*/\s*[A-Za-z]+)\s*")
_NUMBER: Final = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%]*)\s*")


def kwh(joules: float) -> float:
    """Energy in kilowatt-hours."""
    return joules / JOULES_PER_KWH


def seconds(nanoseconds: int) -> float:
    """A difference of monotonic clock readings, in seconds."""
    return nanoseconds / NANOSECONDS_PER_SECOND


def nanoseconds(duration_s: float) -> int:
    """A duration as whole nanoseconds."""
    return round(duration_s * NANOSECONDS_PER_SECOND)


def _split(text: str, what: str, accepted: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not {what}", accepted=accepted)
    return float(match.group(1)), match.group(2)


def parse_duration(value: float | str) -> float:
    """Seconds from a number of seconds or from text such as `500ms`, `30s`, `10min`, `1h`.

    Examples:
        >>> parse_duration("500ms"), parse_duration("10min"), parse_duration(3)
        (0.5, 600.0, 3.0)
        >>> parse_duration("soon")
        Traceback (most recent call last):
        harness.errors.UsageError: 'soon' is not a duration; accepted: a number of seconds, or one with a unit of ...
    """
    accepted = f"a number of seconds, or one with a unit of {', '.join(_DURATIONS)}"
    number, unit = (float(value), "s") if not isinstance(value, str) else _split(value, "a duration", accepted)
    factor = _DURATIONS.get(unit or "s")
    if factor is None or not 0 <= number * factor < float("inf"):
        raise UsageError(f"{value!r} is not a duration", accepted=accepted)
    return number * factor


def parse_size(value: float | str) -> int:
    """Bytes from a number of bytes or from text such as `40GB` (decimal) or `16GiB` (binary).

    Examples:
        >>> parse_size("40GB"), parse_size("16GiB")
        (40000000000, 17179869184)
    """
    accepted = f"a number of bytes, or one with a unit of {', '.join(_SIZES)}"
    number, unit = (float(value), "B") if not isinstance(value, str) else _split(value, "a size", accepted)
    factor = _SIZES.get(unit or "B")
    if factor is None or not 0 <= number * factor < float("inf"):
        raise UsageError(f"{value!r} is not a size", accepted=accepted)
    return round(number * factor)


def parse_share(value: float | str) -> float:
    """A fraction from a number (`0.03`) or from a percentage with its sign (`3%`).

    Examples:
        >>> parse_share("3%"), parse_share(0.03)
        (0.03, 0.03)
    """
    accepted = "a fraction such as 0.03, or a percentage with its sign such as 3%"
    number, unit = (float(value), "") if not isinstance(value, str) else _split(value, "a share", accepted)
    if unit not in {"", "%"} or not 0 <= number < float("inf"):
        raise UsageError(f"{value!r} is not a share", accepted=accepted)
    return number / 100 if unit == "%" else number


def parse_power(value: float | str) -> float:
    """Watts from a number of watts or from text such as `300W`, `0.3kW`.

    Examples:
        >>> parse_power("300W"), parse_power("0.3kW"), parse_power(250)
        (300.0, 300.0, 250.0)
    """
    return _parse_physical(value, "W", "a power", "watts", _POWERS)


def parse_frequency(value: float | str) -> float:
    """Hertz from a number of hertz or from text such as `1200MHz`, `1.2GHz`.

    Examples:
        >>> parse_frequency("1200MHz"), parse_frequency("1.2GHz")
        (1200000000.0, 1200000000.0)
    """
    return _parse_physical(value, "Hz", "a frequency", "hertz", _FREQUENCIES)


def _parse_physical(value: float | str, base: str, what: str, plural: str, factors: Mapping[str, float]) -> float:
    accepted = f"a number of {plural}, or one with a unit of {', '.join(factors)}"
    number, unit = (float(value), base) if not isinstance(value, str) else _split(value, what, accepted)
    factor = factors.get(unit or base)
    if factor is None or not 0 <= number * factor < float("inf"):
        raise UsageError(f"{value!r} is not {what}", accepted=accepted)
    return number * factor


def write_power(watts: float) -> str | float:
    """A number of watts as `parse_power` reads it: `300W`."""
    return _write(watts, ("kW", "W", "mW"), _POWERS, parse_power)


def write_frequency(hertz: float) -> str | float:
    """A number of hertz as `parse_frequency` reads it: `1200MHz`."""
    return _write(hertz, ("GHz", "MHz", "kHz", "Hz"), _FREQUENCIES, parse_frequency)


def parse_intensity(value: float | str) -> float:
    """gCO2e/kWh from a number of them or from text with a unit, such as `518 g/kWh` or `0.518 kg/kWh`.

    A number without unit that no grid has is answered with the question which unit is meant.

    Examples:
        >>> parse_intensity("0.518 kgCO2e/kWh"), parse_intensity(518), parse_intensity("0.4 g/kWh")
        (518.0, 518.0, 0.4)
        >>> parse_intensity(0.518)
        Traceback (most recent call last):
        harness.errors.UsageError: 0.518 g/kWh is less than any grid has; accepted: ... ('0.518 kg/kWh' or ...?)
    """
    return _per_kwh(value, "a carbon intensity", _G_PER_KWH, (1.0, 2000.0, 5000.0), ("g/kWh", "kg/kWh", "mg/kWh"))


def parse_volume_per_kwh(value: float | str, most: float = 50.0) -> float:
    """L/kWh from a number of them or from text with a unit, such as `1.8 L/kWh`, `1800 mL/kWh` or `687 gal/MWh`.

    Args:
        value: as written.
        most: the greatest number that is believed without a unit.

    Examples:
        >>> parse_volume_per_kwh("1.8 L/kWh"), parse_volume_per_kwh("1800 mL/kWh"), parse_volume_per_kwh(1.8)
        (1.8, 1.8, 1.8)
    """
    return _per_kwh(value, "a volume per kWh", _L_PER_KWH, (0.0, most, 20 * most), ("L/kWh", "m3/kWh", "mL/kWh"))


def _per_kwh(
    value: float | str,
    what: str,
    units: Mapping[str, float],
    believed: tuple[float, float, float],
    names: tuple[str, str, str],
) -> float:
    """A number per kWh in the first of `names`; the others are what it may be where it is too small or too large."""
    base, larger, smaller = names
    least, most, ever = believed
    accepted = f"a number of {base}, or one with a unit of {', '.join(units)}"
    written = _PER_KWH.fullmatch(value) if isinstance(value, str) else None
    if written is not None:
        unit = _CARBON.sub("", "".join(written.group(2).split()))
        if unit not in units:
            raise UsageError(f"{value!r} is not {what}", accepted=accepted)
        found = float(written.group(1)) * units[unit]
        if found > ever:
            said = f"{value!r} is {found:g} {base}, more than there can be"
            raise UsageError(said, accepted=f"at most {ever:g} {base}")
        return found
    number, unit = (float(value), "") if not isinstance(value, str) else _split(value, what, accepted)
    if unit or not 0 <= number < float("inf"):
        raise UsageError(f"{value!r} is not {what}", accepted=accepted)
    if 0 < number < least:
        raise UsageError(
            f"{number:g} {base} is less than any grid has",
            accepted=f"0, {least:g} to {most:g} {base}, or any number with its unit",
            hint=f"'{number:g} {larger}' or '{number:g} {base}'?",
        )
    if number > most:
        meant = f"'{number:g} {smaller}'" if number <= 1000 * most else f"'{number / 1000:g} {smaller}'"
        raise UsageError(
            f"{number:g} {base} is more than there can be",
            accepted=f"up to {most:g} {base}, or a number with its unit",
            hint=f"is it {meant}?",
        )
    return number


def write_per_kwh(value: float, unit: str, least: float, most: float) -> str | float:
    """A number as `parse_intensity` and `parse_volume_per_kwh` read it back: with its unit where it needs one."""
    return value if value == 0 or least <= value <= most else f"{value!r} {unit}"


def write_duration(seconds_: float) -> str | float:
    """A number of seconds as `parse_duration` reads it: `100ms`, `30s`, `10min`, `1h`."""
    return _write(seconds_, ("h", "min", "s", "ms", "us", "ns"), _DURATIONS, parse_duration)


def write_size(size_bytes: float) -> str | float:
    """A number of bytes as `parse_size` reads it: `40GB`, `16GiB`."""
    return _write(size_bytes, ("TB", "TiB", "GB", "GiB", "MB", "MiB", "kB", "KiB", "B"), _SIZES, parse_size)


def write_share(fraction: float) -> str | float:
    """A fraction as `parse_share` reads it: `3%`."""
    text = f"{fraction * 100:.12g}%"
    return text if parse_share(text) == fraction else fraction


def _write(
    value: float, units: tuple[str, ...], factors: Mapping[str, float], parse: Callable[[str], float]
) -> str | float:
    """The value in the largest unit that it is a whole number of; the value itself where no text gives it exactly."""
    if value == 0:
        return "0s" if "s" in units else f"0{units[-1]}"
    for unit in units:
        text = f"{round(value / factors[unit])}{unit}"
        if round(value / factors[unit]) and parse(text) == value:
            return text
    return value


_PREFIXED: Final = frozenset({"J", "W", "Wh", "s", "g", "gCO2e", "B", "L", "V", "A", "Hz"})
"""Symbols that an SI prefix may stand before; counts, ratios and rates of things are written out."""
_PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def si(value: float, unit: str, digits: int = 3) -> str:
    """A number for people: with an SI prefix where the unit is one of physics, written out where it counts things.

    Examples:
        >>> si(0.00123, "J"), si(0.0000021, "g/token"), si(7200, "s")
        ('1.23 mJ', '2.1 µg/token', '7,200 s')
        >>> si(0.389, "/s"), si(1.49e6, "token/s"), si(0.0312, "")
        ('0.389 /s', '1,490,000 token/s', '0.0312')
    """
    factor, prefix = prefix_of(value, unit)
    return f"{number(value / factor, digits)} {prefix}{unit}".rstrip()


def prefix_of(value: float, unit: str) -> tuple[float, str]:
    """The SI prefix that a value is written with, and what it stands for; `(1, "")` for none."""
    symbol = unit.partition("/")[0]
    if symbol in _PREFIXED and value:
        for factor, prefix in _PREFIXES:
            if abs(value) >= factor * 0.9995:
                if (factor > 1 and symbol == "s") or (factor < 1 and symbol in {"B", "bit"}):
                    break
                return factor, prefix
    return 1.0, ""


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, its thousands set apart.

    Examples:
        >>> number(0.16489), number(200_000), number(-1234.5), number(0)
        ('0.165', '200,000', '-1,230', '0')
    """
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 10**digits <= abs(rounded) < 1e15 else f"{rounded:.{digits}g}"
