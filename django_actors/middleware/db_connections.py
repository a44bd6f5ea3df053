"""
Keep the database connections of worker threads alive, fresh and few.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .base import Middleware

# A server or a proxy may have closed a connection that was idle for so long.
IDLE_S = 30.0


_thread = threading.local()


def _opened() -> list[BaseDatabaseWrapper]:
    """Return the connections that the calling thread has opened, some of them closed again."""
    try:
        opened: list[BaseDatabaseWrapper] = _thread.opened
    except AttributeError:
        # Once a thread: to ask Django for each message costs as much as to decode it.
        opened = _thread.opened = list(connections.all(initialized_only=True))
    return opened


def _note_opened(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    opened = _opened()
    if connection not in opened:
        opened.append(connection)


connection_created.connect(_note_opened)


class DbConnections(Middleware):
    """
    Let a worker thread keep its connections from message to message.

    A connection is dropped when it is broken, was left in a transaction, or has
    outlived ``CONN_MAX_AGE``. An age of 0, Django's default, means "until the end
    of the request", which would be a connection a message: here it has no limit.
    """

    def before_process_message(self, broker: Any, message: Any) -> None:
        for connection in _opened():
            refresh(connection)

    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        for connection in _opened():
            tidy(connection)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        self.after_process_message(broker, message)

    def before_worker_thread_shutdown(self, broker: Any, thread: Any) -> None:
        connections.close_all()

    def before_consumer_thread_shutdown(self, broker: Any, thread: Any) -> None:
        connections.close_all()


def refresh(connection: BaseDatabaseWrapper) -> None:
    """Drop a connection that is too old, or idle for so long that it may be dead."""
    if connection.connection is None or connection.in_atomic_block:
        return
    now = time.monotonic()
    if _is_too_old(connection, now) or (
        _idle_since(connection) < now - IDLE_S and not connection.is_usable()
    ):
        connection.close()


def _is_too_old(connection: BaseDatabaseWrapper, now: float) -> bool:
    if not connection.settings_dict["CONN_MAX_AGE"] or connection.close_at is None:
        return False
    return now >= connection.close_at


def _idle_since(connection: BaseDatabaseWrapper) -> float:
    since: float = getattr(connection, "_actors_idle_since", 0.0)
    return since


def tidy(connection: BaseDatabaseWrapper) -> None:
    """Leave a connection as the next message wants to find it."""
    # Inside atomic() the connection belongs to the caller: a test, run in its own thread.
    if connection.connection is None or connection.in_atomic_block:
        return
    if _was_left_in_transaction(connection) or (
        connection.errors_occurred and not connection.is_usable()
    ):
        connection.close()
        return
    connection.errors_occurred = False
    connection._actors_idle_since = time.monotonic()  # type: ignore[attr-defined]
    # A test that counts queries keeps them.
    if connection.queries_logged and not connection.force_debug_cursor:
        reset_queries()


def _was_left_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    wanted: bool = connection.settings_dict["AUTOCOMMIT"]
    return connection.get_autocommit() is not wanted
