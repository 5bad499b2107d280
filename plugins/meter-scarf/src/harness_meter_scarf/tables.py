"""Where the tables that this package carries lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parent / "data"
"""Folder of the tables that this package carries."""
