"""
What became of messages, counted by minute and hour, queue and actor.

A worker gathers in memory and adds to the rows every few seconds: one row an actor and
period, however many messages. Nothing here decides anything about a message.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import clock
from .claims import quoted_table
from .delivery import Delivery, Fate
from .models import ActorCount, Period
from .rows import storable

MINUTE_MS = 60_000
HOUR_MS = 3_600_000

PERIOD_MS: Mapping[Period, int] = {Period.MINUTE: MINUTE_MS, Period.HOUR: HOUR_MS}

# What the last hour is drawn from, and a margin.
KEEP_MINUTES_MS = 2 * HOUR_MS

# Whoever sends messages of made-up names fills no memory and no table with them.
MOST_ACTORS = 1_000
OTHER_ACTORS = ""

# SQLite takes no more than 999 parameters in old versions; a row has nine.
INSERT_ROWS = 100

PRUNE_ROWS = 1_000

_KEYS = ("period", "bucket_ms", "queue_name", "actor_name")
_NUMBERS = ("succeeded", "failed", "retried", "dead", "run_ms")


# The numbers of a row in the order of its columns; the last is in milliseconds.
Numbers = Sequence[float]

_DONE, _FAILED, _RETRIED, _DEAD, _RUN = range(5)
_ENDS = {Fate.DONE: _DONE, Fate.RETRY: _RETRIED, Fate.DEAD: _DEAD}


class Source(NamedTuple):
    """Whose messages are counted, and from when: the minute in milliseconds since 1970."""

    minute_ms: int
    queue_name: str
    actor_name: str


class Tally:
    """
    Counts of one process that are not written yet.

    One thread notes, another one writes; neither waits for the other's database.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str, str], list[float]] = {}

    def note(self, deliveries: Iterable[Delivery]) -> None:
        """Count deliveries that were settled."""
        now = clock.now_ms()
        minute = now - now % MINUTE_MS
        with self._lock:
            counts = self._counts
            # Every message of the engine passes here: plain tuples, and few calls.
            for delivery in deliveries:
                end = _ENDS.get(delivery.fate)  # type: ignore[arg-type]
                if end is None:
                    # It was put back, put off or skipped: nothing has come to an end.
                    continue
                message = delivery.message
                name = OTHER_ACTORS if message is None else message.actor_name
                key = (minute, delivery.queue_name, name)
                numbers = counts.get(key) or self._open(key)
                numbers[end] += 1
                if delivery.began is not None:
                    numbers[_RUN] += delivery.run_ms
                    if end is not _DONE:
                        numbers[_FAILED] += 1

    def _open(self, key: tuple[int, str, str]) -> list[float]:
        if len(self._counts) >= 2 * MOST_ACTORS:
            # Nothing could be written for hours: what is new is counted by nobody.
            return [0] * len(_NUMBERS)
        if len(self._counts) >= MOST_ACTORS:
            key = (*key[:2], OTHER_ACTORS)
        return self._counts.setdefault(key, [0] * len(_NUMBERS))

    def write(self, alias: str) -> None:
        """
        Add what was counted to the rows of the database *alias*, and begin anew.

        What could not be written is kept for the next time.
        """
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            add({Source(*key): numbers for key, numbers in counts.items()}, alias)
        except Exception:
            self._take_back(counts)
            raise

    def _take_back(self, counts: Mapping[tuple[int, str, str], Numbers]) -> None:
        with self._lock:
            for key, numbers in counts.items():
                _add(self._counts.get(key) or self._open(key), numbers)

    def clear(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self._counts = {}


def _add(total: list[float], numbers: Numbers) -> None:
    for index, number in enumerate(numbers):
        total[index] += number


def add(counts: Mapping[Source, Numbers], alias: str) -> None:
    """Add numbers to the rows of their minute and their hour, in one transaction."""
    sums: defaultdict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0] * len(_NUMBERS))
    for source, numbers in counts.items():
        names = storable(source.queue_name, 255), storable(source.actor_name, 255)
        for period, length in PERIOD_MS.items():
            bucket = source.minute_ms - source.minute_ms % length
            _add(sums[(period.value, bucket, *names)], numbers)
    # In one order: two workers that wait for each other's rows would be a deadlock.
    rows = [(*key, *map(round, sums[key])) for key in sorted(sums)]
    connection = connections[alias]
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        for start in range(0, len(rows), INSERT_ROWS):
            chunk = rows[start : start + INSERT_ROWS]
            cursor.execute(_upsert(connection, len(chunk)), [v for row in chunk for v in row])


def _upsert(connection: BaseDatabaseWrapper, count: int) -> str:
    table = quoted_table(connection, ActorCount)
    row = f"({', '.join(['%s'] * (len(_KEYS) + len(_NUMBERS)))})"
    insert = (
        f"INSERT INTO {table} ({', '.join(_KEYS + _NUMBERS)}) VALUES {', '.join([row] * count)}"
    )
    if connection.vendor == "mysql":
        sums = ", ".join(f"{name} = {name} + VALUES({name})" for name in _NUMBERS)
        return f"{insert} ON DUPLICATE KEY UPDATE {sums}"
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in _NUMBERS)
    return f"{insert} ON CONFLICT ({', '.join(_KEYS)}) DO UPDATE SET {sums}"


def prune(*, keep_ms: int, alias: str) -> None:
    """Delete the rows of minutes that nobody shows any more, and of hours over *keep_ms* old."""
    now = clock.now_ms()
    for period, age in ((Period.MINUTE, min(KEEP_MINUTES_MS, keep_ms)), (Period.HOUR, keep_ms)):
        old = ActorCount.objects.using(alias).filter(period=period, bucket_ms__lt=now - age)
        # In two steps and pieces: a long delete would keep other workers waiting.
        while keys := list(old.values_list("pk", flat=True)[:PRUNE_ROWS]):
            ActorCount.objects.using(alias).filter(pk__in=keys).delete()
