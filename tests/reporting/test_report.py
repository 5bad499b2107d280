from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness import reporting as report
from harness.backend import Device
from harness.errors import HarnessError, MeasurementError, UsageError
from harness.functional_unit import UnitCount, per_second, per_unit
from harness.impact import Factor
from harness.quantity import Amount, Method, Unavailable, Undefined, Value
from harness.records.cross_checks import cross_checks
from harness.records.files import write_json, write_measurement, write_record
from harness.records.paths import FAILURE, RECORD, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, SeenCondition, Span, UnitResult, WarmUp
from harness.records.summary import summarise
from harness.reporting.markdown import escape
from harness.sample import TOO_LITTLE, Scope

GPU = "n0/gpu:GPU-1"


def joules(value: float, *, width: float | None = 0.05) -> Amount:
    if width is None:
        return Amount.of(value, "J", Method.ESTIMATED)
    return Amount.of(value, "J", Method.COUNTER, low=value * (1 - width), high=value * (1 + width))


def trial(
    number: int = 0,
    *,
    point: str = "p1",
    label: str = "draft_tokens=2",
    energy: Value | None = None,
    operational: Value | None = None,
    embodied: Value | None = None,
    check: Value | None = None,
    tokens: float = 100.0,
    items: int = 40,
    flags: tuple[str, ...] = (),
    conditions: tuple[SeenCondition, ...] = (),
    missing: dict[str, str] | None = None,
    factors: tuple[Factor, ...] = (),
) -> Record:
    energy = joules(50.0) if energy is None else energy
    operational = Amount.of(0.005, "g", Method.COUNTER) if operational is None else operational
    embodied = Amount.of(0.001, "g", Method.ESTIMATED) if embodied is None else embodied
    readings = [Reading(span="window", window=0, meter="nvml", scope=GPU, primary=True, value=energy, coverage=0.99)]
    meters = [
        MeterReport(
            name="nvml",
            asked=False,
            scopes={GPU: Scope(method=Method.COUNTER, gain=0.05)},
            missing=missing or {},
        )
    ]
    if check is not None:
        readings.append(Reading(span="window", window=0, meter="codecarbon", scope=GPU, primary=False, value=check))
        meters.append(MeterReport(name="codecarbon", asked=True, scopes={GPU: Scope(method=Method.INTEGRATED)}))
    measurement = Measurement(
        run="r1",
        trial_id=f"{point}-t{number:03d}",
        trial=number,
        point={"id": point, "label": label},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={"cpu": "Example CPU", "cores_allowed": 2, "memory_bytes": 8 * 10**9, "python": "3.12.1"},
        backend={"name": "torch"},
        devices=(Device(kind="gpu", uuid="GPU-1", name="H100"),),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**10, start_utc_s=0.0, iterations=20, flags=flags),),
        readings=tuple(readings),
        uses=(),
        meters=tuple(meters),
        conditions=conditions,
    )
    totals: dict[str, Value] = {
        "duration_s": Amount.exact(10.0, "s"),
        "energy_j": energy,
        "carbon_operational_g": operational,
        "carbon_embodied_g": embodied,
    }
    counted = UnitCount(tokens, items, items if tokens else 0, 0, {})
    unit = UnitResult(
        unit="output_tokens",
        count=counted,
        costs={name: per_unit(value, "token", counted) for name, value in totals.items()},
        rate=per_second("token", counted, Amount.exact(10.0, "s")),
    )
    latency = Amount.of(0.0123, "s", Method.MEASURED)
    return Record(
        measurement=measurement,
        totals=totals,
        units={"token": unit},
        columns={"ttft_s": {"mean": latency, "p50": latency, "p95": latency.times(2.0, "s")}},
        factors=factors,
    )


def store(folder: Path, *records: Record, **run: object) -> Path:
    for finished in records:
        where = folder / finished.measurement.trial_id
        where.mkdir(parents=True)
        write_measurement(where, finished.measurement)
        write_record(where, finished)
    folder.mkdir(exist_ok=True)
    write_json(folder / RUN, {"run": "r1", "suite_files": ["suites/x.yaml"], "status": "ok", **run})
    return folder


def shown(folder: Path, width: int | None = None, *, details: bool = True) -> str:
    """The report as a pipe gets it, or as a terminal of so many columns shows it."""
    stream = io.StringIO()
    console = Console(file=stream, width=width or 80, force_terminal=width is not None, color_system=None)
    report.render_terminal(console, folder, details=details)
    return stream.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# Numbers


def test_median_bound_and_spread_stay_apart() -> None:
    found = summarise([joules(10.0), joules(12.0), joules(30.0)])
    assert isinstance(found.value, Amount)
    assert found.value.value == 12.0
    assert found.bound == pytest.approx((11.4, 12.6))
    assert found.spread == (10.0, 30.0)
    assert (found.n, found.trials, found.label) == (3, 3, Method.COUNTER)


def test_an_even_number_takes_the_mean_of_the_middle_two() -> None:
    found = summarise([joules(10.0), joules(12.0)])
    assert isinstance(found.value, Amount)
    assert found.value.value == 11.0
    assert found.bound == pytest.approx((10.45, 11.55))


def test_one_unknown_bound_in_the_middle_makes_it_unknown() -> None:
    assert summarise([joules(10.0), joules(12.0, width=None)]).bound == (None, None)


def test_one_trial_has_no_spread() -> None:
    assert summarise([joules(10.0)]).spread is None


def test_a_missing_trial_is_counted_and_never_zero() -> None:
    found = summarise([joules(10.0), Unavailable("driver gone")])
    assert isinstance(found.value, Amount)
    assert found.value.value == 10.0
    assert (found.n, found.trials, found.missing) == (1, 2, ("driver gone",))
    assert summarise([Undefined("no token")]).value == Undefined("no token")


def test_trials_below_a_counters_step_are_not_left_out_of_the_median() -> None:
    found = summarise([joules(10.0), Unavailable(f"n0/gpu:1: {TOO_LITTLE}: it did not move"), joules(10.0)])
    assert isinstance(found.value, Unavailable)
    assert "in 1 of 3: the others alone would overstate it" in found.value.reason
    assert (found.n, found.values, found.spread) == (0, (), None)


def test_amounts_of_different_units_are_not_summarised() -> None:
    found = summarise([joules(10.0), Amount.of(1.0, "g", Method.COUNTER)])
    assert isinstance(found.value, Unavailable)
    assert "differ in their unit" in found.value.reason


def test_composition_names_both_methods_and_the_label_is_the_weakest() -> None:
    mixed = Amount(100.0, "J", {Method.COUNTER: 82.0, Method.ESTIMATED: 18.0})
    found = summarise([mixed])
    assert found.composition == "counter 82 %, estimated 18 %"
    assert found.label is Method.ESTIMATED
    nearly = Amount(1000.0, "J", {Method.COUNTER: 999.0, Method.ESTIMATED: 1.0})
    assert summarise([nearly]).composition == "counter >99 %, estimated <1 %"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8))
def test_the_median_lies_in_its_bound_and_in_the_spread(values: list[float]) -> None:
    found = summarise([joules(value) for value in values])
    assert isinstance(found.value, Amount)
    low, high = found.bound
    assert low is not None
    assert high is not None
    slack = 1e-9 * found.value.value
    assert low - slack <= found.value.value <= high + slack
    least, greatest = found.spread or (found.value.value, found.value.value)
    assert least - slack <= found.value.value <= greatest + slack
    assert math.isclose(sum(found.shares.values()), 1.0)


# Tables


def test_every_number_of_the_table_comes_from_the_record(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", *(trial(number, energy=joules(50.0 + 10 * number)) for number in range(3)))
    for text in (shown(folder), report.markdown(folder).replace("\\", "")):
        assert "J/token" in text
        assert "600 mJ" in text  # 60 J over 100 tokens, the median trial
        assert "± 5 %" in text
        assert "95 %: 391 mJ to 903 mJ" in text
        assert "10 /s" in text  # 100 tokens in 10 s
        assert "50 µg" in text  # 5 mg over 100 tokens
        assert "10 µg" in text
        assert "[bound not known]" in text  # neither carbon part has one
        assert "estimated" in text
        assert "12.3 ms" in text
        assert "24.6 ms" in text
        assert "Example CPU" in text
        assert "H100" in text
        assert str(folder).replace("_", "") in text.replace("_", "").replace("\n", "")


@pytest.mark.parametrize(("items", "told"), [(20, True), (19, False)])
def test_no_quantile_of_fewer_than_twenty_items_and_their_number_beside_it(
    tmp_path: Path, items: int, told: bool
) -> None:
    text = shown(store(tmp_path / "run", trial(items=items)))
    row = next(line for line in text.splitlines() if " ttft_s " in line)
    assert f" {items} " in row
    assert ("24.6 ms" in row) is told
    assert ("no quantile of fewer than 20 items" in text) is not told


def test_eighty_columns_hold_everything(tmp_path: Path) -> None:
    long = "mode=paper, draft_tokens=8, target=a-rather-long-model-name/that-has-no-space-in-it-at-all-7b"
    folder = store(
        tmp_path / "run",
        trial(0, label=long, check=joules(58.0), missing={"*": "libnvidia-ml.so.1 was not found"}),
        trial(1, label=long, energy=Unavailable("the counter stood still for the whole window")),
        trial(0, point="p2", label="short one", tokens=0.0),
    )
    text = shown(folder, width=80)
    broken = [line for line in text.splitlines() if "that-has-no-space-in-it" not in line and str(tmp_path) not in line]
    assert max(map(len, broken)) <= 80
    assert "500 mJ" in text
    assert "± 5 %" in squeezed(text)
    assert "[bound" in text
    assert "the counter stood still for the whole window" in squeezed(text)


def test_undefined_comes_last_and_says_why(tmp_path: Path) -> None:
    folder = store(
        tmp_path / "run",
        trial(0, point="p1", label="first of the plan", tokens=0.0),
        trial(0, point="p2", label="second of the plan"),
        points=[{"id": "p1", "label": "first of the plan", "trials": 1}, {"id": "p2", "label": "second of the plan"}],
    )
    text = shown(folder)
    table = text[text.index("Per token") : text.index("Work items")]
    assert table.index("second of the plan") < table.index("first of the plan")
    assert "undefined (1)" in table
    assert "(1) no token was achieved" in table
    assert "inf" not in table.lower().split()


def test_an_unavailable_energy_is_never_a_number(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", trial(energy=Unavailable("RAPL not readable: permission")))
    for text in (shown(folder), report.markdown(folder)):
        assert "0 J" not in text
        assert "RAPL not readable: permission" in text


def test_mixed_methods_are_spelled_out_and_not_compared(tmp_path: Path) -> None:
    mixed = Amount(50.0, "J", {Method.COUNTER: 41.0, Method.ESTIMATED: 9.0})
    folder = store(tmp_path / "run", trial(energy=mixed), trial(point="p2", label="other"))
    text = squeezed(shown(folder))
    assert "draft_tokens=2, energy_j: counter 82 %, estimated 18 %" in text
    assert "energy_j is counter in some rows, estimated in others: do not compare these rows." in text


def test_short_windows_are_marked(tmp_path: Path) -> None:
    text = shown(store(tmp_path / "a", trial(0, flags=("short",)), trial(1, flags=("short",)), trial(2)))
    assert "short: the windows" in text
    assert "short: in 2 trials of 3" in text
    assert "short: the windows" not in shown(store(tmp_path / "b", trial()))


def test_bounds_that_are_one_sided_or_lopsided_are_not_shown_as_symmetric(tmp_path: Path) -> None:
    energy = Amount.of(100.0, "J", Method.COUNTER, low=99.0, high=110.0)
    above = Amount.of(0.005, "g", Method.COUNTER, low=0.004)
    text = squeezed(shown(store(tmp_path / "run", trial(energy=energy, operational=above))))
    assert "+10 % / -1 %" in text
    assert "at least 40 µg" in text


# What was not measured


def test_all_absences_are_listed(tmp_path: Path) -> None:
    folder = store(
        tmp_path / "run",
        trial(0, missing={"n0/dram:0": "no such zone"}),
        points=[
            {"id": "p1", "label": "draft_tokens=2", "suite": "x", "trials": 3},
            {"id": "p2", "label": "never begun", "suite": "x", "trials": 2},
        ],
        skipped=[{"label": "gpu only", "reason": "no CUDA device"}, {"point": "other", "reason": "no CUDA device"}],
        status="interrupted",
    )
    failed = folder / "p1-t001"
    failed.mkdir()
    (failed / FAILURE).write_text(json.dumps({"reason": "ended by SIGKILL", "log_tail": ["Traceback", "x[red]"]}))
    text = squeezed(shown(folder))
    assert "Not measured, and why" in text
    assert "draft_tokens=2, trial 1: ended by SIGKILL" in text
    assert "x[red]" in text
    assert "draft_tokens=2: 1 of 3 trials did not run (the run is interrupted)" in text
    assert "never begun: 2 of 2 trials did not run" in text
    assert "skipped: gpu only; other: no CUDA device" in text
    assert "meter nvml on n0/dram:0: no such zone" in text


def test_a_trial_that_is_not_valid_is_left_out_and_said(tmp_path: Path) -> None:
    throttled = SeenCondition(kind="thermal_throttle", scope=GPU, detail="hot", fails=True, count=3, first_ns=0)
    folder = store(tmp_path / "run", trial(0), trial(1, energy=joules(5000.0), conditions=(throttled,)))
    text = squeezed(shown(folder))
    assert "500 mJ" in text
    assert "50 J" not in text
    assert "not valid, left out: thermal_throttle" in text
    assert "seen 3 times in 1 trial: makes a trial not valid" in text


def test_without_a_valid_trial_the_row_is_marked(tmp_path: Path) -> None:
    throttled = SeenCondition(kind="thermal_throttle", scope=GPU, detail="hot", fails=True, count=3, first_ns=0)
    text = shown(store(tmp_path / "run", trial(conditions=(throttled,))))
    assert "NOT VALID" in text
    assert "500 mJ" in text


def test_a_broken_record_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", trial(0), trial(1))
    (folder / "p1-t001" / RECORD).write_text('{"measurement": {}}')
    text = squeezed(shown(folder))
    assert "500 mJ" in text
    assert "not a record of schema 1" in text


def test_points_of_several_suites_are_told_apart(tmp_path: Path) -> None:
    points = [{"id": name, "label": "same", "suite": f"suite-{name}", "trials": 1} for name in ("p1", "p2")]
    text = squeezed(shown(store(tmp_path / "run", trial(), trial(point="p2"), points=points)))
    assert "suite-p1: same" in text
    assert "suite-p2: same" in text


@pytest.mark.parametrize(("make", "error"), [(False, UsageError), (True, MeasurementError)], ids=["none", "empty"])
def test_a_run_without_records_is_a_clear_error(tmp_path: Path, make: bool, error: type[HarnessError]) -> None:
    folder = tmp_path / "run"
    if make:
        store(folder, skipped=[{"label": "a", "reason": "no GPU"}])
    with pytest.raises(error) as caught:
        report.load(folder)
    assert str(folder) in str(caught.value)
    assert ("no GPU" in str(caught.value)) is make
    with pytest.raises(error):
        report.markdown(folder)


def test_a_broken_run_file_is_a_clear_error(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", trial())
    (folder / RUN).write_text("{")
    with pytest.raises(MeasurementError, match=r"run\.json"):
        report.load(folder)


# Cross-checks and circumstances


@pytest.mark.parametrize(("other", "warned"), [(52.0, False), (47.6, False), (53.0, True), (47.0, True)])
def test_cross_checks_warn_beyond_five_percent(tmp_path: Path, other: float, warned: bool) -> None:
    finished = trial(check=joules(other))
    (check,) = cross_checks([finished])
    assert check.difference == pytest.approx((other - 50) / 50)
    text = shown(store(tmp_path / "run", finished))
    assert ("WARNING: beyond 5 %" in text) is warned
    assert f"{(other - 50) * 2:+.1f} %" in text


def test_a_cross_check_that_read_nothing_says_why(tmp_path: Path) -> None:
    (check,) = cross_checks([trial(check=Unavailable("no sample in the window"))])
    assert (check.difference, check.note) == (None, "no sample in the window")
    (check,) = cross_checks([trial(energy=joules(0.0), check=joules(1.0))])
    assert (check.difference, check.note) == (None, "the primary meter read 0 J")


def test_factors_stand_with_their_source_once(tmp_path: Path) -> None:
    factor = Factor(
        name="grid_intensity", value=380.5, unit="g/kWh", source="Example data, table 2", licence="CC-BY-4.0", id="g1"
    )
    folder = store(tmp_path / "run", trial(0, factors=(factor,)), trial(1, factors=(factor,)))
    text = shown(folder)
    assert text[text.index("\nFactors") :].count("Example data, table 2") == 1
    assert "(1) grid_intensity 380.5 g/kWh (Example data, table 2)" in shown(folder, details=False)
    assert "380.5 g/kWh" in squeezed(text)
    assert "CC-BY-4.0" in text


# Nothing is interpreted


def test_labels_are_not_markup(tmp_path: Path) -> None:
    hostile = "[red]x[/red] a|b <script> *c* \x1b[31m"
    folder = store(tmp_path / "run", trial(label=hostile), skipped=[{"label": "[/]", "reason": "[bold"}])
    text = shown(folder)
    assert "[red]x[/red] a|b <script> *c*" in text
    assert "[/]: [bold" in text
    assert "\x1b" not in text
    page = report.markdown(folder)
    assert "<script>" not in page
    assert r"\[red\]x\[/red\] a\|b &lt;script&gt; \*c\*" in page
    assert "\x1b" not in page


def test_markdown_tables_have_as_many_cells_in_every_row(tmp_path: Path) -> None:
    page = report.markdown(store(tmp_path / "run", trial(label="a|b|c"), trial(point="p2", label="d\n|e")))
    width = 0
    for line in page.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if not line.startswith("|"):
            width = 0
            continue
        width = width or cells
        assert cells == width, line


def test_a_log_cannot_close_its_own_fence(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", trial())
    failed = folder / "p1-t001"
    failed.mkdir()
    (failed / FAILURE).write_text(json.dumps({"reason": "died", "log_tail": ["````", "<img src=x>"]}))
    page = report.markdown(folder)
    assert "  `````text\n  ````\n  <img src=x>\n  `````\n" in page


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_escaped_text_stays_on_one_line_and_in_its_cell(text: str) -> None:
    done = escape(text)
    assert len(done.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*\|", done)
    assert "<" not in done
