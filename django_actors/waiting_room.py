"""
The waiting room: messages that are not in the broker.

Scheduled messages, retries in their backoff, dead letters and the outbox are
rows of one table. Nothing here talks to a broker; see dispatcher.py for the one
place where both meet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Q
from django.utils import timezone

from . import clock, failures
from .claims import (
    ClaimStatement,
    Result,
    now_ms_sql,
    quoted_table,
    refuses_characters,
    retry_when_locked,
)
from .conf import settings
from .delivery import Reason
from .message import Envelope, Message, generate_message_id
from .models import Attempt, Kind, Outcome, WaitingMessage
from .moves import origin_of
from .rows import build_row, spell_out
from .signing import OPTION as SIGNATURE
from .signing import seal
from .wakeup import DUE_CHANNEL, Alarm, NewsWatch, notify_sql

# A dispatcher that dies between its claim and its delete holds rows no longer than this.
CLAIM_MS = 30_000

# Claims rows whose message was published twice, perhaps, until one of the copies has run. That a
# broker forgets a message (a purge, a lost server) is possible; then it is published once more.
KEEPER = "kept"
KEEP_MS = 24 * 3_600_000

# How soon an idle dispatcher sees a row of another process, where the database cannot tell.
QUIET_POLL_S = 0.5

# SQLite takes no more than 999 parameters in old versions.
MOST_KEYS = 900


_COLUMNS = ("id", "message_id", "queue_name", "priority", "body", "kind", "moving", "due_ms")

_claim_due = ClaimStatement(
    WaitingMessage,
    columns=", ".join(_COLUMNS),
    where="due_ms <= COALESCE(%s, {now})",
    order="due_ms, id",
    # Kept from other dispatchers for the time it takes to publish them.
    changes=f"claimed_by = %s, moving = %s, due_ms = {{now}} + {CLAIM_MS}",
    # When they were due, and whether somebody has had them before.
    as_found=True,
)


class WaitingRoom:
    """
    The rows of one database.

    Args:
        alias: The database; the setting ``DATABASE`` decides where it is ``None``.

    Attributes:
        listeners: Called with the earliest time, in milliseconds since 1970, of rows
            that this process has just written.
    """

    # Whether it is not of the database at all.
    in_memory = False

    def __init__(self, alias: str | None = None) -> None:
        self._alias = alias
        self.listeners: set[Callable[[int], None]] = set()

    @property
    def alias(self) -> str:
        """The alias of the database that holds the rows."""
        return self._alias or settings.DATABASE

    @property
    def joins_transaction(self) -> bool:
        """Whether a row written now is rolled back with the caller's transaction."""
        return connections[self.alias].in_atomic_block

    def watch(self, alarm: Alarm) -> NewsWatch:
        """Return what the calling thread sleeps on until rows may have been written."""
        connection = connections[self.alias]
        return NewsWatch(connection, alarm, DUE_CHANNEL, quiet_poll_s=QUIET_POLL_S)

    def put(self, rows: Sequence[WaitingMessage], attempts: Sequence[Attempt] = ()) -> None:
        """
        Write *rows*, each in the place of what is there for the same message.

        The rows join the caller's transaction. A dispatcher that has claimed the old
        row finds that it holds it no longer, and does not delete the new one.

        Args:
            attempts: What is to be remembered of messages that failed, now or before.
        """
        if attempts:
            write = partial(failures.write_attempts, attempts, self.alias)
            retry_when_locked(connections[self.alias], write)
        if not rows:
            return
        retry_when_locked(connections[self.alias], partial(self._write, rows))
        # Not of the outbox: its rows are handed over long before a dispatcher wants them.
        due = [row.due_ms for row in rows if row.due_ms is not None and row.kind != Kind.OUTBOX]
        if due:
            self._tell(min(due))

    def count_failures(self, rows: Sequence[WaitingMessage]) -> None:
        """Count the failures that *rows* tell of in their groups, once they are written."""
        failures.count_failures(rows, self.alias)

    def _write(self, rows: Sequence[WaitingMessage]) -> None:
        # Of two rows for one message the later one is what is true.
        unique = {row.message_id or id(row): row for row in rows}.values()
        try:
            self._upsert(unique)
        except DatabaseError as error:
            if not refuses_characters(error):
                raise
            # A table of MySQL that is not utf8mb4. What was not written is not settled, and
            # would be tried for ever; the statement failed alone, the transaction did not.
            connection = connections[self.alias]
            if connection.in_atomic_block:
                connection.set_rollback(False)
            for row in unique:
                spell_out(row)
            self._upsert(unique)

    def _upsert(self, rows: Collection[WaitingMessage]) -> None:
        connection = connections[self.alias]
        target = (
            ["message_id"] if connection.features.supports_update_conflicts_with_target else None
        )
        WaitingMessage.objects.using(self.alias).bulk_create(
            rows,
            update_conflicts=True,
            update_fields=_CHANGING_FIELDS,
            unique_fields=target,
        )

    def _tell(self, due_ms: int) -> None:
        connection = connections[self.alias]
        if not connection.in_atomic_block:
            self._call_listeners(due_ms)
        elif self.listeners:
            # Who looks before the commit sees nothing, and goes to sleep again.
            transaction.on_commit(partial(self._call_listeners, due_ms), using=self.alias)
        statement = notify_sql(connection, DUE_CHANNEL)
        if statement is not None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def _call_listeners(self, due_ms: int) -> None:
        for listener in tuple(self.listeners):
            listener(due_ms)

    def claim_due(
        self, owner: str, *, limit: int, now: int | None = None
    ) -> list[tuple[int, Envelope]]:
        """
        Claim rows whose time has come, the earliest first.

        Args:
            owner: Who claims; see ``release()``.

            limit: Rows at most.

            now: Milliseconds since 1970; the database's own time where it is ``None``.

        Returns:
            Pairs of a row's key and what the broker needs to carry its message. A row that
            somebody else has had in hand, or may have, is a doubtful origin.
        """
        connection = connections[self.alias]
        claim = partial(_claim_due.run, connection, [(now,)], set_params=(owner, True), limit=limit)
        rows = retry_when_locked(connection, claim)
        rows.sort(key=_due_and_key)
        return [
            (key, Envelope(message_id or "", queue_name, priority, bytes(body), origin_of(*past)))
            for key, message_id, queue_name, priority, body, *past, _ in rows
        ]

    def forget(self, keys: Sequence[int], owner: str) -> None:
        """Delete claimed rows; one that was written anew since is not *owner*'s and stays."""
        if keys:
            mine = self._rows().filter(pk__in=keys, claimed_by=owner)
            # They are published: what is not deleted now is published again.
            retry_when_locked(connections[self.alias], mine.delete)

    def keep(self, keys: Sequence[int], owner: str) -> None:
        """Leave claimed rows, which are published, where they are until a copy has run."""
        mine = self._rows().filter(pk__in=keys, claimed_by=owner)
        changes = {"claimed_by": KEEPER, "due_ms": clock.now_ms() + KEEP_MS}
        retry_when_locked(connections[self.alias], partial(mine.update, **changes))

    def forget_outbox(self, message_ids: Sequence[str]) -> None:
        """Delete rows of the outbox that were handed over and that nobody changed since."""
        for start in range(0, len(message_ids), MOST_KEYS):
            some = message_ids[start : start + MOST_KEYS]
            self._rows().filter(message_id__in=some, kind=Kind.OUTBOX).delete()

    def release(self, owner: str) -> None:
        """Make rows that a dead *owner* had claimed due again."""
        rows = self._rows().filter(claimed_by=owner)
        rows.update(claimed_by="", due_ms=clock.now_ms())

    def wait_ms(self) -> int | None:
        """Return the milliseconds until the next row is due (0 if one is), ``None`` without any."""
        connection = connections[self.alias]
        table = quoted_table(connection, WaitingMessage)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT MIN(due_ms) - {now_ms_sql(connection)} FROM {table}")
            (wait,) = cursor.fetchone()
        return None if wait is None else max(0, int(wait))

    def find_settled(self, message_ids: Collection[str]) -> set[str]:
        """
        Return of which messages an earlier delivery ended here.

        A row that is claimed, or in the outbox, says nothing: it is deleted by somebody who
        has just published it.
        """
        rows = self._rows().filter(message_id__in=message_ids, claimed_by="")
        return set(rows.exclude(kind=Kind.OUTBOX).values_list("message_id", flat=True))

    def has_claimed(self, owner: str) -> bool:
        """Return whether *owner* is just publishing messages from here."""
        return bool(self._rows().filter(claimed_by=owner).exists())

    def has_waiting(self, queue_name: str) -> bool:
        """Return whether a message of a queue waits here for its time."""
        rows = self._rows().filter(queue_name=queue_name).exclude(kind=Kind.DEAD)
        return bool(rows.exists())

    def prune(self, *, older_than_ms: int, limit: int = 1_000) -> int:
        """Delete up to *limit* dead letters older than *older_than_ms*, and return how many."""
        before = timezone.now() - timedelta(milliseconds=older_than_ms)
        old = self._rows().filter(kind=Kind.DEAD, stored_at__lt=before)
        # Two steps: MariaDB takes no LIMIT in a subquery.
        keys = list(old.values_list("pk", flat=True)[:limit])
        return self._rows().filter(pk__in=keys, kind=Kind.DEAD).delete()[0] if keys else 0

    # ---- what an operator does ---------------------------------------------------

    def requeue(
        self,
        rows: Iterable[WaitingMessage],
        *,
        delay: int = 0,
        edit: Callable[[Message], Message] | None = None,
        by: str = "",
    ) -> list[Message]:
        """
        Have dead letters or scheduled messages run again, from their first attempt.

        The rows stay in the waiting room, due after *delay* ms, and the dispatcher
        publishes them: nothing is lost when the broker is down, and a rollback undoes it.

        Args:
            rows: As they were read; see ``hold()``.

            edit: Returns the message that runs in the place of the one that is given to it.

            by: Who wants it, for the story of the messages.

        Returns:
            The messages as they will run. Rows that hold no message are left alone, and so
            are those that somebody else has changed, and those with a bad signature that
            are not edited.
        """
        return self._with(rows, partial(self._renew, delay, edit, by))

    def _renew(
        self, delay: int, edit: Callable[[Message], Message] | None, by: str, held: Any
    ) -> list[Message]:
        messages = []
        renewed = []
        replaced = []
        for row in held.only(*_KEPT_FIELDS):
            message = row.message if edit else row.runnable
            if message is None:
                continue
            message = renew(edit(message) if edit else message)
            if row.message_id is None:
                # Who edits a message nobody vouched for vouches for a new one.
                message = message.copy(message_id=generate_message_id())
                replaced.append(row.pk)
            messages.append(message)
            renewed.append(_renew_row(row, message, delay, edited=edit is not None))
        due_ms = clock.now_ms() + delay
        self.put(renewed, failures.build_acts(renewed, Outcome.REQUEUED, by=by, due_ms=due_ms))
        self._rows().filter(pk__in=replaced).delete()
        return messages

    def reschedule(self, rows: Iterable[WaitingMessage], *, due_ms: int, by: str = "") -> list[int]:
        """
        Have scheduled messages become due at another time; their attempts still count.

        Args:
            rows: As they were read; see ``hold()``.

            due_ms: Milliseconds since 1970.

            by: Who wants it, for the story of the messages.

        Returns:
            The keys of the rows that were changed.
        """
        return self._with(rows, partial(self._reschedule, due_ms, by))

    def _reschedule(self, due_ms: int, by: str, held: Any) -> list[int]:
        waiting = held.exclude(kind=Kind.DEAD)
        changed = list(waiting.only(*_TOLD_FIELDS, "body"))
        # No longer of the outbox: a late hand-over must not take it for its own.
        waiting.update(due_ms=due_ms, kind=Kind.SCHEDULED)
        if changed:
            self._rows().bulk_update(_remembered(changed), ["body"])
            self._note(failures.build_acts(changed, Outcome.RESCHEDULED, by=by, due_ms=due_ms))
            self._tell(due_ms)
        return [row.pk for row in changed]

    def discard(self, rows: Iterable[WaitingMessage], *, by: str = "") -> list[int]:
        """
        Delete rows for good.

        Args:
            rows: As they were read; see ``hold()``.

            by: Who wants it, for the story of the messages.

        Returns:
            The keys of the rows that were deleted.
        """
        return self._with(rows, partial(self._discard, by))

    def _discard(self, by: str, held: Any) -> list[int]:
        gone = list(held.only(*_TOLD_FIELDS))
        dead = [row for row in gone if row.kind == Kind.DEAD]
        waiting = [row for row in gone if row.kind != Kind.DEAD]
        held.delete()
        self._note(failures.build_acts(dead, Outcome.DISCARDED, by=by))
        self._note(failures.build_acts(waiting, Outcome.CANCELLED, by=by))
        return [row.pk for row in gone]

    def _note(self, acts: Sequence[Attempt]) -> None:
        failures.write_attempts(acts, self.alias)

    def _with(self, rows: Iterable[WaitingMessage], work: Callable[[Any], Result]) -> Result:
        """Do *work* with rows that are held; again, if the database only asks for that."""
        known = list(rows)

        def hold_and_work() -> Result:
            with self.hold(known) as held:
                return work(held)

        return retry_when_locked(connections[self.alias], hold_and_work)

    @contextmanager
    def hold(self, rows: Iterable[WaitingMessage]) -> Iterator[Any]:
        """
        Keep everybody else from *rows* for one transaction.

        Yields:
            A queryset of those that are still what was read: not written anew since, not
            claimed by a dispatcher, and not on their way from the outbox to the broker.
        """
        seen = {row.pk: _version(row) for row in rows}
        owner = f"held:{generate_message_id()}"
        with transaction.atomic(using=self.alias):
            # Claim first, look second: that is safe at every isolation level of every database.
            free = self._rows().filter(pk__in=seen, claimed_by="").exclude(_in_hand_over())
            free.update(claimed_by=owner)
            held = self._rows().filter(claimed_by=owner)
            now = held.only("kind", "stored_at")
            yield held.filter(pk__in=[row.pk for row in now if _version(row) == seen[row.pk]])
            held.update(claimed_by="")

    def _rows(self) -> Any:
        return WaitingMessage.objects.using(self.alias)


_CHANGING_FIELDS = [
    field.name
    for field in WaitingMessage._meta.concrete_fields
    if field.name not in ("id", "message_id")
]


# What a row brings along when its message begins anew.
_KEPT_FIELDS = ("body", "call", "message_id", "priority")

# What the line of an operator's act tells of a row.
_TOLD_FIELDS = ("kind", "message_id", "queue_name", "actor_name")


def _version(row: WaitingMessage) -> tuple[Any, ...]:
    return row.kind, row.stored_at


def _in_hand_over() -> Q:
    """Select rows that the process which wrote them may be publishing right now."""
    return Q(kind=Kind.OUTBOX, due_ms__gt=clock.now_ms())


def _due_and_key(row: tuple[Any, ...]) -> Any:
    return row[-1], row[0]


# What the engine notes on a message while it runs.
RUN_OPTIONS = ("retries", "traceback", "requeue_timestamp", "eta", "unknown_since", SIGNATURE)


def renew(message: Message) -> Message:
    """Return *message* as if it were sent now for the first time; its id stays."""
    options = {k: v for k, v in message.options.items() if k not in RUN_OPTIONS}
    # With it the success of a message that had failed is remembered.
    options[failures.PAST_OPTION] = clock.now_ms()
    return Message(
        message.queue_name,
        message.actor_name,
        message.args,
        message.kwargs,
        options,
        message.message_id,
    )


def _remembered(rows: Iterable[WaitingMessage]) -> list[WaitingMessage]:
    """Write on messages that their success is to be remembered; return those it is written on."""
    marked = []
    for row in rows:
        # One with a bad signature stays what it is: it must not get a good one.
        message = row.runnable
        if message is not None and failures.PAST_OPTION not in message.options:
            row.body = seal(message.copy(options={failures.PAST_OPTION: clock.now_ms()}))
            marked.append(row)
    return marked


def _renew_row(
    row: WaitingMessage, message: Message, delay: int, *, edited: bool
) -> WaitingMessage:
    renewed = build_row(
        message,
        seal(message),
        kind=Kind.SCHEDULED,
        reason=Reason.REQUEUED,
        priority=row.priority,
        due_ms=clock.now_ms() + delay,
    )
    if not edited:
        # Whoever wrote it may have known more of what is sensitive than this process does.
        renewed.call = row.call
    return renewed
