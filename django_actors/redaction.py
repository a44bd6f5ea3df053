"""
Hide what an actor calls sensitive, wherever a message is shown.
"""

from __future__ import annotations

import json
import traceback as traceback_module
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .message import Message, describe_call
from .registry import RegisteredActor, registry

if TYPE_CHECKING:
    from .delivery import Delivery

HIDDEN = "***"

MAX_TEXT = 65_536

# What tells a message that another one carries, as callbacks do, from any other dict.
_SIGNS_OF_A_MESSAGE = {"actor_name", "args", "kwargs"}


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
        return _cover(text, self._secrets)


def redact(message: Message | None) -> Redacted:
    """
    Return *message* as it may be shown: arguments its actor calls sensitive are hidden.

    So are those of a message that is itself an argument, as it is for a callback.
    """
    if message is None:
        return Redacted("", ())
    args, kwargs, secrets = _hide_arguments(message.actor_name, message.args, message.kwargs)
    return Redacted(describe_call(message.actor_name, args, kwargs), secrets, args, kwargs)


def carries_secret(value: Any) -> bool:
    """Return whether *value* is a message of an actor with sensitive arguments."""
    return bool(_show_carried(value)[1])


def format_traceback(error: BaseException, shown: Redacted) -> str:
    """
    Return the traceback of *error*; its end, where the cause is, if it is very long.

    Args:
        shown: The message, whose sensitive values are hidden.
    """
    # Hidden before it is cut: half of a secret would not be found.
    text = shown.hide("".join(traceback_module.format_exception(error)))
    return text[-MAX_TEXT:]


def traceback_of(delivery: Delivery, error: BaseException) -> str:
    """
    Return the traceback of *error*, which a run of *delivery* has ended with.

    The log, the next run and the row of a failure tell of it: it is put together once, which
    takes longer than all else of a failure.
    """
    known = delivery.traceback
    if known is None or known[0] is not error:
        known = (error, format_traceback(error, redact(delivery.message)))
        delivery.traceback = known
    return known[1]


def _hide_arguments(
    actor_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], set[str]]:
    """Return the arguments as they may be shown, and the texts that must not be."""
    actor = registry.find(actor_name)
    names = actor.options.get("sensitive") or () if actor else ()
    secrets: set[str] = set()
    carried: set[str] = set()

    def shown(name: str, value: Any) -> Any:
        if name in names:
            secrets.update(_texts(value))
            return _Hidden()
        value, found = _show_carried(value)
        carried.update(found)
        return value

    args = tuple(map(shown, _positional_names(actor, args), args))
    kwargs = {key: shown(_keyword_name(actor, key), value) for key, value in kwargs.items()}
    if carried:
        # Beside the message it failed with stands the text of the error.
        longest_first = sorted(carried, key=len, reverse=True)
        args = tuple(_cover_parts(value, longest_first) for value in args)
        kwargs = {key: _cover_parts(value, longest_first) for key, value in kwargs.items()}
    return args, kwargs, secrets | carried


def _positional_names(actor: RegisteredActor | None, args: tuple[Any, ...]) -> Iterable[str]:
    return actor.parameter_names(len(args)) if actor else [""] * len(args)


def _keyword_name(actor: RegisteredActor | None, key: str) -> str:
    return actor.keyword_parameter(key) if actor else ""


def _show_carried(value: Any) -> tuple[Any, set[str]]:
    """Return *value*, which may be a message in the form of a dict, as it may be shown."""
    if not isinstance(value, dict) or not value.keys() >= _SIGNS_OF_A_MESSAGE:
        return value, set()
    name, args, kwargs = value["actor_name"], value["args"], value["kwargs"]
    if not (isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)):
        return value, set()
    shown_args, shown_kwargs, secrets = _hide_arguments(name, tuple(args), kwargs)
    return {**value, "args": list(shown_args), "kwargs": shown_kwargs}, secrets


def _cover_parts(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, str):
        return _cover(value, secrets)
    if isinstance(value, dict):
        return {key: _cover_parts(part, secrets) for key, part in value.items()}
    if isinstance(value, list):
        return [_cover_parts(part, secrets) for part in value]
    return value


def _cover(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _texts(value: Any) -> Iterator[str]:
    """Yield the forms in which *value*, or a part of it, may stand in a text."""
    if not value or value is True:
        return
    # A single character is everywhere.
    yield from (text for text in _forms(value) if len(text) > 1)
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(parts, Iterable) and not isinstance(parts, str):
        for part in parts:
            yield from _texts(part)


def _forms(value: Any) -> Iterator[str]:
    for form in _plain_forms(value):
        yield form
        # As it stands in the repr of a text that holds it.
        yield repr(form)[1:-1]


def _plain_forms(value: Any) -> Iterator[str]:
    yield repr(value)
    yield str(value)
    # As it travels, and as bytes that travel show.
    for ensure_ascii in (True, False):
        wire = json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"), default=str)
        wire = wire.strip('"') if isinstance(value, str) else wire
        yield wire
        yield repr(wire.encode(errors="backslashreplace"))[2:-1]
