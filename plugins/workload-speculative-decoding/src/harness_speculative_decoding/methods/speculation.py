"""Speculative sampling with two models, and reward-shifted speculative sampling with three, for a batch of requests.

The draft proposes K tokens; the target, and the SFT draft where there is one, read all of them in one pass; the rule of
`laws` keeps some and replaces the first one that it rejects. Rows of the batch progress at their own pace. Whatever is
read back from the device in a round comes in one piece.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness_speculative_decoding.methods.decoding import Request
from harness_speculative_decoding.methods.laws import (
    INFINITY,
    Judged,
    judge,
    log_law,
    product,
    promoted,
    replacement,
    truncate,
)
from harness_speculative_decoding.methods.rule import Rule, Speculated, Trio
from harness_speculative_decoding.methods.sampling import NO_LAW, SpeculationError, Uniforms, draw
from harness_speculative_decoding.methods.stopping import Stop, first_stop, never
from harness_speculative_decoding.networks.cached import on_device


@dataclass(slots=True)
class _Row:
    """A request on its way."""

    ids: list[int]
    result: Speculated
    budget: int
    proposals: Uniforms
    tests: Uniforms
    replacements: Uniforms
    full: int = 0
    pending: float | None = None
    replacing: float = 0.0
    ended: bool = False

    @property
    def room(self) -> int:
        return self.budget - len(self.result.tokens)

    @property
    def expects_bonus(self) -> bool:
        """Whether most rounds so far ended in one."""
        return 2 * self.full > self.result.rounds


@dataclass(slots=True)
class _Draft:
    """Proposals of a round: ids (rows, k), the rows they were drawn from, (rows, k, V), and come from, k or k + 1."""

    tokens: Tensor
    proposal: Tensor
    aligned: Tensor


@dataclass(slots=True)
class _Verdict:
    """What a round read back, a row of the batch at a time.

    Attributes:
        kept: how many proposals pass before the first that does not.
        token: the replacement, or the bonus where it needs no further pass.
        empty: whether the residual was.
        drafted: the proposals.
        log_z, logprob, law_logprob: at each position; the last of `logprob` and `law_logprob` are of `token`.
    """

    kept: int
    token: int
    empty: bool
    drafted: list[int]
    log_z: list[float]
    logprob: list[float]
    law_logprob: list[float]


def capacity_for(prompt: int, new_tokens: int, draft_tokens: int) -> int:
    """Tokens that a cache must hold for a prompt: its output, and proposals behind the last token."""
    return prompt + new_tokens + draft_tokens + 1


@torch.inference_mode()
def speculate(
    models: Trio,
    requests: Sequence[Request],
    *,
    rule: Rule,
    max_new_tokens: int,
    eos: Collection[int] = (),
    stop: Stop = never,
    clock: Callable[[], float] = time.monotonic,
    ahead: bool | None = None,
) -> list[Speculated]:
    """Decodes a batch of requests, all begun together; the tokens of each are those that it would get alone.

    Args:
        models: of one vocabulary, with or without an SFT draft.
        requests: the batch.
        rule: of acceptance and replacement.
        max_new_tokens: limit of each request.
        eos: token ids that end a request.
        stop: whether a request ends with its last token.
        clock: seconds; read after each round's tokens have reached the host.
        ahead: whether the aligned draft's pass behind the last proposal, which a bonus token needs, is made before it
            is known whether there will be one: never a second look at the device, and a pass too many where there is
            none. By default always on anything but a CPU, and there once most rounds of a request end in a bonus. The
            tokens are the same.

    Raises:
        ValueError: an empty prompt, no token to make, a mode that needs an SFT draft and has none, or one wrapped model
            in two roles.
        SpeculationError: an invariant of the algorithm does not hold, or logits are not numbers.
    """
    if models.sft is None and rule.mode != "exact":
        raise ValueError(f"mode {rule.mode} needs an SFT draft")
    if max_new_tokens < 1 or not requests or not all(request.prompt for request in requests):
        raise ValueError("there is a request, each prompt has a token, and at least one new token is asked for")
    if len(set(map(id, models.all))) < len(models.all):
        raise ValueError("one wrapped model in two roles: wrap it once for each, as each keeps what it has read")
    return _Rounds(models, requests, rule, max_new_tokens, frozenset(eos), stop, clock, ahead=ahead).run()


class _Rounds:
    """The loop of one batch."""

    def __init__(
        self,
        models: Trio,
        requests: Sequence[Request],
        rule: Rule,
        max_new_tokens: int,
        eos: frozenset[int],
        stop: Stop,
        clock: Callable[[], float],
        *,
        ahead: bool | None,
    ) -> None:
        self.models, self.rule, self.eos, self.stop, self.clock = models, rule, eos, stop, clock
        self.device = models.target.device
        self.always = self.device.type != "cpu" if ahead is None else ahead
        self.may_be_ahead = rule.takes_bonus and models.sft is not None and ahead is not False
        self.ahead = False
        self.wide = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
        self.results: list[Speculated] = []
        self.rows: list[_Row] = []
        for request in requests:
            proposals, tests, replacements = (
                Uniforms(request.seed, purpose) for purpose in ("proposals", "tests", "replacements")
            )
            row = _Row(list(request.prompt), Speculated(), max_new_tokens, proposals, tests, replacements)
            row.result.prefill_calls = len(models.all) if len(request.prompt) > 1 else 0
            self.rows.append(row)
            self.results.append(row.result)
        capacity = capacity_for(max(len(row.ids) for row in self.rows), max_new_tokens, rule.draft_tokens)
        for model in models.all:
            model.prefill([row.ids[:-1] for row in self.rows], capacity)

    def run(self) -> list[Speculated]:
        """Rounds until every request has ended."""
        while self.rows:
            self._round()
        return self.results

    def _round(self) -> None:
        budgets = [min(self.rule.draft_tokens, row.room) for row in self.rows]
        width = max(budgets)
        self.ahead = self.may_be_ahead and any(map(self._is_ahead, self.rows))
        uniform = self._uniforms(budgets, width)
        last = on_device([[row.ids[-1]] for row in self.rows], self.device)  # before the device is given work
        draft = self._draft(uniform[:, :width])
        drafted = draft.tokens.shape[1]
        read = torch.cat([last, draft.tokens], dim=1)
        target = promoted(self.models.target.extend(read, drafted + 1))
        sft = None if self.models.sft is None else promoted(self.models.sft.extend(read, drafted + 1))
        tests = uniform[:, width : width + drafted]
        verdicts = self._verdicts(draft, target, sft, tests, uniform[:, -1])
        for row, verdict, budget in zip(self.rows, verdicts, budgets, strict=True):
            self._settle(row, verdict, budget)
        if any(row.pending is not None for row in self.rows):
            assert sft is not None  # without one the bonus is drawn in the same pass
            self._bonus(draft.tokens[:, -1:], target[:, -1], sft[:, -1])
        self._close_round()

    def _is_ahead(self, row: _Row) -> bool:
        """Whether a request would make its bonus pass ahead if it were alone."""
        return self.may_be_ahead and (self.always or row.expects_bonus)

    # Proposals

    def _uniforms(self, budgets: Sequence[int], width: int) -> Tensor:
        """Random numbers of a round, (rows, 2 * width + 1): proposals, tests (in (0, 1]), replacement.

        A row takes as many as its own budget asks for, so that its numbers do not depend on its neighbours.
        """
        table = []
        for row, budget in zip(self.rows, budgets, strict=True):
            unused = [0.5] * (width - budget)
            row.replacing = row.replacements.take(1)[0]
            tests = [1.0 - number for number in row.tests.take(budget)]
            table.append([*row.proposals.take(budget), *unused, *tests, *unused, row.replacing])
        return on_device(table, self.device, self.wide)

    def _draft(self, uniform: Tensor) -> _Draft:
        """Draws the proposals, token by token."""
        rule, model = self.rule, self.models.draft
        # After a full round with a bonus the draft of the plain method has not read its own last proposal either.
        lacking = max(len(row.ids) - length for row, length in zip(self.rows, model.lengths, strict=True))
        model.drop([length + lacking - len(row.ids) for row, length in zip(self.rows, model.lengths, strict=True)])
        read = on_device([row.ids[-lacking:] for row in self.rows], self.device)
        tokens: list[Tensor] = []
        proposals: list[Tensor] = []
        aligned: list[Tensor] = []
        ended = [False] * len(self.rows)
        for step in range(uniform.shape[1]):
            logits = promoted(model.extend(read, 1)[:, 0])
            law = log_law(logits, rule.temperature)
            proposal = truncate(law, rule.draft_top_k, rule.draft_top_p)
            drawn = draw(proposal.exp(), uniform[:, step])
            aligned.append(logits if rule.temperature == 0 else law)
            proposals.append(proposal)
            tokens.append(drawn)
            read = drawn[:, None]
            if self.eos and self.device.type == "cpu":  # elsewhere looking at a token would stop the device
                ended = [before or token in self.eos for before, token in zip(ended, drawn.tolist(), strict=True)]
                if all(ended):
                    break
        if self.ahead:
            logits = promoted(model.extend(read, 1)[:, 0])
            aligned.append(self._rows_of(logits))
        return _Draft(torch.stack(tokens, 1), torch.stack(proposals, 1), torch.stack(aligned, 1))

    # Tests and replacement, on the device

    def _rows_of(self, logits: Tensor) -> Tensor:
        """Tempered log-probabilities; at temperature 0 the logits themselves, whose sum is looked at."""
        return logits if self.rule.temperature == 0 else log_law(logits, self.rule.temperature)

    def _law(self, target: Tensor, aligned: Tensor, sft: Tensor) -> tuple[Tensor, Tensor]:
        """The tilted target, truncated as the rule says, and log Z."""
        shifted = product(target, aligned, sft)
        log_z = shifted.logsumexp(-1)
        law = log_law(shifted, 0) if self.rule.temperature == 0 else shifted - log_z[..., None]
        return truncate(law, self.rule.top_k, self.rule.top_p), log_z

    def _verdicts(
        self, draft: _Draft, target_logits: Tensor, sft_logits: Tensor | None, tests: Tensor, replacing: Tensor
    ) -> list[_Verdict]:
        rule = self.rule
        count = draft.tokens.shape[1]
        target = self._rows_of(target_logits)
        peaks = [draft.aligned.amax(-1), target.amax(-1)]  # a maximum of numbers that are none is none
        if sft_logits is None:
            log_p = truncate(log_law(target_logits, rule.temperature), rule.top_k, rule.top_p)
            log_z = torch.zeros_like(log_p[..., 0])
            judged = judge("exact", draft.tokens, draft.proposal, log_p[:, :count], target[:, :count])
        else:
            sft = self._rows_of(sft_logits)
            peaks.append(sft.amax(-1))
            known = draft.aligned.shape[1]
            log_p, log_z = self._law(target[:, :known], draft.aligned, sft[:, :known])
            judged = judge(
                rule.judged_by, draft.tokens, draft.proposal, log_p[:, :count], target[:, :count], sft[:, :count]
            )
        if log_p.shape[1] > count:  # the row of the bonus
            both = (torch.cat([part, log_p[:, count:]], 1) for part in (judged.log_weight, judged.log_p))
            judged = Judged(judged.log_ratio, *both)
        passed = tests.log() <= judged.log_ratio.clamp(max=0)
        kept = passed.long().cumprod(1).sum(1)
        rows = torch.arange(len(self.rows), device=self.device)
        at = kept.clamp(max=judged.log_weight.shape[1] - 1)
        proposal = draft.proposal[rows, at.clamp(max=count - 1)].masked_fill((kept == count)[:, None], -INFINITY)
        weights, empty = replacement(rule.judged_by, judged.log_weight[rows, at], proposal, judged.log_p[rows, at])
        if rule.judged_by == "released" and rule.replaced_by == "argmax":
            token = weights.argmax(-1)
        else:
            token = draw(weights, replacing)
        tokens = torch.cat([draft.tokens, token[:, None]], dim=1)
        at_tokens = torch.cat([torch.arange(count, device=self.device).expand(len(self.rows), -1), at[:, None]], dim=1)
        place = rows[:, None], at_tokens
        # At temperature 1 the target's rows are its own log-probabilities already.
        own = target if rule.temperature == 1 else target_logits.log_softmax(-1)
        logprob, law_logprob = own[(*place, tokens)], log_p[(*place, tokens)]
        sound = torch.cat(peaks, 1).isfinite().all(1, keepdim=True)
        parts = [sound, kept[:, None], empty[:, None], tokens, log_z, logprob, law_logprob]
        table = torch.cat([part.to(self.wide) for part in parts], dim=1).tolist()
        return [_read_back(numbers, count, log_z.shape[1]) for numbers in table]

    # Back on the host

    def _settle(self, row: _Row, verdict: _Verdict, budget: int) -> None:
        """Appends what a row keeps and counts what it took."""
        result, was_ahead = row.result, self._is_ahead(row)
        limit = min(budget, len(verdict.drafted))
        end = next((number for number, token in enumerate(verdict.drafted[:limit]) if token in self.eos), limit - 1)
        limit = end + 1
        stopped = first_stop(result.tokens, verdict.drafted[:limit], self.stop)
        limit = limit if stopped is None else stopped + 1
        kept = min(verdict.kept, limit)
        result.rounds += 1
        result.target_calls += 1
        result.sft_calls += self.models.sft is not None
        result.draft_calls += limit + was_ahead
        result.proposed += limit
        result.accepted += kept
        result.judged += min(kept + 1, limit)
        for position in range(kept):
            self._append(row, verdict.drafted[position], verdict, position, position, position == stopped)
        row.pending = None
        if kept < limit:
            result.zero_residuals += verdict.empty
            self._append(row, verdict.token, verdict, kept, -1)
        elif self.rule.takes_bonus and not row.ended and row.room > 0:
            row.full += 1
            if self.models.sft is None or self.ahead:
                result.draft_calls += self.ahead and not was_ahead
                self._append(row, verdict.token, verdict, kept, -1)
            else:
                row.pending = row.replacing

    def _append(self, row: _Row, token: int, verdict: _Verdict, at: int, of_token: int, *stops: bool) -> None:
        """Adds one token; `of_token` is where its log-probabilities stand."""
        self._add(row, token, verdict.log_z[at], verdict.logprob[of_token], verdict.law_logprob[of_token], *stops)

    def _add(self, row: _Row, token: int, log_z: float, logprob: float, law_logprob: float, *stops: bool) -> None:
        """Adds one token; `stops` says whether a stop string ends with it, where that has been looked at already."""
        if not math.isfinite(log_z) or math.isnan(law_logprob) or math.isnan(logprob):
            raise SpeculationError(NO_LAW)
        result = row.result
        if self.models.sft is not None and self.rule.temperature > 0:
            result.log_z.append(log_z)
        result.logprob += logprob
        result.law_logprob += law_logprob
        result.tokens.append(token)
        row.ids.append(token)
        if token in self.eos:
            result.stopped = "eos"
        elif any(stops) if stops else self.stop(result.tokens):
            result.stopped = "stop"
        row.ended = result.stopped != "length"

    def _bonus(self, last: Tensor, target_logits: Tensor, sft_logits: Tensor) -> None:
        """One more pass of the aligned draft, and a token from the law behind the last proposal."""
        aligned = promoted(self.models.draft.extend(last, 1)[:, 0])
        log_p, log_z = self._law(*map(self._rows_of, (target_logits, aligned, sft_logits)))
        token = draw(log_p.exp(), on_device([row.replacing for row in self.rows], self.device, self.wide))[:, None]
        logprob = target_logits.gather(-1, token)[:, 0] - target_logits.logsumexp(-1)
        parts = [token, log_z[:, None], logprob[:, None], log_p.gather(-1, token)]
        table = torch.cat([part.to(self.wide) for part in parts], dim=1).tolist()
        for row, (drawn, row_log_z, row_logprob, row_law) in zip(self.rows, table, strict=True):
            if row.pending is not None:
                row.result.draft_calls += 1
                self._add(row, int(drawn), row_log_z, row_logprob, row_law)

    def _close_round(self) -> None:
        """Stamps the tokens, brings every model back to all ids but the last, and lets go of rows that have ended."""
        now = self.clock()
        most = self.rule.draft_tokens + self.rule.takes_bonus
        for row in self.rows:
            result = row.result
            made = len(result.tokens) - len(result.token_s)
            result.token_s += [now] * made
            if not (1 <= made <= most and row.room >= 0 and result.accepted <= result.judged <= result.proposed):
                raise SpeculationError(f"a round made {made} tokens of at most {most}, {row.room} of them too few")
        for model in self.models.all:
            surplus = [length - len(row.ids) + 1 for row, length in zip(self.rows, model.lengths, strict=True)]
            allowed = -1 if model is self.models.draft and self.models.sft is None else 0
            if min(surplus) < allowed:
                raise SpeculationError(f"a model has read {-min(surplus)} tokens too few")
            model.drop([max(0, count) for count in surplus])
        going_on = [number for number, row in enumerate(self.rows) if not row.ended and row.room > 0]
        if len(going_on) < len(self.rows):
            self.rows = [self.rows[number] for number in going_on]
            if self.rows:
                for model in self.models.all:
                    model.select(going_on)


def _read_back(numbers: list[float], count: int, known: int) -> _Verdict:
    """Takes apart one row of what a round reads back: `count` proposals, log Z at `known` positions."""
    if not numbers[0]:
        raise SpeculationError(NO_LAW)
    kept, empty = int(numbers[1]), bool(numbers[2])
    tokens = [int(number) for number in numbers[3 : count + 4]]
    rest = numbers[count + 4 :]
    log_z, logprob, law = rest[:known], rest[known : known + count + 1], rest[known + count + 1 :]
    return _Verdict(kept, tokens[-1], empty, tokens[:-1], log_z, logprob, law)
