"""The configurations of disaggregated serving: which device does what, for the simulator and for a real pair."""

from __future__ import annotations

from enum import StrEnum


class Configuration(StrEnum):
    """Which device does what."""

    STANDALONE = "standalone"
    """The whole model on the new device: the baseline."""
    SPEC_LOCAL = "spec-local"
    """Target and draft on the new device: separates what speculation gains from what reuse gains."""
    DPD = "dpd"
    """Prefill on the new device, decode on the old one; the prompt's cache crosses the link once."""
    DSD = "dsd"
    """Target verifies on the new device, draft proposes on the old one, proposals over the link."""

    @property
    def needs_old(self) -> bool:
        """Whether it holds the old device and the link."""
        return self in {Configuration.DPD, Configuration.DSD}

    @property
    def speculates(self) -> bool:
        """Whether a draft proposes."""
        return self in {Configuration.SPEC_LOCAL, Configuration.DSD}

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that it holds a device for."""
        return ("new", "old") if self.needs_old else ("new",)
