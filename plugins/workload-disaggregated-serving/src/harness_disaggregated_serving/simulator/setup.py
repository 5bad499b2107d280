"""What is simulated: configuration, devices, link, speculation and the rules of the queues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.errors import UsageError
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.simulator.costs import PhaseCosts
from harness_disaggregated_serving.traffic import TOKEN_ID_BYTES, Wire


class FirstToken(StrEnum):
    """Who emits the first token; the paper's choice is not known, so it is stored with the result."""

    PREFILL = "prefill"
    """A transfer delays the second token and counts in TPOT. The default."""
    DECODE = "decode"
    """A transfer counts in TTFT."""


class Batching(StrEnum):
    """How a device serves several requests."""

    NONE = "none"
    """Prefills one after another in order of arrival, decoding of every request at its own pace: no slowdown."""
    ITERATION = "iteration"
    """One iteration at a time: waiting prompts first, then one step (or round) of the whole running batch."""
    ALTERNATING = "alternating"
    """An iteration is at most one waiting prompt and one step of the whole batch: the rule of the pair runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """A device of the simulation.

    Attributes:
        name: for people.
        target: service times of the target model; None where it never runs it.
        draft: service times of the draft; likewise.
        active_w: power while at least one item is in service.
        idle_w: power while held otherwise.
        phase_w: other active powers by phase (`prefill`, `decode`, `draft`, `verify`, or one at a load as `decode@8`),
            under iteration batching only.
        kv_tokens: tokens of cache that fit; None for no limit.
    """

    name: str
    target: PhaseCosts | None = None
    draft: PhaseCosts | None = None
    active_w: float = 0.0
    idle_w: float = 0.0
    phase_w: Mapping[str, float] = field(default_factory=dict)
    kv_tokens: int | None = None

    def __post_init__(self) -> None:
        watts = (self.idle_w, self.active_w, *self.phase_w.values())
        if not all(math.isfinite(value) and value >= self.idle_w >= 0 for value in watts):
            raise UsageError(
                f"device {self.name!r} draws {watts} W (idle, active, by phase)",
                accepted="finite watts, none below the idle ones",
            )

    def power_w(self, phase: str) -> float:
        """Power in a phase: as declared for it at its load, for it at any, or for whatever is in service."""
        return self.phase_w.get(phase, self.phase_w.get(phase.partition("@")[0], self.active_w))

    def target_costs(self) -> PhaseCosts:
        """Service times of the target; raises UsageError where there are none."""
        if self.target is None:
            raise UsageError(f"device {self.name!r} has no service times of the target")
        return self.target

    def draft_costs(self) -> PhaseCosts:
        """Service times of the draft; raises UsageError where there are none."""
        if self.draft is None:
            raise UsageError(f"device {self.name!r} has no service times of the draft")
        return self.draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A serial link: one message at a time, first come first served. Half the round trip lies on each way."""

    bandwidth: float
    """Bytes per second."""
    rtt_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and self.rtt_s >= 0 and math.isfinite(self.rtt_s)):
            raise UsageError(
                f"the link has {self.bandwidth} B/s and {self.rtt_s} s",
                accepted="a bandwidth above 0, a time of 0 or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """Rounds of a draft and a target.

    Attributes:
        acceptance: per position, the probability that a proposal is kept if those before it were; its length is gamma.
        vocabulary: entries of a probability row.
        probability_bytes: bytes of an entry.
        wire: what crosses the link per proposal.
        seed: of the draws. A request keeps the same ones in every configuration.
    """

    acceptance: tuple[float, ...]
    vocabulary: int = 32_000
    probability_bytes: int = 2
    wire: Wire = Wire.FULL
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.acceptance or not all(0 <= rate <= 1 for rate in self.acceptance):
            raise UsageError(f"the acceptance is {self.acceptance}", accepted="one share from 0 to 1 for each proposal")

    @property
    def gamma(self) -> int:
        """Proposals a round."""
        return len(self.acceptance)

    @property
    def row_bytes(self) -> int:
        """Bytes of one probability row."""
        return self.vocabulary * self.probability_bytes

    @property
    def message_bytes(self) -> int:
        """Bytes of a round's message from draft to target; a lazy wire's rows come on top where one is asked for."""
        each = {
            Wire.FULL: TOKEN_ID_BYTES + self.row_bytes,
            Wire.IDS: TOKEN_ID_BYTES,
            Wire.LAZY: TOKEN_ID_BYTES + 4,
        }
        return self.gamma * each[self.wire]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One configuration to simulate.

    Attributes:
        configuration: which device does what.
        new: the new device.
        old: the old one, where it is held.
        link: between them.
        kv_bytes_per_token: of the target model; what `dpd` sends per prompt token.
        speculation: of `spec-local` and `dsd`.
        first_token: who emits it.
        batching: how a device serves several requests.
        max_batch: most requests that a device decodes together.
        max_prefill_tokens: most prompt tokens of one prefill batch; a longer prompt goes alone. Alternating batching
            takes one prompt, however short.
        calibration: `uncalibrated`, or what the service times were fitted on.
    """

    configuration: Configuration
    new: SimulatedDevice
    old: SimulatedDevice | None = None
    link: Link | None = None
    kv_bytes_per_token: int = 0
    speculation: Speculation | None = None
    first_token: FirstToken = FirstToken.PREFILL
    batching: Batching = Batching.NONE
    max_batch: int = 256
    max_prefill_tokens: int = 8192
    calibration: str = "uncalibrated"

    def __post_init__(self) -> None:
        name = self.configuration.value
        if self.configuration.needs_old and (self.old is None or self.link is None):
            raise UsageError(f"configuration {name!r} lacks its old device or its link", accepted="both")
        if self.configuration.speculates and self.speculation is None:
            raise UsageError(f"configuration {name!r} lacks its acceptance", accepted="acceptance by position")
        if self.configuration.speculates and self.batching is Batching.ALTERNATING:
            raise UsageError(f"{name!r} cannot batch alternately", accepted="`standalone` or `dpd`")
        if self.max_batch < 1 or self.max_prefill_tokens < 1 or self.kv_bytes_per_token < 0:
            raise UsageError(
                f"max_batch, max_prefill_tokens and kv_bytes_per_token are {self.max_batch}, {self.max_prefill_tokens} "
                f"and {self.kv_bytes_per_token}",
                accepted="at least 1, 1 and 0",
            )
        if self.batching is Batching.NONE and any(device.phase_w for device in self.devices.values()):
            raise UsageError(
                "watts by phase need iteration batching: phases overlap without it", accepted="active_w alone"
            )

    @property
    def devices(self) -> dict[str, SimulatedDevice]:
        """The devices that are held, by role."""
        held = {"new": self.new}
        if self.configuration.needs_old and self.old is not None:
            held["old"] = self.old
        return held

    def rejection(self, tokens: int) -> str | None:
        """Why a request of so many tokens can never be served; None if it can."""
        for role, device in self.devices.items():
            if device.kv_tokens is not None and tokens > device.kv_tokens:
                return f"{tokens} tokens of cache do not fit the {device.kv_tokens} of the {role} device {device.name}"
        return None


LABEL: Final = "simulated"
"""The method of every number that comes out."""
