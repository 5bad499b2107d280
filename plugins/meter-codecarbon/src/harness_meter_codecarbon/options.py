"""What a suite may write under `codecarbon:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.options import Options

_Watts = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CodecarbonOptions(Options):
    """Options of meter `codecarbon`; without any, codecarbon decides what it reads and what it estimates.

    Attributes:
        cpu_watts: declared power of all processors at full load, in W; a counter or codecarbon's table if not set.
        ram_watts: declared power of the memory, in W; codecarbon's guess from its size if not set.
    """

    cpu_watts: _Watts | None = None
    ram_watts: _Watts | None = None
