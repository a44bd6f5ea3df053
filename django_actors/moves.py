"""
Moves of messages from the waiting room to a broker outside of its database: what runs once.

A message is published, and then its row is deleted; a process can die in between. So whoever
receives a message that came out of a row deletes that row, if it is still there. A row that was
in somebody's hands before has a *doubtful* copy published, and stays until that one has run: if
the row is gone when it is about to run, another copy came first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from django.db import Error as DatabaseError
from django.db import connections

from .chunks import chunks
from .claims import quoted_table, retry_when_locked
from .delivery import WAITING_FATES, Delivery
from .errors import DecodeError
from .message import Message, Origin
from .models import Kind, WaitingMessage

logger = logging.getLogger(__name__)

# SQLite takes no more than 999 parameters in old versions.
MOST_KEYS = 400

# Rows whose message may be in the broker as well. A settlement, a delay and an operator write
# rows of which that is not true.
_MOVING = f"(moving OR kind = '{Kind.OUTBOX.value}')"


def origin_of(kind: str, moving: bool) -> Origin:
    """Return what to say of a copy that is published out of a row as it was found."""
    # Whoever wrote a row of the outbox has tried to publish it.
    return Origin.DOUBTFUL_ROW if moving or kind == Kind.OUTBOX else Origin.ROW


def note_received(deliveries: Sequence[Delivery], alias: str) -> None:
    """
    Delete the rows *deliveries* came out of: the broker has them.

    Mostly whoever published them has done so, or is just doing it. If that process has died,
    they would be published again.
    """
    moved = [each for each in deliveries if each.origin is Origin.ROW and not each.row_is_gone]
    if not moved:
        return
    try:
        _finish(moved, alias)
    except DatabaseError as error:
        # They can run without; at worst, twice.
        logger.debug("Could not delete the rows of %d messages: %s", len(moved), error)
        connections[alias].close_if_unusable_or_obsolete()
        return
    for each in moved:
        each.row_is_gone = True


def note_settled(deliveries: Sequence[Delivery], alias: str) -> None:
    """Delete the rows by which other copies of *deliveries* would see that none has run."""
    doubtful = [
        each
        for each in deliveries
        if each.origin is Origin.DOUBTFUL_ROW
        # A retry or a dead letter has taken the place of the row, unless nobody could read it.
        and (each.fate not in WAITING_FATES or each.message is None)
    ]
    if doubtful:
        _finish(doubtful, alias)


def is_late(delivery: Delivery, alias: str) -> bool:
    """Return whether another copy of *delivery* came first, and has deleted or replaced the row."""
    if delivery.origin is not Origin.DOUBTFUL_ROW:
        return False
    return not any(row.body == delivery.body for row in _find([delivery.message_id], alias))


class _Row(NamedTuple):
    key: int
    message_id: str
    body: Any
    stored_at: Any


def _find(message_ids: Sequence[str], alias: str) -> Iterator[_Row]:
    # Spelled out, and not put together by the ORM: each batch with such a message needs one, and
    # nearly always it finds nothing.
    connection = connections[alias]
    table = quoted_table(connection, WaitingMessage)
    for some in chunks(message_ids, MOST_KEYS):
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, message_id, body, stored_at FROM {table} "
                f"WHERE message_id IN ({_marks(some)}) AND {_MOVING}",
                some,
            )
            yield from map(_Row._make, cursor.fetchall())


def _finish(deliveries: Iterable[Delivery], alias: str) -> None:
    bodies = dict(_read(deliveries))
    found = [row for row in _find(list(bodies), alias) if row.body == bodies[row.message_id]]
    for some in chunks(found, MOST_KEYS):
        retry_when_locked(connections[alias], partial(_delete, some, alias))


def _delete(rows: Sequence[_Row], alias: str) -> None:
    connection = connections[alias]
    table = quoted_table(connection, WaitingMessage)
    marks = _marks(rows)
    with connection.cursor() as cursor:
        # Asked again, and for the time: a row that was written meanwhile is another attempt's.
        cursor.execute(
            f"DELETE FROM {table} WHERE id IN ({marks}) AND stored_at IN ({marks}) AND {_MOVING}",
            [*(row.key for row in rows), *(row.stored_at for row in rows)],
        )


def _marks(items: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(items))


def _read(deliveries: Iterable[Delivery]) -> Iterator[tuple[str, bytes]]:
    """Yield message id and body of those that can be read."""
    for each in deliveries:
        # Who signed it does not matter: it is compared with the row, byte by byte.
        with suppress(DecodeError):
            message = each.message or Message.decode(each.body)
            yield message.message_id, each.body
