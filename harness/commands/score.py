"""`harness score`: what is heavy is imported when it is called."""

from __future__ import annotations

from harness.commands.console import RunFolders, echo
from harness.errors import MeasurementError, UsageError


def score(runs: RunFolders) -> None:
    """Scores and costs the stored outputs of runs again; the measurements are not touched."""
    from harness.running.finishing import finish
    from harness.running.run_folder import refuse_recosted
    from harness.storing.places import located

    for run in runs:
        store, folder = located(run)
        if not folder.is_dir():
            raise UsageError("this is not a run folder", where=str(folder), accepted="the folder of a run")
        refuse_recosted(folder)
        fault = finish(folder, again=True)
        if fault:
            raise MeasurementError(fault)
        store.send(folder, replace=True)
        echo(f"scored: {store.name_of(folder)}")
