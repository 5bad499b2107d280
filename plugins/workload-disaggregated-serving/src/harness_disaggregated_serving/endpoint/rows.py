"""Writes the rows of a window, and what a record says of all its requests together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from harness.workload import Window
from harness_disaggregated_serving.endpoint import engine_metrics, latency
from harness_disaggregated_serving.endpoint.answer import Answer
from harness_disaggregated_serving.endpoint.driving import Asked, ClientLoad
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.endpoint.planned import Load
from harness_disaggregated_serving.endpoint.steady import why_unsteady
from harness_disaggregated_serving.load.slo import Slo

BUSY: Final = 0.7
"""A client whose thread works for more of the time than this reads chunks late."""
LATE_S: Final = 0.01
"""A client that sends later than this (95th percentile) is behind its own schedule."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What came of a window's requests.

    Attributes:
        began_s: when the stream began.
        asked: the requests.
        begin_s: of the steady span; None where it never opened.
        end_s: likewise.
        client: what the client took.
        metrics: of the engine.
        metrics_failed: how often they could not be read.
    """

    began_s: float
    asked: Sequence[Asked]
    begin_s: float | None
    end_s: float | None
    client: ClientLoad
    metrics: Sequence[tuple[float, Mapping[str, float]]] = ()
    metrics_failed: int = 0


class Writer:
    """Turns answers into rows and facts.

    Args:
        options: of the workload.
        slo: the suite's latency targets.
    """

    def __init__(self, options: EndpointOptions, slo: Slo) -> None:
        self._options, self._slo = options, slo
        self.facts: dict[str, object] = {}
        self.flags: list[str] = []
        self.unsteady = ""

    def meets(self, answer: Answer) -> bool | None:
        """Whether a request met the targets; None where that hangs on tokens that the server did not count."""
        if not answer.finished:
            return False
        ttft_s = None if answer.first_s is None else answer.first_s - answer.due_s
        if ttft_s is None or ttft_s > self._slo.ttft_s:
            return False
        if answer.output_tokens is None:
            return None
        return self._slo.met(ttft_s, latency.tpot_s(answer, latency.chunk_tokens(answer)))

    def write(self, window: Window, stream: Stream, load: Load, qps: float | None) -> None:
        """The rows and outputs of a window; and its facts and flags."""
        answers = [each.answer for each in stream.asked]
        unsteady = why_unsteady(answers, stream.begin_s, stream.end_s)
        for each in stream.asked:
            answer = each.answer
            window.item(each.item_id, status=answer.status, **self._row(each, stream, unsteady, qps))
            window.output(
                each.item_id,
                {
                    "text": answer.text,
                    "reason": answer.reason,
                    "retries": answer.retries,
                    "ended_by": answer.ended_by,
                },
            )
        self.unsteady = self.unsteady or unsteady
        self._tell(stream, answers, load, unsteady)

    def _row(self, asked: Asked, stream: Stream, unsteady: str, qps: float | None) -> dict[str, float | None]:
        answer = asked.answer
        met = self.meets(answer)
        row: dict[str, float | None] = {
            "start_s": answer.due_s,
            "arrival_s": answer.due_s - stream.began_s,
            "turn": asked.turn,
            "meets_slo": None if met is None else float(met),
            "max_qps": qps,
            **engine_metrics.at(stream.metrics, answer.due_s),
        }
        if not answer.finished:
            return row
        begin_s, end_s = stream.begin_s, stream.end_s
        steady = not unsteady and begin_s is not None and end_s is not None
        tokens: int | None = 0
        if steady and begin_s is not None and end_s is not None:
            tokens = latency.tokens_between(answer, begin_s, end_s)
            row["in_steady"] = float(begin_s <= answer.due_s < end_s)
        else:
            row["in_steady"] = 0.0
        return {
            **row,
            **latency.columns(answer),
            "steady_tokens": tokens,
            "client_cpu_per_chunk_s": stream.client.per_chunk_s,
        }

    def _tell(self, stream: Stream, answers: Sequence[Answer], load: Load, unsteady: str) -> None:
        finished = [answer for answer in answers if answer.finished]
        counted = [tokens for answer in finished if (tokens := latency.chunk_tokens(answer)) is not None]
        gaps = sorted(gap for answer in finished for gap in latency.gaps_s(answer))
        client, slo = stream.client, self._slo
        estimated = sum(tokens.estimated for tokens in counted)
        elapsed_s = client.elapsed_s
        rates, lost = self._rates(answers, elapsed_s)
        self.facts = {
            "slo": {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s},
            "ended": {
                "finished": len(finished),
                "rejected": sum(answer.rejected for answer in answers),
                "failed": sum(not answer.finished and not answer.rejected for answer in answers),
            },
            "retries": sum(answer.retries for answer in answers),
            "without_usage": sum(answer.output_tokens is None for answer in finished),
            "chunk_tokens_estimated": estimated,
            "reasons": sorted({answer.reason for answer in answers if answer.reason}),
            "load": load.facts,
            **rates,
            "rates_not_available": lost,
            "inter_token_s": _spread(gaps),
            "steady": {"begin_s": stream.begin_s, "end_s": stream.end_s, "why_not": unsteady or None},
            "client": {
                "cpu_s": client.cpu_s,
                "elapsed_s": elapsed_s,
                "chunks": client.chunks,
                "cpu_per_chunk_s": client.per_chunk_s,
            },
            "engine": engine_metrics.summary(stream.metrics),
            "engine_readings_failed": stream.metrics_failed,
        }
        if estimated:
            self.flags.append(
                "tokens of a chunk are estimated by its share of the text: the server counts none in its chunks "
                "(usage_per_chunk asks vLLM and SGLang for it)"
            )
        self.flags += [f"{rate} is not available: {reason}" for rate, reason in lost.items()]
        self.flags += client_faults(client, [a.sent_s - a.due_s for a in answers if a.sent_s is not None])

    def _rates(self, answers: Sequence[Answer], elapsed_s: float) -> tuple[dict[str, float | None], dict[str, str]]:
        """Rates over the window; None, and why, where one hangs on tokens that the server did not count."""
        if not elapsed_s:
            return dict.fromkeys(("requests_per_s", "goodput_per_s", "output_tokens_per_s")), {}
        finished = [answer for answer in answers if answer.finished]
        met = [self.meets(answer) for answer in answers]
        counts = [answer.output_tokens for answer in finished]
        rates: dict[str, float | None] = {
            "requests_per_s": len(finished) / elapsed_s,
            "goodput_per_s": None if None in met else sum(map(bool, met)) / elapsed_s,
            "output_tokens_per_s": None if None in counts else sum(count or 0 for count in counts) / elapsed_s,
        }
        reason = f"the server sent no token count (usage) of {counts.count(None)} of {len(finished)} requests"
        return rates, {name: reason for name, rate in rates.items() if rate is None}


def client_faults(client: ClientLoad, late_s: Sequence[float]) -> list[str]:
    """What speaks for the client, and not the server, having set the pace.

    Args:
        client: what it took.
        late_s: by how much each request was sent after its time.
    """
    found = []
    share = client.cpu_s / client.elapsed_s if client.elapsed_s > 0 else 0.0
    if share > BUSY:
        found.append(
            f"the client may be the bottleneck: its thread worked {share:.0%} of the time, "
            f"{1e6 * (client.per_chunk_s or 0.0):.0f} µs a chunk"
        )
    late = latency.quantile(sorted(late_s), 0.95)
    if late is not None and late > LATE_S:
        found.append(
            f"the client may be the bottleneck: 5 % of the requests were sent {1e3 * late:.0f} ms late or more"
        )
    return found


def _spread(ordered: Sequence[float]) -> dict[str, float | None]:
    return {
        "count": len(ordered),
        "mean": fmean(ordered) if ordered else None,
        **{name: latency.quantile(ordered, level) for name, level in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
    }
