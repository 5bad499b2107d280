"""What a suite may write under `codecarbon:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.options import Options

_Watts = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CodecarbonOptions(Options):
    """Options of meter `codecarbon`; without any, codecarbon decides what it reads and what it estimates."""

    cpu_watts: _Watts | None = Field(None, description="declared power of all processors at full load, in W")
    ram_watts: _Watts | None = Field(None, description="declared power of the memory, in W")
