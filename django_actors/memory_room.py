"""
A waiting room in memory, for the stub broker. The interface is that of ``WaitingRoom``.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from . import clock
from .conf import settings
from .journal import Journal
from .message import Envelope, Message
from .models import Attempt, Kind, WaitingMessage
from .signing import seal
from .waiting_room import renew
from .wakeup import Alarm, AlarmWatch


class MemoryRoom:
    """
    A waiting room whose rows are never saved.

    Args:
        journal: Knows which messages were rolled back; their rows are not seen.
    """

    joins_transaction = False
    in_memory = True

    def __init__(self, journal: Journal) -> None:
        self.rows: dict[int, WaitingMessage] = {}
        self.listeners: set[Callable[[int], None]] = set()
        self._journal = journal
        self._keys = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def alias(self) -> str:
        """The alias of the database whose transactions the messages belong to."""
        return settings.DATABASE

    def watch(self, alarm: Alarm) -> AlarmWatch:
        """Return what the calling thread sleeps on until rows may have been written."""
        return AlarmWatch(alarm)

    def put(self, rows: Sequence[WaitingMessage], attempts: Sequence[Attempt] = ()) -> None:
        """Keep *rows*, each in the place of what is there for the same message."""
        with self._lock:
            for row in rows:
                self._drop(row.message_id)
                row.pk = next(self._keys)
                self.rows[row.pk] = row
        due = [row.due_ms for row in rows if row.due_ms is not None]
        if due:
            self.ring(min(due))

    def count_failures(self, rows: Sequence[WaitingMessage]) -> None:
        """Count nothing: nobody looks at the groups of a test."""

    def ring(self, due_ms: int) -> None:
        """Wake the dispatchers: rows were written, or time has passed."""
        for listener in tuple(self.listeners):
            listener(due_ms)

    def _drop(self, message_id: str | None) -> None:
        for key, row in list(self.rows.items()):
            if message_id is not None and row.message_id == message_id:
                del self.rows[key]

    def claim_due(
        self, owner: str, *, limit: int, now: int | None = None
    ) -> list[tuple[int, Envelope]]:
        """Claim rows whose time has come, the earliest first."""
        moment = clock.now_ms() if now is None else now
        with self._lock:
            due = [row for row in self._waiting() if row.due_ms <= moment and not row.claimed_by]
            due.sort(key=lambda row: (row.due_ms, row.pk))
            for row in due[:limit]:
                row.claimed_by = owner
            return [(row.pk, row.envelope()) for row in due[:limit]]

    def forget(self, keys: Sequence[int], owner: str) -> None:
        """Delete claimed rows; one that was written anew since has another key."""
        with self._lock:
            for key in keys:
                self.rows.pop(key, None)

    def forget_outbox(self, message_ids: Sequence[str]) -> None:
        """Do nothing: what is in memory goes to no outbox."""

    def release(self, owner: str) -> None:
        """Make rows that *owner* had claimed due again."""
        with self._lock:
            for row in self.rows.values():
                if row.claimed_by == owner:
                    row.claimed_by = ""

    def next_due_ms(self, queue_names: Iterable[str] | None = None) -> int | None:
        """Return when the next row (of some queues) is due, in milliseconds since 1970."""
        names = None if queue_names is None else set(queue_names)
        with self._lock:
            due = [
                row.due_ms for row in self._waiting() if names is None or row.queue_name in names
            ]
        return min(due) if due else None

    def wait_ms(self) -> int | None:
        """Return the milliseconds until the next row is due, ``None`` without any."""
        due = self.next_due_ms()
        return None if due is None else max(0, due - clock.now_ms())

    def find_settled(self, message_ids: Collection[str]) -> set[str]:
        """Return of which messages an earlier delivery ended here."""
        with self._lock:
            here = {row.message_id for row in self.rows.values() if not row.claimed_by}
        return {each for each in message_ids if each in here}

    def has_claimed(self, owner: str) -> bool:
        """Return whether *owner* is just publishing messages from here."""
        with self._lock:
            return any(row.claimed_by == owner for row in self.rows.values())

    def has_waiting(self, queue_name: str) -> bool:
        """Return whether a message of a queue waits here for its time."""
        with self._lock:
            return any(row.queue_name == queue_name for row in self._waiting())

    def prune(self, *, older_than_ms: int, limit: int = 1_000) -> int:
        """Drop nothing: a test is over before a dead letter is old."""
        return 0

    def requeue(self, rows: Sequence[WaitingMessage], *, delay: int = 0) -> list[Message]:
        """Have rows run again, from their first attempt."""
        messages = []
        for row in rows:
            message = row.runnable
            if message is None:
                continue
            row.kind, row.due_ms = Kind.SCHEDULED, clock.now_ms() + delay
            row.body = seal(renew(message))
            messages.append(renew(message))
        self.ring(clock.now_ms() + delay)
        return messages

    def clear(self, queue_name: str | None = None) -> None:
        """Drop the rows of a queue, or all."""
        with self._lock:
            for key, row in list(self.rows.items()):
                if queue_name in (None, row.queue_name):
                    del self.rows[key]

    def _waiting(self) -> list[Any]:
        is_visible = self._journal.is_visible
        return [
            row
            for row in self.rows.values()
            if row.due_ms is not None and is_visible(row.message_id)
        ]
