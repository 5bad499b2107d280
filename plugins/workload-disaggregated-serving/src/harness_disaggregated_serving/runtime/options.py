"""Options of workload `greenllm`, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.options import Duration, Options, Size
from harness.suite_paths import SuitePath, SuiteSource
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import Positive, SloOption
from harness_disaggregated_serving.simulator.profiles import profiles

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class SeededModel(Options):
    """A random Llama, and a draft that is its first layers with the same embedding and head.

    The output projections of the layers that the draft lacks are scaled by `eps`: a dial on how often the target agrees
    with the draft, from always (0) to as rarely as chance has it.

    Attributes:
        layers: layers of the target.
        hidden: width of the hidden state; a multiple of twice `heads`.
        heads: attention heads of a layer; a multiple of `kv_heads`.
        kv_heads: key and value heads of a layer.
        vocabulary: tokens of the vocabulary; prompts are drawn from it.
        context: longest sequence, prompt and output together; tokens.
        draft_layers: layers of the draft; at most `layers`.
        eps: scale of what the target's further layers add: 0 makes target and draft agree always, 1 as good as
            never.
        weights_seed: seed of the random weights.
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
    """Models saved by `save_pretrained`, or hub ids that are already in the local cache.

    Attributes:
        target: folder or hub id of the target model.
        draft: folder or hub id of the draft; `spec-local` and `dsd` need one.
    """

    target: Annotated[SuiteSource, Field(min_length=1)]
    draft: SuiteSource | None = None


class RoleOptions(Options):
    """The device of a role.

    Attributes:
        device: torch device of the role's process: `cpu`, `cuda:0`.
        kind: product that a process on `cpu` stands for, by the name of a packaged profile such as `T4`; what is
            charged to it is simulated.
        slow_down: how many times its own duration each step takes, to emulate a slower device; 1 to 1000.
        memory: usable memory for weights and caches; bytes, or `16GB`; no limit if not given.
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
        carrier: how tensors travel: `ring` through shared memory, `tcp` through a socket, `auto` through shared
            memory where both roles are on one host.
        bandwidth_gbit_s: bandwidth in each direction, shaped at the sender, in Gbit/s; as fast as it goes
            if not given.
        latency: emulated one-way delay; seconds, or `5ms`; at most 10 s.
        timeout: longest silence of the other role before it counts as lost; seconds, or `10s`.
    """

    carrier: Literal["auto", "tcp", "ring"] = "auto"
    bandwidth_gbit_s: Positive | None = None
    latency: Annotated[Duration, Field(ge=0, le=10)] = 0.0
    timeout: Annotated[Duration, Field(gt=0)] = 10.0


class PlaceOptions(Options):
    """What a role asks of a cluster's nodes.

    Attributes:
        resources: Ray's resources and their amounts: the cluster's own (`new_gpu: 1`), `GPU`, `CPU`; one GPU for a
            role on `cuda` unless given.
        labels: labels of the node, as Ray's label selectors write them: `ray.io/accelerator-type: T4`.
    """

    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class ClusterRunOptions(Options):
    """The roles as actors on a Ray cluster; needs the extra `ray` here and on its nodes.

    Attributes:
        address: `host:port` of a running cluster's head, or `auto` for the cluster that this machine is a node of.
        new: where the new role may run.
        old: where the old role may run.
        timeout: longest wait for connecting, and for placing both roles; seconds, or `60s`; without it what no node
            can satisfy would wait for ever.
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
        configuration: which device does what: `standalone` serves on the new one alone; `spec-local` adds a draft
            model there; `dpd` prefills on the new device and decodes on the old one; `dsd` drafts on the old device
            and verifies on the new one.
        model: target and draft: random weights from a seed, or saved models.
        dtype: number format of both models' weights and caches.
        new: device of the new role.
        old: device of the old role; held in `dpd` and `dsd` only.
        link: the link between the roles.
        cluster: Ray cluster that the roles run on; two processes of this machine if not given.
        gamma: tokens that the draft proposes in a round (the paper's gamma), in `spec-local` and `dsd`.
        wire: what the draft sends for each proposal: `full` its id and whole probability row; `ids` its id alone,
            exact for greedy decoding only; `lazy` its id and probability, and the row where the proposal is
            rejected.
        row_dtype: number format of the probability rows that the draft sends.
        first_token: who emits the first token in `dpd`: the `prefill` device, so that the transfer delays the
            second token (TPOT), or the `decode` device, so that it delays the first (TTFT).
        temperature: of sampling; 0 for greedy decoding.
        arrivals: when requests arrive: `poisson`, random gaps with `qps` as mean rate; `constant`, equal gaps;
            `all_at_once`, all at the start. Arrivals never wait for answers. Not used with a `trace`.
        trace: CSV file with the columns `arrival_s`, `prompt_tokens`, `output_tokens`: requests in place of drawn
            ones. They are scaled by `length_scale` too.
        qps: requests per second. Not used with a `trace`.
        sizes: application whose prompt and output lengths are drawn: `chat`, `code` or `summarisation`, synthetic.
            Not used with a `trace`.
        length_scale: factor on all prompt and output lengths, for models of a small machine; above 0, up to 1; each
            length stays at least 1 token.
        requests: how many requests a window has. Not used with a `trace`.
        slo: latency targets that a request has to meet, both of them: `longbench` (TTFT 15 s, TPOT 0.15 s),
            `sharegpt-13b`, `sharegpt-66b`, `sharegpt-175b`, `humaneval-66b`, `longbench-66b`, or `{ttft: 2s, tpot:
            100ms}`.
        request_timeout: a request that gets no new token for so long has failed; seconds, or `60s`.
        threads: threads of each role's process.
        seed: of arrivals, lengths, prompts and sampling; the trial's own seed is added, so that the same trial of
            two compared points gets the same requests.
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
    trace: SuitePath | None = None
    qps: Positive = 4.0
    sizes: str = "chat"
    length_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1, le=100_000)] = 40
    slo: SloOption = "longbench"
    request_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    threads: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> PairRunOptions:
        if self.wire == "ids" and self.temperature != 0:
            raise ValueError("wire mode `ids` is exact for temperature 0 only; accepted: `full` or `lazy`")
        if self.sizes not in APPLICATIONS:
            raise ValueError(f"no sizes {self.sizes!r}; accepted: {', '.join(APPLICATIONS)}")
        return self
