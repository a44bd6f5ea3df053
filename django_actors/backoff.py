"""
How long to wait before a retry. Pure arithmetic; nothing here knows a message.
"""

from __future__ import annotations

import random

# 2 ** 63 ms is far above any maximum; a larger power only costs memory.
_LARGEST_EXPONENT = 63


def compute_backoff(attempt: int, *, min_backoff: int, max_backoff: int) -> int:
    """
    Return the wait before a retry, exponential with jitter.

    Args:
        attempt: How many retries came before, from 0.

        min_backoff: Milliseconds; the first wait is never shorter unless
            *max_backoff* is.

        max_backoff: Milliseconds; no wait is longer.

    Returns:
        Milliseconds in ``min_backoff * 2**attempt * [1, 2]``, or in
        ``max_backoff * [0.5, 1]`` where that would be above the maximum; between both
        limits if they are in order.
    """
    wait: float = min_backoff * 2 ** min(attempt, _LARGEST_EXPONENT) * random.uniform(1, 2)
    if wait > max_backoff:
        wait = max_backoff * random.uniform(0.5, 1)
        if min_backoff <= max_backoff:
            wait = max(wait, min_backoff)
    return round(wait)
