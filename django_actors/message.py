"""
The message: what was sent, and its form on the wire.

A message is frozen; whoever wants another one makes a copy. Nothing here knows
an actor, a broker or a database.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from . import clock
from .errors import DecodeError

if TYPE_CHECKING:
    from .redaction import Redacted

MAX_ID_LENGTH = 64
MAX_NAME_LENGTH = 255

_MESSAGE_ID = re.compile(rf"[!-~]{{1,{MAX_ID_LENGTH}}}")

_SURROGATE_ESCAPE = re.compile(r"\\u[dD]")

_FIELD_TYPES: Mapping[str, type] = {
    "queue_name": str,
    "actor_name": str,
    "args": list,
    "kwargs": dict,
    "options": dict,
    "message_id": str,
    "message_timestamp": int,
}
_read_fields = itemgetter(*_FIELD_TYPES)
_types = list(_FIELD_TYPES.values())


def generate_message_id() -> str:
    """Return a random UUID (version 4) as text; several times faster than ``uuid4()``."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        # It could be read, but never be written again.
        raise ValueError("a number is too large")
    return value


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
)


def _build_encode() -> Callable[[Any], str]:
    """Return what ``JSONEncoder.encode()`` builds anew for each call, which takes a third of it."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    text = json.encoder.encode_basestring
    try:
        encode = make(None, _encoder.default, text, None, ":", ",", False, False, False)
        encode({}, 0)
    except TypeError:
        # Another Python has none, or one that is made in another way.
        return _encoder.encode
    return lambda value: "".join(encode(value, 0))


encode_json = _build_encode()
_decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float)


def decode_json(text: str) -> Any:
    """
    Return the value of a JSON text, at half the price of the decoder's own method.

    Raises:
        ValueError: it is no JSON, or a number is none or too large.
    """
    try:
        value, end = _decoder.scan_once(text, 0)
    except StopIteration:
        end = -1
    # With blanks around, or no JSON: the decoder knows what to say.
    return value if end == len(text) else _decoder.decode(text)


class Origin(IntEnum):
    """
    Where one copy of a message came into the broker from.

    Attributes:
        SENDER: From whoever sent it; no row of the waiting room knows of it.

        ROW: Out of a row, which is deleted once the broker has the copy.

        DOUBTFUL_ROW: Out of a row that somebody may have published before. It stays until a
            copy has run, and tells a later copy that none has.
    """

    SENDER = 0
    ROW = 1
    DOUBTFUL_ROW = 2


class Envelope(NamedTuple):
    """What a broker needs to carry a message: where it goes, its bytes, where it is from."""

    message_id: str
    queue_name: str
    priority: int
    body: bytes
    origin: Origin = Origin.SENDER

    def __repr__(self) -> str:
        # Without the body: it may hold what is sensitive, and nobody can tell where.
        return (
            f"Envelope({self.message_id!r}, {self.queue_name!r}, {self.priority}, "
            f"{len(self.body)} bytes)"
        )


@dataclass(frozen=True, order=False, repr=False)
class Message:
    """
    What was sent to an actor.

    Attributes:
        queue_name: The actor's queue, also while the message is delayed.

        actor_name: The registered name of the actor.

        args: Positional arguments, JSON values.

        kwargs: Keyword arguments, JSON values.

        options: What the sender and the middleware want to be known of this
            message; overrides the actor's own options.

        message_id: A UUID; the same over all retries.

        message_timestamp: Milliseconds since 1970 at which it was made.
    """

    queue_name: str
    actor_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    message_id: str = field(default_factory=generate_message_id)
    message_timestamp: int = field(default_factory=clock.now_ms)

    def __str__(self) -> str:
        return self._redacted().call

    def __repr__(self) -> str:
        shown = self._redacted()
        return (
            f"Message(queue_name={self.queue_name!r}, actor_name={self.actor_name!r}, "
            f"args={shown.args!r}, kwargs={shown.kwargs!r}, "
            f"options={shown.hide(repr(self.options))}, message_id={self.message_id!r}, "
            f"message_timestamp={self.message_timestamp})"
        )

    def _redacted(self) -> Redacted:
        # Not at import: it is about messages.
        from .redaction import redact

        return redact(self)

    def __hash__(self) -> int:
        return hash(self.message_id)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.message_timestamp < other.message_timestamp

    @property
    def message_datetime(self) -> datetime:
        """When the message was made, aware and in UTC."""
        return clock.from_ms(self.message_timestamp)

    def copy(self, **changes: Any) -> Message:
        """Return a message with *changes* made; ``options`` are merged, not replaced."""
        options = {**self.options, **changes.pop("options", {})}
        return replace(self, options=options, **changes)

    def encode(self) -> bytes:
        """
        Return the wire form: compact UTF-8 JSON of exactly the seven fields.

        Raises:
            TypeError, ValueError, RecursionError: an argument or option has no JSON form.
        """
        # Spelled out, not dataclasses.asdict(): that one deep-copies every argument.
        return encode_json(
            {
                "queue_name": self.queue_name,
                "actor_name": self.actor_name,
                "args": self.args,
                "kwargs": self.kwargs,
                "options": self.options,
                "message_id": self.message_id,
                "message_timestamp": self.message_timestamp,
            }
        ).encode()

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """
        Return the message of a wire form.

        Raises:
            DecodeError: *body* is no JSON, or JSON of another shape.
        """
        try:
            text = bytes(body).decode()
            fields = decode_json(text)
            if "\\u" in text and _SURROGATE_ESCAPE.search(text):
                # Half of a surrogate pair has no UTF-8 form: it could never be written again.
                encode_json(fields).encode()
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"The body is not JSON in UTF-8: {error}.") from error
        _check_fields(fields)
        fields["args"] = tuple(fields["args"])
        return cls.of(fields)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Message:
        """Return a message of all seven fields: as ``Message(**fields)``, at half the price."""
        message = cls.__new__(cls)
        message.__dict__.update(fields)
        return message


def describe_call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a call as Python would write it, such as ``add(1, x=2)``."""
    parts = [repr(value) for value in args]
    parts += [f"{_printable(key)}={value!r}" for key, value in kwargs.items()]
    return f"{_printable(name)}({', '.join(parts)})"


def _printable(name: str) -> str:
    # Names come from outside, too: no line breaks in logs, no turned text in the admin.
    return name if name.isprintable() else repr(name)[1:-1]


def _check_fields(fields: object) -> None:
    if not isinstance(fields, dict):
        raise DecodeError(f"The body is a JSON {type(fields).__name__}, not an object.")
    if fields.keys() != _FIELD_TYPES.keys():
        raise DecodeError(_describe_difference(fields))
    values = _read_fields(fields)
    # The types themselves, not isinstance(): JSON's true is no timestamp.
    if list(map(type, values)) != _types:
        raise DecodeError(_describe_types(fields))
    queue_name, actor_name, _, _, _, message_id, timestamp = values
    if not _MESSAGE_ID.fullmatch(message_id):
        raise DecodeError(
            f"Field 'message_id' of the body is not 1 to {MAX_ID_LENGTH} visible ASCII characters."
        )
    for field_name, name in (("queue_name", queue_name), ("actor_name", actor_name)):
        if not 0 < len(name) <= MAX_NAME_LENGTH or "\0" in name:
            raise DecodeError(f"Field {field_name!r} of the body is no name.")
    if not 0 <= timestamp <= clock.LAST_MS:
        raise DecodeError("Field 'message_timestamp' of the body is no time in milliseconds.")


def _describe_difference(fields: dict[str, Any]) -> str:
    missing = ", ".join(sorted(_FIELD_TYPES.keys() - fields.keys())) or "nothing"
    unknown = ", ".join(sorted(fields.keys() - _FIELD_TYPES.keys()))[:200] or "nothing"
    return f"The body has not the fields of a message: missing {missing}; unknown {unknown}."


def _describe_types(fields: dict[str, Any]) -> str:
    name, expected = next(
        (name, expected)
        for name, expected in _FIELD_TYPES.items()
        if type(fields[name]) is not expected
    )
    found = type(fields[name]).__name__
    return f"Field {name!r} of the body is {found}, not {expected.__name__}."
