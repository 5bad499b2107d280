"""The requests of a window, made before it opens: when each is due, what it says, how long its answer may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final

from harness_disaggregated_serving.endpoint.client import encoded
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.load import arrivals, prompts, traces
from harness_disaggregated_serving.load.lengths import application

USUAL_REQUESTS: Final = 40
"""Requests of a window that says neither how many nor for how long."""
MOST_REQUESTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Planned:
    """A conversation, mostly of one turn.

    Attributes:
        number: which of the stream.
        arrival_s: when its first turn is due; None in a closed loop, where a user's last answer decides.
        turns: what is said.
        body: the first turn's request, as it is sent.
    """

    number: int
    arrival_s: float | None
    turns: tuple[prompts.Turn, ...]
    body: bytes


class Load:
    """The stream of a workload, the same for every endpoint with the same seed.

    Args:
        options: of the workload.
        seed: of arrivals, lengths and prompts.

    Raises:
        UsageError: a trace or a file of prompts is none.
        MeasurementError: there is no such tokenizer.
    """

    def __init__(self, options: EndpointOptions, seed: int) -> None:
        self._options, self._seed = options, seed
        tokenizer = None if options.tokenizer is None else prompts.load_tokenizer(options.tokenizer)
        self._words = prompts.Words(tokenizer)
        self._blocks = prompts.BlockPrompts(self._words, seed)
        self._source, left = prompts.source(options.prompts, self._words, seed)
        self._trace: traces.Trace | None = None
        if options.trace is not None:
            self._trace = traces.read(Path(options.trace))
            if self._trace.layout == "own":  # ours holds no bad row, and its times count from the stream's beginning
                own = arrivals.trace(Path(options.trace))
                self._trace = traces.Trace("own", tuple(traces.TraceRow(*row) for row in own))
            left = {**left, **self._trace.left_out}
        self.left_out: Mapping[str, int] = left

    @property
    def facts(self) -> dict[str, object]:
        """What a record says of where the requests come from."""
        found: dict[str, object] = {"prompts": self._options.prompts.source}
        if self._trace is not None:
            found |= {"trace": self._trace.layout, "trace_rows": len(self._trace.rows)}
        return found | ({"left_out": dict(self.left_out)} if self.left_out else {})

    def planned(self, qps: float | None = None, requests: int | None = None) -> list[Planned]:
        """The conversations of a window.

        Args:
            qps: in place of the options' one.
            requests: likewise.
        """
        options = self._options
        count, duration_s = requests or options.requests, None if requests else options.duration
        rows = self._rows(qps or options.qps)
        if duration_s is not None and options.concurrency is None:
            rows = takewhile(lambda row: (row.arrival_s or 0.0) < duration_s, rows)
        if count is None and (duration_s is None or options.concurrency is not None) and self._trace is None:
            count = USUAL_REQUESTS
        return [self._one(number, row) for number, row in enumerate(islice(rows, count or MOST_REQUESTS))]

    def further(self, begun: int) -> Iterator[Planned]:
        """Conversations behind the first ones, for a closed loop that goes on for longer than they last."""
        for number, row in enumerate(self._rows(self._options.qps)):
            if number >= begun:
                yield self._one(number, row)

    def _rows(self, qps: float) -> Iterator[traces.TraceRow]:
        """Rows with times and lengths: the trace's, or drawn ones, or the trace's at drawn times."""
        options, trace = self._options, self._trace
        if trace is not None and trace.timed:
            for row in trace.rows:
                yield row._replace(arrival_s=(row.arrival_s or 0.0) / options.trace_speed)
            return
        processes: dict[str, arrivals.Arrivals] = {
            "poisson": arrivals.Poisson(qps),
            "constant": arrivals.Constant(qps),
            "all_at_once": arrivals.AllAtOnce(),
        }
        process = processes[options.arrivals]
        process = arrivals.Ramped(process, options.ramp) if options.ramp and options.concurrency is None else process
        drawn = arrivals.requests(process, application(options.sizes), MOST_REQUESTS, self._seed)
        for number, request in enumerate(drawn):
            if trace is None:
                yield traces.TraceRow(*request)
            elif number < len(trace.rows):
                row = trace.rows[number]
                yield row._replace(
                    arrival_s=request.arrival_s,
                    prompt_tokens=request.prompt_tokens,
                    output_tokens=row.output_tokens or None,
                )
            else:
                return

    def _one(self, number: int, row: traces.TraceRow) -> Planned:
        options = self._options
        prompt = self._scaled(row.prompt_tokens or 1)
        output = row.output_tokens
        if row.turns:
            turns = prompts.conversation_of(row.turns, self._words)[: options.prompts.turns]
            drawn = self._drawn_output(number)
            turns = tuple(
                prompts.Turn(turn.text, self._scaled(output or turn.output_tokens or drawn)) for turn in turns
            )
        elif row.blocks:
            text = self._blocks.prompt(row.blocks, prompt, options.length_scale)
            turns = (prompts.Turn(text, self._scaled(output or 1)),)
        else:
            turns = self._source.conversation(number, prompt, self._scaled(output or 1))
        closed = options.concurrency is not None
        return Planned(number, None if closed else row.arrival_s, turns, encoded(body_of(options, turns, ())))

    def _scaled(self, tokens: int) -> int:
        return max(1, math.ceil(tokens * self._options.length_scale))

    def _drawn_output(self, number: int) -> int:
        """An output length for a text whose answer nobody counted."""
        process = arrivals.AllAtOnce()
        stream = arrivals.requests(process, application(self._options.sizes), number + 1, self._seed)
        return next(islice(stream, number, None)).output_tokens


def body_of(
    options: EndpointOptions, turns: tuple[prompts.Turn, ...], answers: tuple[str, ...], stream: bool | None = None
) -> dict[str, Any]:
    """The request of the turn behind the answers so far; a stream ends in its usage.

    Args:
        options: of the workload.
        turns: of the conversation.
        answers: to the turns before.
        stream: whether it is streamed; as the options say if None.
    """
    turn = turns[len(answers)]
    if options.api == "completions":
        said = [part for before, answer in zip(turns, answers, strict=False) for part in (before.text, answer)]
        content: dict[str, Any] = {"prompt": "\n".join([*said, turn.text])}
    else:
        messages = []
        for before, answer in zip(turns, answers, strict=False):
            messages += [{"role": "user", "content": before.text}, {"role": "assistant", "content": answer}]
        content = {"messages": [*messages, {"role": "user", "content": turn.text}]}
    body = {
        "model": options.model,
        **content,
        "max_tokens": turn.output_tokens or 1,
        "temperature": options.temperature,
        "stream": options.stream if stream is None else stream,
    }
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
        if options.usage_per_chunk:
            body["stream_options"]["continuous_usage_stats"] = True
    return {**body, **options.extra}
