"""
The gate every run passes: open, closed while the worker is paused, or for one at a time.
"""

from __future__ import annotations

import threading


class GateClosed(Exception):
    """Say that the worker stops; who waited at the gate may not pass any more."""


class Gate:
    """
    Let runs in and out of a worker.

    A message that is suspected to kill its worker runs alone, so that no neighbour
    dies with it or is blamed for it.
    """

    def __init__(self) -> None:
        # Taken by itself where nobody waits or is told: a condition does that at thrice the price.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._waiting_alone = 0
        self._alone = False
        self._paused = False
        self._closed = False

    def enter(self, *, alone: bool = False) -> None:
        """
        Wait until a run may begin.

        Raises:
            GateClosed: the worker stops.
        """
        with self._lock:
            if alone:
                self._enter_alone()
                return
            while self._paused or self._alone or self._waiting_alone or self._closed:
                self._wait()
            self._inside += 1

    def _enter_alone(self) -> None:
        self._waiting_alone += 1
        try:
            while self._paused or self._inside or self._closed:
                self._wait()
        finally:
            self._waiting_alone -= 1
            self._changed.notify_all()
        self._inside += 1
        self._alone = True

    def _wait(self) -> None:
        if self._closed:
            raise GateClosed
        self._changed.wait()

    def leave(self) -> None:
        """Note that a run has ended."""
        with self._lock:
            self._inside -= 1
            was_alone, self._alone = self._alone, False
            if was_alone or self._waiting_alone or self._paused:
                self._changed.notify_all()

    @property
    def inside(self) -> int:
        """How many runs are going on."""
        return self._inside

    def pause(self) -> None:
        """Let nobody in, and return when nobody is inside."""
        with self._changed:
            self._paused = True
            while self._inside and not self._closed:
                self._changed.wait()

    def resume(self) -> None:
        """Let runs in again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """Turn away who waits and who comes; who is inside goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
