"""Grid intensities: codecarbon's tables against codecarbon itself, refusals, and the series (V9)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness_meter_fuel import codecarbon_tables, series
from harness_meter_fuel.grid import resolve
from harness_meter_fuel.options import FuelOptions, GridOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import MeasurementError, UsageError
from harness.impact import EnergyTrace
from harness.quantity import Unavailable

HAS_TABLES = importlib.util.find_spec("codecarbon") is not None
needs_tables = pytest.mark.skipif(not HAS_TABLES, reason="codecarbon is not installed")

PLACES = [
    ("USA", None),
    ("FRA", None),
    ("USA", "indiana"),
    ("USA", "new york"),
    ("CAN", "ontario"),
    ("CAN", "alberta"),
    ("CHN", "beijing"),
    ("SWE", "SE3"),
]
PEER = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from codecarbon.core.emissions import Emissions
from codecarbon.core.units import Energy
from codecarbon.external.geography import CloudMetadata, GeoMetadata
from codecarbon.input import DataSource
peer = Emissions(DataSource())
one = Energy.from_energy(kWh=1)
places = json.loads(sys.argv[1])
found = [
    peer.get_private_infra_emissions(one, GeoMetadata(country_iso_code=c, country_name=c, region=r)) * 1000
    for c, r in places
]
found.append(peer.get_cloud_emissions(one, CloudMetadata(provider="gcp", region="us-central1")) * 1000)
print(json.dumps(found))
"""


def place(country: str, region: str | None) -> codecarbon_tables.Row:
    return codecarbon_tables.country(country) if region is None else codecarbon_tables.region(country, region)


@needs_tables
def test_tables_agree_with_codecarbons_own_functions() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEER, json.dumps(PLACES)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    peer = json.loads(done.stdout.splitlines()[-1])
    ours = [place(*each).g_per_kwh for each in PLACES]
    ours.append(codecarbon_tables.cloud("gcp", "us-central1").g_per_kwh)
    assert ours == pytest.approx(peer, rel=1e-5)


@needs_tables
@pytest.mark.parametrize(
    ("text", "g_per_kwh", "publisher"),
    [
        ("USA", 369.473, "Our World in Data"),
        ("fra", 56.039, "Our World in Data"),
        ("USA/Indiana", 664.740525, "eGRID2023"),
        ("USA/in", 664.740525, "eGRID2023"),
        ("gcp/us-central1", 430, "Google Cloud"),
    ],
)
def test_known_places_name_their_publisher(text: str, g_per_kwh: float, publisher: str) -> None:
    grid = FuelOptions.model_validate({"grid": text}).intensity()
    assert not isinstance(grid, Unavailable)
    assert grid.factor.value == pytest.approx(g_per_kwh, rel=1e-8)
    assert publisher in grid.factor.source
    assert "average, location-based" in grid.factor.source
    assert grid.factor.licence
    assert grid.factor.id.startswith("codecarbon-")


@needs_tables
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("UAS", "did you mean"),
        ("USA/indianna", "did you mean 'indiana'"),
        ("USA/usa", "no grid intensity for region"),
        ("FRA/paris", "no regions of FRA"),
        ("aws/us-east-1", "accepted: gcp/REGION"),
        ("azure/eastus", "accepted: gcp/REGION"),
        ("gcp/us-central9", "did you mean 'us-central1'"),
    ],
)
def test_unknown_places_are_refused_and_never_get_the_mean_of_the_world(text: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate({"grid": text})


@needs_tables
@pytest.mark.parametrize(
    ("zone", "same", "note"),
    [
        ("CA-ON", "CAN/ontario", ""),
        ("ca-qc", "CAN/quebec", ""),
        ("US-CA", "USA/california", ""),
        ("US-CAL-CISO", "USA/california", "mean of its state california"),
        ("US-TEX-ERCO", "USA/texas", "mean of its state texas"),
        ("SE-SE3", "SWE/SE3", ""),
        ("CN-BJ", "CHN/beijing", ""),
        ("DE-LU", "DEU", "mean of DEU"),
    ],
)
def test_zones_as_electricity_maps_names_them_are_found(zone: str, same: str, note: str) -> None:
    found = FuelOptions.model_validate({"grid": zone}).intensity()
    plain = FuelOptions.model_validate({"grid": same}).intensity()
    assert not isinstance(found, Unavailable)
    assert not isinstance(plain, Unavailable)
    assert found.factor == plain.factor
    assert set(found.flags) - set(plain.flags) == {flag for flag in found.flags if note and note in flag}
    assert bool(note) == (found.flags != plain.flags)


@needs_tables
@pytest.mark.parametrize("zone", ["US-NW-BPAT", "US-XX", "CA-XX", "DK-DK1", "IT-NO", "SE-SE9"])
def test_a_zone_that_the_tables_lack_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match=r"no grid intensity|no regions"):
        FuelOptions.model_validate({"grid": zone})


@needs_tables
@pytest.mark.parametrize(
    ("text", "year"),
    [("USA", "2023"), ("AFG", "2022"), ("USA/texas", "2023"), ("CAN/ontario", "2023"), ("SE-SE3", "2025")],
)
def test_the_year_stands_in_the_source(text: str, year: str) -> None:
    grid = FuelOptions.model_validate({"grid": text}).intensity()
    assert not isinstance(grid, Unavailable)
    assert year in grid.factor.source
    assert grid.factor.date == year


@needs_tables
def test_a_table_without_a_year_says_so() -> None:
    assert "year not stated" in codecarbon_tables.cloud("gcp", "us-central1").source


@needs_tables
def test_sources_that_the_table_counts_as_0_are_named_and_bounded() -> None:
    grid = FuelOptions.model_validate({"grid": "CA-QC"}).intensity()
    assert not isinstance(grid, Unavailable)
    fossil = (0.3 * 816.6885263 + 0.2 * 743.8415916) / 100.01
    others = (0.7 * 230 + 0.01 * 48 + 6.7 * 26 + 92.1 * 26) / 100.01
    assert grid.factor.value == pytest.approx(fossil)
    assert (grid.low, grid.high) == pytest.approx((fossil, fossil + others))
    assert any("count as 0" in flag for flag in grid.flags)
    nothing = FuelOptions.model_validate({"grid": "CAF"}).intensity()
    assert not isinstance(nothing, Unavailable)
    assert any("grid intensity of 0" in flag for flag in nothing.flags)


def test_the_newest_year_of_a_table_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for year, grams in (("2016", 1), ("2023", 2), ("2024", 3)):
        folder = tmp_path / "private_infra" / year
        folder.mkdir(parents=True)
        if year != "2024":
            (folder / "usa_emissions.json").write_text(json.dumps({"ohio": {"emissions": grams, "regionCode": "OH"}}))
    monkeypatch.setattr(codecarbon_tables, "_folder", lambda: tmp_path)
    codecarbon_tables._json.cache_clear()
    found = codecarbon_tables._usa("USA")["ohio"]
    codecarbon_tables._json.cache_clear()
    assert (found.year, found.g_per_kwh) == ("2023", pytest.approx(2 * 0.45359237))


@needs_tables
def test_the_mean_of_the_country_only_where_it_is_asked_for_and_then_flagged() -> None:
    grid = resolve(GridOptions(country="USA", region="atlantis", fallback="country"))
    assert not isinstance(grid, Unavailable)
    assert grid.factor.value == pytest.approx(369.473)
    assert any("atlantis" in flag for flag in grid.flags)


@needs_tables
def test_reading_the_tables_imports_no_codecarbon() -> None:
    code = (
        "import sys; from harness_meter_fuel.codecarbon_tables import region, cloud; region('USA', 'ohio');"
        "cloud('gcp', 'us-central1'); assert not {'codecarbon', 'pandas'} & set(sys.modules)"
    )
    source = Path(codecarbon_tables.__file__).parents[1]
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": f"{source}:{root}"}, cwd=root
    )


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> object:
    def absent(name: str) -> None:
        assert name == "codecarbon"

    cached = (codecarbon_tables._folder, codecarbon_tables._json, codecarbon_tables._cloud_rows)
    for each in cached:
        each.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    yield
    for each in cached:
        each.cache_clear()


@pytest.mark.parametrize("text", ["USA", "USA/indiana", "gcp/us-central1"])
def test_without_the_tables_a_place_is_unavailable_and_names_the_extra(no_tables: object, text: str) -> None:
    found = FuelOptions.model_validate({"grid": text}).intensity()
    assert isinstance(found, Unavailable)
    assert "joule-harness-meter-fuel[grid]" in found.reason


def test_without_the_tables_a_number_works(no_tables: object) -> None:
    grid = FuelOptions.model_validate({"grid": 24}).intensity()
    assert not isinstance(grid, Unavailable)
    assert grid.factor.value == 24
    assert "no source given" in grid.factor.source


@pytest.mark.parametrize("broken", ["[]", "{", '{"USA": {"year": 2023}}', '{"USA": {"carbon_intensity": -1}}'])
def test_a_table_of_another_form_is_unavailable(
    no_tables: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    (tmp_path / "private_infra").mkdir()
    (tmp_path / "private_infra" / "global_energy_mix.json").write_text(broken)
    monkeypatch.setattr(codecarbon_tables, "_folder", lambda: tmp_path)
    assert isinstance(resolve(GridOptions(country="USA")), Unavailable)


HEADER = "start_utc,end_utc,g_per_kwh\n"
HOURS = "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,400\n2026-01-01T01:00:00Z,2026-01-01T02:00:00Z,600\n"
START = 1_767_225_600.0


def written(folder: Path, text: str) -> Path:
    path = folder / "series.csv"
    path.write_text(text)
    return path


def test_v9_a_series_weighs_by_energy(tmp_path: Path) -> None:
    read = series.read(written(tmp_path, HEADER + HOURS))
    trace = EnergyTrace(utc_s=(START, START + 3600, START + 7200), joules={"n0/gpu:a": (0.0, 0.5 * 3.6e6, 2.0 * 3.6e6)})
    found = read.intensity(START, 7200, trace, "n0/gpu:a")
    assert 2.0 * found.g_per_kwh == pytest.approx(1100, rel=1e-9)
    assert not found.uniform
    uniform = read.intensity(START, 7200, EnergyTrace(), "n0/gpu:a")
    assert uniform.uniform
    assert (uniform.low, uniform.g_per_kwh, uniform.high) == pytest.approx((400, 500, 600))


def test_intervals_are_half_open(tmp_path: Path) -> None:
    read = series.read(written(tmp_path, HEADER + HOURS))
    assert read.intensity(START + 3600, 60, EnergyTrace(), "x").g_per_kwh == 600
    assert not read.intensity(START + 3600, 60, EnergyTrace(), "x").uniform
    assert read.intensity(START, 3600, EnergyTrace(), "x").g_per_kwh == 400


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 1000), min_size=4, max_size=12), st.floats(0.05, 0.95))
def test_splitting_a_window_conserves_carbon(powers: list[float], at: float) -> None:
    count = len(powers)
    intervals = tuple(series.Interval(START + k, START + k + 1, 100.0 * (k + 1)) for k in range(count))
    read = series.Series(intervals, "")
    joules = [0.0]
    for power in powers:
        joules.append(joules[-1] + power)
    trace = EnergyTrace(utc_s=tuple(START + k for k in range(count + 1)), joules={"s": tuple(joules)})
    expected = sum(power * 100.0 * (k + 1) for k, power in enumerate(powers))
    cut = at * count
    spent = series._interpolated(START + cut, trace.utc_s, trace.joules["s"])
    first = read.intensity(START, cut, trace, "s").g_per_kwh * spent
    second = read.intensity(START + cut, count - cut, trace, "s").g_per_kwh * (joules[-1] - spent)
    assert first + second == pytest.approx(expected, rel=1e-6)
    assert read.intensity(START, count, trace, "s").g_per_kwh * joules[-1] == pytest.approx(expected, rel=1e-9)


def test_a_trace_that_misses_much_of_the_window_is_not_used(tmp_path: Path) -> None:
    read = series.read(written(tmp_path, HEADER + HOURS))
    late = EnergyTrace(utc_s=(START + 3000, START + 7200), joules={"s": (0.0, 1.0)})
    assert read.intensity(START, 7200, late, "s").uniform
    backwards = EnergyTrace(utc_s=(START, START + 3600, START + 7200), joules={"s": (0.0, 2.0, 1.0)})
    assert read.intensity(START, 7200, backwards, "s").uniform


@pytest.mark.parametrize(("start", "duration"), [(-1.0, 10.0), (7190.0, 20.0), (9000.0, 1.0)])
def test_a_window_outside_the_series_is_refused(tmp_path: Path, start: float, duration: float) -> None:
    read = series.read(written(tmp_path, HEADER + HOURS))
    with pytest.raises(MeasurementError, match=r"gap|uncovered"):
        read.intensity(START + start, duration, EnergyTrace(), "s")


def test_a_gap_is_refused_inside_the_window_only(tmp_path: Path) -> None:
    later = "2026-01-01T03:00:00Z,2026-01-01T04:00:00Z,300\n"
    read = series.read(written(tmp_path, HEADER + HOURS + later))
    assert read.intensity(START, 60, EnergyTrace(), "s").g_per_kwh == 400
    with pytest.raises(MeasurementError, match="gap of 3600 s"):
        read.intensity(START + 7000, 5000, EnergyTrace(), "s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "start_utc, end_utc, g_per_kwh"),
        (HEADER, "no interval"),
        (HEADER + "2026-01-01T00:00:00,2026-01-01T01:00:00Z,1\n", "not a UTC time"),
        (HEADER + "yesterday,2026-01-01T01:00:00Z,1\n", ":2: 'yesterday'"),
        (HEADER + "2026-01-01T01:00:00Z,2026-01-01T01:00:00Z,1\n", "at or before its start"),
        (HEADER + HOURS + "2026-01-01T01:30:00Z,2026-01-01T03:00:00Z,1\n", "overlaps"),
        (HEADER + "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,-1\n", "not an intensity"),
        (HEADER + "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,nan\n", "not an intensity"),
        (HEADER + "2026-01-01T00:00:00Z\n", "row has 1 fields"),
        (HEADER + "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,103,42\n", "row has 4 fields"),
    ],
)
def test_a_malformed_series_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=says):
        series.read(path)
    with pytest.raises(ValidationError, match=says):
        FuelOptions.model_validate({"grid": {"series": str(path), "source": "grid operator, 2026"}})


def test_a_series_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        series.read(tmp_path / "none.csv")


@pytest.mark.skipif(importlib.util.find_spec("pycountry") is None, reason="pycountry comes with codecarbon")
def test_two_letter_codes_name_the_same_row() -> None:
    assert codecarbon_tables.country("fr") == codecarbon_tables.country("FRA")
    assert codecarbon_tables.region("US", "indiana") == codecarbon_tables.region("USA", "indiana")
    with pytest.raises(UsageError, match="no grid intensity for country 'XX'"):
        codecarbon_tables.country("XX")
