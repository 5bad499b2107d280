"""Options of workload `greenllm-online`, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.errors import UsageError
from harness.options import Duration, Options
from harness.suite_paths import SuitePath
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import Attainment, Positive, SloOption
from harness_disaggregated_serving.simulator.profiles import profile


class HysteresisOptions(Options):
    """How much better another configuration must be before the running one is left.

    Attributes:
        margin: share of the running configuration's carbon that must be saved, 0 to 1.
        dwell: shortest time between two changes for the sake of carbon; seconds, or `30m`. Missed targets are left at
            once.
        start_up: how long a configuration that is switched to holds its devices, idle, before it serves; seconds, or
            `2m`. Those that served before it serve on meanwhile.
    """

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    dwell: Annotated[Duration, Field(ge=0)] = 1800.0
    start_up: Annotated[Duration, Field(ge=0)] = 60.0


class OnlineOptions(Options):
    """Options of workload `greenllm-online`.

    Attributes:
        new: packaged profile of the new device, such as `A100-40GB`.
        old: packaged profiles of the old devices that may be taken, such as `[V100-16GB, T4]`.
        day: CSV file with the columns `at_s`, `qps`, `intensity_g_per_kwh` in order of time, each line until the next
            and the last as long as the one before; a synthetic day of ours if not given.
        profiles: CSV file of profiles, as `harness greenllm choose --profiles` reads it; simulated if not given.
        configurations: what may run, of `standalone`, `spec-local`, `dpd` and `dsd`; not used with `profiles`.
        rates: requests per second that are profiled; those of the day lie between the least and the greatest.
        sizes: application whose prompt and output lengths are drawn: `chat`, `code` or `summarisation`, or a name of
            `profiles`.
        slo: latency targets that a request has to meet, both of them: a shipped name such as `longbench`, or `{ttft:
            2s, tpot: 100ms}`.
        attainment: share of the requests that must meet them, above 0 and up to 1; a number, or `90%`.
        bandwidth_gbit_s: bandwidth between the devices, in Gbit/s.
        accounting: which time hardware is charged for in the choice: `reserved`, all that it is held for, or `busy`.
        new_life: service life of the new device, in years.
        old_life: service life of the old devices, in years.
        hysteresis: how much better another configuration must be.
        requests: how many requests a profiled cell has at most.
        seed: of the profiled streams; the trial's own seed is added.
    """

    new: str = "A100-40GB"
    old: Annotated[tuple[str, ...], Field(min_length=1)] = ("V100-16GB", "T4")
    day: SuitePath | None = None
    profiles: SuitePath | None = None
    configurations: Annotated[tuple[Literal["standalone", "spec-local", "dpd", "dsd"], ...], Field(min_length=1)] = (
        "standalone",
        "spec-local",
        "dpd",
        "dsd",
    )
    rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    sizes: str = "chat"
    slo: SloOption = "longbench"
    attainment: Attainment = 0.9
    bandwidth_gbit_s: Positive = 16.0
    accounting: Literal["reserved", "busy"] = "reserved"
    new_life: Positive = 5.0
    old_life: Positive = 7.0
    hysteresis: HysteresisOptions = HysteresisOptions()
    requests: Annotated[int, Field(ge=100, le=100_000)] = 2000
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _known(self) -> OnlineOptions:
        try:
            for name in (self.new, *self.old):
                profile(name)
        except UsageError as error:
            raise ValueError(str(error)) from None
        if self.profiles is None and self.sizes not in APPLICATIONS:
            raise ValueError(f"no sizes {self.sizes!r}; accepted: {', '.join(APPLICATIONS)}")
        return self
