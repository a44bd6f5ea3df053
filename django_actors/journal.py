"""
The journal of a broker in memory: what was sent, and whether it still counts.

A message that is sent inside ``transaction.atomic()`` belongs to the transaction. Its record is
the commit hook itself, so Django drops it with a rollback, also with that of a savepoint: no
query is asked for it, and in a ``TestCase`` it ends with the test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import settings
from .message import Message

# The longest time that a rollback is expected to take.
_ROLLBACK_S = 0.2


class Record:
    """
    One message that was sent.

    Attributes:
        message: As it was sent.

        connection: Whose transaction it belongs to; ``None`` if it is committed.

        seen: Whether the test has looked at it, or run it.
    """

    __slots__ = ("_at", "_committed", "_public", "_public_since", "connection", "message", "seen")

    def __init__(self, message: Message, committed: Callable[[], None]) -> None:
        self.message = message
        self.connection: BaseDatabaseWrapper | None = None
        self.seen = False
        self._committed = committed
        self._at = 0
        self._public = False
        self._public_since: float | None = None

    def join(self, connection: BaseDatabaseWrapper) -> None:
        """Become part of the transaction that is open on *connection*."""
        self.connection = connection
        self._at = len(connection.run_on_commit)
        connection.on_commit(self)

    def __call__(self) -> None:
        """Note the commit; ``captureOnCommitCallbacks(execute=True)`` is none."""
        if self.connection is not None and not self.connection.in_atomic_block:
            self.connection = None
            self._committed()

    @property
    def savepoints(self) -> set[Any] | None:
        """The savepoints it was sent in; ``None`` if it was rolled back."""
        assert self.connection is not None
        hooks = self.connection.run_on_commit
        # A rollback moves it towards the beginning, if at all.
        for at in range(min(self._at, len(hooks) - 1), -1, -1):
            if hooks[at][1] is self:
                self._at = at
                return set(hooks[at][0])
        return None

    @property
    def is_alive(self) -> bool:
        """Whether it was not rolled back."""
        return self.connection is None or self.savepoints is not None

    @property
    def is_public(self) -> bool:
        """Whether every thread sees it."""
        connection = self.connection
        if connection is None:
            return True
        savepoints = self.savepoints
        if savepoints is None:
            return False
        self._public = self._public or self._becomes_public(connection, savepoints)
        return self._public

    def _becomes_public(self, connection: BaseDatabaseWrapper, savepoints: set[Any]) -> bool:
        if not _is_left_to_the_test(connection, savepoints):
            self._public_since = None
            return False
        if connection is current_connection():
            return True
        # Django closes a block before it rolls it back: seen from another thread, that looks
        # for a moment as if the block had ended well.
        now = time.monotonic()
        self._public_since = self._public_since or now
        return now - self._public_since >= _ROLLBACK_S

    @property
    def is_visible(self) -> bool:
        """Whether the calling thread sees it, as a database shows it a row."""
        public = self.is_public
        if public or self.connection is not current_connection():
            return public
        return self.is_alive


def current_connection() -> BaseDatabaseWrapper:
    """Return the calling thread's connection to the database of the waiting room."""
    return connections[settings.DATABASE]


def _is_left_to_the_test(connection: BaseDatabaseWrapper, savepoints: set[Any]) -> bool:
    """Whether only the transactions are open that a ``TestCase`` itself has begun."""
    blocks = tuple(connection.atomic_blocks)
    wrapping = 0
    while wrapping < len(blocks) and getattr(blocks[wrapping], "_from_testcase", False):
        wrapping += 1
    # The outermost block is the transaction, each one inside of it a savepoint.
    still_open = set(connection.savepoint_ids[wrapping - 1 :])
    return wrapping > 0 and not savepoints & still_open


class Journal:
    """
    The records of what was sent, in order.

    Args:
        committed: Called when messages become visible because their transaction was committed.
    """

    def __init__(self, committed: Callable[[], None]) -> None:
        self._committed = committed
        self._records: list[Record] = []
        self._by_id: dict[str, Record] = {}
        self._captures: list[list[Message]] = []
        self._lock = threading.Lock()

    def note(self, message: Message, *, joins: bool) -> None:
        """
        Note that *message* was sent.

        Args:
            joins: Whether it belongs to the transaction that is open, if one is.
        """
        record = Record(message, self._committed)
        connection = current_connection()
        if joins and connection.in_atomic_block:
            record.join(connection)
            # Where the test itself sends, outside of any block, workers have it at once.
            _ = record.is_public
        with self._lock:
            self._records.append(record)
            known = self._by_id.get(message.message_id)
            if known is None or not known.is_alive:
                self._by_id[message.message_id] = record
            for capture in self._captures:
                # As the actor will get it.
                capture.append(Message.decode(message.encode()))

    def is_visible(self, message_id: str | None) -> bool:
        """Return whether the calling thread sees a message; those that nobody noted are seen."""
        record = self._by_id.get(message_id or "")
        return record is None or record.is_visible

    def is_alive(self, message_id: str | None) -> bool:
        """Return whether a message was not rolled back."""
        record = self._by_id.get(message_id or "")
        return record is None or record.is_alive

    def find(self, message_id: str) -> Record | None:
        """Return the record of a message, if it was noted."""
        return self._by_id.get(message_id)

    def records(self) -> list[Record]:
        """Return the records of what was sent and not rolled back."""
        with self._lock:
            return [record for record in self._records if record.is_alive]

    @property
    def count(self) -> int:
        """How many messages were noted, in any case."""
        return len(self._records)

    def since(self, count: int) -> list[Record]:
        """Return the records after the first *count*."""
        return self._records[count:]

    def rolled_back(self) -> list[Message]:
        """Return the messages that were rolled back."""
        with self._lock:
            return [record.message for record in self._records if not record.is_alive]

    def capture(self, into: list[Message]) -> Callable[[], None]:
        """Add what is sent from now on to a list, until the function is called that is returned."""
        with self._lock:
            self._captures.append(into)
        return lambda: self._release(into)

    def _release(self, capture: list[Message]) -> None:
        with self._lock:
            self._captures = [each for each in self._captures if each is not capture]
        capture[:] = [message for message in capture if self.is_alive(message.message_id)]

    def see(self, message_id: str) -> None:
        """Note that the test has looked at a message, or run it."""
        record = self._by_id.get(message_id)
        if record is not None:
            record.seen = True

    def forget(self, queue_name: str | None = None) -> None:
        """Forget what was sent to a queue, or everything."""
        with self._lock:
            kept = [
                record
                for record in self._records
                if queue_name is not None and record.message.queue_name != queue_name
            ]
            self._records = kept
            self._by_id = {record.message.message_id: record for record in kept}
