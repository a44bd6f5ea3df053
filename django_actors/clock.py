"""
Time as the engine tells it: milliseconds since 1970, and durations.

Everything that asks for the wall clock asks here, so that tests can put a
virtual clock in its place. Limits of running actors use the monotonic clock
and do not come here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

MS_PER_S = 1_000

# The last millisecond that a datetime can hold, and a thousand years: added to any time of
# now they stay below it, and in the columns and timers of every system.
LAST_MS = 253_402_300_799_999
LONGEST_MS = 1_000 * 365 * 86_400_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


_source: Callable[[], int] = _wall_ms


def now_ms() -> int:
    """Return the milliseconds since 1970-01-01 UTC, by the virtual clock if one is set."""
    return _source()


def set_source(source: Callable[[], int] | None) -> None:
    """Replace the wall clock, or put it back with ``None``."""
    global _source
    _source = source or _wall_ms


def from_ms(ms: int) -> datetime:
    """Return the aware UTC time of *ms* milliseconds since 1970."""
    return datetime.fromtimestamp(ms / MS_PER_S, tz=UTC)


def datetime_to_ms(moment: datetime) -> int:
    """
    Return the milliseconds since 1970 of an aware *moment*.

    Raises:
        ValueError: *moment* is naive, so it names no point in time.
    """
    if moment.utcoffset() is None:
        raise ValueError(
            f"{moment!r} is naive: it names no point in time. "
            "Use django.utils.timezone.now() or give it a time zone."
        )
    return round(moment.timestamp() * MS_PER_S)


def duration_to_ms(value: int | float | timedelta, *, name: str = "duration") -> int:
    """
    Return a duration in whole milliseconds.

    Args:
        value: Milliseconds, or a ``timedelta``.

        name: What the duration is called in the error.

    Raises:
        TypeError: *value* is neither.

        ValueError: *value* is negative, or over a thousand years.
    """
    if isinstance(value, timedelta):
        value = round(value.total_seconds() * MS_PER_S)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be milliseconds (int) or a timedelta, not {value!r}.")
    if not 0 <= value <= LONGEST_MS:
        raise ValueError(
            f"{name} must be 0 ms or more, and a thousand years at most, not {value!r}."
        )
    return int(value)
