"""Service times of a pair as its own streams show them: what the simulator is calibrated with.

A stream at work has what requests served alone do not: caches that other requests' work has displaced, prompts of every
length, processes that share the cores. All times are the client's, from one message of a role to the next, so that what
a step's messages take is part of the step.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

from harness_disaggregated_serving.runtime.requests import Outcome, Status
from harness_disaggregated_serving.simulator.calibration import DecodePoint, PrefillPoint, TransferPoint

POOLED: Final = 8
"""Decode steps of similar size that make one cell: a single step says more of the scheduler than of the model."""


def _served(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Requests that were finished at the first attempt; a second one began amid the loss of a role."""
    return [one for one in outcomes if one.status is Status.FINISHED and one.attempts == 1]


def prefill_points(outcomes: Sequence[Outcome]) -> list[PrefillPoint]:
    """From the word that a prefill began to its first token; the prefilling role emits it."""
    return [
        PrefillPoint((len(one.request.prompt),), one.token_s[0] - one.begun_s)
        for one in _served(outcomes)
        if one.begun_s is not None and one.token_s[0] > one.begun_s
    ]


def decode_points(outcomes: Sequence[Outcome], *, shared: bool) -> list[DecodePoint]:
    """Steps that began as soon as the step or prefill before them ended, in cells of steps of similar size.

    Args:
        outcomes: all requests of one stream.
        shared: whether prefills run on the same device, between the steps.
    """
    steps: dict[float, list[tuple[Outcome, int]]] = {}
    for one in outcomes:
        for position, moment in enumerate(one.token_s):
            if position:
                steps.setdefault(moment, []).append((one, position))
    ends = sorted({one.token_s[0] for one in outcomes if one.token_s} | steps.keys()) if shared else sorted(steps)
    found = []
    for before, moment in pairwise(ends):
        batch = steps.get(moment, [])
        if any(shared or position > 1 for _, position in batch):  # one of them was running when `before` ended
            context = sum(len(one.request.prompt) + position for one, position in batch)
            found.append(DecodePoint(len(batch), context, moment - before))
    return pooled(found)


def pooled(steps: Sequence[DecodePoint]) -> list[DecodePoint]:
    """Means over steps of one batch size and neighbouring contexts; fewer than half a cell of them are left out.

    The cost is linear in both, so that its mean is that of the cell's means.
    """
    cells = []
    ordered = sorted(steps, key=lambda step: (step.batch, step.context_tokens))
    for batch, group in groupby(ordered, key=lambda step: step.batch):
        same = list(group)
        for start in range(0, len(same), POOLED):
            cell = same[start : start + POOLED]
            if len(cell) < POOLED / 2:
                continue
            context = round(statistics.fmean(step.context_tokens for step in cell))
            cells.append(DecodePoint(batch, context, statistics.fmean(step.seconds for step in cell)))
    return cells


def transfer_points(outcomes: Sequence[Outcome]) -> list[TransferPoint]:
    """Caches on the link."""
    return [TransferPoint(one.bytes_sent, one.transfer_s) for one in _served(outcomes) if one.transfer_s]


def dispatch_s(outcomes: Sequence[Outcome], *, shared: bool) -> float:
    """Median time from an arrival to the start of its prefill on a device that had nothing else to do: the messages'.

    Raises:
        ValueError: every request found the device at work.
    """
    waits = []
    for one in _served(outcomes):
        at_s = one.request.arrival_s
        others = (other for other in outcomes if other is not one and other.token_s)
        if one.begun_s is not None and not any(
            other.request.arrival_s <= at_s < other.token_s[-1 if shared else 0] for other in others
        ):
            waits.append(one.begun_s - at_s)
    if not waits:
        raise ValueError("every request found the device at work: the messages' share of the waiting is not seen")
    return statistics.median(waits)
