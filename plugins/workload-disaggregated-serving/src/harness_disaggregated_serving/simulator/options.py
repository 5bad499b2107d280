"""Options of workload `greenllm-simulated`, as a suite writes them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from harness.errors import UsageError
from harness.options import Duration, Options
from harness.suite_paths import SuitePath
from harness_disaggregated_serving.carbon import embodied
from harness_disaggregated_serving.carbon.power import BATCHED, IDLE, PHASES, Watts, declared, known, packaged
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import Positive, SloOption
from harness_disaggregated_serving.simulator.profiles import DeviceProfile, profile
from harness_disaggregated_serving.traffic import MODELS, ModelShape

Share = Annotated[float, Field(ge=0, le=1)]


class WattsOptions(Options):
    """Power that is not known well.

    Attributes:
        low: least it may be, in W.
        value: what is reckoned with, in W.
        high: most it may be, in W.
    """

    low: NonNegativeFloat
    value: NonNegativeFloat
    high: NonNegativeFloat


class DeviceOptions(Options):
    """A device of the pair: a packaged profile, and what of it is declared anew.

    Attributes:
        kind: name of a packaged profile: `A100-40GB`, `A100-80GB`, `H100`, `V100-16GB`, `T4`, `L4` or `L40`.
        fp16_tflops: peak rate of dense fp16 products, in Tflop/s; the profile's if not given.
        memory_gb_per_s: peak memory bandwidth, in GB/s; the profile's if not given.
        active_w: power while anything is in service, in W, the same in every phase and without a range; by phase, from
            the packaged shares of the profile's board limit, if not given.
        idle_w: power while held and waiting, in W, without a range; the profile's, from half to one and a half of it,
            if not given.
        watts: power by phase, in W, a number or `{low: 150, value: 200, high: 300}`: `prefill`, `decode`, `verify`,
            `draft`, one of these at a batch of 1, 8 or 64 (`decode@8`; between them in proportion), `idle`, and
            `serving` for `batching: none`. It goes before `active_w` and `idle_w`.
        embodied: id of a row of the packaged embodied figures, such as `act-birds:T4`; the profile's if not given.
    """

    kind: str
    fp16_tflops: Positive | None = None
    memory_gb_per_s: Positive | None = None
    active_w: Positive | None = None
    idle_w: NonNegativeFloat | None = None
    watts: dict[str, NonNegativeFloat | WattsOptions] = Field(default_factory=dict)
    embodied: str | None = None

    @model_validator(mode="after")
    def _known(self) -> DeviceOptions:
        try:
            profile(self.kind)
            if self.embodied is not None:
                embodied.find(self.embodied)
            power = self.power()
        except UsageError as error:
            raise ValueError(str(error)) from None
        low = {phase: one.value for phase, one in power.items() if one.value < power[IDLE].value}
        if low:
            raise ValueError(f"{self.kind} draws less than its {power[IDLE].value:g} W of idle power in phases {low}")
        unknown = sorted(name for name in self.watts if not known(name))
        if unknown:
            raise ValueError(f"no phase {', '.join(unknown)}; accepted: {', '.join((*PHASES, *BATCHED, IDLE))}")
        return self

    def profile(self) -> DeviceProfile:
        """The packaged profile with the speed that is declared here."""
        found = profile(self.kind)
        return replace(
            found,
            fp16_tflops=self.fp16_tflops or found.fp16_tflops,
            memory_gb_per_s=self.memory_gb_per_s or found.memory_gb_per_s,
        )

    def power(self) -> dict[str, Watts]:
        """Power by phase and of `idle`: the packaged one with what is declared here."""
        found = profile(self.kind)
        power = packaged(self.kind, found.active_w, found.idle_w)
        if self.active_w is not None:
            power |= dict.fromkeys(PHASES, Watts.exactly(self.active_w))
        if self.idle_w is not None:
            power[IDLE] = Watts.exactly(self.idle_w)
        given = {
            name: Watts.exactly(watts) if isinstance(watts, float) else Watts(watts.low, watts.value, watts.high)
            for name, watts in self.watts.items()
        }
        return declared(power, given)


class LinkOptions(Options):
    """The link between the devices; it is simulated, so it is always shaped.

    Attributes:
        bandwidth_gbit_s: bandwidth in each direction, in Gbit/s.
        rtt: round-trip time; seconds, or `500us`.
    """

    bandwidth_gbit_s: Positive = 16.0
    rtt: Annotated[Duration, Field(ge=0)] = 0.0005


class SimulatedOptions(Options):
    """Options of workload `greenllm-simulated`.

    Attributes:
        configuration: which device does what: `standalone` serves on the new one alone; `spec-local` adds a draft
            model there; `dpd` prefills on the new device and decodes on the old one; `dsd` drafts on the old device
            and verifies on the new one.
        new: the new device.
        old: the old device; held in `dpd` and `dsd` only.
        link: the link between them.
        model: target model, by the name of a packaged shape: `llama-2-7b`, `llama-2-13b`, `llama-2-70b`,
            `llama-3-8b`, `opt-13b`, `qwen2.5-7b`, `qwen2.5-14b`, `qwen2.5-32b` or `tinyllama-1.1b`, in fp16.
        quantization: of the target's weights: `none`, `w8a8` (8-bit weights and activations) or `awq` (4-bit weights);
            what it does to bytes and rate is `traffic.QUANTIZATIONS`, uncalibrated like all service times here.
        draft: draft model, likewise: `draft-160m` or `draft-68m`.
        acceptance: probability that a proposal is kept if those before it were; 0 to 1; one number for all, or a
            list with one for each position, whose length is then gamma.
        gamma: tokens that the draft proposes in a round (the paper's gamma), in `spec-local` and `dsd`; not used
            where `acceptance` is a list.
        wire: what the draft sends for each proposal: `full` its id and whole probability row; `ids` its id alone,
            exact for greedy decoding only; `lazy` its id and probability, and the row where the proposal is
            rejected.
        first_token: who emits the first token in `dpd`: the `prefill` device, so that the transfer delays the
            second token (TPOT), or the `decode` device, so that it delays the first (TTFT).
        batching: `iteration` serves several requests in a step, as engines do; `none` one after the other, as a
            hand calculation has it.
        arrivals: when requests arrive: `poisson`, random gaps with `qps` as mean rate; `constant`, equal gaps;
            `all_at_once`, all at the start. Arrivals never wait for answers. Not used with a `trace`.
        trace: CSV file with the columns `arrival_s`, `prompt_tokens`, `output_tokens`: requests in place of drawn
            ones.
        qps: requests per second; with a `trace`, only the rate that the profile row is filed under.
        sizes: application whose prompt and output lengths are drawn: `chat`, `code` or `summarisation`, synthetic.
            Not used with a `trace`.
        requests: how many requests a window has at least; it is doubled until the load is judged. Not used with a
            `trace`, whose requests are what they are.
        most_requests: how many requests a window has at most. An overload that is not certain by then, or a load that
            cannot be judged, shows no saving.
        precision: half width of the 95 % interval of the attainment at which a window is long enough, 0 to 1.
        slo: latency targets that a request has to meet, both of them: `longbench` (TTFT 15 s, TPOT 0.15 s),
            `sharegpt-13b`, `sharegpt-66b`, `sharegpt-175b`, `humaneval-66b`, `longbench-66b`, or `{ttft: 2s, tpot:
            100ms}`.
        max_batch: most requests that a device decodes together.
        seed: of arrivals, lengths and acceptance; the trial's own seed is added, so that the same trial of two
            compared points gets the same requests.
    """

    configuration: Literal["standalone", "spec-local", "dpd", "dsd"] = "standalone"
    new: DeviceOptions = DeviceOptions(kind="A100-40GB")
    old: DeviceOptions = DeviceOptions(kind="V100-16GB")
    link: LinkOptions = LinkOptions()
    model: str = "llama-2-7b"
    quantization: Literal["none", "w8a8", "awq"] = "none"
    draft: str = "draft-160m"
    acceptance: Share | tuple[Share, ...] = 0.8
    gamma: Annotated[int, Field(ge=1, le=64)] = 4
    wire: Literal["full", "ids", "lazy"] = "full"
    first_token: Literal["prefill", "decode"] = "prefill"  # noqa: S105 - no password, a token of text
    batching: Literal["iteration", "none"] = "iteration"
    arrivals: Literal["poisson", "constant", "all_at_once"] = "poisson"
    trace: SuitePath | None = None
    qps: Positive = 1.0
    sizes: str = "chat"
    requests: Annotated[int, Field(ge=1, le=100_000)] = 1000
    most_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 16_000
    precision: Annotated[float, Field(gt=0, le=1)] = 0.02
    slo: SloOption = "longbench"
    max_batch: PositiveInt = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _named(self) -> SimulatedOptions:
        known: dict[str, tuple[object, Collection[str]]] = {
            "model": (self.model, MODELS),
            "draft": (self.draft, MODELS),
            "sizes": (self.sizes, APPLICATIONS),
        }
        for option, (name, names) in known.items():
            if isinstance(name, str) and name not in names:
                raise ValueError(f"no {option} {name!r}; accepted: {', '.join(names)}")
        return self

    @property
    def target(self) -> ModelShape:
        """The shape of the target model, quantized."""
        return MODELS[self.model].quantized(self.quantization)

    @property
    def positions(self) -> tuple[float, ...]:
        """Acceptance by position; its length is gamma."""
        return self.acceptance if isinstance(self.acceptance, tuple) else (self.acceptance,) * self.gamma
