"""
Messages and their confirmations as they lie in the bytes between RabbitMQ and us.

A message is three frames, one after the other. pika puts each of them together, and takes it
apart, by itself, copies what is left, and looks for its callbacks. Workers receive little else
and senders send little else, so both are done here in one go.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

from pika import spec

_FRAME = struct.Struct(">BHL")  # kind, channel, size
_DELIVERED = struct.Struct(">QB")  # tag, whether it was delivered before, or several are meant
_CONTENT_START = struct.Struct(">HHQ")  # class, weight, size of the body
_CONTENT = struct.Struct(">HHQH")  # and which properties
_FLAGS = struct.Struct(">H")
_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)
_ACK = struct.pack(">I", spec.Basic.Ack.INDEX)
_PUBLISH = struct.pack(">IH", spec.Basic.Publish.INDEX, 0)  # with a ticket that nobody checks
_END = spec.FRAME_END
_END_BYTE = bytes([_END])
# What is around the payload of a frame.
FRAME_EDGES = 8

# The properties of a message of ours that RabbitMQ has added nothing to.
_OURS = (
    spec.BasicProperties.FLAG_CONTENT_TYPE
    | spec.BasicProperties.FLAG_DELIVERY_MODE
    | spec.BasicProperties.FLAG_CORRELATION_ID
    | spec.BasicProperties.FLAG_MESSAGE_ID
    | spec.BasicProperties.FLAG_APP_ID
)
_OURS_WITH_TYPE = _OURS | spec.BasicProperties.FLAG_TYPE
NO_PROPERTIES = _FLAGS.pack(0)
_PERSISTENT = b"\2"


class NotAllThere(Exception):
    """Say that a message goes on in bytes that are still to come."""


class Message:
    """
    What pika's channels and consumers look at of the frames of a message.

    Attributes:
        channel_number: The channel it came on.

        properties: Pika's, or of a message of ours those that a worker reads.

        end: Where in the bytes it ends.
    """

    __slots__ = (
        "body",
        "channel_number",
        "consumer_tag",
        "delivery_tag",
        "end",
        "properties",
        "redelivered",
    )

    body: bytes
    channel_number: int
    consumer_tag: str
    delivery_tag: int
    end: int
    properties: Any
    redelivered: bool

    @property
    def method(self) -> Message:
        """What pika calls the first of the frames."""
        return self


class Properties:
    """The properties that a worker reads of a message of ours."""

    __slots__ = ("app_id", "correlation_id", "type")

    headers = None

    def __init__(self, app_id: str, correlation_id: str, type: str | None) -> None:
        self.app_id = app_id
        self.correlation_id = correlation_id
        self.type = type


class Confirmation(NamedTuple):
    """
    RabbitMQ has a message.

    Attributes:
        tag: The number of the message on its channel.

        multiple: Whether it has all before it, too.

        end: Where in the bytes this ends.
    """

    channel_number: int
    tag: int
    multiple: bool
    end: int


def read_confirmation(data: bytes, at: int) -> Confirmation | None:
    """
    Return the confirmation that begins at *at*, ``None`` if there is none.

    Raises:
        NotAllThere: there is one, and it goes on.
    """
    if data[at + 7 : at + 11] != _ACK:
        return None
    try:
        kind, channel, size = _FRAME.unpack_from(data, at)
        tag, multiple = _DELIVERED.unpack_from(data, at + 11)
        end = at + FRAME_EDGES + size
        if kind != spec.FRAME_METHOD or data[end - 1] != _END:
            return None
    except (struct.error, IndexError):
        raise NotAllThere from None
    return Confirmation(channel, tag, multiple & 1 == 1, end)


def read_message(data: bytes, at: int) -> Message | None:
    """
    Return the message that begins at *at*; ``None`` if there is none, or a long one.

    Raises:
        NotAllThere: there is one, or might be, and it goes on.
    """
    try:
        return _read(data, at)
    except (struct.error, IndexError):
        raise NotAllThere from None


def _read(data: bytes, at: int) -> Message | None:
    kind, channel, size = _FRAME.unpack_from(data, at)
    if kind != spec.FRAME_METHOD or data[at + 7 : at + 11] != _DELIVER:
        return None
    header_at = at + 8 + size
    kind, header_channel, size = _FRAME.unpack_from(data, header_at)
    _, _, body_size, flags = _CONTENT.unpack_from(data, header_at + 7)
    if kind != spec.FRAME_HEADER or not body_size:
        # Without a body it may be all that comes.
        return None
    body_at = header_at + 8 + size
    kind, body_channel, size = _FRAME.unpack_from(data, body_at)
    end = body_at + 8 + size
    if (
        kind != spec.FRAME_BODY
        or not channel == header_channel == body_channel
        # A long body has several frames.
        or body_size != size
        or not data[header_at - 1] == data[body_at - 1] == data[end - 1] == _END
    ):
        # Another message, or none: whatever is wrong with it is for pika to say.
        return None
    message = Message()
    message.channel_number = channel
    message.consumer_tag, next_at = _text(data, at + 11)
    message.delivery_tag, redelivered = _DELIVERED.unpack_from(data, next_at)
    message.redelivered = redelivered & 1 == 1
    message.properties = _read_properties(data, header_at + 19, flags)
    message.body = data[body_at + 7 : end - 1]
    message.end = end
    return message


def _read_properties(data: bytes, at: int, flags: int) -> Any:
    if flags != _OURS and flags != _OURS_WITH_TYPE:
        properties = spec.BasicProperties()
        properties.decode(data, at)
        return properties
    mode_at = at + 3 + data[at + 2]
    number, at = _text(data, mode_at + 1)
    at += 1 + data[at]
    origin = None
    if flags == _OURS_WITH_TYPE:
        origin, at = _text(data, at)
    app_id, _ = _text(data, at)
    return Properties(app_id, number, origin)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Return a short text, and where it ends."""
    start = at + 1
    end = start + data[at]
    return data[start:end].decode(errors="backslashreplace"), end


# ---- writing -------------------------------------------------------------------


def write_properties(message_id: str, number: str, origin: str | None, app_id: str) -> bytes:
    """Return the properties of a message of ours, as ``read_message()`` knows them."""
    parts = [
        _FLAGS.pack(_OURS if origin is None else _OURS_WITH_TYPE),
        _short("application/json"),
        _PERSISTENT,
        _short(number),
        _short(message_id),
        b"" if origin is None else _short(origin),
        _short(app_id),
    ]
    return b"".join(parts)


def write_message(
    channel: int,
    lane: tuple[str, str],
    properties: bytes,
    body: bytes,
    *,
    mandatory: bool,
    longest: int,
) -> bytes:
    """
    Return the frames of a message.

    Args:
        lane: The exchange and the routing key.

        longest: How many bytes of the body one frame may have.

        mandatory: Whether it is to come back if no queue gets it.
    """
    size = len(body)
    parts = [
        _address(channel, lane, mandatory),
        _FRAME.pack(spec.FRAME_HEADER, channel, 12 + len(properties)),
        _CONTENT_START.pack(spec.Basic.INDEX, 0, size),
        properties,
        _END_BYTE,
    ]
    for start in range(0, size, longest):
        fragment = body[start : start + longest]
        parts += (_FRAME.pack(spec.FRAME_BODY, channel, len(fragment)), fragment, _END_BYTE)
    return b"".join(parts)


@lru_cache(maxsize=1_000)
def _address(channel: int, lane: tuple[str, str], mandatory: bool) -> bytes:
    payload = _PUBLISH + _short(lane[0]) + _short(lane[1]) + bytes([mandatory])
    return _FRAME.pack(spec.FRAME_METHOD, channel, len(payload)) + payload + _END_BYTE


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data
