"""
Whether somebody should get up: problems with a code for machines and a sentence for people.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from django.db import Error as DatabaseError

from django_actors import clock
from django_actors.claims import describe_trouble
from django_actors.conf import settings

from .messages import Duration
from .monitor import BrokerInfo, QueueInfo, WorkerInfo, broker, crash_loops, queues, workers

DEFAULT_BACKLOG_AGE_MS = 15 * 60_000


@dataclass(frozen=True)
class Problem:
    """
    Something that should not be.

    Attributes:
        code: ``database-down``, ``broker-down``, ``no-worker``, ``crash-loop``,
            ``queue-unread``, ``queue-paused``, ``backlog-old`` or ``dead-letters``; these do
            not change.

        text: What it is, with numbers, and what to do.

        queue: Which queue it is about; empty if none.
    """

    code: str
    text: str
    queue: str = ""


def health(
    *,
    backlog_age: Duration = DEFAULT_BACKLOG_AGE_MS,
    dead_letters: int | None = None,
    need_worker: bool = True,
) -> list[Problem]:
    """
    Look at everything once, and return what is wrong; an empty list is good news.

    Args:
        backlog_age: How long a ready message may wait: milliseconds, or a ``timedelta``.

        dead_letters: How many dead letters there may be; no limit where it is ``None``.

        need_worker: Whether it is a problem that no worker runs while nothing waits.
    """
    age_ms = clock.duration_to_ms(backlog_age, name="backlog_age")
    try:
        return list(_look(age_ms, dead_letters, need_worker))
    except DatabaseError as error:
        return [Problem("database-down", describe_trouble(settings.DATABASE, error))]


def _look(age_ms: int, dead_letters: int | None, need_worker: bool) -> Iterator[Problem]:
    info, living = broker(), workers()
    found = queues(broker_info=info, living=living)
    yield from _broker_problems(info)
    yield from _worker_problems(found, living, need_worker)
    for loop in crash_loops():
        yield Problem("crash-loop", f"{loop}. See the log of runactors.")
    for queue in found:
        yield from _queue_problems(queue, living, age_ms)
    yield from _dead_letter_problems(found, dead_letters)


def _broker_problems(info: BrokerInfo) -> Iterator[Problem]:
    if not info.answers:
        yield Problem("broker-down", f"The broker ({info.name}) does not answer: {info.error}")


def _worker_problems(
    found: Collection[QueueInfo], living: Collection[WorkerInfo], need_worker: bool
) -> Iterator[Problem]:
    if living:
        return
    waiting = sum((queue.ready or 0) + queue.scheduled for queue in found)
    if waiting:
        text = f"{_messages(waiting)} and no worker runs. Start one: manage.py runactors."
        yield Problem("no-worker", text)
    elif need_worker:
        yield Problem("no-worker", "No worker runs. Start one: manage.py runactors.")


def _queue_problems(
    queue: QueueInfo, living: Collection[WorkerInfo], age_ms: int
) -> Iterator[Problem]:
    if not queue.ready:
        return
    waiting = f"{_messages(queue.ready)} in queue {queue.name!r}"
    if queue.is_paused:
        by = f" by {queue.paused_by}" if queue.paused_by else ""
        text = f"{waiting}, which was paused{by}. Resume it: manage.py actors resume {queue.name}."
        yield Problem("queue-paused", text, queue.name)
        return
    if living and not queue.workers:
        text = f"{waiting}, which no running worker reads. See the --queues of the workers."
        yield Problem("queue-unread", text, queue.name)
    if queue.oldest_ms is not None and queue.oldest_ms > age_ms:
        text = (
            f"{waiting}, the oldest for {_seconds(queue.oldest_ms)}; "
            f"{_seconds(age_ms)} are allowed."
        )
        yield Problem("backlog-old", text, queue.name)


def _dead_letter_problems(found: Collection[QueueInfo], limit: int | None) -> Iterator[Problem]:
    dead = sum(queue.dead for queue in found)
    if limit is not None and dead > limit:
        text = (
            f"There are {dead} dead letters; {limit} are allowed. See manage.py actors dead list."
        )
        yield Problem("dead-letters", text)


def _messages(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count} messages wait"


def _seconds(ms: int) -> str:
    return f"{ms // clock.MS_PER_S} s"
