"""
The database broker: the queue is a table of the Django database.

Publishing is an INSERT, claiming an UPDATE that nobody else can make, acknowledging
a DELETE. Claims belong to an owner, and are good as long as the owner renews its
lease; whoever finds an expired one gives its messages back.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from django.db import (
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Q

from django_actors.chunks import chunks
from django_actors.claims import (
    ClaimStatement,
    describe_trouble,
    is_locked_out,
    now_ms_sql,
    quoted_table,
    retry_when_locked,
)
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.message import Envelope
from django_actors.models import Lease, QueuedMessage
from django_actors.wakeup import READY_CHANNEL, Alarm, NewsWatch, notify_sql

from .base import Broker, QueueSize
from .consumer import Consumer
from .database_insert import insert

logger = logging.getLogger(__name__)

# With the sweep of every worker (dispatcher.py), what a lost host held is back within 30 s.
LEASE_MS = 20_000
RENEW_S = 5.0

# How soon an idle worker sees a message where the database cannot tell; a look at SQLite is
# almost free.
QUIET_POLL_S = {"sqlite": 0.05}
DEFAULT_QUIET_POLL_S = 0.2

_COLUMNS = "id, queue_name, priority, body, redeliveries"

_claim = ClaimStatement(
    QueuedMessage,
    columns=_COLUMNS,
    where="claimed_by = '' AND queue_name = %s AND priority < %s",
    order="priority, id",
    changes="claimed_by = %s",
)

_ANY_PRIORITY = 2**31

# How many priorities of a queue are looked at for its oldest message.
MOST_PRIORITIES = 16

# SQLite takes no more than 500 parts of a UNION.
MOST_ARMS = 200

# SQLite takes no more than 999 parameters in old versions.
MOST_KEYS = 900


class DatabaseBroker(Broker):
    """
    A broker that needs nothing but the Django database.

    Args:
        url: ``database://<alias>``.

        middleware: See ``Broker``.
    """

    def __init__(self, url: str = "database://default", **options: Any) -> None:
        super().__init__(**options)
        self.alias = url.partition("://")[2] or "default"
        if self.alias not in connections.settings:
            # Shown only if it can be an alias: it may be the URL of a server, with a password.
            shown = repr(self.alias) if self.alias.isidentifier() else "(not shown)"
            raise ValueError(
                f"The broker's URL names the database {shown}, which DATABASES has not. "
                f"It has: {', '.join(connections.settings)}."
            )
        self._consumers: weakref.WeakSet[DatabaseConsumer] = weakref.WeakSet()

    @property
    def _connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    @property
    def joins_transaction(self) -> bool:
        return self.alias == self.waiting_room.alias and self._connection.in_atomic_block

    def settlement(self) -> AbstractContextManager[object]:
        if self.alias == self.waiting_room.alias:
            return transaction.atomic(using=self.alias)
        return nullcontext()

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        connection = self._connection
        with _BrokerErrors(self.alias):
            again_after_reconnect(connection, partial(insert, connection, envelopes))
        self._wake_consumers()

    def _wake_consumers(self) -> None:
        if not self._consumers:
            return
        if self._connection.in_atomic_block:
            # Nobody sees the rows before the commit. SQLite's data version does not count what
            # a connection commits itself: without this, a consumer would never hear of it.
            transaction.on_commit(self._look_now, using=self.alias)
        else:
            self._look_now()

    def _look_now(self) -> None:
        with self._lock:
            consumers = tuple(self._consumers)
        for consumer in consumers:
            consumer.look_now()

    def consume(self, queue_names: Collection[str], *, owner: str) -> DatabaseConsumer:
        consumer = DatabaseConsumer(self, queue_names, owner)
        with self._lock:
            self._consumers.add(consumer)
        return consumer

    def receipt_text(self, delivery: Delivery) -> str | None:
        return str(delivery.receipt)

    def release(self, owner: str, *, done: Collection[str]) -> None:
        connection = self._connection
        with _BrokerErrors(self.alias):
            retry_when_locked(connection, lambda: self._release(owner, [int(key) for key in done]))
        self._wake_consumers()

    def _release(self, owner: str, done: Sequence[int]) -> None:
        rows = QueuedMessage.objects.using(self.alias).filter(claimed_by=owner)
        with transaction.atomic(using=self.alias):
            rows.filter(pk__in=done).delete()
            self._give_back("claimed_by = %s", [owner])
            Lease.objects.using(self.alias).filter(pk=owner).delete()
        self._notify()

    def _give_back(self, where: str, params: Sequence[Any]) -> int:
        connection = self._connection
        table = quoted_table(connection, QueuedMessage)
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {table} SET claimed_by = '', redeliveries = redeliveries + 1 "
                f"WHERE {where}",
                params,
            )
            return int(cursor.rowcount)

    def _notify(self) -> None:
        statement = notify_sql(self._connection, READY_CHANNEL)
        if statement is not None:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)

    def maintain(self) -> None:
        """Give back the claims of owners whose lease has expired or is gone."""
        with _BrokerErrors(self.alias):
            given_back = retry_when_locked(self._connection, self._sweep)
        if given_back:
            logger.warning("Gave back %d messages of workers that are gone", given_back)
            self._notify()
            self._wake_consumers()

    def _sweep(self) -> int:
        connection = self._connection
        leases = quoted_table(connection, Lease)
        with transaction.atomic(using=self.alias):
            with connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {leases} WHERE expires_ms < {now_ms_sql(connection)}")
            return self._give_back(
                f"claimed_by > '' AND claimed_by NOT IN (SELECT owner FROM {leases})", []
            )

    def queue_size(self, queue_name: str) -> QueueSize:
        rows = QueuedMessage.objects.using(self.alias).filter(queue_name=queue_name)
        with _BrokerErrors(self.alias):
            ready = rows.filter(claimed_by="").count()
            return QueueSize(ready, rows.filter(claimed_by__gt="").count())

    def queue_sizes(self, queue_names: Collection[str]) -> dict[str, QueueSize]:
        rows = QueuedMessage.objects.using(self.alias).filter(queue_name__in=queue_names)
        sizes = (
            rows.order_by()
            .values("queue_name")
            .annotate(ready=Count("pk", filter=Q(claimed_by="")), total=Count("pk"))
        )
        with _BrokerErrors(self.alias):
            found = {
                each["queue_name"]: QueueSize(each["ready"], each["total"] - each["ready"])
                for each in sizes
            }
        return {name: found.get(name, QueueSize(0, 0)) for name in queue_names}

    def oldest_ready(self, queue_names: Collection[str]) -> dict[str, int]:
        oldest: dict[str, int] = {}
        with _BrokerErrors(self.alias):
            for chunk in chunks(sorted(queue_names), MOST_ARMS):
                self._note_oldest(chunk, oldest)
        return oldest

    def _note_oldest(self, queue_names: Sequence[str], oldest: dict[str, int]) -> None:
        below = dict.fromkeys(queue_names, -_ANY_PRIORITY - 1)
        # From one priority in use to the next: the first of each is its oldest.
        for _ in range(MOST_PRIORITIES):
            rows = self._first_above(below)
            below = {name: priority for name, priority, _ in rows}
            for name, _, enqueued_ms in rows:
                oldest[name] = min(enqueued_ms, oldest.get(name, enqueued_ms))

    def _first_above(self, priorities: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Return, of each queue, the ready message that runs next above a priority number."""
        if not priorities:
            return []
        connection = self._connection
        arm = (
            f"SELECT * FROM (SELECT queue_name, priority, enqueued_ms "
            f"FROM {quoted_table(connection, QueuedMessage)} "
            f"WHERE claimed_by = '' AND queue_name = %s AND priority > %s "
            f"ORDER BY priority, id LIMIT 1) arm"
        )
        arms = " UNION ALL ".join(f"{arm}{number}" for number in range(len(priorities)))
        with connection.cursor() as cursor:
            cursor.execute(arms, [value for pair in priorities.items() for value in pair])
            return list(cursor.fetchall())

    def flush(self, queue_name: str) -> None:
        rows = QueuedMessage.objects.using(self.alias)
        with _BrokerErrors(self.alias):
            rows.filter(queue_name=queue_name, claimed_by="").delete()

    def ping(self) -> None:
        with _BrokerErrors(self.alias):
            QueuedMessage.objects.using(self.alias).exists()


class DatabaseConsumer(Consumer):
    """A reader of some queues of a ``DatabaseBroker``; its claims are its owner's."""

    def __init__(self, broker: DatabaseBroker, queue_names: Collection[str], owner: str) -> None:
        self._broker = broker
        self._owner = owner
        self._queues = sorted(queue_names)
        self._alarm = Alarm()
        self._connection = connections[broker.alias]
        quiet_poll_s = QUIET_POLL_S.get(self._connection.vendor, DEFAULT_QUIET_POLL_S)
        self._news = NewsWatch(
            self._connection, self._alarm, READY_CHANNEL, quiet_poll_s=quiet_poll_s
        )
        self._renew_at = 0.0
        # Whether there may be something to claim: of any priority, or of a better one than
        # what is claimed already. Cleared before a claim, set by whoever may have published.
        self._look = self._look_for_better = True
        self._held: set[int] = set()
        self._is_unsure = False

    def set_queues(self, queue_names: Collection[str]) -> None:
        self._queues = sorted(queue_names)
        self._note_change()

    def _note_change(self) -> None:
        self._look = self._look_for_better = True

    def wake(self) -> None:
        self._alarm.ring()

    def look_now(self) -> None:
        """Have ``fetch()`` look for messages at once; from any thread."""
        self._note_change()
        self._alarm.ring()

    def fetch(
        self, limit: int, *, timeout: float, below_priority: int | None = None
    ) -> list[Delivery]:
        with _BrokerErrors(self._broker.alias):
            self._renew_lease()
            if self._is_unsure:
                self._give_back_strays()
            if limit <= 0:
                self._alarm.sleep(timeout)
                return []
            return self._claim(limit, below_priority) or self._wait_and_claim(
                limit, below_priority, timeout
            )

    def _wait_and_claim(
        self, limit: int, below_priority: int | None, timeout: float
    ) -> list[Delivery]:
        if timeout <= 0:
            return []
        # A ring without news is for the caller: it has something to settle.
        if self._news.wait(timeout):
            self._note_change()
        return self._claim(limit, below_priority) if self._look else []

    # ---- claims ----------------------------------------------------------------

    def _claim(self, limit: int, below_priority: int | None) -> list[Delivery]:
        below = _ANY_PRIORITY if below_priority is None else below_priority
        if not self._queues or not self._takes_a_look(below_priority):
            return []
        arms = [(queue, below) for queue in self._queues]
        self._is_unsure = True
        rows = retry_when_locked(
            self._connection,
            lambda: _claim.run(self._connection, arms, set_params=(self._owner,), limit=limit),
        )
        self._is_unsure = False
        self._held.update(row[0] for row in rows)
        if rows:
            # There may be more; and what another worker was about to claim is skipped.
            self._note_change()
            self._news.note_activity()
        rows.sort(key=lambda row: (row[2], row[0]))
        return [_delivery(*row) for row in rows]

    def _give_back_strays(self) -> None:
        """Give back what was claimed by a statement whose answer was lost with the connection."""
        rows = QueuedMessage.objects.using(self._broker.alias).filter(claimed_by=self._owner)
        strays = sorted({*rows.values_list("pk", flat=True)} - self._held)
        for chunk in chunks(strays, MOST_KEYS):
            stray = rows.filter(pk__in=chunk)
            retry_when_locked(self._connection, partial(stray.update, claimed_by=""))
        if strays:
            logger.warning("Gave back %d messages whose claim was never answered", len(strays))
            self._broker._notify()
        self._is_unsure = False
        self._note_change()

    def _takes_a_look(self, below_priority: int | None) -> bool:
        # Cleared before the query: what is published while it runs must be looked for again.
        if below_priority is None:
            look, self._look = self._look, False
        else:
            look, self._look_for_better = self._look_for_better, False
        return look

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for chunk in chunks([delivery.receipt for delivery in deliveries], MOST_KEYS):
            with _BrokerErrors(self._broker.alias):
                retry_when_locked(self._connection, partial(self._delete, chunk))
            self._held.difference_update(chunk)

    def _delete(self, keys: Sequence[int]) -> None:
        table = quoted_table(self._connection, QueuedMessage)
        marks = ", ".join(["%s"] * len(keys))
        with self._connection.cursor() as cursor:
            # The owner is named: a lease that was lost may have given the row to another.
            cursor.execute(
                f"DELETE FROM {table} WHERE id IN ({marks}) AND claimed_by = %s",
                [*keys, self._owner],
            )

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        keys = [delivery.receipt for delivery in deliveries]
        rows = QueuedMessage.objects.using(self._broker.alias)
        held = rows.filter(pk__in=keys, claimed_by=self._owner)
        with _BrokerErrors(self._broker.alias):
            retry_when_locked(self._connection, lambda: held.update(claimed_by=""))
            self._held.difference_update(keys)
            self._broker._notify()
        self._broker._wake_consumers()

    # ---- the lease -------------------------------------------------------------

    def _renew_lease(self) -> None:
        now = time.monotonic()
        if now < self._renew_at:
            return
        retry_when_locked(self._connection, self._write_lease)
        self._renew_at = now + RENEW_S

    def _write_lease(self) -> None:
        connection = self._connection
        table = quoted_table(connection, Lease)
        expires = f"{now_ms_sql(connection)} + {LEASE_MS}"
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {table} SET expires_ms = {expires} WHERE owner = %s", [self._owner]
            )
            if cursor.rowcount == 0:
                cursor.execute(
                    f"INSERT INTO {table} (owner, expires_ms, host, pid) "
                    f"VALUES (%s, {expires}, %s, %s)",
                    [self._owner, socket.gethostname()[:255], os.getpid()],
                )

    def close(self) -> None:
        self._broker._consumers.discard(self)
        try:
            self._broker.release(self._owner, done=())
        finally:
            self._news.close()
            self._alarm.close()


def _delivery(key: int, queue_name: str, priority: int, body: Any, redeliveries: int) -> Delivery:
    return Delivery(
        bytes(body),
        queue_name=queue_name,
        priority=priority,
        receipt=key,
        redelivered=redeliveries > 0,
    )


def again_after_reconnect(connection: BaseDatabaseWrapper, work: Any) -> Any:
    """
    Do *work*, once more if the connection turns out to be dead.

    The server may have closed it long ago. If it did its part before it went, the work is
    done twice: a duplicate, which is better than a loss.
    """
    try:
        return retry_when_locked(connection, work)
    except (OperationalError, InterfaceError) as error:
        if connection.in_atomic_block or is_locked_out(error) or not _is_dead(connection):
            raise
    connection.close()
    return retry_when_locked(connection, work)


def _is_dead(connection: BaseDatabaseWrapper) -> bool:
    # Without a connection there was nothing to die: the server is out of reach.
    return connection.connection is not None and not connection.is_usable()


class _BrokerErrors:
    """Raise ``BrokerUnavailable`` where the database has trouble; a generator takes 1 µs more."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, (OperationalError, InterfaceError, ProgrammingError)):
            return
        connection = connections[self._alias]
        if not connection.in_atomic_block and not is_locked_out(error):
            # A broken connection is opened anew by the next call.
            connection.close()
        raise BrokerUnavailable(describe_trouble(self._alias, error)) from error
