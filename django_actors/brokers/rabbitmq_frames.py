"""
A message as it lies in the bytes that RabbitMQ sends: three frames, one after the other.

pika takes each frame apart by itself, copies what is left, and looks for its callbacks. A worker
receives little else, so a message that has come as a whole is read here in one go.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from pika import frame, spec

_FRAME = struct.Struct(">BHL")  # kind, channel, size
_CONTENT = struct.Struct(">HHQ")  # class, weight, size of the body
_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)
_END = spec.FRAME_END


class Message(NamedTuple):
    """What pika makes of the frames of one message, and where in the bytes it ends."""

    method: Any
    header: Any
    body: bytes
    end: int


def read_message(data: bytes, at: int) -> Message | None:
    """Return the message that begins at *at*; ``None`` if there is none, or not all of it."""
    try:
        return _read(data, at)
    except (struct.error, IndexError):
        # It goes on in bytes that are still to come.
        return None


def _read(data: bytes, at: int) -> Message | None:
    kind, channel, size = _FRAME.unpack_from(data, at)
    if kind != spec.FRAME_METHOD or data[at + 7 : at + 11] != _DELIVER:
        return None
    header_at = at + 8 + size
    kind, header_channel, size = _FRAME.unpack_from(data, header_at)
    body_at = header_at + 8 + size
    body_kind, body_channel, size = _FRAME.unpack_from(data, body_at)
    end = body_at + 8 + size
    if (
        (kind, body_kind) != (spec.FRAME_HEADER, spec.FRAME_BODY)
        or not data[header_at - 1] == data[body_at - 1] == data[end - 1] == _END
        or not channel == header_channel == body_channel
    ):
        # Another message, or none: whatever is wrong with it is for pika to say.
        return None
    _, _, body_size = _CONTENT.unpack_from(data, header_at + 7)
    if body_size != size:
        # A long body has several frames.
        return None
    properties = spec.BasicProperties()
    properties.decode(data, header_at + 19)
    return Message(
        frame.Method(channel, spec.Basic.Deliver().decode(data, at + 11)),
        frame.Header(channel, body_size, properties),
        data[body_at + 7 : end - 1],
        end,
    )
