"""Named sets of constants. "After the paper, constants from secondary sources": no profile is a reproduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from harness.functional_unit import FunctionalUnit

ProfileName = Literal["fuel-paper", "fuel-code", "custom"]
_SOURCE: Final = "after FUEL (arXiv 2502.11256), constants from secondary sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a FUEL profile fixes.

    Attributes:
        name: as a suite writes it.
        grid_g_per_kwh: 12-month mean of the server's region.
        pue: power usage effectiveness.
        embodied_table: name of the embodied table, whose lifetime holds too.
        host_energy_share: share of the host's energy that is charged.
        wanted: kinds of energy scope whose absence makes the result incomplete.
        column: work-item column that the functional unit sums (the token rule).
        quality: the profile's default quality bar; None where one must be chosen.
        source: where the constants come from.
    """

    name: ProfileName
    grid_g_per_kwh: float = 518.0
    pue: float = 1.0
    embodied_table: str = "fuel"
    host_energy_share: float = 1.0
    wanted: tuple[str, ...] = ("gpu", "cpu", "dram")
    column: str
    quality: float | None = None
    source: str = _SOURCE

    def functional_unit(self, quality: float | None = None) -> FunctionalUnit:
        """The token that counts: latency limits 1.0 s and 0.2 s, and a quality bar; raises ValueError without one."""
        bar = self.quality if quality is None else quality
        if bar is None:
            raise ValueError(f"profile {self.name} has no default quality bar; the tables quote -5 and 15")
        return FunctionalUnit.of(self.column, {"ttft_s": "<= 1.0", "tpot_s": "<= 0.2", "quality": f">= {bar!r}"})


PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(name="fuel-paper", column="output_tokens"),
        Profile(name="fuel-code", column="total_tokens", quality=10.0),
    )
}
"""The fixed profiles; `custom` fixes nothing and is not among them."""
