"""
Tell running actors that their worker stops.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .base import Middleware


class ShutdownNotifications(Middleware):
    """
    Have ``Shutdown`` raised in actors with ``notify_shutdown`` when the worker stops.

    The message goes back to its queue, unless the actor catches the exception and returns.

    Args:
        notify_shutdown: What holds for actors that do not say.
    """

    def __init__(self, *, notify_shutdown: bool = False) -> None:
        self.notify_shutdown = notify_shutdown

    @property
    def actor_options(self) -> Collection[str]:
        return ("notify_shutdown",)

    def clean_option(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}.")
        return value

    def before_process_message(self, broker: Any, message: Any) -> None:
        message.notify_shutdown = bool(message.option("notify_shutdown", self.notify_shutdown))
