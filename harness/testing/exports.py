"""The contract of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.errors import MeasurementError, UsageError
from harness.hookspecs import Exported, ExportSpec
from harness.options import Options
from harness.quantity import Amount, Method, Unavailable, Value
from harness.sample import Scope
from harness.session.imported import Imported, keep_imported
from harness.session.loaded import LoadedRun, load
from harness.testing.checks import Checks, NotTriedError

_READ: Final = "n0/gpu:contract"
_MISSING: Final = "n0/dram:contract"
_SCOPES: Final = {scope: Scope(method=Method.COUNTER, gain=0.05) for scope in (_READ, _MISSING)}


def made_up_run(folder: Path) -> LoadedRun:
    """A run of two trials with 120 J counted in one scope; what another scope took could not be read in the second."""
    read: dict[str, Value] = {_READ: Amount.of(120.0, "J", Method.COUNTER, low=114.0, high=126.0)}
    missing = {**read, _MISSING: Unavailable("not read")}
    stretches = [
        Imported(label="contract", started_utc_s=1.7e9 + 60 * at, duration_s=4.0, energy=energy, scopes=_SCOPES)
        for at, energy in enumerate((read, missing))
    ]
    return load(keep_imported(stretches, folder / "runs", tool="contract"))


def check_export(spec: ExportSpec, options: Options, folder: Path, *, checks: Checks | None = None) -> None:
    """Holds an export to its contract: its function loads, and what it writes of a run is the same each time.

    Args:
        spec: the plugin spec; one that sends to an address is not tried.
        options: validated options.
        folder: for the run.
        checks: collects the outcomes; without it, the first check that fails raises AssertionError.
    """
    held = checks or Checks(strict=True)
    with held.that("its function loads"):
        assert callable(spec.load()), "load() returned nothing to call"
    sentence = "it writes the same of a run each time, or says why it writes nothing"
    if spec.address:
        held.skip(sentence, f"it needs the {spec.address}")
        return
    with held.that(sentence):
        run = made_up_run(folder)
        before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
        try:
            first, second = (spec.load()(run, "file", options) for _ in range(2))
        except (MeasurementError, UsageError) as error:
            raise NotTriedError(str(error)) from None
        assert isinstance(first, Exported), f"it returned {first!r:.60}, not an Exported"
        assert isinstance(first.content, str), "it has no content for the file"
        assert first == second, "two exports of one run differ"
        assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before, "it changed the run"
