"""
Which options an actor and a message may have, and whether their values are right.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from . import clock
from .middleware.base import Middleware
from .registry import nearest

logger = logging.getLogger(__name__)

# Understood by the engine itself, whatever middleware there is.
ENGINE_OPTIONS = ("sensitive",)

# Parameters of send_with_options(), which may be misspelled as well.
_OF_MESSAGES = ("args", "kwargs", "delay", "eta", "priority")

# Fields of a message, which an option of the same name would not change.
_OF_ACTORS = ("actor_name", "queue_name")

# Priorities travel through 32-bit columns.
_PRIORITIES = range(-(2**31), 2**31)


def check_actor_options(
    options: dict[str, Any], owner: str, parameters: Sequence[str]
) -> dict[str, Any]:
    """
    Return *options* with every value in the form it is kept in.

    Args:
        owner: What the options are of, for the error.

        parameters: Names of the function's parameters.

    Raises:
        ValueError: no installed middleware knows an option, or a value is wrong.

        TypeError: a value has a wrong type.
    """
    try:
        known = known_options(_installed_middleware())
    except Exception:
        # The settings are wrong: no message can be sent with them, and their system checks
        # say so better than a traceback at the import of this actor.
        return dict(options)
    for name in options:
        if name not in known:
            raise ValueError(
                f"{owner} has the option {name!r}, which no installed middleware knows."
                f"{nearest(name, [*known, *_OF_ACTORS, 'priority'])}"
            )
    return {
        name: _clean_sensitive(value, owner, parameters)
        if name in ENGINE_OPTIONS
        else _clean(name, value, owner, known[name])
        for name, value in options.items()
    }


def build_message_options(
    options: Mapping[str, Any],
    owner: str,
    *,
    delay: int | timedelta | None,
    eta: datetime | int | None,
    now_ms: int,
) -> dict[str, Any]:
    """
    Return what a message carries of what it was sent with; durations become milliseconds.

    Options that no middleware knows travel along as they are: they may be for the actor, or for
    another deploy.

    Args:
        owner: What the options are of, for the error.

        now_ms: When the message was made, from which *delay* counts.

    Raises:
        TypeError, ValueError: the value of a known option is none that it can have, the
            name of an unknown one is all but the name of a known one, or it is the actor's
            to say; *delay* and *eta* are both given, or are no times.
    """
    if not options and delay is None and eta is None:
        return {}
    built = _check_message_options(options, owner)
    if "priority" in built:
        check_priority(built["priority"])
    due_ms = _due_ms(delay, eta, now_ms)
    if due_ms is not None:
        built["eta"] = due_ms
    return {name: _plain(value) for name, value in built.items()}


def _check_message_options(options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    if not options:
        return {}
    known = known_options(_installed_middleware())
    for name in options:
        if name in _OF_ACTORS:
            raise TypeError(
                f"{owner}: {name} is given to @actor. For a single message, write "
                f"get_broker().enqueue(actor.message(...).copy({name}={options[name]!r}))."
            )
        if name not in known:
            _refuse_misspelled(name, owner, [*known, *_OF_MESSAGES])
    return {name: _clean(name, value, owner, known.get(name)) for name, value in options.items()}


def _refuse_misspelled(name: str, owner: str, known: Sequence[str]) -> None:
    # What nobody knows travels along, but so does a misspelled delay, and nothing is delayed.
    if name not in known and (meant := nearest(name, known, cutoff=0.8)):
        raise ValueError(
            f"{owner} was sent with the option {name!r}, which no installed middleware knows."
            f"{meant}"
        )


def clean_project_options(
    options: Mapping[str, Any], middleware: Sequence[Middleware]
) -> dict[str, Any]:
    """
    Return ``ACTOR_OPTIONS`` with every value in the form it is kept in.

    What is wrong is left out and logged; the system checks have named it before.
    """
    known = known_options(middleware)
    cleaned = {}
    for name, value in options.items():
        try:
            cleaned[name] = _clean(name, value, "ACTOR_OPTIONS", known.get(name))
        except (TypeError, ValueError) as error:
            logger.error("An option of the project is ignored. %s", error)
    return cleaned


def _installed_middleware() -> Sequence[Middleware]:
    # Not at import: the brokers need models, and an actor may be declared before those.
    from .brokers import current_middleware

    return current_middleware()


def known_options(middleware: Sequence[Middleware]) -> dict[str, Middleware | None]:
    """Return every option name there is, with the middleware that understands it."""
    known: dict[str, Middleware | None] = dict.fromkeys(ENGINE_OPTIONS)
    for each in middleware:
        known.update(dict.fromkeys(each.actor_options, each))
    return known


def _clean(name: str, value: Any, owner: str, middleware: Middleware | None) -> Any:
    if middleware is None:
        return value
    try:
        return middleware.clean_option(name, value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{owner}: {error}") from None


def _clean_sensitive(value: Any, owner: str, parameters: Sequence[str]) -> Collection[str]:
    if not isinstance(value, (tuple, list, set, frozenset)) or not all(
        isinstance(name, str) for name in value
    ):
        raise TypeError(f"{owner}: sensitive must be a tuple of parameter names, not {value!r}.")
    for name in value:
        if name not in parameters:
            raise ValueError(
                f"{owner}: sensitive names {name!r}, which is no parameter."
                f"{nearest(name, parameters)}"
            )
    return tuple(value)


def check_priority(priority: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless it is an integer of 32 bits."""
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority must be an integer, not {priority!r}.")
    if priority not in _PRIORITIES:
        raise ValueError(f"priority must fit in 32 bits, {priority} does not.")


def _due_ms(delay: int | timedelta | None, eta: datetime | int | None, now_ms: int) -> int | None:
    if delay is not None and eta is not None:
        raise ValueError("A message has a delay or an eta, not both.")
    if delay is not None:
        return now_ms + clock.duration_to_ms(delay, name="delay")
    return clock.datetime_to_ms(eta) if isinstance(eta, datetime) else _check_eta(eta)


def _check_eta(eta: Any) -> int | None:
    if eta is not None and (not isinstance(eta, int) or isinstance(eta, bool)):
        raise TypeError(f"eta must be an aware datetime or milliseconds since 1970, not {eta!r}.")
    if eta is not None and not 0 <= eta <= clock.LAST_MS:
        raise ValueError(f"eta is {eta!r}, which is no time in milliseconds since 1970.")
    return eta


def _plain(value: Any) -> Any:
    return clock.duration_to_ms(value) if isinstance(value, timedelta) else value
