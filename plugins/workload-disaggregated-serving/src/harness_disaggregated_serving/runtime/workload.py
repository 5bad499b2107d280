"""Workload `greenllm`: one window of open-loop requests over a running pair of processes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.backend import Device
from harness.errors import UsageError
from harness.meter import Node
from harness.quantity import Unavailable
from harness.workload import TrialContext, Window, Workload
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load import arrivals
from harness_disaggregated_serving.load.lengths import application
from harness_disaggregated_serving.load.slo import Slo, named
from harness_disaggregated_serving.runtime.cluster import OWN_NODE, Cluster, ClusterOptions, Place, import_ray
from harness_disaggregated_serving.runtime.driving import Drive, Limits
from harness_disaggregated_serving.runtime.gpus import gpu, missing
from harness_disaggregated_serving.runtime.options import PairRunOptions
from harness_disaggregated_serving.runtime.pair import Pair, PairOptions
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings, Status
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S, Wire
from harness_disaggregated_serving.transport.link import Carrier

_STATUS = {Status.FINISHED: "ok", Status.REJECTED: "rejected", Status.FAILED: "failed"}


def settings_of(options: PairRunOptions) -> Settings:
    """How the roles work together."""
    from harness_speculative_decoding.methods.sampling import Sampling  # it brings torch: not before there is work

    return Settings(
        configuration=Configuration(options.configuration),
        gamma=options.gamma,
        wire=Wire(options.wire),
        row_dtype=options.row_dtype,
        first_token=options.first_token,
        sampling=Sampling(options.temperature),
    )


def pair_options_of(options: PairRunOptions) -> PairOptions:
    """What the pair is made of."""
    bandwidth = options.link.bandwidth_gbit_s
    return PairOptions(
        model=options.model.model_dump(),
        dtype=options.dtype,
        devices={"new": options.new.device, "old": options.old.device},
        threads=options.threads,
        slow_down={"new": options.new.slow_down, "old": options.old.slow_down},
        carrier=Carrier(options.link.carrier),
        bytes_per_s=None if bandwidth is None else bandwidth * BYTES_PER_S_PER_GBIT_S,
        latency_s=options.link.latency,
        timeout_s=options.link.timeout,
    )


def cluster_of(options: PairRunOptions) -> Cluster | None:
    """The cluster that the roles run on, connected and with a place for each; None for this machine."""
    if options.cluster is None:
        return None
    places = {}
    for role in ("new", "old"):
        asked, device = getattr(options.cluster, role), getattr(options, role).device
        # Ray hides a node's GPUs from actors that ask for none.
        gpus = {"GPU": 1.0} if device.startswith("cuda") else {}
        places[role] = Place(resources={**gpus, **asked.resources}, labels=asked.labels)
    wanted = ClusterOptions(address=options.cluster.address, places=places, timeout_s=options.cluster.timeout)
    return Cluster(wanted, Configuration(options.configuration).roles)


def stream_of(options: PairRunOptions, vocabulary: int, seed: int) -> list[PromptedRequest]:
    """The requests of a window, the same for every configuration with the same seed; prompts are random ids."""
    process: dict[str, arrivals.Arrivals] = {
        "poisson": arrivals.Poisson(options.qps),
        "constant": arrivals.Constant(options.qps),
        "all_at_once": arrivals.AllAtOnce(),
    }
    drawn = (
        arrivals.trace(Path(options.trace))
        if options.trace is not None
        else arrivals.requests(process[options.arrivals], application(options.sizes), options.requests, seed)
    )
    words = random.Random(seed)  # noqa: S311 - prompts, no secrets
    found = []
    for number, one in enumerate(drawn):
        prompt, output = (
            max(1, math.ceil(count * options.length_scale)) for count in (one.prompt_tokens, one.output_tokens)
        )
        ids = [words.randrange(vocabulary) for _ in range(prompt)]
        found.append(PromptedRequest(f"r{number}", one.arrival_s, ids, output, words.getrandbits(48)))
    return found


def probe(options: PairRunOptions) -> Unavailable | None:
    """Why the roles cannot have their devices here, or their cluster cannot be asked for them."""
    if options.cluster is not None:
        try:
            import_ray()
        except UsageError as error:
            return Unavailable(error.message)
        return None
    roles = Configuration(options.configuration).roles
    found = (missing(role, getattr(options, role).device) for role in roles)
    return next((reason for reason in found if reason is not None), None)


class GreenLlm(Workload):
    """Requests over a pair. The processes live as long as the trial."""

    def __init__(self, options: PairRunOptions) -> None:
        self._options = options
        self._settings = settings_of(options)
        self._cluster: Cluster | None = None
        self._pair: Pair | None = None
        self._seed = options.seed
        self._facts: dict[str, object] = {}
        self._cpu_s: dict[str, float] = {}
        self._held: dict[str, str] = {}

    def prepare(self, context: TrialContext) -> None:
        """Starts the roles and loads their models."""
        self._seed = self._options.seed + context.seed
        if self._options.cluster is not None:
            context.progress("placing the roles on the cluster", None)
            self._cluster = cluster_of(self._options)
        context.progress("starting the pair", None)
        self._pair = self._started()

    def _started(self) -> Pair:
        pair = Pair(pair_options_of(self._options), [self._settings.configuration], self._cluster)
        engine = pair.engine("new", "target")
        roles = self._settings.configuration.roles
        self._held = {role: self._device(role, pair.device(role).uuid) for role in roles}
        self._facts = {"carrier": pair.carrier, "rows": engine["rows"], "model": dict(engine)}
        if self._cluster is not None:
            self._facts |= {"cluster": self._cluster.facts(), "one_clock": pair.one_clock}
        return pair

    def _device(self, role: str, uuid: str) -> str:
        kind = getattr(self._options, role).kind
        return f"{role}:{kind or uuid}" if uuid == "cpu" else uuid

    def devices(self) -> Sequence[Device]:
        """The GPUs of the roles that the configuration holds, each once; those of a cluster are its `nodes`'."""
        if self._options.cluster is not None:
            return []
        names = dict.fromkeys(getattr(self._options, role).device for role in self._settings.configuration.roles)
        return [gpu(name) for name in names if name.startswith("cuda")]

    def processes(self) -> Mapping[str, int]:
        """A process a role, which a meter of processes reads apart."""
        assert self._pair is not None, "prepare() comes first"
        return {role: self._pair.pid(role) for role in self._pair.roles if self._is_here(role)}

    def _is_here(self, role: str) -> bool:
        return self._cluster is None or self._cluster.members[role].name == OWN_NODE

    def nodes(self) -> Sequence[Node]:
        """The nodes of the cluster that hold a role, with its GPU and its process."""
        if self._cluster is None:
            return ()
        assert self._pair is not None, "prepare() comes first"
        devices = {role: self._pair.device(role) for role in self._pair.roles}
        gpus = {role: device for role, device in devices.items() if device.kind == "gpu"}
        return self._cluster.nodes(gpus, {role: self._pair.pid(role) for role in self._pair.roles})

    def step(self, window: Window) -> None:
        """One stream of requests."""
        self.run(window)

    def run(self, window: Window) -> None:
        """Serves one stream; a pair that lost a role in an earlier window is started anew."""
        assert self._pair is not None, "prepare() comes first"
        if set(self._pair.roles) != set(self._settings.configuration.roles):
            self._pair.close()
            self._pair = self._started()
        before = self._pair.reports()
        vocabulary = self._pair.engine("new", "target")["vocabulary"]
        requests = stream_of(self._options, vocabulary, self._seed)
        limits = Limits(memory_bytes=self._memory(), request_timeout_s=self._options.request_timeout)
        opened_s = window.now_s()
        drive = Drive(self._pair, self._settings, limits, lambda: window.now_s() - opened_s)
        outcomes = drive.run(requests)
        held_s = window.now_s() - opened_s
        slo = self._targets()
        for outcome in outcomes:
            window.item(
                outcome.request.name,
                status=_STATUS[outcome.status or Status.FAILED],
                **_columns(outcome, slo, opened_s),
            )
            window.output(outcome.request.name, {"tokens": outcome.tokens, "reason": outcome.reason})
        self._devices(window, before, held_s)
        self._summarise(outcomes, drive)

    def _memory(self) -> dict[str, int]:
        given = {"new": self._options.new.memory, "old": self._options.old.memory}
        return {role: memory for role, memory in given.items() if memory is not None}

    def _targets(self) -> Slo:
        slo = self._options.slo
        return named(slo) if isinstance(slo, str) else Slo(slo.ttft, slo.tpot)

    def _devices(self, window: Window, before: Mapping[str, Mapping[str, Any]], held_s: float) -> None:
        """A row per role held; a role that was lost was busy for as long as it told last, and stays reserved."""
        assert self._pair is not None
        after = self._pair.reports()
        for role, device in self._held.items():
            told_s = self._pair.busy_s[role]
            busy_s = told_s - before[role]["busy_s"] if role in before else 0.0
            if role in after:
                self._cpu_s[role] = after[role]["cpu_s"] - before[role]["cpu_s"]
            window.device(
                device,
                role=role,
                busy_s=min(max(busy_s, 0.0), held_s),
                reserved_s=held_s,
                stands_for=getattr(self._options, role).kind or "",
            )

    def _summarise(self, outcomes: list[Outcome], drive: Drive) -> None:
        self._facts |= {
            "configuration": self._settings.configuration.value,
            "first_token": self._settings.first_token,
            "wire": self._settings.wire.value,
            "emulated": {role: getattr(self._options, role).slow_down for role in self._settings.configuration.roles},
            "shaped": self._options.link.bandwidth_gbit_s is not None or self._options.link.latency > 0,
            "role_cpu_s": dict(self._cpu_s),
            "devices": dict(self._held),
            "losses": [list(loss) for loss in drive.losses],
            "ended": {status.value: sum(outcome.status is status for outcome in outcomes) for status in Status},
            "reasons": sorted({outcome.reason for outcome in outcomes if outcome.reason}),
            "retried": sum(outcome.attempts > 1 for outcome in outcomes),
        }

    def facts(self) -> Mapping[str, object]:
        """What was emulated and shaped, how requests ended, CPU seconds of each role."""
        return self._facts

    def close(self) -> None:
        """Ends the processes, and the actors that own them."""
        pair, self._pair = self._pair, None
        if pair is not None:
            pair.close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()


def _columns(outcome: Outcome, slo: Slo, opened_s: float) -> dict[str, float | None]:
    request = outcome.request
    common: dict[str, float | None] = {
        "start_s": opened_s + request.arrival_s,
        "arrival_s": request.arrival_s,
        "prompt_tokens": len(request.prompt),
    }
    if outcome.status is not Status.FINISHED:
        return {**common, "meets_slo": 0.0}
    assert outcome.begun_s is not None
    return {
        **common,
        "first_token_s": opened_s + outcome.token_s[0],
        "end_s": opened_s + outcome.token_s[-1],
        "output_tokens": len(outcome.tokens),
        "ttft_s": outcome.ttft_s,
        "tpot_s": outcome.tpot_s,
        "latency_s": outcome.token_s[-1] - request.arrival_s,
        "queue_s": outcome.begun_s - request.arrival_s,
        "transfer_s": outcome.transfer_s,
        "bytes_sent": outcome.bytes_sent,
        "bytes_returned": outcome.bytes_returned,
        "rounds": outcome.rounds,
        "proposed_tokens": outcome.proposed,
        "accepted_tokens": outcome.accepted,
        "meets_slo": float(slo.met(outcome.ttft_s, outcome.tpot_s)),
    }
