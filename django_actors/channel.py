"""
What the main thread of a supervisor or of a worker process listens to.

A ``Channel`` carries JSON lines between the two, over a socket pair; the end of the
stream says that the other one is gone, however it went. A ``Doorbell`` records
signals and lets other threads wake the one that waits.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from .forking import undone_in_children

Event = dict[str, Any]


class Doorbell:
    """
    Records signals, and ends the sleep of the main thread for them.

    A handler that did more than record would run between any two instructions of
    the loop; this way, signals are dealt with at one place.
    """

    def __init__(self) -> None:
        self._signals: deque[int] = deque()
        self._inside, self._outside = socket.socketpair()
        for end in (self._inside, self._outside):
            end.setblocking(False)

    @contextlib.contextmanager
    def recording(self, signums: Iterable[signal.Signals]) -> Iterator[None]:
        """Record these signals in the block; what was there before comes back after it."""
        wakeup = signal.set_wakeup_fd(self._outside.fileno(), warn_on_full_buffer=False)
        before = {signum: signal.signal(signum, self._record) for signum in signums}

        def restore() -> None:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(wakeup)

        try:
            with undone_in_children(restore):
                yield
        finally:
            restore()

    def ring(self) -> None:
        """End the sleep, or prevent the next one; any thread may call it."""
        # A full buffer is as good as one more byte; a closed end needs no waking.
        with contextlib.suppress(OSError):
            self._outside.send(b"\0")

    def close(self) -> None:
        self._inside.close()
        self._outside.close()

    def wait(self, channels: Iterable[Channel], *, timeout: float) -> None:
        """Sleep until a signal, a ring, or something on a channel; *timeout* in seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._inside, selectors.EVENT_READ)
            for channel in channels:
                if not channel.closed:
                    selector.register(channel, selectors.EVENT_READ)
            selector.select(min(max(0.0, timeout), 3600.0))
        with contextlib.suppress(BlockingIOError):
            self._inside.recv(4096)

    def take_signals(self) -> list[signal.Signals]:
        """Return the signals that came since the last call, in their order."""
        taken = []
        while self._signals:
            taken.append(signal.Signals(self._signals.popleft()))
        return taken

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self._signals.append(signum)


class Channel:
    """One end of the pair. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.closed = False
        self._socket = sock
        self._buffer = b""
        self._sending = threading.Lock()

    @classmethod
    def inherited(cls, sock: socket.socket) -> Channel:
        """Take over a socket, and keep it from our own children."""
        sock.set_inheritable(False)
        return cls(sock)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, event: Event) -> bool:
        """Send one event; return False if the other side is gone, or has long not listened."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                # A child that hangs must not make the supervisor wait.
                self._socket.sendall(line, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def receive(self) -> list[Event]:
        """Return the events that have arrived, without waiting; notice the end."""
        while self._fill(socket.MSG_DONTWAIT):
            pass
        return self._take()

    def wait(self) -> Event:
        """
        Wait for the first event.

        Raises:
            ConnectionError: The other side is gone.
        """
        while b"\n" not in self._buffer:
            if not self._fill(0):
                raise ConnectionError("The supervisor went away before it sent a configuration.")
        line, self._buffer = self._buffer.split(b"\n", 1)
        event: Event = json.loads(line)
        return event

    def close(self) -> None:
        self.closed = True
        self._socket.close()

    def _fill(self, flags: int) -> bool:
        if self.closed:
            return False
        try:
            data = self._socket.recv(65_536, flags)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.closed = not data
        self._buffer += data
        return bool(data)

    def _take(self) -> list[Event]:
        *lines, self._buffer = self._buffer.split(b"\n")
        return [event for line in lines if isinstance(event := _decoded(line), dict)]


def _decoded(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
