"""
pika's connection, without what it does for each message by itself.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import SelectConnection
from pika.frame import decode_frame

from .rabbitmq_frames import Confirmation, NotAllThere, read_confirmation, read_message

# What is asked of the operating system at once; pika's own 4 kB are a dozen messages.
RECEIVE_BYTES = 65_536

# Told the number of a message, and whether all before it are meant, too.
Confirmed = Callable[[int, bool], object]


class Connection(SelectConnection):  # type: ignore[misc]  # pika has no types
    """
    pika's connection, but what is written between two steps leaves in one piece, and messages
    and confirmations that come in are read whole.

    pika makes a system call for each frame, and a message has three.

    Attributes:
        confirmed: Called with confirmations, by the number of their channel; where there is
            nobody, pika sees them.
    """

    _frame_buffer: bytes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._pieces: list[bytes] = []
        self.confirmed: dict[int, Confirmed] = {}
        super().__init__(*args, **kwargs)

    # ---- what comes in ---------------------------------------------------------

    def _on_data_available(self, data_in: bytes) -> None:
        data = self._frame_buffer + data_in
        at = 0
        try:
            while at < len(data):
                size = self._process_whole(data, at) or self._process_other(data[at:])
                if not size:
                    break
                at += size
        except NotAllThere:
            pass
        self._frame_buffer = data[at:]

    def _process_whole(self, data: bytes, at: int) -> int:
        """Hand over what begins at *at*; return its size, 0 if pika has to see what it is."""
        if confirmation := read_confirmation(data, at):
            return self._take_confirmation(confirmation, confirmation.end - at)
        message = read_message(data, at)
        channel = self._channels.get(message.channel_number) if message else None
        if message is None or channel is None:
            return 0
        self._count(message.end - at, 3)
        channel._on_deliver(message, message, message.body)
        return message.end - at

    def _take_confirmation(self, confirmation: Confirmation, size: int) -> int:
        confirmed = self.confirmed.get(confirmation.channel_number)
        if confirmed is None:
            return 0
        self._count(size, 1)
        confirmed(confirmation.tag, confirmation.multiple)
        return size

    def _count(self, size: int, frames: int) -> None:
        self.bytes_received += size
        self.frames_received += frames

    def _process_other(self, data: bytes) -> int:
        """Have pika deal with the first frame; return its size, 0 if it is not all there."""
        size, frame = decode_frame(data)
        if frame is None:
            return 0
        self.bytes_received += size
        self._process_frame(frame)
        return int(size)

    def receive_much(self) -> None:
        """Ask the operating system for more than a dozen messages at a time."""
        if self._transport is not None:
            self._transport._MAX_RECV_BYTES = RECEIVE_BYTES

    # ---- what leaves -----------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Have whole frames leave after those that were written before."""
        self._output_marshaled_frames([frames])

    def _adapter_emit_data(self, data: bytes) -> None:
        self._pieces.append(data)

    def hand_over(self) -> None:
        """Give what was written to the transport."""
        if self._pieces and self._transport is not None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            sent = self._write_now(data)
            if sent < len(data):
                super()._adapter_emit_data(data[sent:])

    def _write_now(self, data: bytes) -> int:
        """Write what the operating system takes at once; return how many bytes that was."""
        # pika would first ask the operating system whether it may write, and wait for the answer.
        plain = getattr(self._transport, "_sock", None)
        if not isinstance(plain, socket.socket) or isinstance(plain, ssl.SSLSocket):
            return 0
        if self._get_write_buffer_size():
            return 0
        try:
            return plain.send(data)
        except OSError:
            # It takes nothing now, or is dead: pika finds out which.
            return 0

    @property
    def has_written(self) -> bool:
        """Whether the operating system has everything that was written."""
        if self._pieces:
            return False
        return self._transport is None or self._get_write_buffer_size() == 0
