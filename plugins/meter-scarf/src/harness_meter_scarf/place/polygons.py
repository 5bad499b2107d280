"""The basin that coordinates lie in, from polygons that the user has fetched: GeoJSON, GeoPackage or shapefile.

WRI offers Aqueduct 4.0 as a geodatabase, which `ogr2ogr basins.gpkg Aq40.gdb` turns into a GeoPackage; HydroBASINS
offers its level 6, whose codes Aqueduct uses, as a shapefile. Coordinates are those of WGS 84, in degrees.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from harness.errors import UsageError
from harness_meter_scarf.place.basins import PFAF

Ring: TypeAlias = Sequence[tuple[float, float]]
"""Longitude and latitude of each corner."""
_FIELDS: Final = ("pfaf_id", "pfaf_6", "pfaf_06")
_ACCEPTED: Final = "GeoJSON, a GeoPackage (.gpkg) or a shapefile (.shp) with the field pfaf_id"
_ENVELOPES: Final = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
"""Bytes of a GeoPackage's envelope, by its code."""


def basin_at(path: Path, latitude: float, longitude: float) -> str:
    """The six-digit `pfaf_id` of the polygon that a place lies in.

    Args:
        path: the file of polygons.
        latitude: in degrees, -90 to 90.
        longitude: in degrees, -180 to 180.

    Raises:
        UsageError: coordinates out of range, a file of another kind or without codes, a place in no basin or, on a
            border, in two.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise UsageError(f"{latitude},{longitude} is no place", accepted="LAT,LON in degrees, such as 33.45,-112.07")
    codes: set[str] = set()
    try:
        for code, rings in _polygons(path, longitude, latitude):
            if code not in codes and PFAF.fullmatch(code) and inside(rings, longitude, latitude):
                codes.add(code)
    except (OSError, ValueError, struct.error, sqlite3.Error, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), accepted=_ACCEPTED) from error
    if len(codes) != 1:
        found = f"lies in {len(codes)} basins: {', '.join(sorted(codes))}" if codes else "lies in no basin"
        raise UsageError(
            f"{latitude:g},{longitude:g} {found}",
            where=str(path),
            accepted="a place on land, off the borders of basins",
        )
    return codes.pop()


def inside(rings: Sequence[Ring], longitude: float, latitude: float) -> bool:
    """Whether a place lies within rings, by the even-odd rule: a ring inside another is a hole.

    Examples:
        >>> square = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)]
        >>> hole = [(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0)]
        >>> inside([square, hole], 0.5, 0.5), inside([square, hole], 2.0, 2.0)
        (True, False)
    """
    crossed = False
    for ring in rings:
        for place, (x, y) in enumerate(ring):
            before_x, before_y = ring[place - 1]
            if (y > latitude) != (before_y > latitude):
                crossed ^= longitude < (before_x - x) * (latitude - y) / (before_y - y) + x
    return crossed


def _polygons(path: Path, longitude: float, latitude: float) -> Iterator[tuple[str, Sequence[Ring]]]:
    """Code and rings of each shape that may hold the place."""
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(b"SQLite format 3\x00"):
        return _of_geopackage(path, longitude, latitude)
    if head[:4] == struct.pack(">i", 9994):
        return _of_shapefile(path, longitude, latitude)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _of_geojson(path)
    raise UsageError("is no known kind of file of polygons", where=str(path), accepted=_ACCEPTED)


def _code(properties: dict[str, Any]) -> str:
    """The code of a shape's fields, also from `171050.0`; raises UsageError where there is no such field."""
    named = {str(name).lower(): value for name, value in properties.items()}
    for name in _FIELDS:
        if name in named:
            return str(named[name] if named[name] is not None else "").strip().removesuffix(".0")
    raise UsageError("has no field pfaf_id", accepted=f"pfaf_id; found {', '.join(map(str, properties)) or 'none'}")


# GeoJSON


def _of_geojson(path: Path) -> Iterator[tuple[str, Sequence[Ring]]]:
    """Read line by line where each shape has a line of its own, as large files are written."""
    with path.open(encoding="utf-8-sig") as lines:
        found = False
        for line in lines:
            text = line.strip().rstrip(",")
            if text.startswith("{") and text.endswith("}") and '"Feature"' in text and '"geometry"' in text:
                found = True
                yield from _of_feature(json.loads(text))
    if not found:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        for feature in content["features"]:
            yield from _of_feature(feature)


def _of_feature(feature: dict[str, Any]) -> Iterator[tuple[str, Sequence[Ring]]]:
    if feature.get("type") == "FeatureCollection":
        for each in feature["features"]:
            yield from _of_feature(each)
        return
    geometry = feature.get("geometry")
    if not geometry:
        return
    code = _code(feature.get("properties") or {})
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    if geometry["type"] not in {"Polygon", "MultiPolygon"}:
        raise UsageError(f"holds a {geometry['type']}", accepted="polygons")
    for rings in parts:
        yield code, [[(float(corner[0]), float(corner[1])) for corner in ring] for ring in rings]


# GeoPackage: a database whose shapes are well-known binary behind a short head


def _of_geopackage(path: Path, longitude: float, latitude: float) -> Iterator[tuple[str, Sequence[Ring]]]:
    with sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        layers = database.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns").fetchall()
        for table, column, reference in layers:
            if reference != 4326:
                raise UsageError(f"layer {table} is in EPSG:{reference}", where=str(path), accepted="EPSG:4326, WGS 84")
            for row in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name out of the file itself
                blob = row[column]
                if blob is not None and _may_hold(blob, longitude, latitude):
                    code = _code({name: row[name] for name in row.keys() if name != column})  # noqa: SIM118 - of sqlite3
                    start = 8 + _ENVELOPES[blob[3] >> 1 & 7]
                    for rings in _well_known(blob, start)[0]:
                        yield code, rings


def _may_hold(blob: bytes, longitude: float, latitude: float) -> bool:
    """Whether a shape's envelope holds the place; true where it has none."""
    if not blob[3] >> 1 & 7:
        return True
    west, east, south, north = struct.unpack_from("<4d" if blob[3] & 1 else ">4d", blob, 8)
    return bool(west <= longitude <= east and south <= latitude <= north)


def _well_known(blob: bytes, at: int) -> tuple[list[list[Ring]], int]:
    """Polygons of well-known binary from an offset on, and the offset behind them."""
    order = "<" if blob[at] else ">"
    kind = struct.unpack_from(f"{order}I", blob, at + 1)[0]
    has_z, has_m = bool(kind & 0x80000000), bool(kind & 0x40000000)
    kind &= 0x0FFFFFFF
    width = 2 + (has_z or kind // 1000 in {1, 3}) + (has_m or kind // 1000 in {2, 3})
    count = struct.unpack_from(f"{order}I", blob, at + 5)[0]
    at += 9
    if kind % 1000 == 6:
        parts: list[list[Ring]] = []
        for _ in range(count):
            inner, at = _well_known(blob, at)
            parts += inner
        return parts, at
    if kind % 1000 != 3:
        raise UsageError(f"holds shapes of kind {kind}", accepted="polygons")
    rings: list[Ring] = []
    for _ in range(count):
        corners = struct.unpack_from(f"{order}I", blob, at)[0]
        numbers = struct.unpack_from(f"{order}{corners * width}d", blob, at + 4)
        rings.append(list(zip(numbers[0::width], numbers[1::width], strict=True)))
        at += 4 + 8 * corners * width
    return [rings], at


# Shapefile: shapes in .shp, their fields in the .dbf of the same name


def _of_shapefile(path: Path, longitude: float, latitude: float) -> Iterator[tuple[str, Sequence[Ring]]]:
    table = path.with_suffix(".dbf")
    if not table.is_file():
        raise UsageError(f"lacks its fields: there is no {table.name} beside it", where=str(path), accepted=_ACCEPTED)
    fields = _of_dbase(table)
    with path.open("rb") as stream:
        stream.seek(100)
        while head := stream.read(8):
            content = stream.read(2 * struct.unpack(">2i", head)[1])
            properties = next(fields, {})
            if struct.unpack_from("<i", content)[0] not in {5, 15, 25}:
                continue
            west, south, east, north = struct.unpack_from("<4d", content, 4)
            if not (west <= longitude <= east and south <= latitude <= north):
                continue
            parts, points = struct.unpack_from("<2i", content, 36)
            starts = [*struct.unpack_from(f"<{parts}i", content, 44), points]
            numbers = struct.unpack_from(f"<{2 * points}d", content, 44 + 4 * parts)
            corners = list(zip(numbers[0::2], numbers[1::2], strict=True))
            rings = [corners[begin:end] for begin, end in itertools.pairwise(starts)]
            yield _code(properties), rings


def _of_dbase(path: Path) -> Iterator[dict[str, str]]:
    with path.open("rb") as stream:
        count, head, width = struct.unpack("<4xIHH20x", stream.read(32))
        columns = []
        for _ in range((head - 33) // 32):
            entry = stream.read(32)
            columns.append((entry[:11].split(b"\x00")[0].decode("ascii", "replace"), entry[16]))
        stream.seek(head)
        for _ in range(count):
            row, at, found = stream.read(width).decode("latin-1"), 1, {}
            for name, size in columns:
                found[name] = row[at : at + size].strip()
                at += size
            yield found
