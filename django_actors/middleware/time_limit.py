"""
Give every run a deadline. The worker's watchdog and the supervisor enforce it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django_actors import clock

from .base import Middleware

DEFAULT_TIME_LIMIT = timedelta(minutes=10)


class TimeLimit(Middleware):
    """
    Have ``TimeLimitExceeded`` raised in an actor that runs longer than ``time_limit``.

    Args:
        time_limit: Milliseconds or a ``timedelta``, for actors that do not say; ``None`` is
            no limit.
    """

    def __init__(self, *, time_limit: int | timedelta | None = DEFAULT_TIME_LIMIT) -> None:
        self.time_limit = self.clean_option("time_limit", time_limit)

    @property
    def actor_options(self) -> Collection[str]:
        return ("time_limit",)

    def clean_option(self, name: str, value: Any) -> int | None:
        return None if value is None else clock.duration_to_ms(value, name=name)

    def before_process_message(self, broker: Any, message: Any) -> None:
        time_limit = message.option("time_limit", self.time_limit)
        if time_limit is not None:
            # Monotonic: a clock that is set must not interrupt anybody.
            message.deadline = time.monotonic() + time_limit / clock.MS_PER_S
