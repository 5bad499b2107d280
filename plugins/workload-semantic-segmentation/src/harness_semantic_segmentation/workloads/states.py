"""Where a training keeps its state, so that an interrupted trial goes on after its last finished window.

A trial's windows are on the disk one by one, each after the state at its end: whoever goes on after window N needs the
state of exactly that window. The state of the one before is kept too, since a process may end between the two writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.errors import MeasurementError
from harness.workload import TrialContext
from harness_semantic_segmentation.networks.safe_files import read_file

NEWEST: Final = "checkpoint.pt"
"""After the last finished window; what is published and resumed elsewhere."""
BEFORE: Final = "checkpoint-before.pt"
INSIDE: Final = "checkpoint-inside.pt"
"""Inside the window under way."""


class States:
    """The checkpoints of one trial.

    Args:
        context: of the trial.
        folder: in which those of all trials are kept; empty for the user's cache.
    """

    def __init__(self, context: TrialContext, folder: str = "") -> None:
        base = Path(folder).expanduser() if folder else context.cache / "segmentation" / "checkpoints"
        self.folder = base / context.folder.parent.name / context.folder.name
        if not context.windows_done:
            for name in (NEWEST, BEFORE, INSIDE):
                (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def newest(self) -> Path:
        """Where the state after the window that has just ended is to be written."""
        return self.folder / NEWEST

    @property
    def inside(self) -> Path:
        """Where states inside a window are written."""
        return self.folder / INSIDE

    def make_room(self) -> None:
        """Keeps the state after the window before, when that of the next is about to be written."""
        if self.newest.exists():
            self.newest.replace(self.folder / BEFORE)

    def after(self, windows: int) -> Path:
        """The state after so many windows.

        Raises:
            MeasurementError: it is not there, since the trial ran elsewhere or its checkpoints were deleted.
        """
        for path in (self.newest, self.folder / BEFORE):
            if path.exists() and read_file(path).get("notes", {}).get("windows") == windows:
                if path != self.newest:  # the newest is of a window that was not finished, and will be trained again
                    path.replace(self.newest)
                return self.newest
        raise MeasurementError(
            f"the state after window {windows} of this trial is not there",
            where=str(self.folder),
            accepted="checkpoints in a folder that is still there, see the option `checkpoints`",
            hint="delete the trial's folder in the run to begin the trial anew",
        )
