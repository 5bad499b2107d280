"""Costing finished records again: new records, sweeps, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from harness.commands.recost import combinations, write_records, write_table
from harness.costing.recost import columns_of, points_of, rows
from harness.costing.settings import parse_set, parse_sweep
from harness.costing.sweep_ranking import Ranking
from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError
from harness.functional_unit import UnitCount
from harness.hookspecs import hookimpl
from harness.impact import Costed, Factor, Impact, ImpactMeter, ImpactMeterSpec
from harness.meter import MeterSpec
from harness.options import Options
from harness.planning.point import Choice, Point
from harness.quantity import Amount, Method, Unavailable, Undefined, Value
from harness.records.files import load_record, trial_folders, write_measurement, write_record
from harness.records.paths import ENERGY, ITEMS, MEASUREMENT, PLAN, RECORD, RUN
from harness.records.record import Measurement, MeterReport, Reading, Record, Span, UnitResult, WarmUp
from harness.running.run_folder import reopen
from harness.sample import Scope

SCOPE = "n0/host"


class SmogOptions(Options):
    per_joule: float = 1.0
    base: float = 0.0
    split: bool = False


class Smog(ImpactMeter):
    """`base + per_joule * energy`; with `split`, twice as much for joules after 5 s, by the stored trace."""

    def __init__(self, options: SmogOptions) -> None:
        self.options = options

    def apply(self, costed: Costed) -> Impact:
        energy = costed.readings["energy_j"]
        if not isinstance(energy, Amount):
            return Impact(readings={"smog_g": energy})
        value: Value = energy.times(self.options.per_joule, "g")
        assert isinstance(value, Amount)
        if self.options.split:
            times, joules = costed.trace.utc_s, costed.trace.joules[SCOPE]
            half = joules[times.index(costed.start_utc_s + 5)] - joules[0]
            value = energy.times((half + 2 * (joules[-1] - half)) / joules[-1], "g")
        if self.options.base:
            value = Amount(
                value.value + self.options.base * costed.duration_s,
                "g",
                {Method.ESTIMATED: value.value + self.options.base * costed.duration_s},
            )
        factor = Factor(name="smogginess", value=self.options.per_joule, unit="g/J", source="a test")
        return Impact(readings={"smog_g": value}, factors=(factor,), flags=("smoky",))


class Offers:
    @staticmethod
    @hookimpl
    def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:
        yield ImpactMeterSpec(
            name="smog",
            summary="a test",
            factory=Smog,
            needs=("energy_j",),
            yields={"smog_g": "g"},
            options=SmogOptions,
        )
        yield MeterSpec(name="lamp", summary="a test", factory=lambda options: None)  # type: ignore[arg-type, return-value]


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    assert found.register(Offers, "offers"), found.broken
    return found


def make_run(
    folder: Path,
    energies: dict[str, float],
    *,
    own: dict[str, object] | None = None,
    duration_s: dict[str, float] | None = None,
    achieved: float = 10.0,
) -> Path:
    """A run of one trial a point; the points use the given joules."""
    folder.mkdir(parents=True)
    own_meters = [Choice("smog", own)] if own is not None else []
    points = [
        Point(
            id=name * 12,
            suite="s",
            label=name,
            workload="w",
            backend=Choice("host"),
            meters=(Choice("lamp"), *own_meters),
            trials=1,
            functional_units={"token": {"sum": "tokens"}},
        )
        for name in energies
    ]
    for point, joules in zip(points, energies.values(), strict=True):
        seconds = (duration_s or {}).get(point.label, 10.0)
        target = folder / f"{point.id}-t000"
        target.mkdir()
        value = Amount.of(joules, "J", Method.COUNTER, low=joules * 0.9, high=joules * 1.1)
        measurement = Measurement(
            run=folder.name,
            trial_id=target.name,
            trial=0,
            point=point.to_json(),
            started_utc="2026-01-02T03:04:05+00:00",
            environment={},
            backend={},
            devices=(),
            plugins={},
            workload={},
            warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
            spans=(Span(name="window", window=0, start_ns=0, end_ns=int(seconds * 1e9), start_utc_s=1000.0),),
            readings=(Reading(span="window", window=0, meter="lamp", scope=SCOPE, primary=True, value=value),),
            uses=(),
            meters=(MeterReport(name="lamp", asked=True, scopes={SCOPE: Scope(method=Method.COUNTER)}),),
            conditions=(),
        )
        counted = UnitCount(achieved=achieved, items=4, qualifying=3, failed=1)
        unit = UnitResult(unit="tokens", count=counted, costs={}, rate=Amount.exact(1.0, "token/s"))
        quality = {"quality": {"mean": Amount.exact(7.5, "1")}}
        impacts = ({"name": "smog", "options": own},) if own is not None else ()
        made = Record(measurement=measurement, totals={}, units={"token": unit}, columns=quality, impacts=impacts)
        write_measurement(target, measurement)
        write_record(target, made)
        (target / ITEMS).write_text('{"item_id": "a"}\n', encoding="utf-8")
        trace: list[dict[str, object]] = [{"anchor": {"monotonic_ns": 0, "utc_s": 1000.0}}]
        trace += [
            {"t": int(t * 1e9), "m": "lamp", "j": {SCOPE: joules * share}} for t, share in ((0, 0), (5, 0.25), (10, 1))
        ]
        (target / ENERGY).write_text("".join(json.dumps(row) + "\n" for row in trace), encoding="utf-8")
    (folder / PLAN).write_text(json.dumps([point.to_json() for point in points]), encoding="utf-8")
    described = {
        "run": folder.name,
        "seed": 0,
        "points": [{"id": p.id, "label": p.label, "suite": "s", "trials": 1} for p in points],
    }
    (folder / RUN).write_text(json.dumps(described), encoding="utf-8")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_new_record_names_its_parent_and_the_raw_files_stay(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "store/r1", {"a": 100.0}, own={"per_joule": 1.0})
    before = digests(run)
    (made,) = write_records([run], combinations(["smog.per_joule=0.5"], [], registry), registry, tmp_path / "store", [])
    assert digests(run) == before
    new = load_record(made / ("a" * 12 + "-t000"))
    assert new.parent == f"r1/{'a' * 12}-t000"
    assert new.totals["smog_g"] == Amount.of(50.0, "g", Method.ESTIMATED, low=45.0, high=0.5 * (100.0 * 1.1))
    cost = new.units["token"].costs["smog_g"]
    assert isinstance(cost, Amount)
    assert (cost.value, cost.unit) == (5.0, "g/token")
    assert new.columns["quality"]["mean"] == Amount.exact(7.5, "1")
    assert new.impacts == ({"name": "smog", "options": {"per_joule": 0.5, "base": 0.0, "split": False}},)
    assert json.loads((made / RUN).read_text())["parent"] == "r1"
    assert not list((tmp_path / "store").glob(".*"))
    with pytest.raises(UsageError, match="recosted from r1"):
        reopen(made)


def test_a_new_record_refers_to_a_copy_of_the_parents_measurement(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0}, own={"per_joule": 1.0})
    (made,) = write_records([run], combinations(["smog.base=1"], [], registry), registry, tmp_path, [])
    (old,), (new,) = (list(trial_folders(folder)) for folder in (run, made))
    assert (new / MEASUREMENT).read_bytes() == (old / MEASUREMENT).read_bytes()
    assert not (new / MEASUREMENT).is_symlink()
    shutil.rmtree(run)
    assert load_record(new).parent == f"r1/{old.name}"


def test_a_record_of_before_that_stands_alone_can_be_costed_again(
    tmp_path: Path, registry: Registry, hold_measurement: Callable[[Path], None]
) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0}, own={"per_joule": 1.0})
    (trial,) = trial_folders(run)
    hold_measurement(trial)
    (trial / MEASUREMENT).unlink()
    (made,) = write_records([run], combinations(["smog.base=1"], [], registry), registry, tmp_path, [])
    assert load_record(made / trial.name).measurement == load_record(trial).measurement


def test_a_recosted_run_can_be_costed_again(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0}, own={"per_joule": 1.0})
    (first,) = write_records([run], combinations(["smog.per_joule=3"], [], registry), registry, tmp_path, [])
    (second,) = write_records([first], combinations(["smog.base=1"], [], registry), registry, tmp_path, [])
    total = load_record(next(second.glob("*-t000"))).totals["smog_g"]
    assert isinstance(total, Amount)
    assert total.value == 310.0


def test_a_meter_that_the_suite_did_not_have_is_added(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0})
    (made,) = write_records([run], combinations(["smog.per_joule=2"], [], registry), registry, tmp_path, [])
    total = load_record(next(made.glob("*-t000"))).totals["smog_g"]
    assert isinstance(total, Amount)
    assert total.value == 200.0


def test_a_series_interpolates_the_stored_cumulative_joules(tmp_path: Path, registry: Registry) -> None:
    """25 J in the first half, 75 J in the second at twice the price: 175, not the 150 of an even split."""
    run = make_run(tmp_path / "r1", {"a": 100.0})
    (made,) = write_records([run], combinations(["smog.split=true"], [], registry), registry, tmp_path, [])
    total = load_record(next(made.glob("*-t000"))).totals["smog_g"]
    assert isinstance(total, Amount)
    assert total.value == pytest.approx(175.0)


def test_the_trace_is_not_read_where_no_meter_looks_at_it(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0})
    next(run.glob("*-t000/energy.jsonl")).write_text("broken\nbroken\n", encoding="utf-8")
    write_records([run], combinations(["smog.base=1"], [], registry), registry, tmp_path, [])
    with pytest.raises(MeasurementError, match=r"energy\.jsonl"):
        write_records([run], combinations(["smog.split=true"], [], registry), registry, tmp_path, [])


def sweep(run: Path, registry: Registry, tmp_path: Path, form: str, *texts: str) -> tuple[str, list[str]]:
    output = tmp_path / f"table.{form}"
    told = write_table([run], combinations([], texts, registry), registry, form, output)
    return output.read_text(encoding="utf-8"), told


def test_a_sweep_has_one_row_per_record_and_combination(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0, "b": 50.0})
    before = digests(run)
    text, _ = sweep(run, registry, tmp_path, "csv", "smog.per_joule=1..3", "smog.base=0,7")
    table = list(csv.DictReader(io.StringIO(text)))
    assert len(table) == 2 * 3 * 2
    row = table[0]
    assert (row["point"], row["smog.per_joule"], row["smog.base"]) == ("a", "1", "0")
    assert float(row["smog_g/token"]) == 10.0
    assert float(row["smog_g.low"]) == 90.0
    assert row["smog_g.method"] == "estimated"
    assert row["flags"] == "smog: smoky"
    assert digests(run) == before


def test_json_and_markdown_hold_the_same_rows(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0})
    content = json.loads(sweep(run, registry, tmp_path, "json", "smog.per_joule=1,2")[0])
    values = [row["units"]["token"]["smog_g"]["value"] for row in content["rows"]]
    assert values == [10.0, 20.0]
    assert content["ranking"]
    text, told = sweep(run, registry, tmp_path, "md", "smog.per_joule=1,2")
    assert text.count("\n| a ") == 2
    assert "10 g (9 g to 11 g), estimated" in text
    assert any("lowest with smog.per_joule=1" in line for line in told)


def test_no_unit_achieved_is_undefined_with_its_reason(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0}, achieved=0.0)
    text, told = sweep(run, registry, tmp_path, "csv", "smog.per_joule=1,2")
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["smog_g/token"] == ""
    assert row["missing"].startswith("smog_g/token: no token")
    assert told == ["nothing to rank: no record has an impact under any combination"]


def test_the_order_of_two_points_flips_where_the_closed_form_says(tmp_path: Path, registry: Registry) -> None:
    """a: 100 J in 10 s, b: 50 J in 20 s, 7 g/s: 100x + 70 = 50x + 140 at x = 1.4 g/J."""
    run = make_run(tmp_path / "r1", {"a": 100.0, "b": 50.0}, own={"base": 7.0}, duration_s={"a": 10.0, "b": 20.0})
    _, told = sweep(run, registry, tmp_path, "csv", "smog.per_joule=1,2,3")
    (line,) = (line for line in told if "flips" in line)
    assert "a < b with smog.per_joule=1, and b < a with smog.per_joule=2" in line
    assert "they tie at smog.per_joule = 1.4" in line


def test_an_order_that_stays_is_said_to_stay(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0, "b": 50.0})
    _, told = sweep(run, registry, tmp_path, "csv", "smog.per_joule=1,2")
    assert any("the same in every combination: b < a" in line for line in told)
    assert not any("flips" in line for line in told)


def test_rows_and_ranking_work_without_a_table(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0})
    wanted = combinations([], ["smog.per_joule=1,2"], registry)
    columns = columns_of(points_of([run])[run], wanted, registry)
    ranking = Ranking(wanted, columns)
    found = list(rows([run], wanted, columns))
    for row in found:
        ranking.add(row)
    assert [row.factors["smogginess"] for row in found] == [1.0, 2.0]
    assert not any(isinstance(value, Unavailable | Undefined) for row in found for value in row.totals.values())
    assert "highest with smog.per_joule=2, 20 g/token" in ranking.lines()[0]


@pytest.mark.parametrize(
    ("fixed", "swept", "says"),
    [
        (["smgo.base=1"], [], "there is no meter 'smgo'.*did you mean 'smog'"),
        (["lamp.base=1"], [], "only impact meters are costed again"),
        (["smog.bass=1"], [], "there is no option smog.bass.*did you mean 'base'"),
        (["smog.base=x"], [], "smog.base: found 'x'"),
        (["smog.base"], [], "does not set an option"),
        (["smog=1"], [], "does not set an option"),
        (["smog.base="], [], "the value is missing"),
        (["smog.base=1,2"], [], "--sweep takes several"),
        (["smog.base=.nan"], [], "a finite number"),
        (["smog.base=[1"], [], "not valid YAML"),
        (["smog.base=1"], ["smog.base=1,2"], "set the same option"),
        ([], ["smog.base=1,1"], "listed twice"),
        ([], ["smog.base=1..100000"], "too long"),
        ([], ["smog.base=1..200", "smog.per_joule=1..200"], "40000 combinations"),
        ([], [], "nothing to change"),
    ],
)
def test_a_wrong_setting_is_a_usage_error_and_writes_nothing(
    tmp_path: Path, registry: Registry, fixed: list[str], swept: list[str], says: str
) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0})
    before = digests(tmp_path)
    with pytest.raises(UsageError, match=says):
        write_records([run], combinations(fixed, swept, registry), registry, tmp_path, [])
    assert digests(tmp_path) == before


def test_a_broken_record_leaves_no_part_of_a_result(tmp_path: Path, registry: Registry) -> None:
    run = make_run(tmp_path / "r1", {"a": 100.0, "b": 50.0})
    (run / ("b" * 12 + "-t000") / RECORD).write_text("{}", encoding="utf-8")
    before = digests(tmp_path)
    with pytest.raises(MeasurementError, match=r"record\.json"):
        write_records([run], combinations(["smog.base=1"], [], registry), registry, tmp_path / "new", [])
    with pytest.raises(MeasurementError, match=r"record\.json"):
        sweep(run, registry, tmp_path, "csv", "smog.base=1,2")
    assert digests(tmp_path) == before


def test_what_is_no_run_is_refused(tmp_path: Path, registry: Registry) -> None:
    wanted = combinations([], ["smog.base=1,2"], registry)
    for run in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="not a run folder"):
            write_table([run], wanted, registry, "csv", None)
    with pytest.raises(UsageError, match="is not a format"):
        write_table([tmp_path], wanted, registry, "xml", None)
    run = make_run(tmp_path / "r1", {"a": 100.0})
    with pytest.raises(UsageError, match="named twice"):
        points_of([run, run])


def test_settings_are_read_as_a_suite_reads_them() -> None:
    assert parse_set("fuel.grid=NO").values == ("NO",)
    assert parse_set("fuel.grid={country: USA, region: ohio}").values == ({"country": "USA", "region": "ohio"},)
    assert parse_set("fuel.host.gpus=8").path == ("host", "gpus")
    assert parse_sweep("scarf.month=11..12")[0].values == (11, 12)
    assert parse_sweep("x.y=3..1,9")[0].values == (3, 2, 1, 9)
    assert parse_sweep("fuel.grid=FRA,gcp/us-central1,400")[0].values == ("FRA", "gcp/us-central1", 400)
