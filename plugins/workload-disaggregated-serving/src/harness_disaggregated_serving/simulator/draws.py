"""How many proposals each speculative round keeps, drawn for whole blocks of requests and rounds at a time.

One number decides a round: as many proposals are kept as positions whose probability of being reached and kept lies
above it, which is the law of judging one after another. The draws of a request depend on the seed, the acceptance and
the request's number alone, so that it keeps them in every configuration and on every path of the simulator.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REQUESTS: Final = 128
"""Requests of a block. With `ROUNDS`, part of the definition of the draws."""
ROUNDS: Final = 64
"""Rounds of a block."""


@lru_cache(maxsize=64)
def _block(seed: int, acceptance: tuple[float, ...], chunk: int, number: int) -> NDArray[np.int64]:
    """Cumulative tokens after each round, shape (REQUESTS, ROUNDS)."""
    import numpy as np

    drawn = np.random.default_rng([seed, chunk, number]).random((REQUESTS, ROUNDS))
    kept = np.searchsorted(-np.cumprod(acceptance), -drawn, side="left")
    found: NDArray[np.int64] = np.cumsum(kept + 1, axis=1)
    return found


class Course(NamedTuple):
    """The rounds of a request until it has its tokens.

    Attributes:
        rounds: how many.
        accepted: proposals kept in all of them; those beyond the last token that is wanted count too.
        tokens: cumulative tokens after each round, shape (rounds,); the last is at least what was wanted.
    """

    rounds: int
    accepted: int
    tokens: NDArray[np.int64]


def course(seed: int, acceptance: tuple[float, ...], request: int, tokens: int) -> Course:
    """The rounds in which request number `request` gets `tokens` tokens, at least 1."""
    import numpy as np

    chunk, row = divmod(request, REQUESTS)
    found = _block(seed, acceptance, chunk, 0)[row]
    number = 1
    while found[-1] < tokens:
        found = np.concatenate([found, found[-1] + _block(seed, acceptance, chunk, number)[row]])
        number += 1
    rounds = int(found.searchsorted(tokens)) + 1
    found = found[:rounds]
    return Course(rounds, int(found[-1]) - rounds, found)
