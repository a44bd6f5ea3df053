"""
What waits in the waiting room: find dead letters and scheduled messages, and act on many.

Work is done in batches, a transaction each; what somebody else changes meanwhile is skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import Q
from django.db.models.functions import Length
from django.utils import timezone

from django_actors import clock
from django_actors.claims import retry_when_locked
from django_actors.conf import settings
from django_actors.models import DeadLetter, ScheduledMessage, WaitingMessage
from django_actors.waiting_room import WaitingRoom

# One transaction, and what is in memory at a time.
BATCH_ROWS = 500
BATCH_BYTES = 8 * 1024 * 1024

NO_MESSAGE = "holds no message that could run"
CHANGED = "moved or changed in the meantime"

Duration = int | timedelta


@dataclass(frozen=True)
class Selection:
    """
    Some dead letters, or some scheduled messages; made by ``dead_letters()``, ``scheduled()``.

    Nothing is asked of the database before ``count()``, ``rows()`` or an operation.
    """

    model: type[DeadLetter] | type[ScheduledMessage]
    where: Q

    def rows(self) -> Any:
        """Return a queryset: dead letters with the latest first, scheduled ones as they run."""
        order = ("-stored_at", "-pk") if self.model is DeadLetter else ("due_ms", "pk")
        return self._queryset().order_by(*order)

    def count(self) -> int:
        """Return how many there are."""
        return int(self._queryset().count())

    def count_by_actor(self) -> dict[str, int]:
        """Return how many there are of each actor, the most first."""
        names = self._queryset().order_by().values_list("actor_name", flat=True)
        return dict(Counter(names.iterator()).most_common())

    def batches(self, *, until: datetime) -> Iterator[list[Any]]:
        """Yield the rows that were stored by *until*, as ``WaitingRoom.hold()`` wants them."""
        cursor = 0
        while True:
            rows = self._queryset().filter(stored_at__lte=until)
            batch = next_batch(rows, after=cursor, most_rows=BATCH_ROWS, most_bytes=BATCH_BYTES)
            if not batch:
                return
            yield batch
            cursor = batch[-1].pk

    def _queryset(self) -> Any:
        return self.model.objects.using(settings.DATABASE).filter(self.where)


def next_batch(rows: Any, *, after: int, most_rows: int, most_bytes: int) -> list[Any]:
    """
    Return the next rows of a queryset in the order of their keys, without their bodies.

    Args:
        after: Key of the last row that was looked at.

        most_bytes: Of the bodies all together; one row at least is returned.
    """
    light = (
        rows.filter(pk__gt=after)
        .order_by("pk")
        .annotate(size=Length("body"))
        .only("kind", "stored_at", "message_id", "call", "actor_name")
    )
    return list(_take(light[:most_rows], most_bytes))


def _take(rows: Any, most_bytes: int) -> Iterator[Any]:
    size = 0
    for row in rows:
        size += row.size or 0
        yield row
        if size >= most_bytes:
            return


def may_run(row: WaitingMessage) -> bool:
    """Return whether a row holds a message that a worker would run."""
    if row.message_id is None or settings.SIGNING == "off":
        return row.message_id is not None
    try:
        return row.runnable is not None
    except WaitingMessage.DoesNotExist:
        # Its body was not read yet, and it is gone.
        return True


def dead_letters(
    *,
    ids: Collection[str] | None = None,
    queue: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
    exception: str | None = None,
    older_than: Duration | None = None,
    newer_than: Duration | None = None,
) -> Selection:
    """
    Return the dead letters that all of these are true of; all of them without any.

    Args:
        ids: Message ids; ``#`` and a number for the row of one that has none.

        reason: Such as ``retries exhausted``.

        exception: The name of a class, with its module or without.

        older_than: Milliseconds, or a ``timedelta``, for which they are dead at least.

        newer_than: And at most.
    """
    where = _where(ids, queue, actor, reason, exception, older_than, newer_than)
    return Selection(DeadLetter, where)


def scheduled(
    *,
    ids: Collection[str] | None = None,
    queue: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
    exception: str | None = None,
    older_than: Duration | None = None,
    newer_than: Duration | None = None,
) -> Selection:
    """
    Return the scheduled messages that all of these are true of; see ``dead_letters()``.

    Retries in their backoff and the outbox are among them: their reasons are ``retry`` and
    ``outbox``.
    """
    where = _where(ids, queue, actor, reason, exception, older_than, newer_than)
    return Selection(ScheduledMessage, where)


def _where(
    ids: Collection[str] | None,
    queue: str | None,
    actor: str | None,
    reason: str | None,
    exception: str | None,
    older_than: Duration | None,
    newer_than: Duration | None,
) -> Q:
    where = Q()
    if ids is not None:
        keys = [int(each[1:]) for each in ids if each.startswith("#") and each[1:].isdigit()]
        where &= Q(message_id__in=list(ids)) | Q(pk__in=keys)
    exact = {"queue_name": queue, "actor_name": actor, "reason": reason}
    where &= Q(**{name: value for name, value in exact.items() if value is not None})
    if exception is not None:
        where &= Q(error_class=exception) | Q(error_class__endswith=f".{exception}")
    if older_than is not None:
        where &= Q(stored_at__lte=_ago(older_than, "older_than"))
    if newer_than is not None:
        where &= Q(stored_at__gte=_ago(newer_than, "newer_than"))
    return where


def _ago(age: Duration, name: str) -> datetime:
    return timezone.now() - timedelta(milliseconds=clock.duration_to_ms(age, name=name))


def show(message_id: str) -> WaitingMessage | None:
    """
    Return the row of a dead letter or scheduled message; ``None`` if it is neither.

    Args:
        message_id: Or ``#`` and a number for the row of one that has none.
    """
    where = _where([message_id], None, None, None, None, None, None)
    return WaitingMessage.objects.using(settings.DATABASE).filter(where).first()


@dataclass
class Report:
    """
    What an operation has done so far, or at its end.

    Attributes:
        done: Messages it was done to.

        skipped: How many were left alone, by the reason why.
    """

    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def seen(self) -> int:
        """Messages that were looked at."""
        return self.done + self.skipped.total()


Progress = Callable[[Report], object]


def requeue(
    selection: Selection,
    *,
    delay: Duration = 0,
    by: str = "",
    progress: Progress | None = None,
) -> Report:
    """
    Have messages run again, from their first attempt.

    They go to the broker when they are due; if it is down they wait, and none is lost.

    Args:
        delay: Milliseconds from now, or a ``timedelta``.

        by: Who does it, for the story of the messages.

        progress: Called after each batch of 500 messages at most.
    """
    delay_ms = clock.duration_to_ms(delay, name="delay")

    def work(room: WaitingRoom, rows: Sequence[Any]) -> Collection[int]:
        messages = room.requeue(rows, delay=delay_ms, by=by)
        done = {message.message_id for message in messages}
        return {row.pk for row in rows if row.message_id in done}

    return _do(selection, work, progress, needs_message=True)


def discard(selection: Selection, *, by: str = "", progress: Progress | None = None) -> Report:
    """Delete dead letters for good; *by* and *progress* as for ``requeue()``."""
    return _do(selection, partial(WaitingRoom.discard, by=by), progress)


def cancel(selection: Selection, *, by: str = "", progress: Progress | None = None) -> Report:
    """Delete scheduled messages for good, without a run."""
    return discard(selection, by=by, progress=progress)


def run_now(selection: Selection, *, by: str = "", progress: Progress | None = None) -> Report:
    """Have scheduled messages run as soon as a worker has time; a retry stays the retry it is."""
    return reschedule(selection, due=timezone.now(), by=by, progress=progress)


def reschedule(
    selection: Selection, *, due: datetime, by: str = "", progress: Progress | None = None
) -> Report:
    """
    Have scheduled messages run at another time; *by* and *progress* as for ``requeue()``.

    Args:
        due: An aware point in time; naive ones are of the current time zone.
    """
    due_ms = clock.datetime_to_ms(timezone.make_aware(due) if timezone.is_naive(due) else due)

    def work(room: WaitingRoom, rows: Sequence[Any]) -> Collection[int]:
        return room.reschedule(rows, due_ms=due_ms, by=by)

    return _do(selection, work, progress)


def _do(
    selection: Selection,
    work: Callable[[WaitingRoom, Sequence[Any]], Collection[int]],
    progress: Progress | None,
    *,
    needs_message: bool = False,
) -> Report:
    room = WaitingRoom()
    connection = connections[room.alias]
    report = Report()
    # What comes later was not meant: it may be what has just been requeued, and has failed again.
    for batch in selection.batches(until=timezone.now()):
        done = set(retry_when_locked(connection, lambda: work(room, batch)))  # noqa: B023
        report.done += len(done)
        for row in batch:
            if row.pk not in done:
                left_out = needs_message and not may_run(row)
                report.skipped[NO_MESSAGE if left_out else CHANGED] += 1
        if progress is not None:
            progress(report)
    return report
