"""
Let an actor ask which message it is running for.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from django_actors.message import Message

from .base import Middleware

_current: ContextVar[Message | None] = ContextVar("django_actors_current_message", default=None)


class CurrentMessage(Middleware):
    """Keep the message that is being run where ``get_current_message()`` finds it."""

    @staticmethod
    def get_current_message() -> Message | None:
        """Return the message that this thread (or task) runs, or ``None`` outside an actor."""
        return _current.get()

    def before_process_message(self, broker: Any, message: Any) -> None:
        _current.set(message.message)

    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        _current.set(None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        _current.set(None)
