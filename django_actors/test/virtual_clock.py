"""
A clock that moves when the test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django_actors import clock
from django_actors.brokers import get_broker


class VirtualClock:
    """
    The engine's time while ``actor_clock()`` is active.

    Delays, ``eta``, backoff and ``max_age`` obey it. Code that asks Django or Python for the
    time does not: freeze that with a library of your choice.
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def __call__(self) -> int:
        return self._now_ms

    def now(self) -> datetime:
        """Return the time it is, aware and in UTC."""
        return clock.from_ms(self._now_ms)

    def advance(self, **duration: float) -> datetime:
        """
        Let time pass; nothing runs by that alone.

        Args:
            duration: What ``timedelta`` takes: ``minutes=5``, ``days=7, hours=1``.

        Returns:
            The time it is then.

        Raises:
            ValueError: the duration is negative.
        """
        passed_ms = clock.duration_to_ms(timedelta(**duration), name="duration")
        return self.advance_to_ms(self._now_ms + passed_ms)

    def advance_to_ms(self, moment_ms: int) -> datetime:
        """Let time pass until *moment_ms*, in milliseconds since 1970, if that is ahead."""
        self._now_ms = max(self._now_ms, moment_ms)
        # A threaded worker sleeps by the clock on the wall.
        for listener in tuple(get_broker().waiting_room.listeners):
            listener(self._now_ms)
        return self.now()


_active: VirtualClock | None = None


@contextmanager
def actor_clock(start: datetime | None = None) -> Iterator[VirtualClock]:
    """
    Stop the engine's clock for a block, and move it by hand.

    Args:
        start: The aware time it begins with; the time of now where it is ``None``. A clock
            inside of another one is the same clock.

    Yields:
        The clock, with ``advance(minutes=5)`` and ``now()``.
    """
    global _active
    begin_ms = clock.now_ms() if start is None else clock.datetime_to_ms(start)
    if _active is not None:
        if start is not None:
            _active.advance_to_ms(begin_ms)
        yield _active
        return
    _active = VirtualClock(begin_ms)
    clock.set_source(_active)
    try:
        yield _active
    finally:
        _active = None
        clock.set_source(None)
