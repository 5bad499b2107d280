"""Energy of a training that others drive: stretches of steps, each a measured block, told as joules a step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from harness import Amount, Block, Session, UsageError

LOGGED: Final[Mapping[str, str]] = {
    "energy_j": "joules_per_step",
    "carbon_g": "grams_per_step",
    "duration_s": "seconds_per_step",
}
"""Reading per step -> its name in a logger, after `harness/`."""


class TrainingEnergy:
    """Measures so many steps at a time; what lies between two stretches (evaluation, saving) is in none of them.

    Args:
        every: steps of a stretch.
        meters: each as in a suite; `auto` if none is named.
        grid: of meter `fuel`, for grams of carbon.
        site: of meter `scarf`, for water.
        store: folder that the stretches are kept in, as trials of one run; they are not kept if None.

    Raises:
        UsageError: `every` is less than 1.
    """

    def __init__(
        self,
        *,
        every: int = 50,
        meters: Iterable[str | Mapping[str, Any]] = (),
        grid: str | None = None,
        site: str | None = None,
        store: str | Path | None = "reports",
    ) -> None:
        if every < 1:
            raise UsageError(f"a stretch of {every} steps", accepted="1 or more")
        self.every = every
        self.blocks: list[Block] = []
        self._settings: dict[str, Any] = {"meters": list(meters), "grid": grid, "site": site, "store": store}
        self._session: Session | None = None
        self._block: Block | None = None
        self._steps = 0
        self._warned = False

    @property
    def run(self) -> Path | None:
        """The folder of the run that the stretches are kept in."""
        return None if self._session is None else self._session.run

    def begin(self, device: object) -> None:
        """Opens the meters of a device, `cuda:0` or `cpu`, and changes nothing of PyTorch's settings."""
        import torch

        self.end()
        backend = {"name": "torch", "device": str(device), "threads": torch.get_num_threads()}
        self._session = Session(**self._settings, backend=backend)

    def step_begins(self) -> None:
        """Opens a stretch where none is open."""
        if self._block is None and self._session is not None:
            self._steps = 0
            self._block = self._session.measure("step", label="training").open("training")

    def step_ended(self) -> dict[str, float]:
        """Counts a step; what a full stretch cost by its name in a logger, else nothing."""
        if self._block is None:
            return {}
        self._steps += 1
        return self.stretch_ended() if self._steps >= self.every else {}

    def stretch_ended(self, error: BaseException | None = None) -> dict[str, float]:
        """Closes an open stretch; what it cost, by its name in a logger."""
        block, self._block = self._block, None
        if block is None:
            return {}
        block.count(self._steps)
        block.iterations = max(self._steps, 1)
        block.close(error)
        if not self._steps:
            return {}
        self.blocks.append(block)
        values = {name: block.per_unit.get(reading) for reading, name in LOGGED.items()}
        values["watts"] = block.readings.get("power_w")
        if not isinstance(block.energy, Amount) and not self._warned:
            self._warned = True
            warnings.warn(f"no energy is logged: {block.energy.reason}", stacklevel=2)
        return {f"harness/{name}": value.value for name, value in values.items() if isinstance(value, Amount)}

    def end(self, error: BaseException | None = None) -> dict[str, float]:
        """Closes the stretch and the meters. May be called twice."""
        last = self.stretch_ended(error)
        if self._session is not None:
            self._session.close()
        return last
