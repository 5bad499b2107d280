"""What a request is, for the client and for the roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.traffic import Wire

if TYPE_CHECKING:
    from harness_speculative_decoding.methods.sampling import Sampling


def _law(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Sampling:
    from harness_speculative_decoding.methods.sampling import Sampling  # it brings torch: not before there is work

    return Sampling(temperature, top_k, top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the roles work together; sent to both before requests are.

    Attributes:
        configuration: who does what.
        gamma: proposals a round.
        wire: what the draft sends.
        row_dtype: precision of probability rows on the wire: `float16` or `float32`.
        first_token: who emits a request's first token in `dpd`.
        sampling: the law of the tokens.
    """

    configuration: Configuration = Configuration.STANDALONE
    gamma: int = 4
    wire: Wire = Wire.FULL
    row_dtype: Literal["float16", "float32"] = "float16"
    first_token: Literal["prefill", "decode"] = "prefill"  # noqa: S105 - no password, a token of text
    sampling: Sampling = field(default_factory=_law)

    def __post_init__(self) -> None:
        if self.gamma < 1:
            raise ValueError(f"a round has at least one proposal, not {self.gamma}")
        if self.wire is Wire.IDS and self.sampling.temperature != 0:
            raise ValueError("wire mode `ids` is exact for greedy decoding only; accepted: `full` or `lazy`")

    def to_json(self) -> dict[str, Any]:
        """As it goes over a link."""
        law = self.sampling
        return {
            "configuration": self.configuration.value,
            "gamma": self.gamma,
            "wire": self.wire.value,
            "row_dtype": self.row_dtype,
            "first_token": self.first_token,
            "sampling": [law.temperature, law.top_k, law.top_p],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """As it came."""
        return cls(
            configuration=Configuration(data["configuration"]),
            gamma=data["gamma"],
            wire=Wire(data["wire"]),
            row_dtype=data["row_dtype"],
            first_token=data["first_token"],
            sampling=_law(*data["sampling"]),
        )


@dataclass(frozen=True, slots=True)
class PromptedRequest:
    """One request of the open loop.

    Attributes:
        name: unique in its window.
        arrival_s: scheduled arrival, seconds from the window's first possible one.
        prompt: token ids.
        output_tokens: tokens to generate; requests end there, whatever the tokens are.
        seed: of its random numbers.
    """

    name: str
    arrival_s: float
    prompt: Sequence[int]
    output_tokens: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt or self.output_tokens < 1 or self.arrival_s < 0:
            raise ValueError(
                f"request {self.name!r} has {len(self.prompt)} prompt tokens, {self.output_tokens} to generate and "
                f"arrives at {self.arrival_s} s; each has at least one, and none arrives before 0"
            )


class Status(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    REJECTED = "rejected"
    """It can never fit."""
    FAILED = "failed"


@dataclass(slots=True)
class Outcome:
    """What became of a request. Times are seconds on the client's clock, from the same zero as arrivals.

    Attributes:
        request: what was asked.
        status: None while it is under way.
        reason: why it was rejected or failed.
        attempts: how often it was begun; a retried request begins anew, and its times are those of the last attempt.
        begun_s: a device began to serve it.
        token_s: each token's arrival at the client.
        tokens: the tokens.
        transfer_s: its cache's time on the link, emulated latency included; None where nothing was moved.
        bytes_sent: of its cache, ids and rows towards the other role; bodies only.
        bytes_returned: verdicts and questions.
        rounds: verified rounds.
        proposed: proposed tokens.
        accepted: kept ones.
    """

    request: PromptedRequest
    status: Status | None = None
    reason: str = ""
    attempts: int = 0
    begun_s: float | None = None
    token_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    transfer_s: float | None = None
    bytes_sent: int = 0
    bytes_returned: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    ended_s: float | None = None

    def begin_attempt(self) -> None:
        """Forgets what an earlier attempt left."""
        self.attempts += 1
        self.begun_s = self.transfer_s = None
        self.token_s, self.tokens = [], []
        self.bytes_sent = self.bytes_returned = self.rounds = self.proposed = self.accepted = 0

    @property
    def ttft_s(self) -> float | None:
        """From the scheduled arrival to the first token."""
        return self.token_s[0] - self.request.arrival_s if self.token_s else None

    @property
    def tpot_s(self) -> float | None:
        """(last - first token) / (tokens - 1); None for a single token."""
        count = len(self.token_s)
        return (self.token_s[-1] - self.token_s[0]) / (count - 1) if count > 1 else None
