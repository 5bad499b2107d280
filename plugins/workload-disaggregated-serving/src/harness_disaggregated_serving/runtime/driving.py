"""The open loop: requests arrive when they arrive, are admitted by memory, and each one ends with a status."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness.errors import MeasurementError
from harness.quantity import Unavailable
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.runtime.memory import KvBudget
from harness_disaggregated_serving.runtime.pair import ENGINES, News, Pair
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings, Status
from harness_disaggregated_serving.transport.faults import LinkError

_LOSS_TOLD_S: Final = 0.2
"""The end of a process is told within so long of the end of its links, and a transfer's time of its request's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a drive.

    Attributes:
        memory_bytes: usable memory of each role's device; absent for no limit.
        overhead_bytes: what the framework takes of it.
        request_timeout_s: a request without a new token for so long has failed.
        attempts: how often a request is begun before its failure is final.
    """

    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    overhead_bytes: int = 0
    request_timeout_s: float = 60.0
    attempts: int = 2


@dataclass(slots=True)
class _Active:
    outcome: Outcome
    heard_s: float
    holds: dict[str, int]
    ahead: dict[int, Sequence[int]] = field(default_factory=dict)


class Drive:
    """One window of requests over a pair.

    Args:
        pair: running roles that hold the models of the settings' configuration.
        settings: how they work together.
        limits: memory, time, attempts.
        clock: seconds since the window opened.

    Attributes:
        losses: roles lost on the way, with the reason.
    """

    def __init__(self, pair: Pair, settings: Settings, limits: Limits, clock: Callable[[], float]) -> None:
        self._pair = pair
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._outcomes: dict[str, Outcome] = {}
        self._untimed: set[str] = set()
        self._active: dict[str, _Active] = {}
        self._queue: deque[Outcome] = deque()
        self._budgets: dict[str, KvBudget] = {}
        self._server = "new"
        self._over = ""
        self.losses: list[tuple[str, str]] = []

    def run(self, requests: Sequence[PromptedRequest]) -> list[Outcome]:
        """Serves all requests; returns their outcomes in order of arrival, each with a status."""
        outcomes = [Outcome(request) for request in sorted(requests, key=lambda request: request.arrival_s)]
        self._outcomes = {outcome.request.name: outcome for outcome in outcomes}
        self._configure(self._settings)
        coming = deque(outcomes)
        while coming or self._queue or self._active:
            now = self._clock()
            while coming and coming[0].request.arrival_s <= now:
                self._arrive(coming.popleft())
            self._admit()
            wait = min(0.05, coming[0].request.arrival_s - now) if coming else 0.05
            news = self._pair.news(max(0.0, wait))
            while news is not None:
                self._hear(news)
                news = self._pair.news(0.0)
            self._expire()
        deadline = time.monotonic() + _LOSS_TOLD_S
        while self._untimed and (left := deadline - time.monotonic()) > 0:
            last = self._pair.news(left)
            if last is not None:
                self._hear(last)
        return outcomes

    def _configure(self, settings: Settings) -> None:
        self._settings = settings
        self._pair.configure(settings)
        held = (
            {self._server: ("target",)}
            if settings.configuration is Configuration.STANDALONE
            else ENGINES[settings.configuration]
        )
        self._budgets = {}
        for role, names in held.items():
            engines = [self._pair.engine(role, name) for name in names]
            self._budgets[role] = KvBudget(
                self._limits.memory_bytes.get(role),
                sum(engine["weight_bytes"] for engine in engines),
                self._limits.overhead_bytes,
                sum(engine["bytes_per_token"] for engine in engines),
                role,
            )

    def _needs(self, request: PromptedRequest) -> dict[str, int]:
        """Tokens that a request's caches hold at most, per role."""
        prompt, whole = len(request.prompt), len(request.prompt) + request.output_tokens
        match self._settings.configuration:
            case Configuration.STANDALONE:
                return {self._server: whole}
            case Configuration.SPEC_LOCAL:
                return {"new": whole + self._settings.gamma + 1}
            case Configuration.DPD:
                return {"new": prompt, "old": whole}
            case Configuration.DSD:
                return dict.fromkeys(("new", "old"), whole + self._settings.gamma + 1)

    def _arrive(self, outcome: Outcome) -> None:
        if self._over:
            self._end(outcome, Status.FAILED, self._over)
            return
        reason = self._impossible(outcome.request)
        if reason is not None:
            self._end(outcome, Status.REJECTED, reason.reason)
        else:
            self._queue.append(outcome)

    def _impossible(self, request: PromptedRequest) -> Unavailable | None:
        needs = self._needs(request)
        for role, tokens in needs.items():
            context = min(
                self._pair.engine(role, name)["context"] for name in ("target", "draft") if self._pair.holds(role, name)
            )
            if tokens > context:
                return Unavailable(f"does not fit: {tokens} tokens, the model on {role} has a context of {context}")
            reason = self._budgets[role].never_fits(tokens)
            if reason is not None:
                return reason
        return None

    def _admit(self) -> None:
        """Begins queued requests in order, as long as the first one fits."""
        while self._queue:
            outcome = self._queue[0]
            needs = self._needs(outcome.request)
            taken: dict[str, int] = {}
            for role, tokens in needs.items():
                if not self._budgets[role].take(tokens):
                    break
                taken[role] = tokens
            if len(taken) < len(needs):
                self._give_back(taken)
                return
            self._queue.popleft()
            outcome.begin_attempt()
            self._active[outcome.request.name] = _Active(outcome, self._clock(), taken)
            try:
                for role in self._receivers(outcome.request):
                    self._pair.submit(role, outcome.request)
            except LinkError:
                return  # the loss is told by the link, and everything under way is begun again

    def _receivers(self, request: PromptedRequest) -> Sequence[str]:
        configuration = self._settings.configuration
        if configuration is Configuration.DSD and request.output_tokens > 1:
            return ("new", "old")
        return (self._server,)

    def _give_back(self, holds: Mapping[str, int]) -> None:
        for role, tokens in holds.items():
            self._budgets[role].give(tokens)

    def _end(self, outcome: Outcome, status: Status, reason: str = "") -> None:
        outcome.status, outcome.reason, outcome.ended_s = status, reason, self._clock()
        active = self._active.pop(outcome.request.name, None)
        if active is not None:
            self._give_back(active.holds)

    def _hear(self, news: News) -> None:
        if news.kind == "lost":
            self._lose(news.role, news.fields["reason"])
        elif news.kind == "peer-lost":
            self._lose_link(news.fields["reason"])
        elif news.kind == "tokens":
            now = self._clock()  # tokens of one message come at one moment: the end of one step
            for event in news.fields["events"]:
                self._tokens(now, *event)
        elif news.kind == "timed" and news.fields["name"] in self._outcomes:
            self._outcomes[news.fields["name"]].transfer_s = news.fields["transfer_s"]
            self._untimed.discard(news.fields["name"])
        elif news.kind in {"begun", "moved"} and news.fields["name"] in self._active:
            active = self._active[news.fields["name"]]
            active.heard_s = self._clock()
            if news.kind == "begun":
                active.outcome.begun_s = active.heard_s
            else:
                if news.fields["transfer_s"] is not None:
                    active.outcome.transfer_s = news.fields["transfer_s"]
                elif active.outcome.transfer_s is None:
                    self._untimed.add(news.fields["name"])  # the sending role tells it
                active.outcome.bytes_sent += news.fields["bytes"]
                self._give_back({"new": active.holds.pop("new")})

    def _tokens(self, now: float, name: str, position: int, tokens: Sequence[int], *round_: Any) -> None:
        """Takes a request's tokens in their order: those of one role can overtake those of the other on its link."""
        active = self._active.get(name)
        if active is None:
            return
        outcome = active.outcome
        active.heard_s = now
        active.ahead[position] = tokens
        while (due := active.ahead.pop(len(outcome.tokens), None)) is not None:
            outcome.tokens += due
            outcome.token_s += [now] * len(due)
        if round_:
            proposed, kept, sent, returned = round_
            outcome.rounds += 1
            outcome.proposed += proposed
            outcome.accepted += kept
            outcome.bytes_sent += sent
            outcome.bytes_returned += returned
        if len(outcome.tokens) >= outcome.request.output_tokens:
            self._end(outcome, Status.FINISHED)

    def _expire(self) -> None:
        now = self._clock()
        for name, active in list(self._active.items()):
            if now - active.heard_s > self._limits.request_timeout_s:
                self._pair.drop(name)
                self._end(
                    active.outcome, Status.FAILED, f"no token for {self._limits.request_timeout_s:g} s, it was given up"
                )

    def _lose_link(self, reason: str) -> None:
        """The link between the roles broke: because one of them did, which is told a moment later, or by itself."""
        while (news := self._pair.news(_LOSS_TOLD_S)) is not None:
            self._hear(news)
            if len(self._pair.roles) < 2:
                return
        self._lose("old", f"the link between the roles: {reason}")

    def _lose(self, role: str, reason: str) -> None:
        """Goes on without a role: what was under way is begun again on the other one, or fails."""
        if role not in self._pair.roles or self._over:
            return
        self.losses.append((role, reason))
        self._pair.lose(role)
        under_way = [active.outcome for active in self._active.values()]
        self._active.clear()
        left = [other for other in self._pair.roles if self._pair.holds(other, "target")]
        reason = f"role {role} was lost: {reason}"
        for outcome in under_way:
            if outcome.attempts >= self._limits.attempts:
                self._end(outcome, Status.FAILED, reason)
        waiting = [*(outcome for outcome in under_way if outcome.status is None), *self._queue]
        self._queue.clear()
        if left:
            self._server = left[0]
            try:
                self._configure(replace(self._settings, configuration=Configuration.STANDALONE))
            except (LinkError, MeasurementError) as error:
                self._over = f"{reason}; then the other one: {error}"
        else:
            self._over = reason
        for outcome in waiting:
            self._arrive(outcome)


def serve(
    pair: Pair,
    requests: Sequence[PromptedRequest],
    settings: Settings,
    limits: Limits | None = None,
    clock: Callable[[], float] | None = None,
) -> list[Outcome]:
    """Serves requests over a pair; their outcomes in order of arrival."""
    began = time.monotonic()
    return Drive(pair, settings, limits or Limits(), clock or (lambda: time.monotonic() - began)).run(requests)
