"""
What a worker process tells operators, and hears from them, through the database.

It tells that it lives, what it runs and what became of its messages, in batches; it hears
which queues are paused. Trouble with that never stops a message.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections

from . import clock, pauses, roster
from .claims import is_locked_out, retry_when_locked
from .memory import resident_bytes

if TYPE_CHECKING:
    from .worker import Worker

logger = logging.getLogger(__name__)

REPORT_S = 5.0

# With the rest of a dispatcher's idle second, a pause is obeyed within two.
LISTEN_S = 0.4


class Reporter:
    """
    The wire between a worker and its operators; used by the dispatcher's thread.

    Args:
        worker: Whose threads, queues and settled messages are told of.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._alias = worker.broker.waiting_room.alias
        self._tally = worker.tally
        self._started_ms = clock.now_ms()
        self._listen_at = self._report_at = 0.0
        self._troubles: set[str] = set()

    def tend(self) -> None:
        """Do what is due; never raises."""
        now = time.monotonic()
        if now >= self._listen_at:
            self._listen_at = now + LISTEN_S
            self.listen()
        if now >= self._report_at:
            self._report_at = now + REPORT_S
            self._attempt("heartbeat", self._report)
            self._attempt("counts", partial(self._tally.write, self._alias))

    def introduce(self) -> None:
        """Tell that this process lives, and ask which queues are paused; never raises."""
        connection = connections[self._alias]
        self._attempt("heartbeat", lambda: retry_when_locked(connection, self._report))
        self.listen()

    def listen(self) -> None:
        """Ask which queues are paused, and have the worker obey; never raises."""
        self._attempt("pauses", self._listen)

    def close(self) -> None:
        """Write the last counts, and take the row of this process away; never raises."""
        connection = connections[self._alias]
        write = partial(self._tally.write, self._alias)
        self._attempt("counts", lambda: retry_when_locked(connection, write))
        self.leave()

    def leave(self) -> None:
        """Take the row of this process away for good; any thread may do it; never raises."""
        self._report_at = math.inf
        connection = connections[self._alias]
        leave = partial(roster.leave, self._worker.owner, self._alias)
        self._attempt("heartbeat", lambda: retry_when_locked(connection, leave))

    def _listen(self) -> None:
        self._worker.intake.set_paused(pauses.read_names(self._alias))

    def _report(self) -> None:
        worker = self._worker
        roster.report(
            worker.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=worker.intake.queue_names(),
            threads=len(worker.slots),
            running=self._running(),
            memory_bytes=resident_bytes(),
            started_ms=self._started_ms,
            alias=self._alias,
        )

    def _running(self) -> list[dict[str, Any]]:
        deliveries = [slot.delivery for slot in self._worker.slots]
        return [
            {
                "message_id": delivery.message_id,
                "actor_name": delivery.actor_name,
                "queue_name": delivery.queue_name,
                "since_ms": delivery.began_ms,
            }
            for delivery in deliveries
            if delivery is not None
        ]

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except (OperationalError, InterfaceError) as error:
            if is_locked_out(error):
                # Others are busy writing; the next time is soon enough.
                return
            self._note_trouble(what, error)
            # It may be dead; the next attempt opens another one.
            if not connections[self._alias].in_atomic_block:
                connections[self._alias].close()
        except Exception as error:
            self._note_trouble(what, error)
            self._drop_what_spoils(what, error)
        else:
            self._troubles.discard(what)

    def _note_trouble(self, what: str, error: Exception) -> None:
        # Once: it says the same every few seconds, and no message depends on it.
        if what not in self._troubles:
            self._troubles.add(what)
            logger.warning("Could not write or read the %s of this worker: %s", what, error)

    def _drop_what_spoils(self, what: str, error: Exception) -> None:
        # Not an outage: the same numbers would be refused the next time as well.
        if what == "counts" and isinstance(error, DatabaseError):
            self._tally.clear()
