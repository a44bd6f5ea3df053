"""
Which worker processes live, and what they run: a row each, renewed every few seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import Min

from .claims import now_ms_expression, now_ms_sql, quoted_table
from .models import OWNER_LENGTH, WorkerRecord

# A worker that was silent for so long is counted as gone.
SILENCE_MS = 30_000

# The rows of those that were killed, with nobody left to recover them. A process that hangs is
# as silent, and its death is counted only while its row is there: longer than any time limit.
KEEP_MS = 7 * 86_400_000

# Running messages that are told of one process.
MOST_RUNNING = 64


def report(
    owner: str,
    *,
    host: str,
    pid: int,
    queues: Collection[str],
    threads: int,
    running: Sequence[Mapping[str, Any]],
    memory_bytes: int,
    started_ms: int,
    alias: str,
) -> None:
    """
    Write that a worker process lives, by the clock of the database.

    Args:
        running: What its threads run: ``message_id``, ``actor_name``, ``queue_name``,
            ``since_ms``.
    """
    values: dict[str, Any] = {
        "host": host[:255],
        "pid": pid,
        "queues": json.dumps(sorted(queues)),
        "threads": threads,
        "busy": len(running),
        "running": json.dumps(list(running[:MOST_RUNNING])),
        "memory_bytes": memory_bytes,
        "started_ms": started_ms,
    }
    connection = connections[alias]
    table, now = quoted_table(connection, WorkerRecord), now_ms_sql(connection)
    changes = ", ".join(f"{name} = %s" for name in values)
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {changes}, seen_ms = {now} WHERE owner = %s",
            [*values.values(), owner],
        )
        if cursor.rowcount == 0:
            marks = ", ".join(["%s"] * len(values))
            cursor.execute(
                f"INSERT INTO {table} (owner, {', '.join(values)}, seen_ms) "
                f"VALUES (%s, {marks}, {now})",
                [owner[:OWNER_LENGTH], *values.values()],
            )


def answer(owner: str, alias: str) -> None:
    """Write that a worker process lives; it has no row before it has reported."""
    rows = WorkerRecord.objects.using(alias).filter(pk=owner)
    rows.update(seen_ms=now_ms_expression(alias))


def heard_of_all_since_ms(alias: str, *, besides: str) -> int:
    """
    Return since when nothing was heard of the process that has been silent for longest.

    Args:
        besides: The owner of a row that is left out.

    Returns:
        Milliseconds since 1970, by the clock of the database; now, if there is nobody. Who is
        counted as gone is left out.
    """
    now = now_ms(alias)
    rows = WorkerRecord.objects.using(alias).filter(seen_ms__gte=now - SILENCE_MS)
    seen = rows.exclude(pk=besides).aggregate(earliest=Min("seen_ms"))["earliest"]
    return now if seen is None else int(seen)


def leave(owner: str, alias: str) -> bool:
    """Delete the row of a worker process that has ended; return whether there was one."""
    count, _ = WorkerRecord.objects.using(alias).filter(pk=owner).delete()
    return count > 0


def prune(alias: str) -> None:
    """Delete the rows of processes that have been silent for long."""
    too_old = now_ms_expression(alias) - KEEP_MS
    WorkerRecord.objects.using(alias).filter(seen_ms__lt=too_old).delete()


def living(alias: str) -> list[tuple[WorkerRecord, int]]:
    """Return the rows of living worker processes, and how many milliseconds old each is."""
    now = now_ms(alias)
    rows = WorkerRecord.objects.using(alias).filter(seen_ms__gte=now - SILENCE_MS)
    return [(row, max(0, now - row.seen_ms)) for row in rows.order_by("host", "pid", "owner")]


def now_ms(alias: str) -> int:
    """Return the time of the database in milliseconds since 1970."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now_ms_sql(connection)}")
        (now,) = cursor.fetchone()
    return int(now)
