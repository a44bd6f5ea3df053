"""
The story of messages that failed: their attempts, and groups of what they have in common.

Written where a settlement writes rows anyway; a message that succeeds at once leaves nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import F, Q

from . import clock
from .claims import retry_when_locked
from .delivery import Delivery, Fate
from .models import (
    SHORT_ERROR,
    Attempt,
    ErrorCount,
    ErrorGroup,
    Kind,
    Outcome,
    WaitingMessage,
)

logger = logging.getLogger(__name__)

# Attempts that are kept of a message since it was sent or requeued; older ones are dropped, some
# at a time.
KEPT_ATTEMPTS = 50
DROPPED_TOGETHER = 10

# The shortest stretch of time for which failures are counted.
STRETCH_MS = 5 * 60_000

MAX_SAMPLE = 16_384

PRUNE_BATCH = 1_000

# Set on a message by a retry, and by operators: it is no longer one that simply ran.
PAST_OPTION = "requeue_timestamp"

_OUTCOMES = {Fate.RETRY: Outcome.RETRIED, Fate.DEAD: Outcome.DEAD, Fate.DONE: Outcome.SUCCEEDED}


def build_attempts(settled: Iterable[Delivery], rows: Sequence[WaitingMessage]) -> list[Attempt]:
    """
    Return unsaved attempts of those among *settled* that failed now, or had failed before.

    Args:
        rows: The rows of the waiting room that *settled* ended in.
    """
    by_id = {row.message_id: row for row in rows if row.message_id}
    return [
        _build_attempt(each, by_id.get(each.message.message_id))
        for each in settled
        if each.message is not None and _has_story(each)
    ]


def _has_story(delivery: Delivery) -> bool:
    if delivery.fate is Fate.DONE:
        assert delivery.message is not None
        # A suspect is alone: a worker has died of it, or beside it.
        return delivery.alone or PAST_OPTION in delivery.message.options
    return delivery.fate in _OUTCOMES


def _build_attempt(delivery: Delivery, row: WaitingMessage | None) -> Attempt:
    assert delivery.message is not None and delivery.fate is not None
    attempt = Attempt(
        message_id=delivery.message.message_id,
        number=_number(delivery),
        outcome=_OUTCOMES[delivery.fate],
        queue_name=delivery.message.queue_name,
        actor_name=delivery.message.actor_name,
        began_ms=delivery.began_ms,
        ended_ms=clock.now_ms(),
        host=_host(),
        pid=os.getpid(),
    )
    if row is not None:
        attempt.error_class = row.error_class or row.reason
        attempt.error = row.error[:SHORT_ERROR]
        attempt.frame = row.frame
        attempt.retry_ms = row.due_ms
    return attempt


def _number(delivery: Delivery) -> int:
    """Return which attempt this was, from 1; what travelled may be anything."""
    assert delivery.message is not None
    retries = delivery.message.options.get("retries", 0)
    before = retries if isinstance(retries, int) and 0 <= retries < 2**31 - 1 else 0
    # The executor has noted the retry on the message already.
    counted = delivery.fate is Fate.RETRY and delivery.exception is not None
    return before if counted else before + 1


@cache
def _host() -> str:
    return socket.gethostname()[:255]


def build_acts(
    rows: Iterable[WaitingMessage], outcome: Outcome, *, by: str, due_ms: int | None = None
) -> list[Attempt]:
    """
    Return unsaved lines that say what an operator did to *rows*.

    Args:
        by: Who did it.

        due_ms: When they run then, if they do.
    """
    now = clock.now_ms()
    return [
        Attempt(
            message_id=row.message_id,
            number=0,
            outcome=outcome,
            queue_name=row.queue_name,
            actor_name=row.actor_name,
            began_ms=now,
            ended_ms=now,
            retry_ms=due_ms,
            by=by[:255],
        )
        for row in rows
        if row.message_id
    ]


def build_crashes(began_ms: Mapping[str, int], detail: str) -> list[Attempt]:
    """
    Return unsaved lines for messages whose process has died on this machine.

    Args:
        began_ms: When each began, by the message's id.

        detail: How the process died, such as ``was killed by signal 9 (SIGKILL)``.
    """
    now = clock.now_ms()
    return [
        Attempt(
            message_id=message_id,
            number=0,
            outcome=Outcome.CRASHED,
            began_ms=began,
            ended_ms=now,
            host=_host(),
            error=detail[:SHORT_ERROR],
        )
        for message_id, began in began_ms.items()
    ]


def write_attempts(attempts: Sequence[Attempt], alias: str) -> None:
    """Write attempts, each once however often it is tried, and drop what is too much of them."""
    if not attempts:
        return
    Attempt.objects.using(alias).bulk_create(attempts, ignore_conflicts=True)
    _drop_oldest(attempts, alias)


def _drop_oldest(attempts: Sequence[Attempt], alias: str) -> None:
    """Keep the latest attempts of messages that are retried for ever."""
    long_stories = defaultdict(list)
    for attempt in attempts:
        if attempt.number > KEPT_ATTEMPTS and attempt.number % DROPPED_TOGETHER == 0:
            long_stories[attempt.number].append(attempt.message_id)
    for number, message_ids in long_stories.items():
        known = Attempt.objects.using(alias).filter(message_id__in=message_ids)
        known.filter(number__lte=number - KEPT_ATTEMPTS).delete()


# ---- groups --------------------------------------------------------------------


def count_failures(rows: Sequence[WaitingMessage], alias: str) -> None:
    """
    Count the failures that *rows* tell of in their groups.

    Call it after the settlement: nobody waits for the row of a group, which all workers share,
    with rows of his own in his hands. What cannot be counted is only logged.
    """
    groups: dict[str, list[WaitingMessage]] = defaultdict(list)
    for row in rows:
        if row.fingerprint:
            groups[row.fingerprint].append(row)
    try:
        for fingerprint in sorted(groups):
            work = partial(_count_group, groups[fingerprint], alias)
            retry_when_locked(connections[alias], work)
    except DatabaseError as error:
        logger.warning("Could not count %d failures: %s", len(rows), error)


def _count_group(rows: Sequence[WaitingMessage], alias: str) -> None:
    latest, now = rows[-1], clock.now_ms()
    with transaction.atomic(using=alias):
        _add(
            ErrorGroup.objects.using(alias),
            {"fingerprint": latest.fingerprint},
            {
                "actor_name": latest.actor_name,
                "error_class": latest.error_class or latest.reason,
                "first_ms": now,
            },
            {
                "frame": latest.frame,
                "error": latest.error[:SHORT_ERROR],
                "traceback": latest.traceback[-MAX_SAMPLE:],
                "last_ms": now,
            },
            len(rows),
        )
        start = now - now % STRETCH_MS
        key = {"fingerprint": latest.fingerprint, "start_ms": start}
        _add(ErrorCount.objects.using(alias), key, {}, {}, len(rows))


def _add(
    found: Any, key: dict[str, Any], first: dict[str, Any], latest: dict[str, Any], count: int
) -> None:
    """Add to the count of a row, which is made if it is not there yet."""
    more = {**latest, "count": F("count") + count}
    if found.filter(**key).update(**more):
        return
    try:
        # A savepoint: PostgreSQL refuses everything after an error.
        with transaction.atomic(using=found.db):
            found.create(**key, **first, **latest, count=count)
    except IntegrityError:
        # Somebody else has just made it.
        found.filter(**key).update(**more)


def count_dead(fingerprints: Sequence[str], alias: str, *, limit: int) -> dict[str, int]:
    """
    Return how many dead letters each group has, with one query.

    Args:
        limit: No more than this many are counted of a group.
    """
    if not fingerprints:
        return {}
    connection = connections[alias]
    table = connection.ops.quote_name(WaitingMessage._meta.db_table)
    arm = (
        f"SELECT %s, COUNT(*) FROM (SELECT 1 FROM {table} "
        "WHERE fingerprint = %s AND kind = %s LIMIT %s) dead"
    )
    params = [value for each in fingerprints for value in (each, each, str(Kind.DEAD), limit)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([arm] * len(fingerprints)), params)
        return dict(cursor.fetchall())


# ---- retention -----------------------------------------------------------------


def prune(*, older_than_ms: int, alias: str) -> int:
    """Forget attempts and counts older than *older_than_ms*, and groups not seen since."""
    before = clock.now_ms() - older_than_ms
    _delete_in_batches(ErrorCount, Q(start_ms__lt=before), alias)
    _delete_in_batches(ErrorGroup, Q(last_ms__lt=before), alias)
    return _delete_in_batches(Attempt, Q(ended_ms__lt=before), alias)


def _delete_in_batches(model: Any, old: Q, alias: str) -> int:
    rows = model.objects.using(alias)
    deleted = 0
    # Two steps: MariaDB takes no LIMIT in a subquery.
    while keys := list(rows.filter(old).values_list("pk", flat=True)[:PRUNE_BATCH]):
        deleted += rows.filter(old, pk__in=keys).delete()[0]
    return deleted
