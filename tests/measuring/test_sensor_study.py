"""The bound holds the truth on simulated sensors: a few windows of each kind here, a thousand a cell in the soak."""

from __future__ import annotations

import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    pytest.importorskip("harness_meter_nvml")
    spec = spec_from_file_location("sensor_study", ROOT / "benchmarks/sensor_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["sensor_study"] = module
    spec.loader.exec_module(module)
    return module


NAMES = (
    "25 of 100 ms",
    "average over 1 s",
    "late by 0.5 s",
    "instant at 10 Hz",
    "update 20 ms",
    "update 300 ms",
    "counter",
    "counter late by 0.5 s",
    "counter of 25 in 100 ms",
)


def test_every_kind_is_tried(study: ModuleType) -> None:
    assert tuple(study.KINDS) == NAMES


def test_whatever_waits_waits_by_the_studys_clock(study: ModuleType) -> None:
    """A counter's tick that is waited for by another clock never comes."""
    from harness.measuring import alignment, meters

    before = alignment.time, meters.now_ns
    clock = study.FakeClock(5)
    with study.clock_of_meters(clock):
        assert alignment.time.sleep == clock.sleep
        assert meters.now_ns is clock
    assert (alignment.time, meters.now_ns) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_few_windows_of_every_load_hold_the_truth(study: ModuleType, name: str) -> None:
    found = study.study(3, kinds=[name], lengths_s=[2.0], seed=5)
    windows, inside = (sum(getattr(tally, part) for tally in found.values()) for part in ("windows", "inside"))
    assert windows == 3 * len(study.LOADS) * 2 * len(study.KNOWLEDGE)
    assert inside / windows >= study.WANTED
    assert not [said for said in study.faults(found) if "half-width" in said]


def test_a_bound_that_is_too_narrow_is_found(study: ModuleType) -> None:
    """The study can fail: a sensor that is taken for one that sees all of the time."""
    kind = study.KINDS["25 of 100 ms"]
    study.KINDS["blind"] = study.replace(kind, product="NVIDIA GeForce RTX 3090")
    try:
        found = study.cells("blind", "square in step", 2.0, 12, 1)
    finally:
        del study.KINDS["blind"]
    assert found["blind", "square in step", 2.0, "window", "class"].coverage < study.WANTED


def test_no_energy_is_a_miss(study: ModuleType) -> None:
    from harness.quantity import Amount, Method, Unavailable

    tally = study.Tally()
    tally.add(Unavailable("why"), 1.0, 1.0, None)
    tally.add(Amount(1.0, "J", {Method.COUNTER: 1.0}), 1.0, 1.0, None)
    tally.add(Amount.of(1.0, "J", Method.COUNTER, low=0.5, high=1.5), 1.2, 1.0, None)
    assert (tally.windows, tally.inside, tally.reasons) == (3, 1, {"why": 1, "no bound": 1})
    assert math.isclose(tally.coverage, 1 / 3)


@pytest.mark.slow
def test_the_page_is_of_this_code(study: ModuleType) -> None:
    assert study.stale() == ""


def test_words_do_not_make_the_page_stale_and_code_does(study: ModuleType, tmp_path: Path) -> None:
    for name in study.RESTS_ON:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"))
    assert study.code_digest(tmp_path) == study.code_digest()
    file = tmp_path / study.RESTS_ON[0]
    file.write_text(file.read_text().replace('"""', '"""More words. ', 1) + "\n# a comment\n")
    assert study.code_digest(tmp_path) == study.code_digest()
    file.write_text(file.read_text() + "\nANOTHER = 1\n")
    assert study.code_digest(tmp_path) != study.code_digest()


@pytest.mark.soak
@pytest.mark.parametrize("length_s", [0.5, 2.0, 30.0])
@pytest.mark.parametrize("name", NAMES)
def test_soak_a_thousand_windows_a_cell(study: ModuleType, name: str, length_s: float) -> None:
    assert study.faults(study.study(1000, kinds=[name], lengths_s=[length_s])) == []
