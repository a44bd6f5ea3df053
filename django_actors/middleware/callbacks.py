"""
Send to another actor when one has succeeded or failed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from django_actors.errors import Shutdown, exception_text
from django_actors.registry import registry

from .base import Middleware

logger = logging.getLogger(__name__)


class Callbacks(Middleware):
    """
    Send to the actors named by ``on_success`` and ``on_failure``.

    The first gets the message as a dict and the result; the second the message and
    a dict of the exception's ``type`` and ``message``, after every failed run. They are
    sent before the message is acknowledged: a crash may send one twice, never not at all.
    """

    @property
    def actor_options(self) -> Collection[str]:
        return ("on_success", "on_failure")

    def clean_option(self, name: str, value: Any) -> str | None:
        return clean_target(name, value)

    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if isinstance(exception, Shutdown):
            return
        if exception is None:
            _notify(message, "on_success", result)
        else:
            _notify(message, "on_failure", _describe(exception))


def _describe(exception: BaseException) -> dict[str, str]:
    return {"type": type(exception).__name__, "message": exception_text(exception)}


def _notify(message: Any, option: str, value: Any) -> None:
    target = message.option(option)
    if target is not None:
        send_after(message, target, value)


def clean_target(name: str, value: Any) -> str | None:
    """
    Return the name of the actor to send to.

    Raises:
        TypeError: *value* is neither an actor nor a name.
    """
    if value is None or isinstance(value, str):
        return value
    actor_name = getattr(value, "actor_name", None)
    if isinstance(actor_name, str):
        return actor_name
    raise TypeError(f"{name} must be an actor or the name of one, not {value!r}.")


def send_after(message: Any, target: str, value: Any) -> None:
    """Have the actor *target* sent to, with *message* and *value*, before the ack."""
    data = {
        "queue_name": message.queue_name,
        "actor_name": message.actor_name,
        "args": list(message.args),
        "kwargs": message.kwargs,
        "options": message.options,
        "message_id": message.message_id,
        "message_timestamp": message.message_timestamp,
    }
    # The actor comes from the registry: a message names nothing that is imported.
    message.send_after(registry.get(target).message(data, value))
