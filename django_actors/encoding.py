"""
Encode a message for sending, with an error that names what is wrong with it.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from .conf import settings
from .errors import MessageTooLarge, UnencodableArgument
from .message import Message, encode_json
from .registry import registry
from .signing import seal

_HINTS = {
    "datetime": "Send value.isoformat() and parse it in the actor.",
    "date": "Send value.isoformat() and parse it in the actor.",
    "Decimal": "Send str(value).",
    "UUID": "Send str(value).",
    "bytes": "Send text, for example base64.",
    "set": "Send a list.",
    "frozenset": "Send a list.",
    "time": "Send value.isoformat() and parse it in the actor.",
    "timedelta": "Send value.total_seconds().",
    "QuerySet": "Send a list of primary keys and fetch them in the actor.",
    "__proxy__": "It is a text of gettext_lazy(): send str(value).",
}


def encode_checked(message: Message) -> bytes:
    """
    Return the wire form of *message*, signed if the settings say so.

    Raises:
        UnencodableArgument: an argument or option has no JSON form; it is named.

        MessageTooLarge: the wire form is over ``MAX_MESSAGE_SIZE``.
    """
    try:
        body = seal(message)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnencodableArgument(_explain(message, error)) from error
    limit = settings.MAX_MESSAGE_SIZE
    if len(body) > limit:
        raise MessageTooLarge(
            f"The message for {message.actor_name} has {len(body):,} bytes; MAX_MESSAGE_SIZE "
            f"is {limit:,}. Store the data and send its key."
        )
    return body


def _explain(message: Message, error: Exception) -> str:
    for name, value in _named_values(message):
        if not _is_json(value):
            culprit = _innermost(value)
            return (
                f"{name} of {message.actor_name} cannot be sent: {_describe(culprit)} "
                f"has no JSON form. {_hint(culprit)}"
            ).rstrip()
    return f"The message for {message.actor_name} cannot be sent: {error}."


def _named_values(message: Message) -> list[tuple[str, Any]]:
    actor = registry.find(message.actor_name)
    names = actor.parameter_names(len(message.args)) if actor else [""] * len(message.args)
    named = [
        (f"Argument {name!r}" if name else f"Argument {position}", value)
        for position, (name, value) in enumerate(zip(names, message.args, strict=True), 1)
    ]
    named += [(f"Argument {key!r}", value) for key, value in message.kwargs.items()]
    named += [(f"Option {key!r}", value) for key, value in message.options.items()]
    return named


def _is_json(value: Any) -> bool:
    try:
        encode_json(value).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _innermost(value: Any) -> Any:
    """Return the first part of *value* that has no JSON form by itself."""
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    else:
        return value
    for part in parts:
        try:
            if not _is_json(part):
                return _innermost(part)
        except RecursionError:
            break
    return value


def _describe(value: Any) -> str:
    text = f"a {type(value).__name__}"
    # Not the repr of everything: it may be long, or secret.
    return f"{text} ({value!r})" if isinstance(value, float) else text


def _hint(value: Any) -> str:
    if hasattr(value, "_meta") and hasattr(value, "pk"):
        return "Send its primary key and fetch it in the actor."
    if isinstance(value, float):
        return "JSON has no NaN and no infinity."
    if isinstance(value, str):
        return "It holds half of a surrogate pair, which has no UTF-8 form."
    if isinstance(value, os.PathLike):
        return "Send str(value)."
    if isinstance(value, Enum):
        return "Send its value."
    return _HINTS.get(type(value).__name__, "")
