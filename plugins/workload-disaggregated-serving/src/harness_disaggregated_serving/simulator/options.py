"""Options of workload `greenllm-simulated`, as a suite writes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from harness.errors import UsageError
from harness.options import Duration, Options
from harness_disaggregated_serving.carbon import embodied
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import SLOS, SloOptions
from harness_disaggregated_serving.simulator.profiles import profile
from harness_disaggregated_serving.traffic import MODELS

Share = Annotated[float, Field(ge=0, le=1)]


class DeviceOptions(Options):
    """A device of the pair: a packaged profile, and what of it is declared anew.

    Attributes:
        kind: name of a packaged profile, such as `A100-40GB`.
        active_w: power while anything is in service.
        idle_w: power while held and waiting.
        embodied: id of an embodied row.
    """

    kind: str
    active_w: PositiveFloat | None = None
    idle_w: NonNegativeFloat | None = None
    embodied: str | None = None

    @model_validator(mode="after")
    def _known(self) -> DeviceOptions:
        try:
            profile(self.kind)
            if self.embodied is not None:
                embodied.find(self.embodied)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self


class LinkOptions(Options):
    """The link between the devices; it is simulated, so it is always shaped."""

    bandwidth_gbit_s: PositiveFloat = 16.0
    rtt: Annotated[Duration, Field(ge=0)] = 0.0005


class SimulatedOptions(Options):
    """Options of workload `greenllm-simulated`.

    Attributes:
        configuration: which device does what.
        new: the new device.
        old: the old one; held in `dpd` and `dsd` only.
        link: between them.
        model: target, by the name of a packaged shape.
        draft: draft, likewise.
        acceptance: probability that a proposal is kept if those before it were; one share, or one for each position.
        gamma: proposals a round, where `acceptance` is one share.
        wire: what the draft sends.
        first_token: who emits it.
        batching: `iteration` for engines as they are, `none` for what a hand calculation gives.
        arrivals: `poisson`, `constant` or `all_at_once`; a `trace` has its own times and sizes.
        trace: CSV file with `arrival_s`, `prompt_tokens`, `output_tokens`, instead of arrivals and sizes.
        qps: requests per second; what a trace's row is filed under.
        sizes: application whose prompt and output lengths are drawn.
        requests: how many.
        slo: latency targets, by name or of one's own.
        max_batch: most requests that a device decodes together.
        seed: of arrivals, lengths and acceptance, with the trial's own; the same for all that is compared.
    """

    configuration: Literal["standalone", "spec-local", "dpd", "dsd"] = "standalone"
    new: DeviceOptions = DeviceOptions(kind="A100-40GB")
    old: DeviceOptions = DeviceOptions(kind="V100-16GB")
    link: LinkOptions = LinkOptions()
    model: str = "llama-2-7b"
    draft: str = "draft-160m"
    acceptance: Share | tuple[Share, ...] = 0.8
    gamma: Annotated[int, Field(ge=1, le=64)] = 4
    wire: Literal["full", "ids", "lazy"] = "full"
    first_token: Literal["prefill", "decode"] = "prefill"  # noqa: S105 - no password, a token of text
    batching: Literal["iteration", "none"] = "iteration"
    arrivals: Literal["poisson", "constant", "all_at_once"] = "poisson"
    trace: str | None = None
    qps: PositiveFloat = 1.0
    sizes: str = "chat"
    requests: Annotated[int, Field(ge=1, le=100_000)] = 500
    slo: str | SloOptions = "longbench"
    max_batch: PositiveInt = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _named(self) -> SimulatedOptions:
        known: dict[str, tuple[object, Collection[str]]] = {
            "model": (self.model, MODELS),
            "draft": (self.draft, MODELS),
            "sizes": (self.sizes, APPLICATIONS),
            "slo": (self.slo, SLOS),
        }
        for option, (name, names) in known.items():
            if isinstance(name, str) and name not in names:
                raise ValueError(f"no {option} {name!r}; accepted: {', '.join(names)}")
        return self

    @property
    def positions(self) -> tuple[float, ...]:
        """Acceptance by position; its length is gamma."""
        return self.acceptance if isinstance(self.acceptance, tuple) else (self.acceptance,) * self.gamma
