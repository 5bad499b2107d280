"""What the chips of a hwmon tree show, and how the parts of a machine lie in one another.

What overlaps is never added: a card contains its package, a module its rails, a power supply's input its output. Where
a chip shows the whole and its parts, the parts say that they lie within it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.sensor import PowerSensor

MICRO: Final = 1e-6
MILLI: Final = 1e-3

GPUS: Final = ("amdgpu", "xe", "i915")
"""Drivers of GPUs. `i915_gt0` and the like show a tile each, and `i915` the whole."""
TOTALS: Final = ("VDD_IN", "POM_5V_IN", "Module")
"""Rails of Jetson modules that contain the others (NVIDIA, Jetson Linux Developer Guide, "Software-Based Power
Consumption Modeling")."""
PCI: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_UNTESTED: Final = "no publication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One counter or power reading.

    Attributes:
        chip: name of its driver.
        label: what the driver calls it.
        paths: its file; or voltage and current, whose product it is.
        part: its scope without the node, such as `rail:VDD_IN`; of a GPU without its identity, `gpu`.
        counts: whether it is an energy counter.
        address: PCI address of the device; empty where there is none.
        within: part that contains it.
        limit_w: power limit as the driver states it.
        gain: greatest proportional error.
        offset_w: greatest constant error.
        sensor: of a power reading.
        note: what a reader should know.
    """

    chip: str
    label: str
    paths: tuple[Path, ...]
    part: str
    counts: bool
    address: str = ""
    within: str = ""
    limit_w: float | None = None
    gain: float = 0.10
    offset_w: float = 0.0
    sensor: PowerSensor | None = None
    note: str = ""


def read_text(path: Path) -> str:
    """A file of the tree; raises OSError."""
    return path.read_text(encoding="ascii", errors="replace").strip()


Reader = Callable[[Path], str]


def find_registers(root: Path, extra: tuple[str, ...] = (), read: Reader = read_text) -> list[Register]:
    """Every register that is known to be read without counting anything twice.

    Raises:
        OSError: the tree cannot be listed.
    """
    found: list[Register] = []
    for folder in sorted(root.iterdir(), key=lambda path: (len(path.name), path.name)):
        name = _text(folder / "name", read)
        if name in GPUS:
            found += _gpu(folder, name, read)
        elif name == "amd_energy":
            found += _sockets(folder, read)
        elif name in {"power_meter", "ibmaem"}:
            found += _machine(folder, name, read)
        elif name == "ina3221":
            found += _rails(folder, name, read)
        elif name and name in extra:
            found += _others(folder, name, read)
    return _in_their_total(found)


def _in_their_total(found: list[Register]) -> list[Register]:
    """Rails of a module lie within its input rail, also where that is on another chip of the same kind."""
    totals = {each.chip: each.part for each in found if each.label in TOTALS}
    return [
        replace(each, within=totals[each.chip]) if each.chip in totals and each.part != totals[each.chip] else each
        for each in found
    ]


def _text(path: Path, read: Reader) -> str:
    try:
        return read(path)
    except OSError:
        return ""


def _number(path: Path, read: Reader) -> float | None:
    try:
        return float(read(path))
    except (OSError, ValueError):
        return None


def address_of(folder: Path) -> str:
    """PCI address of the device that a chip belongs to; empty where it has none."""
    parts = (folder / "device").resolve().parts
    return next((part for part in reversed(parts) if PCI.fullmatch(part)), "")


def _labelled(folder: Path, read: Reader, *suffixes: str) -> Iterator[tuple[str, Path, str]]:
    """Index, file and label of each register; of two suffixes of one index the first."""
    seen: set[str] = set()
    for suffix in suffixes:
        kind = "energy" if suffix.startswith("energy") else "power"
        ending = suffix.removeprefix(f"{kind}*")
        for file in sorted(folder.glob(suffix)):
            index = file.name.removeprefix(kind).removesuffix(ending)
            if index.isdigit() and f"{kind}{index}" not in seen:
                seen.add(f"{kind}{index}")
                yield index, file, _text(folder / f"{kind}{index}_label", read)


def _limit_w(folder: Path, index: str, read: Reader) -> float | None:
    files = [folder / f"power{index}_{suffix}" for suffix in ("cap", "max", "rated_max", "cap_max")]
    stated = (_number(file, read) for file in files)
    return next((number * MICRO for number in stated if number is not None and number > 0), None)


def _gpu(folder: Path, name: str, read: Reader) -> Iterator[Register]:
    """The card's energy counter where there is one, else its power.

    An Intel card counts `card` and, inside it, `pkg`; only the first is read.
    """
    address = address_of(folder)
    counters = list(_labelled(folder, read, "energy*_input"))
    if counters:
        index, file, label = min(counters, key=lambda each: (each[2] not in {"card", ""}, int(each[0])))
        yield Register(
            chip=name, label=label or "energy", paths=(file,), part="gpu", counts=True, address=address,
            limit_w=_limit_w(folder, index, read), note=f"{name} {label or 'energy'} counter",
        )  # fmt: skip
        return
    for index, file, label in list(_labelled(folder, read, "power*_average", "power*_input"))[:1]:
        limit_w = _limit_w(folder, index, read)
        offset_w = 0.05 * (limit_w or 300.0)
        window_s = 1.0 if file.name.endswith("_average") else 0.1  # AMD does not state what it averages over
        sensor = PowerSensor(
            update_s=0.1, window_s=window_s, gain=0.10, offset_w=offset_w, lag_error_s=0.5, limit_w=limit_w,
            note=f"{name}: {_UNTESTED}; taken as the worst that is published of GPUs",
        )  # fmt: skip
        yield Register(
            chip=name, label=label or "power", paths=(file,), part="gpu", counts=False, address=address,
            limit_w=limit_w, offset_w=offset_w, sensor=sensor,
            note=f"{name} {label or 'power'} ({file.name}); of an APU the whole socket",
        )  # fmt: skip


def _sockets(folder: Path, read: Reader) -> Iterator[Register]:
    """AMD sockets. Cores lie in them and are left out."""
    for _, file, label in _labelled(folder, read, "energy*_input"):
        if match := re.fullmatch(r"Esocket0*(\d+)", label):
            yield Register(
                chip="amd_energy", label=label, paths=(file,), part=f"cpu-package:{match[1]}", counts=True, gain=0.05,
                note=f"amd_energy {label}: the whole package, other processes included",
            )  # fmt: skip


def _machine(folder: Path, name: str, read: Reader) -> Iterator[Register]:
    """A server board's own meter of the whole machine (ACPI, "Power Meter"; IBM's Active Energy Manager)."""
    for _, file, label in list(_labelled(folder, read, "energy*_input"))[:1]:
        yield Register(
            chip=name, label=label or "energy", paths=(file,), part="host", counts=True, note=f"{name}: the machine"
        )
        return
    for index, file, label in list(_labelled(folder, read, "power*_average", "power*_input"))[:1]:
        accuracy = _text(folder / f"power{index}_accuracy", read).removesuffix("%")
        gain = float(accuracy) / 100 if re.fullmatch(r"\d+(\.\d+)?", accuracy) else 0.10
        average_ms = _number(folder / f"power{index}_average_interval", read)
        window_s = average_ms * MILLI if average_ms else 1.0
        sensor = PowerSensor(
            update_s=1.0, window_s=window_s, gain=gain, offset_w=0.0, lag_error_s=1.0,
            note=f"{name}: {'accuracy as the board states it' if accuracy else _UNTESTED}",
        )  # fmt: skip
        yield Register(
            chip=name, label=label or "power", paths=(file,), part="host", counts=False,
            limit_w=_limit_w(folder, index, read), gain=gain, sensor=sensor, note=f"{name}: the machine",
        )  # fmt: skip


def _rail_sensor(folder: Path, read: Reader) -> PowerSensor:
    """An INA3221 converts for some milliseconds and shows that until it has converted again.

    Its own error is 0.5 % with 80 µV of shunt (Texas Instruments, SBOS576B); the shunt's tolerance and the driver's
    rounding to 8 mV and whole milliamperes come to it.
    """
    interval_ms = _number(folder / "update_interval", read)
    update_s = max(interval_ms * MILLI, 0.001) if interval_ms else 0.01
    return PowerSensor(
        update_s=update_s, window_s=update_s, gain=0.03, offset_w=0.1, note="ina3221: data sheet, and a shunt of 2 %"
    )


def _rails(folder: Path, name: str, read: Reader) -> Iterator[Register]:
    """Rails of a Jetson board: power where the driver shows it, else voltage times current."""
    sensor = _rail_sensor(folder, read)
    powers: dict[str, tuple[Path, ...]] = {
        index: (file,) for index, file, _ in _labelled(folder, read, "power*_average", "power*_input")
    }
    for volts in sorted(folder.glob("in[1-3]_input")):
        index = volts.name[2:-6]
        amperes = folder / f"curr{index}_input"
        if index not in powers and amperes.exists():
            powers[index] = (volts, amperes)
    for index, paths in sorted(powers.items()):
        label = _text(folder / f"in{index}_label", read) or _text(folder / f"power{index}_label", read)
        if not label or label in {"NC", "sum of shunt voltages"}:
            continue
        yield Register(
            chip=name, label=label, paths=paths, part=f"rail:{_safe(label)}", counts=False, gain=sensor.gain,
            offset_w=sensor.offset_w, sensor=sensor, note=f"{name} {label}: a rail of the module, without its carrier",
        )  # fmt: skip


def _others(folder: Path, name: str, read: Reader) -> Iterator[Register]:
    """Whatever a chip shows that a suite asks for by name; output of a supply lies within its input."""
    powers = list(_labelled(folder, read, "power*_average", "power*_input"))
    inputs = [f"rail:{_safe(f'{name}.{label}')}" for _, _, label in powers if label in {"pin", "pin1"}]
    for index, file, label in powers:
        part = f"rail:{_safe(f'{name}.{label or index}')}"
        sensor = PowerSensor(
            update_s=0.1, window_s=0.0, gain=0.10, offset_w=0.0, lag_error_s=1.0, note=f"{name}: {_UNTESTED}"
        )
        yield Register(
            chip=name, label=label or index, paths=(file,), part=part, counts=False, sensor=sensor,
            limit_w=_limit_w(folder, index, read), note=f"{name} {label or file.name}",
            within=inputs[0] if inputs and label.startswith("pout") else "",
        )  # fmt: skip


def _safe(label: str) -> str:
    return re.sub(r"[^\w.:@-]+", "-", label.strip())
