"""What can be measured on this machine, with which method and resolution, and why the rest cannot."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from rich.console import Console

from harness.backend import Device
from harness.diagnosing.card_runs import make_cards
from harness.errors import HarnessError
from harness.impact import ImpactMeterSpec
from harness.machine.fingerprint import environment
from harness.machine.meter_card import MeterCard, card_state
from harness.meter import Meter, MeterContext
from harness.planning.point import Choice
from harness.planning.probe import Prober as ChildProber
from harness.quantity import Unavailable
from harness.reporting.wording import sensor_error
from harness.sample import Cumulative, Scope, Snapshot
from harness.units import seconds, si

READS: Final = "reads"
UNAVAILABLE: Final = "unavailable"
FAILED: Final = "failed"
NEEDS_OPTIONS: Final = "needs options"
OFFERED: Final = "offered"
FACT: Final = "fact"
ABSENT: Final = "not installed"

METERS: Final[Mapping[str, tuple[str, str]]] = {
    "nvml": ("joule-harness-meter-nvml", "NVIDIA devices"),
    "amd": ("joule-harness-meter-amd", "AMD devices"),
    "apple": ("joule-harness-meter-apple", "Apple silicon"),
    "prometheus": ("joule-harness-meter-prometheus", "a Prometheus server, or an exporter"),
    "wall": ("joule-harness-meter-wall", "an outlet, a rack's unit or a service processor"),
    "zeusd": ("joule-harness-meter-zeusd", "a Zeus daemon"),
}
"""Meters of this project that are distributions of their own: which, and what they read."""

PAUSE_S: Final = 0.25
"""Between the two reads of a meter: two updates of the slowest counters in use."""

Prober = Callable[[str, Any], Sequence[Device] | Unavailable]
"""Backend's name and spec -> the devices a trial would get, or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the survey.

    Attributes:
        kind: `machine`, `backend`, `meter`, `impact meter` or `plugin`.
        name: of the fact, backend, meter or plugin.
        plugin: distribution and version that it comes from.
        scope: what a meter reads.
        method: how.
        resolution: update period, or the least that two reads showed.
        gain: half-width of the sensor's proportional error.
        card: of a hardware meter's scope: its meter card and until when it holds, why it does not, or `none`.
        status: `reads`, `unavailable`, `failed`, `needs options`, `not installed`, `offered` or `fact`.
        detail: what was found, or why not.
        remedy: what to do about it, where that is known.
    """

    kind: str
    name: str
    plugin: str = ""
    scope: str = ""
    method: str = ""
    resolution: str = ""
    gain: str = ""
    card: str = ""
    status: str
    detail: str = ""
    remedy: str = ""


def in_a_process(name: str, offer: Any) -> Sequence[Device] | Unavailable:
    """Asks a backend with its default options in a process of its own, once."""
    offer.spec.options()
    return _children().backend(Choice(name))


@functools.cache
def _children() -> ChildProber:
    return ChildProber()


def devices_of(registry: Any, probe: Prober = in_a_process) -> list[Device]:
    """The devices that the backends find with their default options, each once."""
    found: dict[str, Device] = {}
    for name, offer in registry.backends.items():
        try:
            answer = probe(name, offer)
        except Exception:  # noqa: BLE001, S112 - the survey's own row says what a plugin raised
            continue
        if not isinstance(answer, Unavailable):
            found.update({device.uuid: device for device in answer})
    return list(found.values())


def survey(
    registry: Any,
    devices: Sequence[Device],
    *,
    probe: Prober = in_a_process,
    sleep: Callable[[float], object] = time.sleep,
    named: str | None = None,
) -> list[Row]:
    """Machine facts, backends, meters and broken plugins; whatever a plugin raises becomes a row.

    Args:
        registry: the plugins.
        devices: what meters of devices shall look for.
        probe: asks a backend.
        sleep: waits between the two reads of a meter.
        named: of backends and meters, those of this name only.
    """
    context = MeterContext(devices=tuple(devices), pid=os.getpid())
    rows = machine()
    for name, offer in _named(registry.backends, named):
        rows.append(_guarded("backend", name, offer, functools.partial(_backend, name, offer, probe))[0])
    for name, offer in _named(registry.meters, named):
        rows += _guarded("meter", name, offer, functools.partial(_meter, name, offer, context, sleep))
    for broken in registry.broken:
        rows.append(
            Row(
                kind="plugin",
                name=broken.name,
                plugin=f"{broken.distribution} {broken.version}".strip(),
                status=FAILED,
                detail=str(broken.error),
                remedy=f"repair or uninstall {broken.distribution}",
            )
        )
    for conflict in getattr(registry, "conflicts", ()):
        remedy = f"suites write {' or '.join(conflict.spellings)}" if conflict.spellings else ""
        rows.append(Row(kind="plugin", name=conflict.name, status=FAILED, detail=str(conflict), remedy=remedy))
    return rows


def absent(registry: Any) -> list[Row]:
    """A row for each meter of this project that no installed plugin offers."""
    return [
        Row(kind="meter", name=name, status=ABSENT, detail=f"it reads {what}", remedy=f"`pip install {distribution}`")
        for name, (distribution, what) in METERS.items()
        if name not in registry.meters
    ]


def _named(offers: Mapping[str, Any], name: str | None) -> list[tuple[str, Any]]:
    return [(each, offer) for each, offer in offers.items() if name in {None, each}]


def verdicts(registry: Any, named: str | None = None) -> dict[tuple[str, str], str]:
    """Per kind and name what a probe with default options says: `reads`, `offered`, or why it is not to be had.

    Args:
        registry: the plugins.
        named: ask the backends and meters of this name only.
    """
    found: dict[tuple[str, str], str] = {}
    for row in survey(registry, devices_of(registry), named=named):
        key = ("meter" if row.kind == "impact meter" else row.kind, row.name)
        reads = row.status in {READS, OFFERED}
        if reads or key not in found:
            found[key] = (
                row.status if reads else row.detail if row.status == NEEDS_OPTIONS else f"{row.status}: {row.detail}"
            )
    return found


def _origin(offer: Any) -> str:
    return f"{offer.plugin.distribution} {offer.plugin.version}".strip()


def _guarded(kind: str, name: str, offer: Any, ask: Callable[[], list[Row]]) -> list[Row]:
    """The rows of one plugin spec, or one row that says what it raised or which options it needs."""
    try:
        return ask()
    except ValidationError as error:
        said = [".".join(map(str, fault["loc"])) or fault["msg"] for fault in error.errors()]
        needed = ", ".join(each.removeprefix("Value error, ") for each in said)
        example = getattr(offer.spec, "example", "")
        remedy = f"set them in a suite, such as `meters: [{example}]`" if example else "set them in a suite"
        return [_fault(kind, name, offer, NEEDS_OPTIONS, f"needs options: {needed}", remedy)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's fault is a row of the table
        if isinstance(error, HarnessError):
            return [_fault(kind, name, offer, FAILED, error.message, error.hint or error.accepted)]
        return [_fault(kind, name, offer, FAILED, f"{type(error).__name__}: {error}", "")]


def _fault(kind: str, name: str, offer: Any, status: str, detail: str, remedy: str) -> Row:
    return Row(kind=kind, name=name, plugin=_origin(offer), status=status, detail=detail, remedy=remedy)


def _backend(name: str, offer: Any, probe: Prober) -> list[Row]:
    found = probe(name, offer)
    if isinstance(found, Unavailable):
        return [_fault("backend", name, offer, UNAVAILABLE, *_split(found.reason))]
    named = ", ".join(f"{device.name} ({device.kind} {device.uuid})" for device in found)
    return [Row(kind="backend", name=name, plugin=_origin(offer), status=READS, detail=named or "no device")]


def _split(reason: str) -> tuple[str, str]:
    """A reason and the remedy that follows it: meters write `reason; remedy`."""
    why, _, remedy = reason.partition("; ")
    return why, remedy


def _meter(name: str, offer: Any, context: MeterContext, sleep: Callable[[float], object]) -> list[Row]:
    spec = offer.spec
    if isinstance(spec, ImpactMeterSpec):
        text = f"{', '.join(spec.needs) or 'device rows'} into {', '.join(spec.yields)}"
        return [Row(kind="impact meter", name=name, plugin=_origin(offer), status=OFFERED, detail=text)]
    meter: Meter = spec.factory(spec.options())
    try:
        opened = meter.open(context)
        if isinstance(opened, Unavailable):
            return [_fault("meter", name, offer, UNAVAILABLE, *_split(opened.reason))]
        first = meter.read()
        sleep(PAUSE_S)
        second = meter.read()
        note = "" if spec.auto else "only where a suite asks for it"
        rows = [_scope(name, _origin(offer), scope, what, (first, second), note) for scope, what in opened.items()]
        facts = meter.facts()
        rows = [replace(row, card=card_state(name, row.scope, opened[row.scope], facts)) for row in rows]
    finally:
        meter.close()
    return rows or [_fault("meter", name, offer, UNAVAILABLE, "it has no scope here", "")]


def _joules(value: float | Cumulative | Unavailable | None) -> float | Unavailable:
    if value is None:
        return Unavailable("the reading lacks this scope")
    return value.joules if isinstance(value, Cumulative) else value


def _scope(
    name: str,
    plugin: str,
    scope: str,
    what: Scope | Unavailable,
    reads: tuple[Snapshot, Snapshot],
    note: str,
) -> Row:
    """A scope of a meter that was opened and read twice."""
    row = functools.partial(Row, kind="meter", name=name, plugin=plugin, scope=scope)
    if isinstance(what, Unavailable):
        why, remedy = _split(what.reason)
        return row(status=UNAVAILABLE, detail=why, remedy=remedy)
    row = functools.partial(row, method=what.method.value, gain=sensor_error(what))
    first, second = (_joules(snapshot.joules.get(scope)) for snapshot in reads)
    for value in (first, second):
        if isinstance(value, Unavailable):
            why, remedy = _split(value.reason)
            return row(status=UNAVAILABLE, detail=why, remedy=remedy)
    assert isinstance(first, float | int)
    assert isinstance(second, float | int)
    grown, took_s = second - first, seconds(reads[1].monotonic_ns - reads[0].monotonic_ns)
    if grown < 0:
        return row(status=FAILED, detail=f"cumulative joules went backwards by {si(-grown, 'J')}")
    if what.tick_s is not None:
        resolution = f"every {si(what.tick_s, 's')}"
    else:
        resolution = f"{si(grown, 'J')} or finer" if grown > 0 else "no increase seen"
    power = f"{si(grown / took_s, 'W')} just now" if took_s > 0 and grown > 0 else "did not move between two reads"
    return row(status=READS, resolution=resolution, detail="; ".join(filter(None, (power, what.note, note))))


# The machine


def machine(root: Path = Path("/")) -> list[Row]:
    """Cores, memory, virtualisation and container limits."""
    found = environment()
    allowed, logical, limit = found["cores_allowed"], found["cores_logical"], found["cpu_limit"]
    virtual = {True: "yes: counters are often hidden from guests", False: "no", None: "not known"}
    memory_limit = _memory_limit(root)
    facts = {
        "processor": found["cpu"],
        "cores": f"{allowed or logical} usable, {logical} logical, {found['cores_physical'] or 'unknown'} physical",
        "memory": si(float(found["memory_bytes"]), "B"),
        "virtual machine": virtual[found["virtualised"]],
        "container": "yes" if _in_container(root) else "not seen",
        "container limits": ", ".join(
            (
                f"{limit:g} cores" if limit else "no limit of cores",
                f"{si(float(memory_limit), 'B')} of memory" if memory_limit else "no limit of memory",
            )
        ),
        "governor": found["governor"] or "not readable",
        "system": f"{found['system']} {found['kernel']} {found['machine']}, Python {found['python']}",
    }
    return [Row(kind="machine", name=name, status=FACT, detail=str(text)) for name, text in facts.items()]


def _memory_limit(root: Path) -> int | None:
    """Bytes that the control group allows, version 2 then 1; None for no limit."""
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        # Version 1 writes the greatest page-aligned 63-bit number for "no limit".
        if text.isdigit() and int(text) < 2**62:
            return int(text)
    return None


def _in_container(root: Path) -> bool:
    """Whether one of the usual signs of a container is there; without one it is not known."""
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return True
    try:
        groups = (root / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(word in groups for word in ("docker", "kubepods", "containerd", "libpod", "lxc"))


def to_json(rows: Iterable[Row]) -> list[dict[str, str]]:
    """The rows as JSON values."""
    return [asdict(row) for row in rows]


def self_test(
    console: Console, registry: Any, named: str | None = None, reference: str | None = None
) -> list[MeterCard]:
    """Makes and keeps the card of each hardware scope that can be loaded here, and prints what came out.

    Args:
        console: where to.
        registry: the plugins.
        named: test the meter of this name only.
        reference: name of the meter that gain and offset are held against.
    """
    console.print()
    return make_cards(console, registry, devices_of(registry), named=named, reference=reference)
