"""The basin of coordinates: three formats of polygons, holes, borders, and what is refused."""

import json
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness_meter_scarf.commands.aqueduct import placed
from harness_meter_scarf.place.polygons import basin_at, inside
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError

Corner = tuple[float, float]
WEST = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0)]
HOLE = [(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0), (1.0, 1.0)]
EAST = [(4.0, 0.0), (8.0, 0.0), (8.0, 4.0), (4.0, 4.0), (4.0, 0.0)]
SEA = [(8.0, 0.0), (9.0, 0.0), (9.0, 4.0), (8.0, 4.0), (8.0, 0.0)]
SHAPES: list[tuple[object, list[list[Corner]]]] = [
    (171050, [WEST, HOLE]),
    (171060.0, [EAST]),
    (-9999, [SEA]),
    (171060, [EAST]),
]


def geojson(folder: Path, *, lines: bool = True) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"pfaf_id": code},
            "geometry": {"type": "MultiPolygon", "coordinates": [rings]},
        }
        for code, rings in SHAPES
    ]
    path = folder / "basins.geojson"
    if lines:
        rows = ",\n".join(json.dumps(each) for each in features)
        path.write_text(f'{{\n"type": "FeatureCollection",\n"features": [\n{rows}\n]\n}}\n', encoding="utf-8")
    else:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=1), encoding="utf-8")
    return path


def one_line(folder: Path) -> Path:
    path = geojson(folder, lines=False)
    path.write_text(json.dumps(json.loads(path.read_text())), encoding="utf-8")
    return path


def pretty(folder: Path) -> Path:
    return geojson(folder, lines=False)


def geopackage(folder: Path, reference: int = 4326) -> Path:
    """As OGC 12-128 has it: `GP`, version, flags (envelope of 32 bytes, little end first), reference, envelope, WKB."""
    path = folder / "basins.gpkg"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id)")
        database.execute("INSERT INTO gpkg_geometry_columns VALUES ('basins', 'geom', ?)", (reference,))
        database.execute("CREATE TABLE basins (fid INTEGER, geom BLOB, PFAF_ID)")
        for fid, (code, rings) in enumerate(SHAPES):
            x, y = zip(*rings[0], strict=True)
            head = b"GP\x00\x03" + struct.pack("<i4d", reference, min(x), max(x), min(y), max(y))
            polygon = struct.pack("<BII", 1, 3, len(rings)) + b"".join(ring_bytes(ring) for ring in rings)
            blob = head + struct.pack("<BII", 1, 6, 1) + polygon
            database.execute("INSERT INTO basins VALUES (?, ?, ?)", (fid, blob, code))
    database.close()
    return path


def ring_bytes(ring: Sequence[Corner]) -> bytes:
    return struct.pack("<I", len(ring)) + b"".join(struct.pack("<2d", *corner) for corner in ring)


def shapefile(folder: Path) -> Path:
    """As ESRI's description has it: a head of 100 bytes, then number and length of each record, big end first."""
    path, records, rows = folder / "basins.shp", b"", b""
    for number, (code, rings) in enumerate(SHAPES, start=1):
        corners = [corner for ring in rings for corner in ring]
        x, y = zip(*corners, strict=True)
        starts = [sum(len(ring) for ring in rings[:place]) for place in range(len(rings))]
        content = struct.pack("<i4d2i", 5, min(x), min(y), max(x), max(y), len(rings), len(corners))
        content += struct.pack(f"<{len(rings)}i", *starts) + b"".join(struct.pack("<2d", *corner) for corner in corners)
        records += struct.pack(">2i", number, len(content) // 2) + content
        rows += b" " + f"{number:>4}{code:>12}".encode()
    path.write_bytes(struct.pack(">i", 9994).ljust(100, b"\x00") + records)
    columns = [struct.pack("<11sc4xB15x", name, b"N", size) for name, size in ((b"HYBAS_ID", 4), (b"PFAF_ID", 12))]
    head = struct.pack("<4BIHH20x", 3, 124, 1, 1, len(SHAPES), 33 + 32 * len(columns), 17)
    path.with_suffix(".dbf").write_bytes(head + b"".join(columns) + b"\r" + rows)
    return path


@pytest.mark.parametrize("write", [geojson, one_line, pretty, geopackage, shapefile])
def test_a_basin_is_found_in_each_format(tmp_path: Path, write: object) -> None:
    assert callable(write)
    path = write(tmp_path)
    assert basin_at(path, latitude=2.0, longitude=0.5) == "171050"
    assert basin_at(path, latitude=3.5, longitude=7.0) == "171060"
    for latitude, longitude in ((2.0, 2.0), (2.0, 8.5), (50.0, 10.0)):
        with pytest.raises(UsageError, match="lies in no basin"):
            basin_at(path, latitude, longitude)


@given(st.floats(-1, 9), st.floats(-1, 5))
def test_the_even_odd_rule_is_that_of_the_squares(longitude: float, latitude: float) -> None:
    def within(corners: Sequence[Corner]) -> bool:
        (west, south), (east, north) = corners[0], corners[2]
        return west <= longitude < east and south <= latitude < north

    assert inside([WEST, HOLE], longitude, latitude) == (within(WEST) != within(HOLE))
    assert inside([EAST], longitude, latitude) == within(EAST)


def test_overlapping_basins_are_named(tmp_path: Path) -> None:
    path = geojson(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    moved = [line.replace("-9999", "171070").replace("[8.0, ", "[7.0, ") if "-9999" in line else line for line in lines]
    path.write_text("\n".join(moved), encoding="utf-8")
    with pytest.raises(UsageError, match="lies in 2 basins: 171060, 171070"):
        basin_at(path, 2.0, 7.5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no known kind"),
        (b"pfaf_id,geometry\n", "is no known kind of file of polygons; accepted: GeoJSON, a GeoPackage"),
        (b"{}", "cannot be read"),
        (
            b'{"features": [{"geometry": {"type": "Point", "coordinates": []}, "properties": {"pfaf_id": 1}}]}',
            "a Point",
        ),
        (b'{"features": [{"geometry": {"type": "Polygon"}, "properties": {"id": 1}}]}', "no field pfaf_id.*found id"),
        (b"SQLite format 3\x00" + b"\x00" * 100, "cannot be read"),
        (struct.pack(">i", 9994), "there is no file.dbf beside it"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        basin_at(path, 1.0, 1.0)
    with pytest.raises(UsageError, match="cannot be read"):
        basin_at(tmp_path / "none", 1.0, 1.0)


def test_other_references_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layer basins is in EPSG:3857; accepted: EPSG:4326"):
        basin_at(geopackage(tmp_path, 3857), 1.0, 1.0)
    for latitude, longitude in ((91.0, 0.0), (0.0, 181.0), (float("nan"), 0.0)):
        with pytest.raises(UsageError, match="is no place"):
            basin_at(tmp_path / "none", latitude, longitude)


def test_sites_by_coordinates(tmp_path: Path) -> None:
    path = geojson(tmp_path)
    assert placed(["dc1=2,0.5", "dc2 = 1.0, 5.0"], path) == {"dc1": "171050", "dc2": "171060"}
    for texts in (["dc1"], ["=1,2"], ["dc1=north"], ["dc1=1,2,3"], ["dc1=2,0.5", "dc1=2,0.5"]):
        with pytest.raises(UsageError, match="SITE=LAT,LON"):
            placed(texts, path)
    with pytest.raises(UsageError, match="go together"):
        placed(["dc1=2,0.5"], None)
    assert placed([], None) == {}
