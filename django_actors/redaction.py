"""
Hide what an actor calls sensitive, wherever a message is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .message import Message, describe_call
from .registry import RegisteredActor, registry

HIDDEN = "***"


class _Hidden:
    def __repr__(self) -> str:
        return HIDDEN


class Redacted:
    """
    A message in the form in which it may be shown.

    Attributes:
        call: The call as Python would write it, sensitive arguments as ``***``.

        args: The positional arguments; a sensitive one is an object that shows as ``***``.

        kwargs: The keyword arguments, likewise.
    """

    def __init__(
        self,
        call: str,
        secrets: Iterable[str],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.call = call
        self.args = args
        self.kwargs = dict(kwargs or {})
        # The longest first, so that no part of one is left over.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __str__(self) -> str:
        return self.call

    def hide(self, text: str) -> str:
        """Return *text* with every sensitive value replaced by ``***``."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


def redact(message: Message | None) -> Redacted:
    """Return *message* as it may be shown: arguments its actor calls sensitive are hidden."""
    if message is None:
        return Redacted("", ())
    actor = registry.find(message.actor_name)
    if actor is None or not actor.options.get("sensitive"):
        return Redacted(str(message), (), message.args, message.kwargs)
    return _hide_arguments(message, actor)


def _hide_arguments(message: Message, actor: RegisteredActor) -> Redacted:
    names = actor.options["sensitive"]
    secrets: set[str] = set()

    def shown(name: str, value: Any) -> Any:
        if name not in names:
            return value
        secrets.update(_texts(value))
        return _Hidden()

    args = tuple(map(shown, actor.parameter_names(len(message.args)), message.args))
    kwargs = {
        key: shown(actor.keyword_parameter(key), value) for key, value in message.kwargs.items()
    }
    call = describe_call(message.actor_name, args, kwargs)
    return Redacted(call, secrets, args, kwargs)


def _texts(value: Any) -> Iterator[str]:
    """Yield the forms in which *value*, or a part of it, may stand in a text."""
    if not value or value is True:
        return
    # A single character is everywhere.
    yield from (text for text in (repr(value), str(value)) if len(text) > 1)
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(parts, Iterable) and not isinstance(parts, str):
        for part in parts:
            yield from _texts(part)
