"""Offers the workload `vanilla`: sampling from a causal language model. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Column, FunctionalUnit, Workload, WorkloadSpec, hookimpl
from harness_speculative_decoding.options import VanillaOptions

COLUMNS = (
    Column("prompt_tokens", "1", "tokens of the prompt"),
    Column("output_tokens", "1", "generated tokens, an end token included", higher_is_better=True),
    Column("total_tokens", "1", "prompt and generated tokens"),
    Column("ttft_s", "s", "from the start of the request to its first token on the host", higher_is_better=False),
    Column("tpot_s", "s", "(latency - ttft) / max(1, output tokens - 1)", higher_is_better=False),
    Column("latency_s", "s", "from the start of the request to its last token on the host", higher_is_better=False),
    Column("logprob", "1", "sum of the target's own log-probabilities of the generated tokens, in nats"),
)
"""Columns of every decoding workload here."""


def _vanilla(options: VanillaOptions) -> Workload:
    from harness_speculative_decoding.workload import Vanilla

    return Vanilla(options)


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """The workload `vanilla`."""
    return [
        WorkloadSpec(
            name="vanilla",
            summary="KV-cached sampling from one causal language model",
            factory=_vanilla,
            columns=COLUMNS,
            functional_units={
                "token": FunctionalUnit.of("output_tokens"),
                "request": FunctionalUnit.of("items"),
            },
            options=VanillaOptions,
            backends=("torch",),
        )
    ]
