"""Options of workload `greenllm`, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from harness.options import Duration, Options, Size
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import SLOS, SloOptions
from harness_disaggregated_serving.simulator.profiles import profiles

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class SeededModel(Options):
    """A random Llama, and a draft that is its first layers with the same embedding and head.

    The output projections of the layers that the draft lacks are scaled by `eps`: a dial on how often the target agrees
    with the draft, from always (0) to as rarely as chance has it.
    """

    layers: Count = 4
    hidden: Count = 64
    heads: Count = 4
    kv_heads: Count = 2
    vocabulary: Count = 512
    context: Count = 2048
    draft_layers: Count = 1
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    weights_seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> SeededModel:
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads or self.draft_layers > self.layers:
            raise ValueError(
                f"hidden {self.hidden} is a multiple of twice the heads ({self.heads}), heads of kv_heads "
                f"({self.kv_heads}), and draft_layers ({self.draft_layers}) are at most layers ({self.layers})"
            )
        return self


class FolderModel(Options):
    """Models saved by `save_pretrained`, or hub ids that are already in the local cache."""

    target: Annotated[str, Field(min_length=1)]
    draft: str | None = None


class RoleOptions(Options):
    """The device of a role.

    Attributes:
        device: torch device of its process: `cpu`, `cuda:0`.
        kind: packaged profile of a device that the process only stands for; what is charged to it is simulated.
        slow_down: emulated: each step takes so many times its own duration.
        memory: usable memory for weights and caches; no limit if not given.
    """

    device: str = "cpu"
    kind: str | None = None
    slow_down: Annotated[float, Field(ge=1, le=1000)] = 1.0
    memory: Annotated[Size, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _known(self) -> RoleOptions:
        if self.kind is not None and self.kind not in profiles():
            raise ValueError(f"no profile of device {self.kind!r}; accepted: {', '.join(profiles())}")
        if self.kind is not None and self.device != "cpu":
            raise ValueError(f"a role on {self.device} is what it is: `kind` is for processes that stand for a device")
        return self


class PairLinkOptions(Options):
    """The link between the roles.

    Attributes:
        carrier: `auto` takes shared memory on one host, else TCP.
        bandwidth_gbit_s: shaped by a token bucket at the sender; as fast as it goes if not given.
        latency: emulated one-way delay.
        timeout: longest silence of the other role.
    """

    carrier: Literal["auto", "tcp", "ring"] = "auto"
    bandwidth_gbit_s: PositiveFloat | None = None
    latency: Annotated[Duration, Field(ge=0, le=10)] = 0.0
    timeout: Annotated[Duration, Field(gt=0)] = 10.0


class PlaceOptions(Options):
    """What a role asks of a cluster's nodes.

    Attributes:
        resources: Ray's resources and amounts: the cluster's own (`new_gpu: 1`), `GPU`, `CPU`.
        labels: of the node, as Ray's label selectors write them: `ray.io/accelerator-type: T4`.
    """

    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class ClusterRunOptions(Options):
    """The roles as actors on a Ray cluster; needs the extra `ray` here and on its nodes.

    Attributes:
        address: host and port of a running cluster's control service, or `auto`. This machine is one of its nodes.
        new: where the new role may run.
        old: where the old one may.
        timeout: for connecting, and for placing both; what no node can satisfy would wait for ever.
    """

    address: str = "auto"
    new: PlaceOptions = PlaceOptions()
    old: PlaceOptions = PlaceOptions()
    timeout: Annotated[Duration, Field(gt=0)] = 60.0

    @model_validator(mode="after")
    def _addressed(self) -> ClusterRunOptions:
        host, _, port = self.address.rpartition(":")
        if self.address != "auto" and not (host and port.isdecimal() and int(port) < 1 << 16):
            raise ValueError(f"address {self.address!r}; accepted: `auto`, or host:port of the cluster's head")
        return self


class PairRunOptions(Options):
    """Options of workload `greenllm`.

    Attributes:
        configuration: which role does what.
        model: target and draft.
        dtype: of both.
        new: the new device.
        old: the old one; held in `dpd` and `dsd` only.
        link: between them.
        cluster: where the roles run; two processes of this machine if not given.
        gamma: proposals a round.
        wire: what the draft sends; `ids` is for temperature 0.
        row_dtype: precision of probability rows on the wire.
        first_token: who emits it in `dpd`.
        temperature: 0 for greedy.
        arrivals: `poisson`, `constant` or `all_at_once`; a `trace` has its own times and sizes.
        trace: CSV file with `arrival_s`, `prompt_tokens`, `output_tokens`.
        qps: requests per second.
        sizes: application whose prompt and output lengths are drawn.
        length_scale: lengths are multiplied by it, for models of a small machine; each stays at least 1.
        requests: how many a window has.
        slo: latency targets, by name or of one's own.
        request_timeout: a request without a new token for so long has failed.
        threads: of each role's process.
        seed: of arrivals, lengths, prompts and draws, with the trial's own.
    """

    configuration: Literal["standalone", "spec-local", "dpd", "dsd"] = "standalone"
    model: SeededModel | FolderModel = SeededModel()
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    new: RoleOptions = RoleOptions()
    old: RoleOptions = RoleOptions()
    link: PairLinkOptions = PairLinkOptions()
    cluster: ClusterRunOptions | None = None
    gamma: Annotated[int, Field(ge=1, le=64)] = 4
    wire: Literal["full", "ids", "lazy"] = "full"
    row_dtype: Literal["float16", "float32"] = "float16"
    first_token: Literal["prefill", "decode"] = "prefill"  # noqa: S105 - no password, a token of text
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    arrivals: Literal["poisson", "constant", "all_at_once"] = "poisson"
    trace: str | None = None
    qps: PositiveFloat = 4.0
    sizes: str = "chat"
    length_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1, le=100_000)] = 40
    slo: str | SloOptions = "longbench"
    request_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    threads: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> PairRunOptions:
        if self.wire == "ids" and self.temperature != 0:
            raise ValueError("wire mode `ids` is exact for temperature 0 only; accepted: `full` or `lazy`")
        if self.sizes not in APPLICATIONS:
            raise ValueError(f"no sizes {self.sizes!r}; accepted: {', '.join(APPLICATIONS)}")
        if isinstance(self.slo, str) and self.slo not in SLOS:
            raise ValueError(f"no slo {self.slo!r}; accepted: {', '.join(SLOS)}")
        return self
