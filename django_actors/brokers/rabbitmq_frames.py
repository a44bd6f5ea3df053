"""
A message as it lies in the bytes that RabbitMQ sends: three frames, one after the other.

pika takes each frame apart by itself, copies what is left, and looks for its callbacks. A worker
receives little else, so a message that has come as a whole is read here in one go.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import spec

_FRAME = struct.Struct(">BHL")  # kind, channel, size
_DELIVERED = struct.Struct(">QB")  # tag, whether it was delivered before
_CONTENT = struct.Struct(">HHQH")  # class, weight, size of the body, which properties
_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)
_END = spec.FRAME_END

# The properties of a message of ours that RabbitMQ has added nothing to.
_OURS = (
    spec.BasicProperties.FLAG_CONTENT_TYPE
    | spec.BasicProperties.FLAG_DELIVERY_MODE
    | spec.BasicProperties.FLAG_CORRELATION_ID
    | spec.BasicProperties.FLAG_MESSAGE_ID
    | spec.BasicProperties.FLAG_APP_ID
)
_OURS_WITH_TYPE = _OURS | spec.BasicProperties.FLAG_TYPE


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
