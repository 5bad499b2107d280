"""The paper's loop for one sequence, as it is written down: no cache, no batch, no tricks, names as in the paper.

Of no use for anything but reading, and for checking `speculation`, which gives the same tokens. Li, Wu, Luo and Zhang,
"Reward-Shifted Speculative Sampling Is An Efficient Test-Time Weak-to-Strong Aligner" (arXiv 2508.15044).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from harness_speculative_decoding.methods.sampling import Uniforms

Policy = Callable[[Sequence[int]], Tensor]
"""log pi(. | x, y): tokens so far -> log-probabilities of the next one, (vocabulary,), in float64."""


def sss(
    pi_ref: Policy,
    pi_sft: Policy,
    pi_r: Policy,
    x: Sequence[int],
    *,
    K: int,  # noqa: N803 - the paper's name
    max_new_tokens: int,
    seed: int = 0,
    eos: Collection[int] = (),
    mode: Literal["exact", "paper"] = "exact",
) -> list[int]:
    """Draws an answer y to the prompt x by reward-shifted speculative sampling at temperature 1.

    Args:
        pi_ref: large, unaligned.
        pi_sft: small, before preference optimisation.
        pi_r: the same after it; writes the drafts.
        x: the prompt.
        K: drafts of a round.
        max_new_tokens: limit of y.
        seed: of the three streams of random numbers, which are those of `speculation`.
        eos: tokens that end y.
        mode: `exact` judges by p = pi_ref pi_r / (Z pi_sft), and takes a bonus token from p after a full round;
            `paper` judges by pi_ref / pi_sft, and takes none.
    """
    to_draft, to_test, to_replace = (Uniforms(seed, name) for name in ("proposals", "tests", "replacements"))
    y: list[int] = []
    while len(y) < max_new_tokens and not (y and y[-1] in eos):
        k, (u_replace,) = min(K, max_new_tokens - len(y)), to_replace.take(1)
        drafts: list[int] = []
        for u in to_draft.take(k):
            drafts.append(_sample(pi_r([*x, *y, *drafts]).exp(), u))
        for v, u in zip(drafts, to_test.take(k), strict=True):
            ref, sft, r = (pi([*x, *y]) for pi in (pi_ref, pi_sft, pi_r))
            q = ref + r - sft
            p = q - q.logsumexp(-1)
            log_ratio = p[v] - r[v] if mode == "exact" else ref[v] - sft[v]
            if math.log(1 - u) <= min(0.0, float(log_ratio)):
                y.append(v)
            else:
                shifted = p if mode == "exact" else q
                residual = torch.where(shifted - r > 1e-13, shifted.exp() - r.exp(), 0.0)
                y.append(_sample(residual if float(residual.sum()) > 0 else p.exp(), u_replace))
                break
            if v in eos:
                break
        else:
            if mode == "exact" and len(y) < max_new_tokens:
                y.append(_sample((pi_ref([*x, *y]) + pi_r([*x, *y]) - pi_sft([*x, *y])).softmax(-1), u_replace))
    return y


def _sample(weights: Tensor, u: float) -> int:
    """The token in whose share of the summed weights the number u of [0, 1) falls."""
    cumulative = weights.cumsum(-1)
    return int(torch.searchsorted(cumulative, u * cumulative[-1:], right=True))
