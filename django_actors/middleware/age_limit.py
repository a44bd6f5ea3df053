"""
Keep messages that are too old from running.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django_actors import clock
from django_actors.delivery import Reason
from django_actors.errors import SkipMessage

from .base import Middleware


class AgeLimit(Middleware):
    """
    Make a message that is older than ``max_age`` a dead letter instead of running it.

    Args:
        max_age: Milliseconds or a ``timedelta``, for actors that do not say; ``None`` is no limit.
    """

    def __init__(self, *, max_age: int | timedelta | None = None) -> None:
        self.max_age = None if max_age is None else clock.duration_to_ms(max_age, name="max_age")

    @property
    def actor_options(self) -> Collection[str]:
        return ("max_age",)

    def clean_option(self, name: str, value: Any) -> int | None:
        return None if value is None else clock.duration_to_ms(value, name=name)

    def before_process_message(self, broker: Any, message: Any) -> None:
        max_age = message.option("max_age", self.max_age)
        if max_age is None:
            return
        age = clock.now_ms() - message.message_timestamp
        if age >= max_age:
            message.fail(Reason.TOO_OLD)
            raise SkipMessage(f"The message is {age} ms old; its max_age is {max_age} ms.")
