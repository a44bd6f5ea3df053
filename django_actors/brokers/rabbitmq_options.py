"""
Where RabbitMQ is and how to talk to it: URLs, pika's parameters, and our own options.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika

from django_actors.clock import MS_PER_S, duration_to_ms
from django_actors.registry import nearest

from .urls import split_url

QUEUE_TYPES = ("quorum", "classic")

# Small enough for the messages of a lost host to come back within 30 seconds.
HEARTBEAT_S = 10

# Arguments that say where the server is; with a URL they would say it twice.
_PLACE = ("host", "port", "virtual_host", "credentials", "parameters")

_TUNING = (
    "blocked_connection_timeout",
    "channel_max",
    "client_properties",
    "connection_attempts",
    "frame_max",
    "heartbeat",
    "locale",
    "retry_delay",
    "socket_timeout",
    "ssl_options",
    "stack_timeout",
    "tcp_options",
)


# What pika takes behind the question mark of a URL; it has a setter for each.
_SETTER = "_set_url_"
_OF_URLS = [
    name.removeprefix(_SETTER) for name in dir(pika.URLParameters) if name.startswith(_SETTER)
]

_DURATIONS = ("send_timeout", "consumer_timeout")


@dataclass(frozen=True)
class Target:
    """
    The servers of one cluster, and what was agreed about them.

    Attributes:
        parameters: One for each server, in the order they are tried.

        queue_type: ``quorum`` or ``classic``.

        namespace: The prefix of all names; empty for that of the settings.

        send_timeout_s: Seconds without a confirmation after which a send fails.

        consumer_timeout_s: The server's ``consumer_timeout``, in seconds.
    """

    parameters: tuple[pika.connection.Parameters, ...]
    queue_type: str
    namespace: str
    send_timeout_s: float
    consumer_timeout_s: float

    @property
    def place(self) -> str:
        """Where the servers are, for people; without user and password."""
        hosts = ", ".join(f"{each.host}:{each.port}" for each in self.parameters)
        return f"{hosts} (vhost {self.parameters[0].virtual_host!r})"


def build_target(
    url: str | Iterable[str] | None,
    *,
    queue_type: str = "quorum",
    namespace: str = "",
    send_timeout: int | timedelta = 5_000,
    consumer_timeout: int | timedelta = 1_800_000,
    **options: Any,
) -> Target:
    """
    Return the target that the arguments of ``RabbitmqBroker`` describe.

    Raises:
        TypeError: there is no such option.

        ValueError: an option has a value it cannot have, or two say where the server is.
    """
    _check_names(options)
    urls = _split(url)
    if urls and (twice := sorted(set(_PLACE) & set(options))):
        raise ValueError(
            f"A URL says where RabbitMQ is; {twice[0]}= says it again. Give one of them."
        )
    own: dict[str, Any] = {
        "queue_type": queue_type,
        "namespace": namespace,
        "send_timeout": send_timeout,
        "consumer_timeout": consumer_timeout,
    }
    if urls:
        parameters = [_parameters_of_url(each, own) for each in urls]
    else:
        parameters = _given_parameters(options)
    tuning = {name: value for name, value in options.items() if name in _TUNING}
    return Target(
        tuple(_tune(each, tuning) for each in parameters),
        _queue_type(own["queue_type"]),
        str(own["namespace"]),
        _seconds("send_timeout", own["send_timeout"]),
        _seconds("consumer_timeout", own["consumer_timeout"]),
    )


def _check_names(options: Mapping[str, Any]) -> None:
    known = (*_PLACE, *_TUNING)
    for name in options:
        if name == "heartbeat_interval":
            raise TypeError("heartbeat_interval= is called heartbeat= since pika 1.0.")
        if name not in known:
            raise TypeError(f"RabbitmqBroker has no option {name!r}.{nearest(name, known)}")


def _split(url: str | Iterable[str] | None) -> list[str]:
    if url is None:
        return []
    parts = url.split(";") if isinstance(url, str) else [part for u in url for part in u.split(";")]
    parts = [part.strip() for part in parts if part.strip()]
    return [part if "://" in part else _like(parts[0], part) for part in parts]


def _like(first: str, place: str) -> str:
    """Return the URL *first* with another host and port."""
    url = urlsplit(first)
    login, at, _ = url.netloc.rpartition("@")
    return url._replace(netloc=f"{login}{at}{place}").geturl()


def _parameters_of_url(url: str, own: dict[str, Any]) -> pika.connection.Parameters:
    parts = split_url(url, "RabbitMQ")
    rest = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "heartbeat_interval":
            raise ValueError("heartbeat_interval is called heartbeat since pika 1.0.")
        if name not in own and name not in _OF_URLS:
            raise ValueError(
                f"The URL of RabbitMQ has the parameter {name!r}, which nobody knows."
                f"{nearest(name, [*own, *_OF_URLS])}"
            )
        if name in own:
            own[name] = _number(name, value) if name in _DURATIONS else value
        else:
            rest.append((name, value))
    parts = parts._replace(query=urlencode(rest))
    if parts.username is not None and parts.password is None:
        raise ValueError("The URL of RabbitMQ names a user without a password.")
    parameters = pika.URLParameters(parts.geturl())
    if not any(name == "heartbeat" for name, _ in rest):
        parameters.heartbeat = HEARTBEAT_S
    return parameters


def _given_parameters(options: Mapping[str, Any]) -> list[pika.connection.Parameters]:
    given = options.get("parameters")
    place = {name: options[name] for name in _PLACE if name in options and name != "parameters"}
    if given is None:
        return [pika.ConnectionParameters(heartbeat=HEARTBEAT_S, **place)]
    if place:
        raise ValueError(f"parameters= says where RabbitMQ is; {min(place)}= says it again.")
    several: Sequence[Any] = [given] if isinstance(given, _SINGLE) else list(given)
    if not several:
        raise ValueError("parameters= is an empty list.")
    return [_as_parameters(each) for each in several]


_SINGLE = (pika.connection.Parameters, Mapping)


def _as_parameters(given: Any) -> pika.connection.Parameters:
    if isinstance(given, pika.connection.Parameters):
        return given
    if "heartbeat_interval" in given:
        raise TypeError("heartbeat_interval= is called heartbeat= since pika 1.0.")
    return pika.ConnectionParameters(**{"heartbeat": HEARTBEAT_S, **given})


def _tune(
    parameters: pika.connection.Parameters, tuning: Mapping[str, Any]
) -> pika.connection.Parameters:
    # A copy by hand: an SSL context cannot be copied.
    tuned = copy.copy(parameters)
    for name, value in tuning.items():
        setattr(tuned, name, value)
    return tuned


def _queue_type(value: Any) -> str:
    if value not in QUEUE_TYPES:
        raise ValueError(f"queue_type must be one of {', '.join(QUEUE_TYPES)}, not {value!r}.")
    return str(value)


def _number(name: str, value: str) -> int:
    if not value.isdigit():
        raise ValueError(f"{name} must be milliseconds, not {value!r}.")
    return int(value)


def _seconds(name: str, value: Any) -> float:
    milliseconds = duration_to_ms(value, name=name)
    if milliseconds == 0:
        raise ValueError(f"{name} must be more than 0 ms.")
    return milliseconds / MS_PER_S
