"""
How fast a worker process finishes messages, and so how many to claim ahead.
"""

from __future__ import annotations

import time

# What is claimed ahead is work for this long: enough to hide a round trip to a broker that is
# near, too little to keep messages from other processes or to make an urgent one wait.
AHEAD_S = 0.02

# Where it is far away: for so many round trips. The acknowledgements of one batch, the claim of
# the next and the messages on their way are up to three; one more, and the pace may grow.
ROUND_TRIPS = 4
LONGEST_AHEAD_S = 0.5

# Short: until the first one is over after a pause, nothing is claimed ahead.
WINDOW_S = 0.02

# What was measured before a silence of this length says nothing about now.
SILENCE_S = 0.2


class Pace:
    """
    Measures a worker, and says how much it may claim beyond what its threads can begin.

    A fixed prefetch is wrong for somebody: with messages of an hour, one process sits on what
    others could run; with messages of no length, every claim is a round trip for a few.

    Args:
        most: How many to claim ahead at most.

    Attributes:
        round_trip_s: How long the broker takes to answer.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._began = time.monotonic()
        self._count = 0
        self._rate = 0.0
        self.round_trip_s = 0.0

    def note(self, count: int) -> None:
        """Note that *count* messages were finished."""
        self._count += count
        elapsed = time.monotonic() - self._began
        # Messages come in gusts, a round trip apart: of less than some nothing can be told.
        if elapsed >= max(WINDOW_S, self._trips_s):
            self._rate = self._count / elapsed
            self._began += elapsed
            self._count = 0

    @property
    def ahead(self) -> int:
        """How many messages to claim beyond the idle threads."""
        elapsed = time.monotonic() - self._began
        is_fresh = elapsed < max(SILENCE_S, 2 * self._trips_s)
        rate = self._rate if is_fresh else self._count / elapsed
        return min(self._most, int(rate * max(AHEAD_S, self._trips_s)))

    @property
    def _trips_s(self) -> float:
        return min(ROUND_TRIPS * self.round_trip_s, LONGEST_AHEAD_S)
