from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from rich.console import Console

from harness.backend import Backend, BackendSpec, Device
from harness.builtin.simulated import METER as SIMULATED
from harness.builtin.simulated import SimulatedAccelerator, SimulatedMeter, attach, detach
from harness.diagnosing import survey as doctor
from harness.diagnosing import survey_page
from harness.diagnosing.card_runs import Timing, backend_loads, card_path, key_of, load_for, make_cards
from harness.diagnosing.load import CallableLoad
from harness.errors import MeasurementError
from harness.impact import ImpactMeter, ImpactMeterSpec
from harness.machine import meter_card
from harness.machine.meter_card import MeterCard
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Options
from harness.quantity import Method, Unavailable
from harness.reporting.wording import sensor_error
from harness.sample import Cumulative, Scope, Snapshot
from harness.sensor import PowerSensor
from harness.testing import FakeClock

GPU = Device(kind="gpu", uuid="GPU-1", name="[red]H100[/red]")


class Fake(Meter):
    def __init__(
        self,
        opened: Mapping[str, Scope | Unavailable] | Unavailable,
        reads: Sequence[Mapping[str, float | Cumulative | Unavailable]] = (),
    ) -> None:
        self.opened, self.reads = opened, list(reads)
        self.context: MeterContext | None = None
        self.ns = 0
        self.closed = 0

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        self.context = context
        return self.opened

    def read(self) -> Snapshot:
        self.ns += 10**9
        return Snapshot(self.ns, self.reads.pop(0))

    def close(self) -> None:
        self.closed += 1


class Demanding(Options):
    grid: str
    site: int


def offer(spec: object, name: str = "some") -> SimpleNamespace:
    return SimpleNamespace(
        spec=spec, plugin=SimpleNamespace(name=name, distribution=f"joule-harness-{name}", version="1.2")
    )


def registry(
    meters: Mapping[str, object] | None = None,
    backends: Mapping[str, object] | None = None,
    broken: Sequence[object] = (),
) -> SimpleNamespace:
    return SimpleNamespace(
        meters={name: offer(spec) for name, spec in (meters or {}).items()},
        backends={name: offer(spec) for name, spec in (backends or {}).items()},
        broken=list(broken),
    )


def spec(meter: Meter | Exception, *, auto: bool = True) -> MeterSpec:
    def make(_options: Any) -> Meter:
        if isinstance(meter, Exception):
            raise meter
        return meter

    return MeterSpec(name="m", summary="", factory=make, auto=auto)


def asked(name: str, found: Any) -> Sequence[Device] | Unavailable:
    answer: Sequence[Device] | Unavailable = found.spec.probe(found.spec.options())
    return answer


def rows(fake: SimpleNamespace, kind: str = "meter") -> list[doctor.Row]:
    found = doctor.survey(fake, [GPU], probe=asked, sleep=lambda _: None)
    return [row for row in found if row.kind == kind]


def backend(answer: Sequence[Device] | Unavailable | Exception) -> BackendSpec:
    def probe(_options: Any) -> Sequence[Device] | Unavailable:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return BackendSpec(name="b", summary="", factory=lambda _: Backend(), probe=probe)  # type: ignore[abstract]


def test_a_meter_that_reads_says_how() -> None:
    scopes = {
        "n0/gpu:GPU-1": Scope(method=Method.COUNTER, tick_s=0.1, gain=0.05),
        "n0/host": Scope(method=Method.ESTIMATED, note="model"),
    }
    meter = Fake(
        scopes,
        [{"n0/gpu:GPU-1": 1.0, "n0/host": Cumulative(1.0)}, {"n0/gpu:GPU-1": 31.0, "n0/host": Cumulative(1.5)}],
    )
    gpu, host = rows(registry({"m": spec(meter, auto=False)}))
    assert (gpu.status, gpu.method, gpu.resolution, gpu.gain) == ("reads", "counter", "every 100 ms", "± 5 %")
    assert gpu.detail == "30 W just now; only where a suite asks for it"
    assert gpu.plugin == "joule-harness-some 1.2"
    assert (host.method, host.resolution, host.gain) == ("estimated", "500 mJ or finer", "not known")
    assert "model" in host.detail
    assert meter.closed == 1
    assert meter.context is not None
    assert meter.context.devices == (GPU,)


@pytest.mark.parametrize(
    ("meter", "status", "detail", "remedy"),
    [
        (Fake(Unavailable("no driver; install it")), "unavailable", "no driver", "install it"),
        (Fake({"s": Unavailable("no permission; run as root")}, [{}, {}]), "unavailable", "no permission", "run as"),
        (Fake({"s": Scope(method=Method.COUNTER)}, [{"s": Unavailable("gone")}] * 2), "unavailable", "gone", ""),
        (Fake({"s": Scope(method=Method.COUNTER)}, [{"s": 1.0}, {}]), "unavailable", "lacks this scope", ""),
        (Fake({"s": Scope(method=Method.COUNTER)}, [{"s": 2.0}, {"s": 1.0}]), "failed", "backwards by 1 J", ""),
        (Fake({}, [{}, {}]), "unavailable", "no scope", ""),
        (Fake({"s": Scope(method=Method.COUNTER)}), "failed", "IndexError", ""),
        (ImportError("no module named x"), "failed", "ImportError: no module named x", ""),
        (MeasurementError("lost", hint="look for it"), "failed", "lost", "look for it"),
    ],
)
def test_whatever_goes_wrong_is_a_row(meter: Fake | Exception, status: str, detail: str, remedy: str) -> None:
    (row,) = rows(registry({"m": spec(meter)}))
    assert row.status == status
    assert detail in row.detail
    assert remedy in row.remedy
    if isinstance(meter, Fake):
        assert meter.closed == 1


def test_a_counter_that_stands_still_is_not_zero_watts() -> None:
    (row,) = rows(registry({"m": spec(Fake({"s": Scope(method=Method.COUNTER)}, [{"s": 1.0}] * 2))}))
    assert row.resolution == "no increase seen"
    assert "did not move" in row.detail
    assert "0 W" not in row.detail


def test_required_options_are_named() -> None:
    def never(_options: Any) -> Meter:
        raise AssertionError

    needy = MeterSpec(name="m", summary="", factory=never, options=Demanding)
    (row,) = rows(registry({"m": needy}))
    assert (row.status, row.detail) == ("needs options", "needs options: grid, site")


def test_an_impact_meter_is_offered() -> None:
    def never(_options: Any) -> ImpactMeter:
        raise AssertionError

    impact = ImpactMeterSpec(name="fuel", summary="", factory=never, needs=("energy_j",), yields={"carbon_g": "g"})
    (row,) = rows(registry({"fuel": impact}), "impact meter")
    assert (row.status, row.detail) == ("offered", "energy_j into carbon_g")


def test_backends_tell_their_devices_or_why_not() -> None:
    fake = registry(
        backends={
            "a": backend([GPU]),
            "b": backend(Unavailable("no CUDA device; install a driver")),
            "c": backend(RuntimeError("boom")),
        }
    )
    good, none, bad = rows(fake, "backend")
    assert (good.status, good.detail) == ("reads", "[red]H100[/red] (gpu GPU-1)")
    assert (none.status, none.detail, none.remedy) == ("unavailable", "no CUDA device", "install a driver")
    assert (bad.status, bad.detail) == ("failed", "RuntimeError: boom")
    assert doctor.devices_of(fake, asked) == [GPU]


def test_broken_plugins_are_listed() -> None:
    broken = SimpleNamespace(name="bad", distribution="bad-dist", version="0.9", error="SyntaxError: x")
    (row,) = rows(registry(broken=[broken]), "plugin")
    assert (row.name, row.plugin, row.detail) == ("bad", "bad-dist 0.9", "SyntaxError: x")


def test_the_machine_is_described(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("2000000000\n")
    (tmp_path / ".dockerenv").touch()
    facts = {row.name: row.detail for row in doctor.machine(tmp_path)}
    assert facts["container"] == "yes"
    assert "2 GB of memory" in facts["container limits"]
    assert "usable" in facts["cores"]
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / ".dockerenv").unlink()
    facts = {row.name: row.detail for row in doctor.machine(tmp_path)}
    assert facts["container"] == "not seen"
    assert "no limit of memory" in facts["container limits"]


@pytest.mark.parametrize("width", [80, 200])
def test_rendering_interprets_nothing_and_fits(width: int) -> None:
    fake = registry(
        {"m": spec(Fake(Unavailable("[bold]no[/bold] driver; [/] do it"))), "n": spec(Fake({"s": _counter()}, _two()))},
        {"a": backend([GPU])},
    )
    found = doctor.survey(fake, [GPU], probe=asked, sleep=lambda _: None)
    stream = io.StringIO()
    survey_page.render(Console(file=stream, width=width, force_terminal=True, color_system=None), found)
    text = stream.getvalue()
    assert "[red]H100[/red]" in text
    assert "[bold]no[/bold] driver - [/] do it" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_without_a_meter_it_says_so() -> None:
    stream = io.StringIO()
    survey_page.render(Console(file=stream, width=80), doctor.survey(registry(), []))
    assert "none: no energy can be measured here" in stream.getvalue()


def test_one_table_says_what_each_meter_needs_with_commands_to_copy() -> None:
    command = "sudo chmod a+r /sys/class/powercap/*/energy_uj"
    needy = MeterSpec(name="w", summary="", factory=Fake, options=Demanding, example="w: {grid: 1, site: x}")
    denied = Fake({f"n0/cpu-package:{at}": Unavailable(f"no permission; try `{command}`") for at in (0, 1)}, [{}, {}])
    fake = registry({"m": spec(denied), "n": spec(Fake({"s": _counter()}, _two())), "w": needy})
    found = doctor.survey(fake, [GPU], probe=asked, sleep=lambda _: None) + doctor.absent(fake)
    (table,) = [each for each in survey_page.sections(found) if each.title == "Energy meters"]
    assert table.table is not None
    by_meter = {row[0]: row for row in table.table.rows}
    assert by_meter["n"][2:4] == ["counter", "every 100 ms; gain not known"]
    assert by_meter["m"][2] == by_meter["w"][2] == "no"
    assert by_meter["m"][4].endswith("try [1]")
    assert set(by_meter) == {"m", "n", "w", *doctor.METERS}
    texts = [item.text for item in table.items]
    assert texts[0] == command
    assert "meters: [w: {grid: 1, site: x}]" in texts
    assert "pip install joule-harness-meter-amd" in texts


def test_json_holds_every_row() -> None:
    found = doctor.survey(registry({"m": spec(Fake(Unavailable("no")))}), [], sleep=lambda _: None)
    again = json.loads(json.dumps(doctor.to_json(found)))
    assert len(again) == len(found)
    assert again[-1]["detail"] == "no"


def _counter() -> Scope:
    return Scope(method=Method.COUNTER, tick_s=0.1)


def _two() -> list[Mapping[str, float | Cumulative | Unavailable]]:
    return [{"s": 1.0}, {"s": 2.0}]


# Meter cards


class Counting(SimulatedMeter):
    """The simulated counter, taken for a real one."""

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        opened = super().open(context)
        assert not isinstance(opened, Unavailable)
        return {name: Scope(method=Method.COUNTER, tick_s=0.1, device="SIM-doctor") for name in opened}

    def facts(self) -> Mapping[str, object]:
        return {"driver": "1.2", "devices": {"SIM-doctor": {"power_limit_w": 350.0}}}


def test_cards_are_made_kept_and_shown(tmp_path: Path) -> None:
    clock = FakeClock()
    device = SimulatedAccelerator(50.0, 300.0, 0.1, 0.02, "SIM-doctor", clock, phase_s=0.03)
    attach(device)

    class Switched(CallableLoad):
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    fake = registry(
        {
            "good": spec(Counting()),
            "simulated": SIMULATED,
            "broken": spec(RuntimeError("boom")),
            "needy": MeterSpec(name="needy", summary="", factory=lambda _: Counting(), options=Demanding),
            "deaf": spec(Fake(Unavailable("no driver"))),
        }
    )
    stream = io.StringIO()
    try:
        (card,) = make_cards(
            Console(file=stream, width=100),
            fake,
            [Device(kind="gpu", uuid="SIM-doctor", name="simulated")],
            loads=lambda _scope, _what: Switched(device.busy, device.idle, lambda: device.true_joules(clock())),
            timing=Timing(clock, clock.advance),
            store=tmp_path / "cards",
        )
    finally:
        detach("SIM-doctor")
    assert card.gain == pytest.approx(0.02, abs=0.01)
    assert (card.key.device, card.key.driver, card.key.power_limit_w) == ("SIM-doctor", "1.2", 350.0)
    kept = card_path(card.meter, card.scope, card.key.device, tmp_path / "cards")
    assert MeterCard.from_json(kept.read_text()) == card
    text = stream.getvalue()
    assert f"Meter card {card.id}" in text
    assert "update period: 100 ms" in text
    assert "broken: RuntimeError: boom" in text
    assert "needy: needs options" in text
    assert "deaf: no driver" in text
    assert "simulated: a self-test says nothing about a model" in text


class Loaded(Backend):
    """A backend of one device whose load notes what is done to it."""

    def __init__(self, uuid: str, load: object) -> None:
        self.uuid, self.made, self.closed = uuid, load, 0

    def open(self) -> Sequence[Device]:
        if self.uuid == "gone":
            raise MeasurementError("no such device")
        return [Device(kind="gpu", uuid=self.uuid, name="some")]

    def load(self) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made

    def close(self) -> None:
        self.closed += 1


def test_a_backend_lends_its_load_for_its_own_device_and_is_closed_after() -> None:
    other, own, lost = Loaded("GPU-2", None), Loaded("GPU-1", nullcontext("load")), Loaded("gone", None)
    found = backend_loads(
        registry(backends={name: _of(each) for name, each in {"a": lost, "b": other, "c": own}.items()})
    )("n0/gpu:GPU-1", Scope(method=Method.COUNTER, device="GPU-1"))
    assert not isinstance(found, Unavailable)
    with found as running:
        assert running == "load"  # type: ignore[comparison-overlap]
        assert (other.closed, own.closed) == (1, 0)
    assert own.closed == 1


@pytest.mark.parametrize("load", [Unavailable("none here"), ValueError("none here")])
def test_why_a_backend_has_no_load_is_said(load: object) -> None:
    backend = Loaded("GPU-1", load)
    found = backend_loads(registry(backends={"a": _of(backend)}))(
        "n0/gpu:GPU-1", Scope(method=Method.COUNTER, device="GPU-1")
    )
    assert isinstance(found, Unavailable)
    assert "none here" in found.reason
    assert backend.closed == 1


def _of(backend: Backend) -> BackendSpec:
    return BackendSpec(name="a", summary="", factory=lambda _: backend, probe=lambda _: [])


def test_a_reference_takes_its_options_as_a_suite_does(tmp_path: Path) -> None:
    class Volts(Options):
        volts: int = 0

    asked: list[Volts] = []

    def make(options: Volts) -> Fake:
        asked.append(options)
        return Fake({"n0/dram:0": Scope(method=Method.WALL, gain=0.01)})

    wall = MeterSpec(name="wall", summary="", factory=make, options=Volts)
    counted = Fake({"n0/gpu:0": Scope(method=Method.COUNTER, tick_s=0.1)})
    fake = registry({"good": spec(counted), "wall": wall})
    fake.get = fake.find = lambda _kind, name: fake.meters[name]
    make_cards(
        Console(file=io.StringIO()),
        fake,
        [],
        loads=lambda _scope, _what: nullcontext(CallableLoad(lambda: None, lambda: None)),
        store=tmp_path,
        named="good",
        reference="wall: {volts: 230}",
    )
    assert asked == [Volts(volts=230)]


@pytest.mark.parametrize("contains", [True, False])
def test_a_reference_meter_calibrates_what_it_contains(tmp_path: Path, *, contains: bool) -> None:
    clock = FakeClock()
    device = SimulatedAccelerator(50.0, 300.0, 0.1, 0.1, "SIM-doctor", clock, phase_s=0.03)
    attach(device)

    class Outlet(Fake):
        def read(self) -> Snapshot:
            return Snapshot(clock(), {"n0/host": 20.0 * clock.s + 1.25 * device.true_joules(clock())})

    opened = {"n0/host" if contains else "n0/dram:0": Scope(method=Method.WALL, gain=0.01)}
    fake = registry({"good": spec(Counting()), "wall": spec(Outlet(opened))})
    fake.get = fake.find = lambda _kind, name: fake.meters[name]
    stream = io.StringIO()
    try:
        cards = make_cards(
            Console(file=stream, width=120),
            fake,
            [Device(kind="gpu", uuid="SIM-doctor", name="simulated")],
            loads=lambda _scope, _what: nullcontext(CallableLoad(device.busy, device.idle)),
            timing=Timing(clock, clock.advance),
            store=tmp_path,
            named="good",
            reference="wall",
        )
    finally:
        detach("SIM-doctor")
    if not contains:
        assert cards == []
        assert "does not contain n0/gpu:SIM-doctor" in stream.getvalue()
        return
    (card,) = cards
    assert card.reference == "wall on n0/host"
    assert card.scale == pytest.approx(1.25 / 1.1, rel=0.01)
    assert card.shift_w == 0
    assert card.sensor is not None
    assert card.sensor.gain > 0.11
    assert "of wall on n0/host" in stream.getvalue()
    assert "sees all of the time" in stream.getvalue()


def test_the_survey_lists_the_card_of_each_hardware_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_card, "cards_folder", lambda: tmp_path)
    scope = Scope(method=Method.COUNTER, tick_s=0.1, device="GPU-1")

    def cards() -> list[str]:
        fake = registry({"m": spec(Fake({"s": scope, "t": Scope(method=Method.ESTIMATED)}, _both()))})
        return [row.card for row in doctor.survey(fake, [GPU], sleep=lambda _: None) if row.kind == "meter"]

    assert cards() == ["none: `harness doctor --self-test` makes one", ""]
    made = MeterCard(
        key=key_of("s", scope, {}),
        meter="m",
        scope="s",
        measured_utc=datetime.now(UTC).isoformat(),
        update_period_s=0.1,
        jitter_s=0.0,
        poll_s=0.005,
        smallest_increment_j=0.1,
        idle_w=1.0,
        busy_w=2.0,
        read_median_s=1e-4,
        read_p95_s=1e-4,
        sampling_share=0.1,
    )
    path = card_path("m", "s", "GPU-1", tmp_path)
    path.write_text(made.to_json())
    assert cards()[0].startswith(f"{made.id}, valid until 20")
    assert cards()[0].endswith("sensor not found")
    path.write_text(replace(made, measured_utc=(datetime.now(UTC) - timedelta(days=40)).isoformat()).to_json())
    assert "40 days old" in cards()[0]
    path.write_text("{}")
    assert "cannot be used" in cards()[0]


def _both() -> list[Mapping[str, float | Cumulative | Unavailable]]:
    return [{"s": 1.0, "t": 1.0}, {"s": 2.0, "t": 2.0}]


def test_options_of_the_self_test_alone_are_refused() -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    done = CliRunner().invoke(app, ["doctor", "--reference", "wall"])
    assert done.exit_code == 2
    assert "--self-test" in done.output


def test_a_device_without_a_load_has_no_card() -> None:
    found = load_for("n0/gpu:GPU-1", Scope(method=Method.COUNTER, device="GPU-1"))
    assert isinstance(found, Unavailable)
    assert "n0/gpu:GPU-1" in found.reason


def test_a_key_says_what_the_meter_does_not_tell() -> None:
    key = key_of("n0/cpu-package:0", Scope(method=Method.COUNTER), {})
    assert (key.device, key.driver, key.firmware, key.power_limit_w) == ("n0/cpu-package:0", "", "", None)


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(method=Method.COUNTER), "not known"),
        (Scope(method=Method.COUNTER, gain=0.05), "± 5 %"),
        (Scope(method=Method.COUNTER, sensor=PowerSensor(0.1, 0.1, 0.1, 20.0)), "± 10 % ± 20 W"),
        (Scope(method=Method.COUNTER, gain=0.05, sensor=PowerSensor(0.1, 0.1, 0.02, 0.0)), "± 2 %"),
    ],
)
def test_an_error_is_said_as_instruments_specify_it(scope: Scope, said: str) -> None:
    assert sensor_error(scope) == said
