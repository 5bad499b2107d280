"""The columns and functional units of every decoding workload here, so that a suite can compare them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness import Column, FunctionalUnit, Method

if TYPE_CHECKING:
    from harness_speculative_decoding.methods.rule import Speculated

COLUMNS = (
    Column("prompt_tokens", "1", "tokens of the prompt"),
    Column("output_tokens", "1", "generated tokens, an end token included", higher_is_better=True),
    Column("total_tokens", "1", "prompt and generated tokens"),
    Column(
        "ttft_s",
        "s",
        "time to first token: from the start of the request to its first token on the host",
        higher_is_better=False,
    ),
    Column(
        "tpot_s", "s", "time per output token: (latency - ttft) / max(1, output tokens - 1)", higher_is_better=False
    ),
    Column("latency_s", "s", "from the start of the request to its last token on the host", higher_is_better=False),
    Column("logprob", "1", "sum of the target's own log-probabilities of the generated tokens, in nats"),
    Column(
        "law_logprob", "1", "sum of log-probabilities under the law aimed at (tempered, tilted, truncated), in nats"
    ),
    Column("proposed_tokens", "1", "drafted tokens up to an end token or the length limit"),
    Column("judged_tokens", "1", "proposals that were tested; none behind the first rejection is"),
    Column("accepted_tokens", "1", "proposals that were kept"),
    Column("rounds", "1", "times that proposals were drafted and tested"),
    Column("prefill_calls", "1", "passes over the prompt's tokens but the last, of all models"),
    Column("target_calls", "1", "passes of the target after the prefill", higher_is_better=False),
    Column("draft_calls", "1", "passes of the draft that proposes, after the prefill"),
    Column("sft_calls", "1", "passes of the SFT draft after the prefill, where it judges"),
    Column("reward_calls", "1", "rewards worked out while decoding"),
    Column("tokens_per_target_call", "1", "output tokens / target calls of the request", higher_is_better=True),
    Column(
        "acceptance",
        "1",
        "accepted / judged tokens of the request; sum both columns to aggregate",
        higher_is_better=True,
    ),
    Column("log_z_mean", "1", "mean over the output's positions of log Z, the mass of target x aligned / SFT, in nats"),
    Column("log_z_std", "1", "standard deviation of log Z over the output's positions, in nats"),
    Column("log_z_min", "1", "smallest log Z of the output's positions, in nats"),
    Column("log_z_max", "1", "largest log Z of the output's positions, in nats"),
    Column("log_z_sum", "1", "sum of log Z, in nats: the log importance weight that would repair the sequence law"),
    Column("zero_residuals", "1", "rejections that left nothing to replace with", higher_is_better=False),
    Column("selection_reward", "1", "reward of the answer that was chosen", higher_is_better=True),
    Column(
        "predicted_odds",
        "1",
        "odds of a courteous answer under the tilted target: target odds x aligned odds / SFT odds of the models' own",
        method=Method.ESTIMATED,
    ),
    Column(
        "predicted_answered",
        "1",
        "share of right and courteous answers that the models' own answers predict for the method",
        method=Method.ESTIMATED,
    ),
)
"""A workload fills those that its method has; the others are missing, never 0."""

UNITS = {
    "token": FunctionalUnit.of("output_tokens"),
    "request": FunctionalUnit.of("items"),
}

REWARD_COLUMNS = (Column("reward", "1", "reward of prompt and answer", higher_is_better=True),)

ALIGNMENT_COLUMNS = (
    Column("pairs", "1", "preference pairs trained on; 0 in a step of fine-tuning", higher_is_better=True),
    Column("answers", "1", "answers computed, two of each pair"),
    Column("tokens", "1", "answer tokens computed"),
    Column("loss", "1", "mean DPO loss per pair, or loss per answer token in fine-tuning, in nats"),
    Column("reward_margin", "1", "mean implicit reward of the chosen over the rejected answers, before the step"),
    Column("reward_accuracy", "1", "share of pairs with a positive margin, before the step"),
    Column(
        "chosen_logprob",
        "1",
        "mean log-probability of the chosen answers before the step, in nats",
        higher_is_better=True,
    ),
    Column(
        "chosen_shift",
        "1",
        "that, less the reference's; where it falls, chosen answers lose likelihood whatever the margin says, in nats",
        higher_is_better=True,
    ),
    Column("latency_s", "s", "duration of the optimiser step", higher_is_better=False),
)
"""Columns of `draft-alignment`; an item is one optimiser step."""


def speculation_columns(result: Speculated) -> dict[str, float | None]:
    """Counts, Z statistics and log-probabilities of a request that several models decoded."""
    log_z = result.log_z
    return {
        "proposed_tokens": result.proposed,
        "judged_tokens": result.judged,
        "accepted_tokens": result.accepted,
        "rounds": result.rounds,
        "prefill_calls": result.prefill_calls,
        "target_calls": result.target_calls,
        "draft_calls": result.draft_calls,
        "sft_calls": result.sft_calls,
        "reward_calls": 0.0,
        "tokens_per_target_call": len(result.tokens) / result.target_calls,
        "acceptance": result.accepted / result.judged if result.judged else None,
        "log_z_mean": statistics.fmean(log_z) if log_z else None,
        "log_z_std": statistics.pstdev(log_z) if log_z else None,
        "log_z_min": min(log_z, default=None),
        "log_z_max": max(log_z, default=None),
        "log_z_sum": sum(log_z) if log_z else None,
        "zero_residuals": result.zero_residuals,
        "law_logprob": result.law_logprob,
    }
