"""
The short way of one message into the queue table: past the cursors, on the driver alone.

The cursors of Django and psycopg take a quarter of what a single message costs, and most of
the rest on PostgreSQL is to read the statement anew. The short way is taken only where
nobody watches what runs on a connection; whatever it cannot do is left to a cursor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper

from django_actors.message import Envelope

# What sends less on a connection does not pay for having a statement prepared.
PREPARE_AFTER = 5

_NEVER = -1

# How often a connection of psycopg has sent; ``_NEVER`` where it cannot keep what it prepared.
_sends: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

# Formats of the parameters. A text in the binary one may not be cut at a NUL.
_TEXT, _BINARY = 0, 1
_FORMATS = (_BINARY, _TEXT, _BINARY, _BINARY)

# States and results of libpq.
_IDLE, _COMMAND_OK, _TUPLES_OK = 0, 1, 2


def insert_one(connection: BaseDatabaseWrapper, statement: str, envelope: Envelope) -> bool:
    """
    Run the INSERT of one message without a cursor.

    Args:
        statement: With a mark ``%s`` for the queue, the priority, the id and the body.

    Returns:
        Whether it was done; if it was not, nothing has happened.
    """
    way = _WAYS.get(connection.vendor)
    if way is None or _is_watched(connection):
        return False
    # As a cursor does it: this one refuses to work in a coroutine, too.
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        return way(connection, statement, envelope)


def _is_watched(connection: BaseDatabaseWrapper) -> bool:
    # Django's tests and its debug toolbar put something else in the place of cursor().
    method: Any = connection.cursor
    is_own = getattr(method, "__func__", None) is type(connection).cursor
    return not is_own or bool(connection.execute_wrappers) or connection.queries_logged


# ---- SQLite --------------------------------------------------------------------


def _insert_into_sqlite(
    connection: BaseDatabaseWrapper, statement: str, envelope: Envelope
) -> bool:
    raw: Any = connection.connection
    message_id, queue_name, priority, body, _ = envelope
    raw.execute(_with_question_marks(statement), (queue_name, priority, message_id, body))
    return True


@cache
def _with_question_marks(statement: str) -> str:
    return statement.replace("%s", "?")


# ---- PostgreSQL ----------------------------------------------------------------


def _insert_into_postgresql(
    connection: BaseDatabaseWrapper, statement: str, envelope: Envelope
) -> bool:
    raw: Any = connection.connection
    # In a transaction an error would be the end of all of it.
    if not hasattr(raw, "pgconn") or raw.pgconn.transaction_status != _IDLE or not raw.autocommit:
        return False
    sends = _sends.get(raw, 0)
    if sends == _NEVER:
        return False
    if sends <= PREPARE_AFTER:
        _sends[raw] = sends + 1
        if sends < PREPARE_AFTER or not _prepare(raw, statement):
            return False
    return _insert_prepared(raw, statement, envelope)


def _prepare(raw: Any, statement: str) -> bool:
    name, text = _as_prepared(statement)
    is_utf8 = raw.info.encoding == "utf-8"
    # It may be there already, behind a pooler: under its name nothing else is.
    if is_utf8 and _run(raw, lambda pgconn: pgconn.send_prepare(name, text)) in ("", "42P05"):
        return True
    _sends[raw] = _NEVER
    return False


def _insert_prepared(raw: Any, statement: str, envelope: Envelope) -> bool:
    name, _ = _as_prepared(statement)
    message_id, queue_name, priority, body, _ = envelope
    values = (queue_name.encode(), b"%d" % priority, message_id.encode(), body)
    trouble = _run(raw, lambda pgconn: pgconn.send_query_prepared(name, values, _FORMATS))
    if trouble:
        # Behind a pooler the next statement may come to a server process that has not
        # prepared it. It is not tried again on this connection.
        _sends[raw] = _NEVER
    return not trouble


def _run(raw: Any, send: Callable[[Any], None]) -> str:
    """Send something and wait for it; return the code of the error that came back, if any."""
    from psycopg.generators import execute

    with raw.lock:
        send(raw.pgconn)
        result = raw.wait(execute(raw.pgconn))[-1]
    if result.status in (_COMMAND_OK, _TUPLES_OK):
        return ""
    return (result.error_field(ord("C")) or b"?").decode()


@cache
def _as_prepared(statement: str) -> tuple[bytes, bytes]:
    """Return the statement for libpq, and a name that no other statement can have."""
    text = statement
    for number in range(1, statement.count("%s") + 1):
        text = text.replace("%s", f"${number}", 1)
    name = f"django_actors_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return name.encode(), text.encode()


_WAYS: dict[str, Callable[[BaseDatabaseWrapper, str, Envelope], bool]] = {
    "sqlite": _insert_into_sqlite,
    "postgresql": _insert_into_postgresql,
}
