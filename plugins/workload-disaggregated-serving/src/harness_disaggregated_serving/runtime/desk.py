"""What every duty of a role works with: engines, links, a stopwatch, and the state of a request."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from harness_speculative_decoding.methods.sampling import Sampling, warp
from torch import Tensor

from harness_disaggregated_serving.runtime.engine import Engine, Running
from harness_disaggregated_serving.runtime.requests import Settings
from harness_disaggregated_serving.runtime.speculation import pick
from harness_disaggregated_serving.transport.link import Link, Message

_DRAFT_SEED = 0x5DEECE66D
"""Mixed into a request's seed for its draft, whose random numbers must not be those that judge it."""


def to_wire(tensor: Tensor) -> memoryview:
    """A tensor's bytes; one on a GPU is copied into pinned memory first."""
    if tensor.device.type == "cuda":
        staged = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        tensor = staged.copy_(tensor)
    # numpy has no bfloat16, so that the bytes are viewed before it sees them
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def from_wire(body: memoryview | bytearray, dtype: torch.dtype) -> Tensor:
    """A tensor of one dimension over received bytes."""
    return torch.frombuffer(body, dtype=dtype)


@dataclass(slots=True)
class Served:
    """A request on a role."""

    name: str
    output_tokens: int
    sampling: Sampling
    generator: torch.Generator
    running: Running
    prompt_tokens: int

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.running.tokens) - self.prompt_tokens

    def uniform(self) -> float:
        """The request's next random number in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def choose(self, logits: Tensor) -> int:
        """Draws the next token from logits, (vocabulary,)."""
        return pick(warp(logits, self.sampling), self.uniform())


@dataclass(slots=True)
class Desk:
    """A role's tools.

    Attributes:
        role: `new` or `old`.
        engines: `target`, `draft`, or both.
        client: the link to the client.
        peer: the link to the other role.
        slow_down: emulated: each step takes so many times its own duration.
        epoch: number of the current settings; what belongs to an older one is dropped.
    """

    role: str
    engines: Mapping[str, Engine]
    client: Link
    peer: Link | None = None
    slow_down: float = 1.0
    settings: Settings = field(default_factory=Settings)
    epoch: int = 0
    busy_s: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts a step as busy time and stretches it by the emulated slow-down."""
        began = time.monotonic()
        yield
        if self.slow_down > 1:
            time.sleep((self.slow_down - 1) * (time.monotonic() - began))
        self.busy_s += time.monotonic() - began

    def tell(self, kind: str, **fields: Any) -> None:
        """Sends the client a message of the current epoch, with the busy time so far."""
        self.client.send(kind, {"epoch": self.epoch, "busy_s": self.busy_s, **fields})

    def to_peer(self, kind: str, fields: Mapping[str, Any], pieces: Sequence[memoryview] = ()) -> None:
        """Sends the other role a message of the current epoch; its loss is told by the link itself."""
        assert self.peer is not None, "this configuration has two roles"
        self.peer.send(kind, {"epoch": self.epoch, **fields}, pieces)

    def admit(self, fields: Mapping[str, Any], prompt: Sequence[int], engine: Engine, room: int) -> Served:
        """The state of a request with room for `room` tokens after its prompt."""
        seed = int(fields["seed"]) ^ (_DRAFT_SEED if engine is self.engines.get("draft") else 0)
        return Served(
            name=fields["name"],
            output_tokens=fields["output_tokens"],
            sampling=self.settings.sampling,
            generator=torch.Generator().manual_seed(seed),
            running=Running(list(prompt), engine.new_cache(len(prompt) + room)),
            prompt_tokens=len(prompt),
        )


class Duty(ABC):
    """What a role does in a configuration."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """What is done with each kind of message."""
        return {"request": self.take}

    @abstractmethod
    def take(self, message: Message) -> None:
        """A new request: its fields, and the prompt's ids as the body."""

    @abstractmethod
    def has_work(self) -> bool:
        """Whether `iterate` would do something now."""

    @abstractmethod
    def iterate(self) -> None:
        """One iteration: every request that can go a step goes one."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Forgets a request."""


def prompt_of(message: Message) -> list[int]:
    """The prompt in a request's body."""
    ids: list[int] = from_wire(message.body, torch.int32).tolist()
    return ids
