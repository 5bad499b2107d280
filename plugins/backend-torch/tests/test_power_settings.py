"""Power limits and clocks: refused, set, verified, recorded, put back; and the curve that a sweep of them gives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_backend_torch import TorchOptions, harness_backends
from harness_backend_torch.power import CardSettings
from pydantic import ValidationError

from harness import Column, FunctionalUnit, MeasurementError, NotPossibleHereError, Unavailable, Workload, WorkloadSpec
from harness.hookspecs import hookimpl
from harness.testing import FakeCard, FakeNvml

FIRST, SECOND = "GPU-11111111-2222-3333-4444-555555555555", "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
(SPEC,) = harness_backends()
NO_PERMISSION = 4
"""NVML_ERROR_NO_PERMISSION."""


class LawfulCard(FakeCard):
    """Runs at f = ((P - 100 W) / 300 W)^(1/3) of its full speed under a limit P, and draws P.

    Energy per work is P / f: least at 150 W. Energy times time is P / f^2: least at 300 W.
    """

    def speed(self) -> float:
        return ((self.limit_w - 100) / 300) ** (1 / 3)


def limited(fake: FakeNvml, card: FakeCard, watts: float) -> None:
    """From now on the card draws so much."""
    card.limit_w = watts
    card.trace.append((fake.clock.s, watts))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power_limit": "90W"}, "a power limit of 90 W is none that " + FIRST + " takes; accepted: 100 W to 400 W"),
        ({"power_limit": "0.5kW"}, "500 W is none"),
        (
            {"sm_clock": "1207MHz"},
            "1207 MHz is none of " + FIRST + "; accepted: 210 to 1980 MHz, next to it 1200 and 1215",
        ),
        ({"sm_clock": 1200}, "0.0012 MHz is none"),
    ],
)
def test_what_a_card_does_not_take_is_known_while_planning(
    make_cards: Callable[..., FakeNvml], options: dict[str, Any], said: str
) -> None:
    make_cards(FakeCard(uuid=FIRST))
    found = SPEC.probe(TorchOptions(device="cuda", **options))
    assert isinstance(found, Unavailable)
    assert said in found.reason
    good = {"power_limit": "300W", "sm_clock": "1200MHz"}
    assert not isinstance(SPEC.probe(TorchOptions(device="cuda", **good)), Unavailable)


def test_a_cpu_and_a_partition_have_none(make_cards: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_backend_torch import devices

    found = SPEC.probe(TorchOptions(device="cpu", power_limit="100W"))
    assert isinstance(found, Unavailable)
    assert "it is for GPUs" in found.reason
    make_cards(FakeCard(uuid=FIRST, name="NVIDIA A100 MIG 1g.5gb"))
    monkeypatch.setattr(devices, "mig_parent", lambda uuid: SECOND)
    found = SPEC.probe(TorchOptions(device="cuda", power_limit="100W"))
    assert isinstance(found, Unavailable)
    assert "cannot be set on a partition" in found.reason


@pytest.mark.parametrize("bad", [{"power_limit": "300 MHz"}, {"sm_clock": "3W"}, {"power_limit": 0}, {"sm_clock": -1}])
def test_a_wrong_unit_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TorchOptions(**bad)


def test_what_is_set_is_read_back(make_cards: Callable[..., FakeNvml]) -> None:
    card = FakeCard(uuid=FIRST, limit_w=350.0)
    make_cards(card)
    settings = CardSettings()
    assert settings.read(FIRST, "power_limit") == 350.0
    assert settings.read(FIRST, "sm_clock") is None
    assert settings.write(FIRST, "power_limit", 200.0) == 200.0
    assert card.limit_w == 200.0
    assert settings.write(FIRST, "sm_clock", 1.2e9) == 1.2e9
    assert (card.locked_mhz, settings.seen(FIRST, "sm_clock")) == (1200, 1.2e9)
    settings.write(FIRST, "sm_clock", None)
    assert card.locked_mhz is None


def test_a_card_that_does_not_do_as_it_is_told_is_found_out(
    make_cards: Callable[..., FakeNvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_backend_torch import power

    card = FakeCard(uuid=FIRST)
    fake = make_cards(card)
    monkeypatch.setattr(power, "SETTLE_S", 0.0)
    monkeypatch.setattr(fake, "nvmlDeviceSetGpuLockedClocks", lambda *_: None)
    with pytest.raises(MeasurementError, match="told an SM clock of 1200 MHz and runs at 1500 MHz"):
        CardSettings().write(FIRST, "sm_clock", 1.2e9)
    monkeypatch.setattr(fake, "nvmlDeviceSetPowerManagementLimit", lambda *_: None)
    with pytest.raises(MeasurementError, match="told a power limit of 200 W and has 300 W"):
        CardSettings().write(FIRST, "power_limit", 200.0)


def test_without_permission_the_reason_says_what_it_needs(make_cards: Callable[..., FakeNvml]) -> None:
    make_cards(FakeCard(uuid=FIRST, faults={"nvmlDeviceSetPowerManagementLimit": NO_PERMISSION}))
    with pytest.raises(NotPossibleHereError, match=r"may not be set \(it needs root"):
        CardSettings().write(FIRST, "power_limit", 200.0)


def test_a_card_that_no_library_knows_is_named() -> None:
    with pytest.raises(NotPossibleHereError, match="neither NVML nor AMD SMI knows GPU-none"):
        CardSettings().read("GPU-none", "power_limit")


class Bulbs:
    """A workload whose steps take as long as the slowest card of the trial needs for them."""

    def __init__(self, *cards: LawfulCard) -> None:
        cards_ = cards

        class Work(Workload):
            def prepare(self, context: Any) -> None:
                pass

            def step(self, window: Any) -> None:
                began = window.now_s()
                time.sleep(0.05 / min(card.speed() for card in cards_))
                window.item(f"i{window.iteration}", start_s=began, end_s=window.now_s(), steps=1.0)

            def close(self) -> None:
                pass

        self.factory = lambda options: Work()

    @hookimpl
    def harness_workloads(self) -> Any:
        yield WorkloadSpec(
            name="bulb",
            summary="steps that take a card's time",
            factory=self.factory,
            columns=(Column("steps", "1"),),
            functional_units={"step": FunctionalUnit.of("steps")},
        )


@pytest.fixture
def swept(
    make_cards: Callable[..., FakeNvml], wall_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, list[Any], FakeNvml]]:
    """Runs a matrix of power limits on fake cards, in this process; the run's folder, what was said, and the cards."""
    import harness_backend_torch
    import harness_meter_nvml

    from harness import builtin
    from harness.discovery.registry import Registry
    from harness.planning.planner import expand
    from harness.planning.suite import loads
    from harness.running.run import Run
    from harness.running.run_folder import create
    from harness.testing import InProcessExecutor, cost_in_process

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(backends: str, *, trials: int = 1, cards: int = 1, faults: Any = None, windows: str = "") -> Any:
        made = [
            LawfulCard(
                uuid=uuid,
                trace=[(0.0, 390.0)],
                limit_w=390.0,
                limits_w=(110.0, 600.0),
                tick_s=0.01,
                faults=faults or {},
            )
            for uuid in (FIRST, SECOND)[:cards]
        ]
        fake = make_cards(*made, clock=wall_clock)
        real = FakeNvml.nvmlDeviceSetPowerManagementLimit

        def told(card: Any, milliwatts: int) -> None:
            real(fake, card, milliwatts)
            limited(fake, card, milliwatts / 1e3)

        monkeypatch.setattr(fake, "nvmlDeviceSetPowerManagementLimit", told, raising=False)
        registry = Registry()
        for plugin, name in ((builtin, "builtin"), (harness_backend_torch, "t"), (harness_meter_nvml, "n")):
            assert registry.register(plugin, name, distribution=name, version="1"), registry.broken
        assert registry.register(Bulbs(*made), "bulbs", distribution="bulbs", version="1"), registry.broken
        suite = f"""
suite: sweep
meters: [nvml]
trials: {trials}
windows: {{count: 1, min_seconds: 0.5}}
warm_up: {{max_iterations: 0, min_iterations: 0, max_seconds: 1s}}
foreign_load: {{at_most: 1}}
cases: [{{workload: bulb, matrix: {{backend: [{backends}]}}}}]
"""

        def probes(choice: Any) -> Any:
            return SPEC.probe(TorchOptions.model_validate(dict(choice.options)))

        plan = expand([loads(suite, "s.yaml")], registry, probes)
        folder = create(tmp_path / "store", plan, [], [], 0, name="run")
        said: list[Any] = []
        made_run = Run(
            folder,
            plan.points,
            0,
            registry=registry,
            executor=InProcessExecutor(registry),
            watcher=said.append,
            costing=lambda run: cost_in_process(run, registry=registry),
        )
        tally = made_run.execute()
        return folder, tally, said, made

    return run


def limits(*watts: int) -> str:
    return ", ".join(f"{{name: torch, device: cuda, power_limit: {each}W}}" for each in watts)


def test_a_sweep_finds_the_least_energy_and_the_knee_of_a_known_law(swept: Callable[..., Any]) -> None:
    from harness.records.summary import load
    from harness.reporting.power_curve import curves, verdicts
    from harness.reporting.power_picture import block

    folder, tally, _, (card,) = swept(limits(110, 150, 300, 600), trials=3)
    assert not tally.failed, tally.failed
    report = load(folder)
    (curve,) = curves(report)
    assert [spot.setting for spot in curve.spots] == [f"power_limit {each} W" for each in (600, 300, 150, 110)]
    for spot, watts in zip(curve.spots, (600, 300, 150, 110), strict=True):
        assert spot.joules / spot.seconds == pytest.approx(watts, rel=0.05), "the card draws its limit"
    least, knee, meaning = verdicts(curve)
    assert least.startswith("Least energy per step: power_limit 150 W")
    assert knee.startswith("Knee: power_limit 300 W")
    assert "energy times time" in meaning
    drawn = block(report)
    assert drawn is not None
    assert drawn.charts
    assert card.limit_w == 390.0, "put back after every trial"


def test_the_record_says_what_was_set_on_each_device_and_what_was_read_back(swept: Callable[..., Any]) -> None:
    both = f"{{name: torch, devices: [0, {SECOND}], power_limit: 300W, sm_clock: 1200MHz}}"
    folder, tally, _, made = swept(both, cards=2)
    assert not tally.failed, tally.failed
    (path,) = folder.glob("*/measurement.json")
    measurement = json.loads(path.read_text())
    assert [device["uuid"] for device in measurement["devices"]] == [FIRST, SECOND]
    limits = [each for each in measurement["backend"]["settings"] if each["name"] == "power_limit"]
    assert [(each["device"], each["value"], each["before"], each["read_back"], each["at_end"]) for each in limits] == [
        (FIRST, 300.0, 390.0, 300.0, 300.0),
        (SECOND, 300.0, 390.0, 300.0, 300.0),
    ]
    clocks = [each for each in measurement["backend"]["settings"] if each["name"] == "sm_clock"]
    assert [(each["value"], each["unit"], each["read_back"]) for each in clocks] == [(1.2e9, "Hz", 1.2e9)] * 2
    assert [(card.limit_w, card.locked_mhz) for card in made] == [(390.0, None)] * 2
    scopes = {scope for meter in measurement["meters"] for scope in meter["scopes"]}
    assert scopes == {f"n0/gpu:{FIRST}", f"n0/gpu:{SECOND}"}, "every card is read"
    assert not list(Path(path.parents[3] / "locks").glob("*.settings"))


def test_without_permission_points_are_skipped_and_the_others_are_measured(swept: Callable[..., Any]) -> None:
    faults = {"nvmlDeviceSetPowerManagementLimit": NO_PERMISSION}
    folder, tally, _, (card,) = swept(f"{limits(200)}, {{name: torch, device: cuda}}", faults=faults)
    assert (tally.exit_code, tally.measured) == (0, 1)
    (skipped,) = tally.skipped
    assert "power limit of " + FIRST + " may not be set (it needs root" in skipped["reason"]
    assert card.limit_w == 390.0
    assert [each["reason"] for each in json.loads((folder / "run.json").read_text())["skipped"]] == [skipped["reason"]]


def test_a_trial_that_fails_leaves_the_card_as_it_was(
    swept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object) -> float:
        raise RuntimeError("lost")

    monkeypatch.setattr(LawfulCard, "speed", fails)
    _, tally, _, (card,) = swept(limits(200))
    assert len(tally.failed) == 1
    assert card.limit_w == 390.0


def test_what_a_killed_trial_left_is_put_back_by_the_next_start_which_says_so(
    swept: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.machine.device_settings import Changed, _write, settings_file

    folder = tmp_path / "locks"
    monkeypatch.setenv("HARNESS_LOCKS", str(folder))
    folder.mkdir(mode=0o700)
    left = Changed(backend="torch", device=FIRST, name="power_limit", value=390.0, unit="W", before=250.0)
    _write(settings_file(folder, FIRST), [left])
    _, tally, said, (card,) = swept("{name: torch, device: cuda}")
    assert not tally.failed, tally.failed
    notes = [event["text"] for event in said if event["type"] == "note"]
    assert notes == [f"left behind by a process that was killed: power_limit of {FIRST} put back from 390 W to 250 W"]
    assert card.limit_w == 250.0
    assert not list(folder.glob("*.settings"))
