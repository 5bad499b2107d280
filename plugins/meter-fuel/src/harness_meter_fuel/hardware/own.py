"""A device that the packaged table does not have, described in a suite by what it is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.errors import HarnessError
from harness.options import Options
from harness.quantity import Unavailable
from harness_meter_fuel.hardware import estimator
from harness_meter_fuel.hardware.devices import DeviceFacts, Span, dies
from harness_meter_fuel.hardware.estimator import Estimate


def _dies(text: str) -> str:
    if not dies(text):
        raise ValueError(f"dies {text!r}; accepted: number x mm2 @ process node in nm, such as `8x115@5 4x370@7`")
    return text


class MadeOf(Options):
    """What a device is made of, for an estimate as an interval; known well, or the interval is too wide.

    Attributes:
        dies: its logic dies, number x area in mm2 @ process node in nm, such as `1x814@5` or `8x115@5 4x370@7`; nodes
            28, 20, 14, 10, 8, 7, 5 and 3 nm.
        memory_gb: memory on the board or in the package, in GB; 0 for a processor, whose memory is `dram`.
        form: `card`, `low-profile`, `module` (SXM, OAM), `jetson` or `package` (a processor): what its board and its
            cooling are like.
        board_cm2: printed wiring board, in cm2; that of its form if not given.
        heatsink_kg: mass of its heat sink, in kg; that of its form if not given.
        casing_kg: mass of its casing, in kg; that of its form if not given.
    """

    dies: Annotated[str, AfterValidator(_dies)]
    memory_gb: float = Field(0.0, ge=0, allow_inf_nan=False)
    form: Literal["card", "low-profile", "module", "jetson", "package"]
    board_cm2: float | None = Field(None, ge=0, allow_inf_nan=False)
    heatsink_kg: float | None = Field(None, ge=0, allow_inf_nan=False)
    casing_kg: float | None = Field(None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _estimable(self) -> MadeOf:
        try:
            found = self._estimate()
        except HarnessError as error:
            raise ValueError(str(error)) from None
        if isinstance(found, Unavailable):
            raise ValueError(found.reason)  # noqa: TRY004 - pydantic's contract
        return self

    def _estimate(self) -> Estimate | Unavailable:
        made_of = dies(self.dies)
        board, heatsink, casing = (
            None if each is None else Span(each, each) for each in (self.board_cm2, self.heatsink_kg, self.casing_kg)
        )
        return estimator.of(
            DeviceFacts(
                name=str(self),
                kind="gpu",
                form=self.form,
                dies=made_of,
                dies_high=made_of,
                memory_gb=Span(self.memory_gb, self.memory_gb),
                board_cm2=board,
                heatsink_kg=heatsink,
                casing_kg=casing,
                names=(),
                source=str(self),
                confidence="as declared",
            )
        )

    @property
    def estimate(self) -> Estimate:
        """The figure with its interval, in kg CO2e."""
        found = self._estimate()
        assert isinstance(found, Estimate)
        return found

    def __str__(self) -> str:
        memory = f", {self.memory_gb:g} GB" if self.memory_gb else ""
        return f"dies {self.dies}{memory}, {self.form}"
