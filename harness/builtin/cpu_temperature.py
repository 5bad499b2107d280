"""Temperature of the CPU packages, from the sensors that Linux's hwmon shows.

`coretemp` (Intel) has a sensor `Package id N` for each package; `k10temp` and `zenpower` (AMD) and `cpu_thermal` (ARM
boards) have one chip a package, in the order of the packages. Of the AMD sensors, `Tdie` is the temperature and `Tctl`
the same or up to 27 °C more, for the fan's sake (Linux kernel documentation, hwmon/k10temp).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psutil

_PACKAGE: Final = re.compile(r"Package id (\d+)")
_CHIPS: Final = ("k10temp", "zenpower", "cpu_thermal")
_DIE: Final = ("Tdie", "Tctl", "")

Sensors = Mapping[str, Sequence[Any]]


def _sensors() -> Sensors:
    """What psutil finds; nothing on a system for which it knows no sensors."""
    read: Callable[[], Sensors] | None = getattr(psutil, "sensors_temperatures", None)
    return read() if read is not None else {}


def package_temperatures(node: str, sensors: Callable[[], Sensors] = _sensors) -> dict[str, float]:
    """Scope of each CPU package with a sensor -> its temperature in °C."""
    found = sensors()
    packages = {
        match.group(1): float(each.current)
        for each in found.get("coretemp", ())
        if (match := _PACKAGE.fullmatch(each.label)) is not None
    }
    for chip in _CHIPS if not packages else ():
        listed = found.get(chip, ())
        label = next((label for label in _DIE if any(each.label == label for each in listed)), None)
        dies = [float(each.current) for each in listed if each.label == label]
        packages |= {str(number): celsius for number, celsius in enumerate(dies)}
        if packages:
            break
    return {f"{node}/cpu-package:{package}": celsius for package, celsius in packages.items()}
