"""Calibration: closed forms, simulation against the rule itself, what a calibration holds for."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.errors import MeasurementError, UsageError
from harness.gating.calibration import (
    Calibration,
    CalibrationJob,
    CalibrationSample,
    Rate,
    control_bounds,
    critical_effect,
    found_in,
    replay,
    report,
    student,
)
from harness.gating.calibration_store import find, path_of, revision, runner_of, stale
from harness.gating.job import refuse_weak
from harness.gating.verdict import CellKey, Verdict, margin
from harness.planning.point import Choice, Point
from harness.planning.suite import GateRule
from harness.planning.trial_rules import CoolDown

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RUNNER = {"cpu": "a", "cores_logical": 2}
A = CellKey("s", "a", "energy_j", "token")


def jobs(
    count: int, pairs: int, noise: float, *, seed: int = 1, drift: float = 0.0, cells: str = "a"
) -> tuple[CalibrationJob, ...]:
    generator = random.Random(seed)

    def sample() -> CalibrationSample:
        differences = tuple(generator.gauss(0.0, noise) for _ in range(pairs))
        return CalibrationSample(differences, tuple(drift * index / (pairs - 1) for index in range(pairs)))

    return tuple(
        CalibrationJob(
            {replace(A, label=name): sample() for name in cells},
            tuple(generator.gauss(0.0, noise) for _ in range(pairs)),
        )
        for _ in range(count)
    )


def calibration(**changes: object) -> Calibration:
    made = Calibration(
        runner=RUNNER, revision="r", pairs=24, made_utc=NOW.isoformat(), jobs=jobs(20, 24, 0.02, drift=0.1)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize("pairs", [12, 36])
def test_the_critical_effect_is_where_the_rule_changes_its_mind(pairs: int, cells: int) -> None:
    for seed in range(20):
        (job,) = jobs(1, pairs, 0.02, seed=seed)
        differences = job.cells[A].differences
        least = critical_effect(differences, pairs, cells)
        for step, fails in ((3e-9, True), (-1e-9, False)):
            shifted = {A: [difference + least + step for difference in differences]}
            others = {replace(A, label=str(index)): [0.0] * pairs for index in range(cells - 1)}
            margins = {key: 0.0 if key == A else 0.01 for key in [*shifted, *others]}
            assert (replay({**shifted, **others}, margins, pairs) is Verdict.REGRESSED) is fails


def test_the_detectable_effect_by_hand() -> None:
    """Five equal differences of -2 %: one look, whose lower bound is the least Walsh average, -2 % itself."""
    assert critical_effect([-0.02] * 5, 5) == 0.02
    assert critical_effect([0.0, 0.01, 0.0, 0.01, 0.0], 5, cells=2) == math.inf, "2^-5 is above 0.05 / 2"
    assert found_in([0.05, 0.01, 0.02, 0.03, 0.04]) == 0.04


def test_the_detectable_effect_is_found_in_80_percent_of_other_jobs() -> None:
    known = report(calibration(jobs=jobs(300, 24, 0.02)), {A: margin(0.03)}).cells[0]
    assert known.mde == pytest.approx(margin(0.03) + known.mde_0)
    fresh = [
        replay({A: [d + known.mde for d in job.cells[A].differences]}, {A: margin(0.03)}, 24)
        for job in jobs(300, 24, 0.02, seed=2)
    ]
    low, high = Rate(fresh.count(Verdict.REGRESSED), 300).interval
    assert low < 0.80 < high + 0.03


def test_false_alarms_at_tolerance_0_agree_with_the_nominal_rate() -> None:
    found = report(calibration(jobs=jobs(600, 24, 0.02)), {A: margin(0.05)})
    low, high = found.cells[0].alarms_at_0.interval
    assert low < 0.05 < high + 0.015  # exact bounds are discrete: a little below nominal
    assert found.cells[0].alarms.hits == 0
    assert found.clean.hits == 600
    assert found.broken == ""


def test_noise_drift_and_correlations_by_known_values() -> None:
    cell = report(calibration(jobs=jobs(200, 24, 0.02, drift=0.1)), {A: 0.03}).cells[0]
    assert cell.noise == pytest.approx(0.02, rel=0.05)
    assert cell.drift == pytest.approx(0.1)
    assert cell.standard_error == pytest.approx(0.02 / math.sqrt(24) * math.sqrt(math.pi / 3), rel=0.15)
    assert cell.serial == pytest.approx(-1 / 24, abs=0.04)
    # base and head: drift d with variance v from a line, and half of the noise with opposite signs
    line = 0.1**2 * (25 / 23) / 12
    assert cell.neighbours == pytest.approx((line - 0.01**2) / (line + 0.01**2), abs=0.02)


def test_jobs_without_any_variation_have_no_correlation() -> None:
    still = CalibrationJob({A: CalibrationSample((0.0,) * 6, (0.0,) * 6)}, (0.0,) * 6)
    cell = report(calibration(pairs=6, jobs=(still,) * 5), {A: 0.03}).cells[0]
    assert (cell.neighbours, cell.serial, cell.noise, cell.mde_0) == (None, None, 0.0, 0.0)


def test_a_rule_that_fails_too_often_here_is_told() -> None:
    shifted = [CalibrationJob({A: CalibrationSample((0.01 + index * 1e-5,) * 24, (0.0,) * 24)}) for index in range(20)]
    found = report(calibration(jobs=tuple(shifted)), {A: margin(0.05)})
    assert "clearly more than the nominal 5%" in found.broken


@pytest.mark.parametrize("freedom", [4, 5, 9, 19, 99])
def test_student_quantiles_against_tables(freedom: int) -> None:
    """Two-sided 99 %: Abramowitz and Stegun, table 26.10."""
    table = {4: 4.604, 5: 4.032, 9: 3.250, 19: 2.861, 99: 2.626}
    assert student(0.995, freedom) == pytest.approx(table[freedom], rel=0.015)


def test_a_clean_control_leaves_its_bounds_in_one_job_of_a_hundred() -> None:
    generator = random.Random(5)
    left = 0
    for _ in range(2000):
        made = [CalibrationJob({}, (generator.gauss(0, 0.01),)) for _ in range(20)]
        bounds = control_bounds(made)
        assert bounds is not None
        left += not bounds[0] <= generator.gauss(0, 0.01) <= bounds[1]
    low, high = Rate(left, 2000).interval
    assert low < 0.01 < high
    assert control_bounds(made[:4]) is None


# Refusing


def test_a_tolerance_below_what_shows_is_refused_with_the_pairs_that_do() -> None:
    found = report(calibration(jobs=jobs(100, 24, 0.05)), {A: margin(0.02)})
    cell = found.cells[0]
    assert cell.weak(24)
    with pytest.raises(UsageError, match="--allow-weak") as caught:
        refuse_weak(found, 24)
    assert str(cell.pairs_needed) in caught.value.accepted
    assert cell.pairs_needed == math.ceil(24 * (cell.mde_0 / margin(0.02)) ** 2)
    refuse_weak(found, cell.pairs_needed)
    enough = report(calibration(pairs=cell.pairs_needed, jobs=jobs(100, cell.pairs_needed, 0.05)), {A: margin(0.021)})
    assert not enough.cells[0].weak(cell.pairs_needed), "errors fall with the root of the pairs"


def test_a_tolerance_of_nothing_is_refused_whatever_the_pairs() -> None:
    with pytest.raises(UsageError) as caught:
        refuse_weak(report(calibration(), {A: 0.0}), 10_000)
    assert "pairs" not in caught.value.accepted


# Keeping


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    path = path_of(tmp_path, ["s"], RUNNER)
    calibration().write(path)
    assert Calibration.read(path) == calibration()
    assert find(tmp_path, ["s"], RUNNER, "r", 24, NOW) == (calibration(), "")


def test_a_calibration_of_schema_1_has_names_in_place_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    calibration().write(path)
    content = json.loads(path.read_text())
    for job in content["jobs"]:
        (cell,) = job["cells"]
        del cell["key"]
        job["cells"] = {"s: a: energy_j per token": cell}
    path.write_text(json.dumps({**content, "schema": 1}))
    assert Calibration.read(path) == calibration()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "null"])
def test_what_is_no_calibration_is_told_and_holds_nothing(tmp_path: Path, text: str) -> None:
    path = path_of(tmp_path, ["s"], RUNNER)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(MeasurementError, match="not a calibration"):
        Calibration.read(path)
    found, why = find(tmp_path, ["s"], RUNNER, "r", 24, NOW)
    assert found is None
    assert "not a calibration" in why


def test_another_schema_is_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    calibration().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(MeasurementError, match="schema 2"):
        Calibration.read(path)


@pytest.mark.parametrize(
    ("runner", "wanted", "pairs", "now", "said"),
    [
        ({**RUNNER, "cpu": "b"}, "r", 24, NOW, "cpu was 'a' and is 'b'"),
        (RUNNER, "other", 24, NOW, "has changed"),
        (RUNNER, "r", 23, NOW, "made for 24 pairs"),
        (RUNNER, "r", 24, NOW + timedelta(days=30), "30 days old"),
        (RUNNER, "r", 36, NOW + timedelta(days=29), ""),
    ],
)
def test_a_calibration_holds_for_its_runner_suite_and_time(
    tmp_path: Path, runner: dict[str, object], wanted: str, pairs: int, now: datetime, said: str
) -> None:
    assert said in stale(calibration(), runner, wanted, pairs, now)
    calibration().write(path_of(tmp_path, ["s"], RUNNER))
    found, why = find(tmp_path, ["s"], runner, wanted, pairs, now)
    assert (found is None) is bool(said)
    assert said in why


def test_without_one_the_command_that_makes_it_is_named(tmp_path: Path) -> None:
    assert "harness calibrate" in find(tmp_path, ["s"], RUNNER, "r", 24, NOW)[1]


def test_the_revision_is_of_what_is_measured_and_not_of_the_tolerance() -> None:
    point = Point(id="1" * 12, suite="s", label="spin", workload="spin", backend=Choice("host"))
    rule = GateRule(metric="energy_j", per="token", worse_by_at_most=0.03)
    first = revision([point], {"s": [rule]})
    assert revision([point], {"s": [rule.model_copy(update={"worse_by_at_most": 0.1})]}) == first
    assert revision([replace(point, id="2" * 12)], {"s": [rule]}) != first
    assert revision([replace(point, cool_down=CoolDown(to_celsius=45.0))], {"s": [rule]}) != first
    assert revision([point], {"s": [rule.model_copy(update={"metric": "carbon_g"})]}) != first


def test_the_runner_is_the_machine_its_devices_and_the_cards_of_its_meters(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"id": "card-1", "meter": "nvml"}))
    (tmp_path / "two.json").write_text(json.dumps({"id": "card-2", "meter": "rapl"}))
    (tmp_path / "torn.json").write_text("{")
    point = Point(
        id="1" * 12,
        suite="s",
        label="spin",
        workload="spin",
        backend=Choice("host"),
        meters=(Choice("nvml"),),
        devices=({"kind": "gpu", "name": "H", "uuid": "GPU-1"},),
    )
    found = runner_of([point], tmp_path)
    assert found["devices"] == ["gpu H GPU-1"]
    assert found["meter_cards"] == ["card-1"]
    assert json.loads(json.dumps(found)) == found
    assert runner_of([point], tmp_path / "none")["meter_cards"] == []
