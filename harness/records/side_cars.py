"""The rows beside a measurement: on the disk before it, and as long afterwards as they were then."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from harness.errors import MeasurementError
from harness.records.record import Measurement


def sizes(streams: Iterable[IO[str]]) -> dict[str, int]:
    """Name -> bytes of the side-cars, after everything written to them is on the disk.

    The measurement is written after this: one that can be read never speaks of rows that a power loss took.
    """
    found = {}
    for stream in streams:
        stream.flush()
        os.fsync(stream.fileno())
        found[Path(stream.name).name] = os.fstat(stream.fileno()).st_size
    return found


def check(folder: Path, measurement: Measurement) -> None:
    """Raises MeasurementError where a side-car is not as long as it was when the measurement was written."""
    for name, size in measurement.side_cars.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found != size:
            raise MeasurementError(f"holds {found} bytes where the trial wrote {size}", where=str(path))
