"""
A TCP proxy that fails on demand: between a client and a server, in this process.

It cuts connections, stops forwarding without closing them (half-open), refuses new ones,
is slow, or loses exactly the answer to a request that the server has carried out.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

_CHUNK = 65_536

# An RST instead of a FIN: what is under way is lost, as when a cable is cut.
_NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """
    Forwards connections to ``host:port``.

    Attributes:
        address: Where it listens, host and port.

        accepted: How many connections it has forwarded so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._state = threading.Condition()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._stalled = self._closed = self._losing = False
        self._delay_s = 0.0
        self.accepted = 0
        self._listener: socket.socket | None = _listen(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._spawn(self._serve, self._listener)

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def open_connections(self) -> int:
        """How many connections are forwarded now."""
        return len(self._pairs)

    # ---- faults ----------------------------------------------------------------

    def cut(self) -> None:
        """Break all connections; new ones are welcome."""
        with self._state:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(*pair)

    def stall(self) -> None:
        """Forward nothing more, and close nothing: every connection is half-open."""
        self._stalled = True

    def resume(self) -> None:
        """Forward again, also what was held back."""
        with self._state:
            self._stalled = False
            self._state.notify_all()

    def slow(self, seconds: float) -> None:
        """Delay whatever is forwarded from now on, in both directions; 0 ends that."""
        self._delay_s = seconds

    def refuse(self) -> None:
        """Break all connections, and accept none until ``accept()``."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)
        self.cut()

    def accept(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None and not self._closed:
            self._listener = _listen(self.address)
            self._spawn(self._serve, self._listener)

    def lose_next_reply(self) -> None:
        """Break the next connection on which the server answers, before the answer is sent on."""
        self._losing = True

    def close(self) -> None:
        """End everything, and wait for it."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self.refuse()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- forwarding ------------------------------------------------------------

    def _spawn(self, work: Any, *args: Any) -> threading.Thread:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=args, name="Proxy", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            while not self._closed:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                self._connect(client, listener)

    def _connect(self, client: socket.socket, listener: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, 5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._state:
            self._pairs.add((client, server))
            self.accepted += 1
        self._spawn(self._pump, client, server)
        self._spawn(self._answer, client, server)
        if listener is not self._listener:
            # It came in while the door was being shut.
            self._end(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        self._forward(client, server, lambda: False)
        self._end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        self._forward(server, client, self._loses_this)
        self._end(client, server)
        # Both are shut down; nobody else reads or closes them.
        self._pairs.discard((client, server))

    def _loses_this(self) -> bool:
        losing, self._losing = self._losing, False
        return losing

    def _forward(
        self, source: socket.socket, target: socket.socket, is_lost: Callable[[], bool]
    ) -> None:
        """Pass on what comes in, until one end is closed or something is lost."""
        # Two threads: what is late must not make what follows it later still.
        line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        deliverer = self._spawn(self._deliver, line, source, target)
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._hold()
                if is_lost():
                    break
                line.put((time.monotonic() + self._delay_s, data))
        line.put((0.0, b""))
        deliverer.join()

    def _deliver(
        self,
        line: queue.SimpleQueue[tuple[float, bytes]],
        source: socket.socket,
        target: socket.socket,
    ) -> None:
        try:
            while True:
                due, data = line.get()
                if not data:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                self._hold()
                target.sendall(data)
        except OSError:
            self._end(source, target)

    def _hold(self) -> None:
        if self._stalled:
            with self._state:
                self._state.wait_for(lambda: not self._stalled or self._closed)

    def _end(self, client: socket.socket, server: socket.socket) -> None:
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            _shut(end)


def _shut(end: socket.socket) -> None:
    # Shut down first: a thread that waits in recv() or accept() does not notice a close().
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        end.close()


def _listen(address: tuple[str, int]) -> socket.socket:
    return socket.create_server(address, backlog=128)
