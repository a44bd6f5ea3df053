"""
Tells operators, through the database, of worker processes that cannot start.

The supervisor's loop must never wait for a database, so a thread does the writing. It begins with
the first death: a supervisor whose processes start has no thread and no connection. What it told
it repeats, so that nobody hears for long of a supervisor that was killed.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import uuid
from collections.abc import Callable
from functools import partial

from django.db import connections

from . import starts

logger = logging.getLogger("django_actors.MainProcess")

CLOSE_S = 2.0


class StartReporter:
    """
    What a supervisor tells of its places for worker processes; no call waits or raises.

    Args:
        alias: Of the database.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._id = uuid.uuid4().hex
        self._failing: dict[int, Callable[[], None]] = {}
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def failed(self, number: int, deaths: int, detail: str) -> None:
        """Tell that the process of a place died before it was ready, as others before it."""
        note = self._failing[number] = partial(
            starts.note,
            self._key(number),
            host=socket.gethostname(),
            pid=os.getpid(),
            number=number,
            deaths=deaths,
            detail=detail,
            alias=self._alias,
        )
        self._do(note)

    def started(self, number: int) -> None:
        """Tell that the process of a place is ready."""
        if number in self._failing:
            del self._failing[number]
            self._do(partial(starts.forget, [self._key(number)], self._alias))

    def close(self) -> None:
        """Take back what was told, and wait for the thread some seconds at most."""
        for number in tuple(self._failing):
            self.started(number)
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join(CLOSE_S)

    def _key(self, number: int) -> str:
        return f"{self._id}.{number}"

    def _do(self, step: Callable[[], None]) -> None:
        self._steps.put(step)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="StartReporter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (step := self._next_step()) is not None:
            try:
                step()
            except Exception as error:
                # The log says already that the process died; it is told again.
                logger.warning("Could not tell operators of a failed start: %s", error)
            connections.close_all()

    def _next_step(self) -> Callable[[], None] | None:
        try:
            return self._steps.get(timeout=starts.REPEAT_S if self._failing else None)
        except queue.Empty:
            return self._repeat

    def _repeat(self) -> None:
        for note in tuple(self._failing.values()):
            note()
