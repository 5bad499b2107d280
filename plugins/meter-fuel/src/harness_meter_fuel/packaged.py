"""The tables that this package carries, read with the one CSV reader."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness import csv_table
from harness.csv_table import CsvTable

DATA: Final = Path(__file__).parent / "data"
"""Folder of the tables."""


def packaged(name: str) -> CsvTable:
    """A table of `data/`, by its name without the ending."""
    return csv_table.read(DATA / f"{name}.csv", f"{name}.csv")
