"""A gate's result: what it found in pairs, against a stored baseline or in files of pytest-benchmark.

One type is written to `gate.json`, read back from it, shown, and turned into JUnit and Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from harness.errors import MeasurementError
from harness.gating.verdict import CellKey, Judged, Verdict
from harness.records.files import adapter, write_json
from harness.records.paths import GATE


class Kind(StrEnum):
    """What head was judged by."""

    PAIRS = "pairs"
    BASELINE = "baseline"
    PYTEST_BENCHMARK = "pytest-benchmark"


@dataclass(frozen=True, slots=True)
class InterimAnalysis:
    """An interim analysis, or the only one: after how many pairs (or trials of head), at which error rate."""

    pairs: int
    alpha: float


def _keyed(cell: object) -> object:
    """A cell of a file that has only its name, as older versions wrote it, gets the key that the name is of."""
    if isinstance(cell, dict) and "key" not in cell and isinstance(cell.get("name"), str):
        return {**cell, "key": CellKey.parse(cell["name"])}
    return cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a gate found.

    Attributes:
        kind: what head was judged by.
        verdict: of the build; `invalid` where nothing may be compared.
        reason: why the whole job is invalid, or a pass does not count; empty otherwise.
        pairs: measured per point; without pairs, the trials or rounds of head.
        base_trials: of each point, where head was judged by a baseline.
        looks: the interim analyses that were made, the last of which gave the verdicts.
        seed: of the order of points and inside pairs; None where nothing was measured, or by an older version.
        control_change: estimate of the control's change, relative; None where there is none.
        notes: what a reader must know: redone pairs, calibration, points that only one side has.
        cells: every comparison and limit.
        revisions: side -> revision, where revisions were compared.
        suites: their files.
        baseline: name of the stored baseline; empty without one.
        saved_utc: when it was saved.
        differing: what base and head may not differ in and do, with both values.
    """

    kind: Kind = Kind.PAIRS
    verdict: Verdict
    reason: str = ""
    pairs: Mapping[str, int] = field(default_factory=dict)
    base_trials: Mapping[str, int] = field(default_factory=dict)
    looks: Sequence[InterimAnalysis] = ()
    seed: int | None = None
    control_change: float | None = None
    notes: Sequence[str] = ()
    cells: Sequence[Annotated[Judged, BeforeValidator(_keyed)]]
    revisions: Mapping[str, str | None] = field(default_factory=dict)
    suites: Sequence[str] = ()
    baseline: str = ""
    saved_utc: str = ""
    differing: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its JSON values, with the exit code and the names of the cells for readers that know no key."""
        content: dict[str, Any] = adapter(Result).dump_python(self, mode="json")
        content["exit_code"] = int(self.verdict.exit_code)
        for row, cell in zip(content["cells"], self.cells, strict=True):
            row["name"] = cell.name
        return content

    def write(self, folder: Path) -> None:
        """Keeps it in the gate's folder."""
        write_json(folder / GATE, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> Result:
        """The result in a gate's folder; raises MeasurementError where it cannot be read."""
        path = folder / GATE
        try:
            content = json.loads(path.read_bytes())
            if isinstance(content, dict) and "kind" not in content:
                content["kind"] = Kind.BASELINE if content.get("baseline") else Kind.PAIRS
            return adapter(cls).validate_python(content)
        except OSError as error:
            raise MeasurementError(f"cannot be read: {error.strerror}", where=str(path)) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise MeasurementError(f"not a gate's result: {place}: {first['msg']}", where=str(path)) from None
        except ValueError as error:
            raise MeasurementError(f"not a gate's result: {error}", where=str(path)) from None
