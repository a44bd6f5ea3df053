"""
Which queues are paused: rows that every worker reads about once a second.
"""

from __future__ import annotations

from django.db import connections
from django.db.utils import OperationalError, ProgrammingError

from . import clock
from .claims import quoted_table
from .models import PausedQueue
from .rows import storable


def pause(queue_name: str, *, by: str, alias: str) -> bool:
    """Have all workers begin no message of a queue; return whether they did so far."""
    _, created = PausedQueue.objects.using(alias).get_or_create(
        queue_name=queue_name,
        defaults={"since_ms": clock.now_ms(), "paused_by": storable(by, 255)},
    )
    return created


def resume(queue_name: str, *, alias: str) -> bool:
    """Have workers read a queue again; return whether it was paused."""
    deleted, _ = PausedQueue.objects.using(alias).filter(queue_name=queue_name).delete()
    return deleted > 0


def find(alias: str) -> dict[str, PausedQueue]:
    """Return the paused queues by name."""
    return {row.queue_name: row for row in PausedQueue.objects.using(alias).all()}


def read_names(alias: str) -> frozenset[str]:
    """
    Return the names of the paused queues; made to be asked often.

    Where the table is missing nobody can have paused anything.
    """
    connection = connections[alias]
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT queue_name FROM {quoted_table(connection, PausedQueue)}")
            return frozenset(name for (name,) in cursor.fetchall())
    except (OperationalError, ProgrammingError):
        if _has_table(alias):
            raise
        return frozenset()


def _has_table(alias: str) -> bool:
    connection = connections[alias]
    return PausedQueue._meta.db_table in connection.introspection.table_names()
