"""Bandwidth shaping: a token bucket at the sender."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Lets bytes pass at a mean rate, with a burst of at most `burst_bytes`.

    A message may be larger than the burst: the bucket then goes into debt and the bytes pass when the debt is paid, so
    that a message of n bytes on an idle link takes n / rate once the bucket is empty. The bucket starts empty, so that
    the first message is shaped like all others.

    Args:
        bytes_per_s: the mean rate.
        burst_bytes: what an idle link saves up.
        clock: seconds, monotonic.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        bytes_per_s: float,
        burst_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < bytes_per_s < float("inf"):
            raise ValueError(f"a rate is positive and finite, not {bytes_per_s} B/s")
        if burst_bytes < 0:
            raise ValueError(f"a burst is not negative, not {burst_bytes} B")
        self._rate = bytes_per_s
        self._burst_s = burst_bytes / bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._paid_until = clock()

    def take(self, count: int) -> float:
        """Waits until `count` bytes may have passed; returns the seconds waited."""
        now = self._clock()
        self._paid_until = max(self._paid_until, now - self._burst_s) + count / self._rate
        wait = self._paid_until - now
        if wait <= 0:
            return 0.0
        self._sleep(wait)
        return wait
