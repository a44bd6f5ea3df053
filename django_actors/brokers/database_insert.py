"""
How messages get into the queue table: in one statement, as each database takes it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_actors.claims import now_ms_sql, quoted_table
from django_actors.message import Envelope
from django_actors.models import QueuedMessage
from django_actors.wakeup import READY_CHANNEL

from .database_shortcut import insert_one

# SQLite takes no more than 999 parameters in old versions; a row has four.
ROWS_AT_ONCE = 200

_COLUMNS = "queue_name, priority, message_id, body, claimed_by, redeliveries, enqueued_ms"

_NOTIFY = f"pg_notify('{READY_CHANNEL}', '')"


def insert(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope]) -> None:
    """Write all of *envelopes* or none, and notify whoever listens of them."""
    if len(envelopes) == 1 and insert_one(connection, _statement(connection, 1), envelopes[0]):
        return
    several = len(envelopes) > ROWS_AT_ONCE
    together = transaction.atomic(using=connection.alias) if several else nullcontext()
    with together, connection.cursor() as cursor:
        for start in range(0, len(envelopes), ROWS_AT_ONCE):
            chunk = envelopes[start : start + ROWS_AT_ONCE]
            cursor.execute(_statement(connection, len(chunk)), _parameters(connection, chunk))


def _takes_arrays(vendor: str, count: int) -> bool:
    # A statement of many rows is read for longer than they are written. One of one row is not.
    return vendor == "postgresql" and count > 1


# By kind of database and number of rows; to build one takes as long as to read a message.
_statements: dict[tuple[str, int], str] = {}


def _statement(connection: BaseDatabaseWrapper, count: int) -> str:
    kind = (connection.vendor, count)
    statement = _statements.get(kind)
    if statement is None:
        statement = _statements[kind] = _build_statement(connection, count)
    return statement


def _build_statement(connection: BaseDatabaseWrapper, count: int) -> str:
    now = now_ms_sql(connection)
    insert = f"INSERT INTO {quoted_table(connection, QueuedMessage)} ({_COLUMNS})"
    if _takes_arrays(connection.vendor, count):
        arrays = "unnest(%s::text[], %s::integer[], %s::text[], %s::bytea[])"
        rows = f"SELECT *, '', 0, {now} FROM {arrays}"
        return f"WITH rows AS ({insert} {rows}) SELECT {_NOTIFY}"
    row = f"(%s, %s, %s, %s, '', 0, {now})"
    # In the same statement, so that one commit does both.
    tell = f" RETURNING {_NOTIFY}" if connection.vendor == "postgresql" else ""
    return f"{insert} VALUES {', '.join([row] * count)}{tell}"


def _parameters(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope]) -> list[Any]:
    rows = [(each.queue_name, each.priority, each.message_id, each.body) for each in envelopes]
    if _takes_arrays(connection.vendor, len(rows)):
        return [list(column) for column in zip(*rows, strict=True)]
    return [value for row in rows for value in row]
