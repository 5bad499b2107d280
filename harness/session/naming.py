"""What a block and its unit of work are called."""

from __future__ import annotations

from pathlib import Path
from types import FrameType

from harness.errors import UsageError
from harness.functional_unit import finite

Unit = str | None
"""What a block does: `images=1000`, or `images`, which the block counts itself."""


def parse_unit(unit: Unit) -> tuple[str, float | None]:
    """Name and amount of a unit; raises UsageError for one that is none. No name where there is no unit."""
    if unit is None:
        return "", None
    accepted = "a name, or a name and an amount: images=1000"
    if not isinstance(unit, str):
        raise UsageError(f"{unit!r:.60} is no unit", accepted=f"text: {accepted}")
    name, equals, amount = unit.partition("=")
    if not name.strip() or not name.strip().replace("_", "").replace("-", "").isalnum():
        raise UsageError(f"{unit!r} is no unit", accepted=accepted)
    if not equals:
        return name.strip(), None
    try:
        number = finite(float(amount))
    except ValueError:
        number = None
    if number is None or number < 0:
        raise UsageError(f"{amount!r} is no amount of {name}", accepted=accepted)
    return name.strip(), number


def place(frame: FrameType | None) -> str:
    """Where the caller of a frame stands: `train.py:epoch`, the same for every call."""
    caller = frame.f_back if frame is not None else None
    if caller is None:
        return "a block"
    code = caller.f_code
    name = "" if code.co_qualname == "<module>" else f":{code.co_qualname}"
    return f"{Path(code.co_filename).name}{name}"
