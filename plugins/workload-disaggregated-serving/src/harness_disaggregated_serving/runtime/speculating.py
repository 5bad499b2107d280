"""Duties that speculate: draft and target on one role, or the draft on one and the target on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from harness_speculative_decoding.methods.sampling import warp
from torch import Tensor

from harness_disaggregated_serving.runtime.decoding import Standalone
from harness_disaggregated_serving.runtime.desk import Desk, Duty, Served, from_wire, prompt_of, to_wire
from harness_disaggregated_serving.runtime.engine import Engine
from harness_disaggregated_serving.runtime.requests import Settings
from harness_disaggregated_serving.runtime.speculation import Verdict, judge, judged_law, pick, residual, wire_row
from harness_disaggregated_serving.traffic import Wire
from harness_disaggregated_serving.transport.link import Message

_ASK = -1
"""In place of a verdict's token: the row of the proposal at `kept` is wanted."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A round of one request.

    Attributes:
        tokens: proposed ids.
        rows: the draft's laws as they are sent, (tokens, vocabulary); None where they stayed with the draft.
        chances: probability of each id in its law.
    """

    tokens: list[int]
    rows: Tensor | None
    chances: list[float]


def propose(engine: Engine, drafts: Sequence[Served], settings: Settings) -> list[Proposal]:
    """Gamma tokens for every request, one at a time; each is drawn from the row that would be sent."""
    dtype = getattr(torch, settings.row_dtype)
    rows: list[list[Tensor]] = [[] for _ in drafts]
    chances: list[list[float]] = [[] for _ in drafts]
    for _ in range(settings.gamma):
        logits = engine.advance([draft.running for draft in drafts])
        for place, draft in enumerate(drafts):
            row = wire_row(warp(logits[place][-1], draft.sampling), dtype)
            law = judged_law(row)
            token = pick(law, draft.uniform())
            draft.running.tokens.append(token)
            rows[place].append(row)
            # Single precision is what the wire carries; both ends must compare the same number.
            chances[place].append(float(law[token].float()))
    return [
        Proposal(draft.running.tokens[-settings.gamma :], torch.stack(kept), chance)
        for draft, kept, chance in zip(drafts, rows, chances, strict=True)
    ]


class Judgement:
    """One request's round at the target, which may have to wait for a row of the draft."""

    def __init__(self, target: Served, rows: Tensor, proposal: Proposal, settings: Settings) -> None:
        self.target = target
        self.proposal = proposal
        self._rows = rows
        self._uniforms = [target.uniform() for _ in range(settings.gamma + 1)]
        laws = None if proposal.rows is None else judged_law(proposal.rows)
        chances = proposal.chances
        self.verdict = judge(rows, proposal.tokens, chances, laws, self._uniforms)
        if self.verdict.token is None and settings.wire is Wire.IDS:
            # Greedy: the residual of two laws with all mass on different tokens is the target's own.
            self.verdict = Verdict(self.verdict.kept, int(rows[self.verdict.kept].argmax()))

    def complete(self, row: Tensor) -> None:
        """Draws the last token with the row of the rejected proposal."""
        kept = self.verdict.kept
        self.verdict = Verdict(kept, pick(residual(self._rows[kept], judged_law(row)), self._uniforms[-1]))

    def tokens(self) -> list[int]:
        """Kept proposals and the token after them."""
        assert self.verdict.token is not None, "the rejected row is still missing"
        return [*self.proposal.tokens[: self.verdict.kept], self.verdict.token]


def verify(engine: Engine, rounds: Sequence[tuple[Served, Proposal]], settings: Settings) -> list[Judgement]:
    """Computes all proposals of all requests and judges them; tokens are not yet appended."""
    for target, proposal in rounds:
        target.running.tokens += proposal.tokens
    logits = engine.advance([target.running for target, _ in rounds])
    judged = []
    for (target, proposal), row in zip(rounds, logits, strict=True):
        Engine.rewind(target.running, len(target.running.tokens) - len(proposal.tokens))
        judged.append(Judgement(target, warp(row, target.sampling), proposal, settings))
    return judged


def settle(served: Served, kept: Sequence[int], token: int, base: int) -> None:
    """Brings a request's tokens, `base` of which were certain, to the verdict; its cache keeps what stays valid."""
    Engine.rewind(served.running, base + len(kept))
    served.running.tokens[base:] = kept
    served.running.tokens.append(token)


def _accept(judgement: Judgement) -> tuple[int, list[int]]:
    """Appends a verdict to the target's sequence; how many tokens it had, and those that the request still wanted."""
    served, tokens = judgement.target, judgement.tokens()
    before = served.generated
    served.running.tokens += tokens
    # The rows of kept proposals are in the cache beyond its length: they were computed and stay valid.
    served.running.cache.length += len(tokens) - 1
    return before, tokens[: served.output_tokens - before]


class SpecLocal(Standalone):
    """Draft and target on one role; a round for every running request is one iteration."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.draft_engine = desk.engines["draft"]
        self.drafts: dict[str, Served] = {}

    def take(self, message: Message) -> None:
        """Queues the request with a cache in either model."""
        prompt = prompt_of(message)
        room = int(message.fields["output_tokens"]) + self.desk.settings.gamma + 1
        self.waiting.append(self.desk.admit(message.fields, prompt, self.engine, room))
        name = message.fields["name"]
        self.drafts[name] = self.desk.admit(message.fields, prompt, self.draft_engine, room)

    def prefill(self, served: Served) -> None:
        """The prompt in both models; the first token is the target's."""
        draft = self.drafts[served.name]
        self.desk.tell("begun", name=served.name)
        with self.desk.working():
            token = served.choose(self.engine.prefill(served.running))
            self.draft_engine.prefill(draft.running)
        draft.running.tokens.append(token)
        self.emit([(served, token)])

    def decode(self) -> None:
        """One round for every running request."""
        if not self.running:
            return
        settings = self.desk.settings
        drafts = [self.drafts[served.name] for served in self.running]
        bases = [len(draft.running.tokens) for draft in drafts]
        with self.desk.working():
            proposals = propose(self.draft_engine, drafts, settings)
            judged = verify(self.engine, list(zip(self.running, proposals, strict=True)), settings)
        events = []
        for judgement, draft, base in zip(judged, drafts, bases, strict=True):
            *kept, token = judgement.tokens()
            settle(draft, kept, token, base)
            events.append([draft.name, *_accept(judgement), settings.gamma, judgement.verdict.kept, 0, 0])
        self.desk.tell("tokens", events=events)
        self.running = [served for served in self.running if served.generated < served.output_tokens]
        going = {served.name for served in [*self.running, *self.waiting]}
        self.drafts = {name: draft for name, draft in self.drafts.items() if name in going}

    def drop(self, name: str) -> None:
        """Forgets a request."""
        super().drop(name)
        self.drafts.pop(name, None)


class Verifier(Standalone):
    """The target's half of `dsd`: computes prompts, judges what the draft sends."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.proposed: list[tuple[Served, Proposal, int]] = []
        self.asked: dict[str, tuple[Judgement, int]] = {}

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """Requests from the client, proposals and rows from the draft."""
        return {"request": self.take, "proposals": self.receive, "rows": self.complete}

    def take(self, message: Message) -> None:
        """Queues the request."""
        room = int(message.fields["output_tokens"]) + self.desk.settings.gamma + 1
        self.waiting.append(self.desk.admit(message.fields, prompt_of(message), self.engine, room))

    def has_work(self) -> bool:
        """Whether a prompt or a proposal waits; a running request waits for the draft."""
        return bool(self.waiting or self.proposed)

    def emit(self, drawn: list[tuple[Served, int]]) -> None:
        """Emits the first token and tells the draft to begin with it."""
        super().emit(drawn)
        for served, token in drawn:
            if served in self.running:
                self.desk.to_peer("begin", {"name": served.name, "token": token})

    def receive(self, message: Message) -> None:
        """A round of one or more requests."""
        settings, known = self.desk.settings, {served.name: served for served in self.running}
        names = message.fields["names"]
        each = len(message.body) // len(names)
        for place, name in enumerate(names):
            if name in known:
                body = message.body[place * each : (place + 1) * each]
                self.proposed.append((known[name], unpack_proposal(body, settings), each))

    def decode(self) -> None:
        """Judges every round that has arrived."""
        if not self.proposed:
            return
        rounds, self.proposed = self.proposed, []
        with self.desk.working():
            judged = verify(self.engine, [(served, proposal) for served, proposal, _ in rounds], self.desk.settings)
        self.settle_all([(judgement, size) for judgement, (_, _, size) in zip(judged, rounds, strict=True)])

    def complete(self, message: Message) -> None:
        """Rows of rejected proposals, in the order in which they were asked for."""
        names = message.fields["names"]
        rows = from_wire(message.body, getattr(torch, self.desk.settings.row_dtype)).view(len(names), -1)
        done = []
        for name, row in zip(names, rows, strict=True):
            if name in self.asked:
                judgement, size = self.asked.pop(name)
                with self.desk.working():
                    judgement.complete(row)
                done.append((judgement, size + len(message.body) // len(names)))
        self.settle_all(done)

    def settle_all(self, judged: Sequence[tuple[Judgement, int]]) -> None:
        """Sends verdicts and questions to the draft, new tokens to the client."""
        answers, numbers, events = [], [], []
        for judgement, size in judged:
            name, verdict = judgement.target.name, judgement.verdict
            answers.append(name)
            numbers += [verdict.kept, _ASK if verdict.token is None else verdict.token]
            if verdict.token is None:
                self.asked[name] = (judgement, size)
                continue
            questions = int(self.desk.settings.wire is Wire.LAZY and verdict.kept < len(judgement.proposal.tokens))
            returned = 8 * (1 + questions)
            events.append([name, *_accept(judgement), len(judgement.proposal.tokens), verdict.kept, size, returned])
        if answers:
            self.desk.to_peer("verdicts", {"names": answers}, [to_wire(torch.tensor(numbers, dtype=torch.int32))])
        if events:
            self.desk.tell("tokens", events=events)
        self.running = [served for served in self.running if served.generated < served.output_tokens]

    def drop(self, name: str) -> None:
        """Forgets a request."""
        super().drop(name)
        self.proposed = [entry for entry in self.proposed if entry[0].name != name]
        self.asked.pop(name, None)


class Drafter(Duty):
    """The draft's half of `dsd`: proposes for every request that is not waiting for a verdict."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.engine = desk.engines["draft"]
        self.served: dict[str, Served] = {}
        self.unread: list[Served] = []
        self.ready: list[str] = []
        self.sent: dict[str, tuple[int, Proposal]] = {}
        self.begun: dict[str, int] = {}

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """Requests from the client, first tokens and verdicts from the target."""
        return {"request": self.take, "begin": self.begin, "verdicts": self.receive}

    def take(self, message: Message) -> None:
        """Queues the request."""
        room = int(message.fields["output_tokens"]) + self.desk.settings.gamma + 1
        served = self.desk.admit(message.fields, prompt_of(message), self.engine, room)
        self.unread.append(served)

    def begin(self, message: Message) -> None:
        """The target's first token of a request, whose prompt may still be on its way here."""
        self.begun[message.fields["name"]] = int(message.fields["token"])

    def has_work(self) -> bool:
        """Whether a prompt waits or a request may propose."""
        return bool(self.unread or self.ready or self.begun.keys() & self.served.keys())

    def iterate(self) -> None:
        """A prompt, then a round for every request that may propose."""
        if self.unread:
            served = self.unread.pop(0)
            with self.desk.working():
                self.engine.prefill(served.running)
            self.served[served.name] = served
        for name in self.begun.keys() & self.served.keys():
            self.served[name].running.tokens.append(self.begun.pop(name))
            self.ready.append(name)
        names, self.ready = self.ready, []
        if not names:
            return
        drafts = [self.served[name] for name in names]
        bases = [len(draft.running.tokens) for draft in drafts]
        with self.desk.working():
            proposals = propose(self.engine, drafts, self.desk.settings)
            pieces = [piece for proposal in proposals for piece in pack_proposal(proposal, self.desk.settings)]
        self.sent |= {name: (base, one) for name, base, one in zip(names, bases, proposals, strict=True)}
        self.desk.to_peer("proposals", {"names": names}, pieces)

    def receive(self, message: Message) -> None:
        """Verdicts of rounds: kept counts and next tokens, or questions for a row."""
        numbers = from_wire(message.body, torch.int32).view(-1, 2).tolist()
        asked, rows = [], []
        for name, (kept, token) in zip(message.fields["names"], numbers, strict=True):
            if name not in self.sent:
                continue
            base, proposal = self.sent[name]
            if token == _ASK:
                assert proposal.rows is not None, "the draft keeps its rows"
                asked.append(name)
                rows.append(to_wire(proposal.rows[kept]))
                continue
            del self.sent[name]
            served = self.served[name]
            settle(served, proposal.tokens[:kept], token, base)
            if served.generated < served.output_tokens:
                self.ready.append(name)
            else:
                del self.served[name]
        if asked:
            self.desk.to_peer("rows", {"names": asked}, rows)

    def drop(self, name: str) -> None:
        """Forgets a request."""
        self.unread = [served for served in self.unread if served.name != name]
        self.ready = [other for other in self.ready if other != name]
        holders: tuple[dict[str, Any], ...] = (self.served, self.sent, self.begun)
        for holder in holders:
            holder.pop(name, None)


def pack_proposal(proposal: Proposal, settings: Settings) -> list[memoryview]:
    """A round's bytes: ids of 4 bytes, then rows, or one probability of 4 bytes each, or nothing."""
    pieces = [to_wire(torch.tensor(proposal.tokens, dtype=torch.int32))]
    if settings.wire is Wire.FULL:
        assert proposal.rows is not None, "the draft has its rows"
        pieces.append(to_wire(proposal.rows))
    elif settings.wire is Wire.LAZY:
        pieces.append(to_wire(torch.tensor(proposal.chances, dtype=torch.float32)))
    return pieces


def unpack_proposal(body: memoryview, settings: Settings) -> Proposal:
    """The round behind `pack_proposal`'s bytes."""
    gamma = settings.gamma
    tokens = from_wire(body[: 4 * gamma], torch.int32).tolist()
    if settings.wire is Wire.IDS:
        return Proposal(tokens, None, [1.0] * gamma)
    if settings.wire is Wire.LAZY:
        return Proposal(tokens, None, from_wire(body[4 * gamma :], torch.float32).tolist())
    rows = from_wire(bytearray(body[4 * gamma :]), getattr(torch, settings.row_dtype)).view(gamma, -1)
    chances = judged_law(rows).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    return Proposal(tokens, rows, chances.float().tolist())
