"""Files: the loader of Aqueduct, tables of basins, AWARE files, the commands; broken rows are named."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from harness_meter_scarf.commands.sites import details, listing
from harness_meter_scarf.place import aware, basins, generation, sites
from harness_meter_scarf.place.aqueduct import extract, parse_basins, written

from harness import csv_table
from harness.errors import UsageError
from harness.quantity import Unavailable

ANNUAL = "Aqueduct40_baseline_annual_y2023m07d05.csv"
MONTHLY = "Aqueduct40_baseline_monthly_y2023m07d05.csv"
FUTURE = "Aqueduct40_future_annual_y2023m07d05.csv"
ANNUAL_COLUMNS = "string_id,pfaf_id,gid_0,gid_1,name_0,name_1,bws_raw,bws_score,bws_cat"
ANNUAL_ROWS = (
    "171050-USA.1_1-1,171050,USA,USA.1_1,United States,Alpha,0.25,2.32,2",
    "171050-USA.2_1-1,171050,USA,USA.2_1,United States,Beta,0.25,2.32,2",
    "None-USA.2_1-1,-9999,USA,USA.2_1,United States,Beta,-9999,-9999,-9999",
    "171060-USA.2_1-1,171060.0,USA,USA.2_1,United States,Beta,9999,5,4",
    "171070-USA.2_1-1,171070,USA,USA.2_1,United States,Beta,1,5,-1",
)


def months(values: str) -> str:
    return ",".join([values] * 12)


MONTH_COLUMNS = "pfaf_id," + ",".join(f"bws_{m:02d}_raw,bws_{m:02d}_cat" for m in range(1, 13))


class Download:
    """Files with the columns of WRI's download and made-up numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.annual(*ANNUAL_ROWS)
        rows = [f"{code}," + months("0.1,1") for code in ("171050", "171060", "171070")]
        self.write(MONTHLY, MONTH_COLUMNS, *rows)
        names = [f"{s}{y}_ws_x_r" for s in ("bau", "opt", "pes") for y in (30, 50, 80)]
        rows = [f"{code},0.3,0.4,0.5,0.2,0.2,0.2,0.6,0.7,0.8" for code in ("171050", "171060", "171070")]
        self.write(FUTURE, "pfaf_id," + ",".join(names), *rows)

    def write(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def annual(self, *rows: str, columns: str = ANNUAL_COLUMNS) -> Path:
        return self.write(ANNUAL, columns, *rows)

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in (ANNUAL, MONTHLY, FUTURE)]


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return Download(tmp_path)


def test_basins_are_taken_out_with_their_codes_kept(download: Download) -> None:
    extracted = extract(download.files, ["171050", "171060", "171070"], ("bau", "pes"))
    assert extracted.values["171050"]["bws_raw"] == "0.25"
    assert extracted.values["171060"]["bws_raw"] == "9999"
    assert extracted.values["171070"]["bws_cat"] == "-1"
    assert extracted.values["171050"]["pes80_ws_x_r"] == "0.8"
    assert extracted.skipped[ANNUAL] == 1


def test_what_is_written_is_read_back(download: Download) -> None:
    chosen = parse_basins(["desert=171060,coast=171050", "dune=171070"])
    text = written(chosen, extract(download.files, chosen.values()), date(2026, 1, 31))
    out = download.write("basins.csv", text.rstrip("\n"))
    header = [line for line in text.splitlines() if line.startswith("#")]
    for wanted in ("CC BY 4.0", "10.46830/writn.23.00061", "2026-01-31", "de-duplicated", "sha256"):
        assert any(wanted in line for line in header), wanted
    loaded = basins.load(out)
    coast = loaded.find("coast")
    assert coast.baseline.raw == 0.25
    assert [cell.raw for cell in coast.months] == [0.1] * 12
    assert {year: cell.raw for year, cell in coast.years["bau"].items()} == {
        2019: 0.25,
        2030: 0.3,
        2050: 0.4,
        2080: 0.5,
    }
    assert "opt" in coast.years
    assert list(coast.years["opt"]) == [2019]
    assert loaded.find("171060").baseline.raw == 9999
    assert loaded.find("dune").baseline.category == -1
    assert "Kuzma" in coast.source
    assert coast.licence == "CC BY 4.0"
    assert not coast.simulated


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            (*ANNUAL_ROWS, "x,171050,USA,,,Gamma,0.26,2.4,2"),
            ANNUAL_COLUMNS,
            ":7: rows of basin 171050 differ",
        ),
        (("x,171050,USA,,,Gamma,much,2.4,2",), ANNUAL_COLUMNS, ":2: bws_raw is 'much'"),
        (("x,171050,USA,,,Gamma,-5,2.4,2",), ANNUAL_COLUMNS, ":2: bws_raw: -5 is not a stress ratio"),
        (("x,171050,USA,,,Gamma,nan,2.4,2",), ANNUAL_COLUMNS, ":2: bws_raw: nan is not a stress ratio"),
        (ANNUAL_ROWS, ANNUAL_COLUMNS.replace("bws_raw", "bws"), "bws_cat; found string_id"),
        (ANNUAL_ROWS[3:], ANNUAL_COLUMNS, "no row for basin 171050"),
    ],
)
def test_a_broken_download_is_named(download: Download, rows: tuple[str, ...], columns: str, message: str) -> None:
    path = download.annual(*rows, columns=columns)
    with pytest.raises(UsageError) as caught:
        extract(download.files, ["171050"])
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_file_of_another_name_is_refused(download: Download) -> None:
    other = download.write("aqueduct30.csv", "a")
    with pytest.raises(UsageError, match="not named like any of the tables"):
        extract([other], ["171050"])
    with pytest.raises(UsageError, match="annual table is missing"):
        extract(download.files[1:], ["171050"])


@pytest.mark.parametrize("text", ["dc1", "dc1=1710", "=171050", "dc1=171050,dc1=171060"])
def test_a_basin_is_asked_for_by_six_digits(text: str) -> None:
    with pytest.raises(UsageError, match="SITE=PFAF_ID"):
        parse_basins([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site,pfaf_id,bws_raw\ndc,171050,much\n", ":2: bws_raw is 'much'"),
        ("site,pfaf_id,bws_raw\ndc,171050,-1\n", ":2: bws_raw: -1 is not a stress ratio"),
        ("# a: b\nsite,pfaf_id,bws_raw\ndc,1710,0.1\n", ":3: pfaf_id is '1710'"),
        ("site,pfaf_id,bws_raw\ndc,,0.1\ndc,,0.2\n", ":3: site is 'dc'"),
        ("site,pfaf_id,bws_raw,bws_cat\ndc,,0.1,7\n", ":2: bws_cat is 7"),
        ("site,pfaf_id,bws_raw\ndc,,0.1,5\n", ":2: row has 4 fields"),
        ("site,pfaf_id,bws_raw,bau30_ws_x_r\ndc,,0.1,inf\n", ":2: bau30_ws_x_r is 'inf'"),
        ("site,pfaf_id,bws_score\ndc,,3.6\n", "scores or categories and no ratios"),
        ("site,pfaf_id\ndc,\n", "column bws_raw is missing"),
        ("site,pfaf_id,bws_raw,bws_raw\ndc,,1,1\n", "column bws_raw appears twice"),
        ('site,pfaf_id,bws_raw\n"dc,,1\n', "is not CSV"),
        ("", "is empty"),
    ],
)
def test_a_broken_table_of_basins_names_file_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "basins.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        basins.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_empty_cells_are_no_values(tmp_path: Path) -> None:
    path = tmp_path / "basins.csv"
    path.write_text("site,pfaf_id,bws_raw\ndc,,\n", encoding="utf-8")
    assert basins.load(path).find("dc").baseline.raw is None
    with pytest.raises(UsageError, match="did you mean 'dc'"):
        basins.load(path).find("dcc")


def test_a_table_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "basins.csv"
    path.write_text("site,pfaf_id,bws_raw\ndc,,0.1\n", encoding="utf-8")
    first = basins.load(path)
    assert basins.load(path) is first
    path.write_text("site,pfaf_id,bws_raw\ndc,,0.25\n", encoding="utf-8")
    assert basins.load(path).find("dc").baseline.raw == 0.25


def test_the_shipped_sites() -> None:
    known = sites.shipped()
    assert len(known) == 42
    assert known["azure-hyderabad"].wue_onsite is not None
    assert known["azure-hyderabad"].wue_onsite.range.value == 0
    assert known["azure-virginia"].ewif is None
    assert known["aws-ohio"].wue_onsite is not None
    assert known["aws-ohio"].wue_onsite.kind == "withdrawal"
    header = csv_table.read(sites.FILE).columns
    assert not [column for column in header if "aware" in column]
    for site in known.values():
        assert site.licence
        for factor in (site.pue, site.wue_onsite, site.ewif):
            assert factor is None or factor.source


def test_the_shipped_fuels_are_those_published() -> None:
    table = csv_table.read(generation.FILE)
    for row in table:
        rounded = float(row["ewif_gal_per_mwh"]) * generation.L_PER_KWH_OF_GAL_PER_MWH
        assert float(row["ewif_l_per_kwh"]) == pytest.approx(rounded, abs=5.1e-5)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("pue", "115", "pue: pue is 115"),
        ("pue", "1,15", "pue is '1,15'"),
        ("wue_onsite_l_per_kwh", "-1", "wue_onsite_l_per_kwh: value is -1"),
        ("wue_source", "", "wue_source is empty"),
        ("stress_category", "7", "stress_category is 7"),
        ("wue_kind", "used", "wue_kind is 'used'"),
        ("id", "", "id is ''"),
    ],
)
def test_a_broken_site_names_row_and_field(tmp_path: Path, column: str, value: str, message: str) -> None:
    table = csv_table.read(sites.FILE)
    row = {**dict(zip(table.columns, next(iter(table)).fields, strict=True)), column: value}
    path = tmp_path / "sites.csv"
    cells = (",".join(f'"{cell}"' for cell in line) for line in (table.columns, row.values()))
    path.write_text("\n".join(cells), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        sites.read(path)
    assert f"{path}:2: {message}" in str(caught.value)


def test_aware_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "aware.csv"
    path.write_text("# source: a test\nlocation,cf\nIRL,1.17\nARZ,99.5\nTXS,\n", encoding="utf-8")
    found = aware.of_file(path, "IRL")
    assert (found.value, found.source) == (1.17, "a test")
    with pytest.raises(UsageError, match="no AWARE factor for 'TXS'"):
        aware.of_file(path, "TXS")
    path.write_text("location,cf\nIRL,101\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"aware.csv:2: cf: .*101.*0.1 to 100"):
        aware.of_file(path, "IRL")


def test_aware_from_the_package_as_it_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edges"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('is never imported')", encoding="utf-8")
    info = tmp_path / "edges-1.5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edges\nVersion: 1.5.0\n", encoding="utf-8")
    exchanges = [
        {"supplier": {"matrix": "biosphere"}, "consumer": {"location": "IE"}, "value": 1.17},
        {"supplier": {"matrix": "technosphere"}, "consumer": {"location": "IE"}, "value": -1.17},
        {"consumer": {"location": "ES"}, "value": 30.0},
        {"consumer": {"location": "ES"}, "value": 35.5},
    ]
    (package / "data" / "AWARE 2.0_x.json").write_text(json.dumps({"exchanges": exchanges}), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = aware.of_package("IE", "AWARE 2.0_x.json")
    assert not isinstance(found, Unavailable)
    assert found.value == 1.17
    ambiguous = aware.of_package("ES", "AWARE 2.0_x.json")
    assert isinstance(ambiguous, Unavailable)
    assert "2 positive factors" in ambiguous.reason
    unknown = aware.of_package("IE", "AWARE 2.0_y.json")
    assert isinstance(unknown, Unavailable)
    assert "AWARE 2.0_x.json" in unknown.reason


def harness(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=60,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_harness_sites(tmp_path: Path) -> None:
    listed = harness("sites", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert len(rows) == 42
    ohio = next(row for row in rows if row["id"] == "aws-ohio")
    assert ohio["wue_onsite_l_per_kwh"]["kind"] == "withdrawal"
    assert ohio["ewif_l_per_kwh"]["confidence"] == "H"
    unknown = harness("sites", "aws-ohoi", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "did you mean 'aws-ohio'" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_the_list_names_every_source() -> None:
    known = list(sites.shipped().values())
    text = "\n".join(listing(known))
    for site in known:
        assert site.id in text
        for factor in (site.pue, site.wue_onsite, site.ewif):
            assert factor is None or factor.source in text
    assert "not known" in "\n".join(details(sites.find("azure-indonesia")))


def test_harness_scarf_aqueduct(download: Download) -> None:
    done = harness(
        "scarf-aqueduct",
        *map(str, download.files),
        "--basins",
        "dc=171050",
        "--out",
        "out.csv",
        cwd=download.folder,
    )
    assert done.returncode == 0, done.stderr
    assert basins.load(download.folder / "out.csv").find("dc").baseline.raw == 0.25
    wrong = harness("scarf-aqueduct", ANNUAL, "--basins", "dc=999999", "--out", "no.csv", cwd=download.folder)
    assert wrong.returncode == 2
    assert "no row for basin 999999" in wrong.stderr
    assert not (download.folder / "no.csv").exists()
