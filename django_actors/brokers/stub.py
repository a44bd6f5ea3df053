"""
The stub broker: everything in memory, for tests, and yet a real broker.

Messages pass through encode and decode, hooks, executor, retries and dead letters
as with any other; only no server and no table is asked. In a test, nothing runs by
itself: ``django_actors.test.run_actors()`` runs it, or a ``Worker``.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from typing import Any

from django_actors import clock, isolation
from django_actors.conf import settings
from django_actors.delivery import Delivery, Fate
from django_actors.errors import BrokerUnavailable, QueueJoinTimeout
from django_actors.journal import Journal
from django_actors.memory_queue import Entry, MemoryQueue
from django_actors.memory_room import MemoryRoom
from django_actors.message import Envelope, Message
from django_actors.models import CrashRecord

from .base import Broker, QueueSize
from .consumer import Consumer

# How soon is seen what becomes visible or due without anybody saying so.
_LOOK_S = 0.02

# A join without a limit, while nobody reads anything, would never end.
_NOBODY_READS_S = 10.0


class StubBroker(Broker):
    """
    A broker in memory.

    What is sent inside a transaction is seen by others when that is committed; in a
    ``TestCase``, whose own transaction never is, when the test's code would have committed it.

    Args:
        fail_fast: What ``join()`` does where it is not told.

        middleware: See ``Broker``.

    Attributes:
        journal: What was sent in this test.

        refusals: How many sends are refused from now on, as if the broker were down.

        crashes: How many runs end from now on as if the worker had died before it could
            acknowledge; see ``django_actors.test.crash_before_ack()``.
    """

    def __init__(self, url: str = "stub://", *, fail_fast: bool = True, **options: Any) -> None:
        self.changed = threading.Condition(threading.RLock())
        super().__init__(**options)
        self.fail_fast = fail_fast
        self.journal = Journal(self.notify)
        self.waiting_room = MemoryRoom(self.journal)  # type: ignore[assignment]
        self.failures: list[Delivery] = []
        self.refusals = self.crashes = self.readers = 0
        self._order = itertools.count(1)
        _living.add(self)
        isolation.install()

    @property
    def room(self) -> Any:
        """The waiting room, by its own type, a ``MemoryRoom``."""
        return self.waiting_room

    @property
    def _is_in_memory(self) -> bool:
        return isinstance(self.room, MemoryRoom)

    @property
    def dead_letters(self) -> list[Delivery]:
        """The deliveries that became dead letters, in that order, until they are flushed."""
        return [each for each in self.failures if self.journal.is_alive(_id_of(each))]

    def _open_queue(self, queue_name: str) -> MemoryQueue:
        return MemoryQueue(self.journal)

    def notify(self) -> None:
        """Wake who waits: something has changed."""
        with self.changed:
            self.changed.notify_all()

    def inherit(self, other: Broker) -> None:
        """Take over what *other* holds: the settings have changed in the middle of a test."""
        if isinstance(other, StubBroker):
            self.changed, self.journal = other.changed, other.journal
            self.waiting_room, self.queues = other.waiting_room, other.queues
            self.failures, self._order = other.failures, other._order

    # ---- sending ---------------------------------------------------------------

    def enqueue_many(self, messages: Any, *, delay: int | None = None) -> list[Message]:
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable("The stub broker was told to be out of reach for this send.")
        return super().enqueue_many(messages, delay=delay)

    def _transmit(self, batch: Sequence[tuple[Message, Envelope]]) -> None:
        self._note(batch, joins=settings.ON_TRANSACTION != "ignore")
        super()._transmit(batch)

    def _delay(self, batch: Sequence[tuple[Message, Envelope]]) -> None:
        self._note(batch, joins=True)
        super()._delay(batch)

    def _note(self, batch: Sequence[tuple[Message, Envelope]], *, joins: bool) -> None:
        # With a waiting room in the database, that one knows what belongs to a transaction.
        if self._is_in_memory:
            for message, _ in batch:
                self.journal.note(message, joins=joins)

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        self._push(envelopes, redelivered=False)

    def redeliver(self, message: Message) -> None:
        """Deliver *message* once more, as if its acknowledgement had been lost."""
        self._push([self._envelop(message)], redelivered=True)

    def _push(self, envelopes: Sequence[Envelope], *, redelivered: bool) -> None:
        with self.changed:
            for envelope in envelopes:
                self.declare_queue(envelope.queue_name)
                entry = (envelope.priority, next(self._order), redelivered, envelope)
                heapq.heappush(self.queues[envelope.queue_name].ready, entry)
            self.changed.notify_all()

    # ---- consuming -------------------------------------------------------------

    def consume(self, queue_names: Collection[str], *, owner: str) -> StubConsumer:
        return StubConsumer(self, queue_names, owner)

    def settle(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        # Before the message counts as settled: who waits in join() must see it.
        known = {id(each) for each in self.failures}
        self.failures += [
            each for each in deliveries if each.fate is Fate.DEAD and id(each) not in known
        ]
        super().settle(consumer, deliveries)

    def find_crashes(self, message_ids: Sequence[str]) -> dict[str, CrashRecord]:
        """Return nothing where no database is asked: no process has died in memory."""
        return {} if self._is_in_memory else super().find_crashes(message_ids)

    def receipt_text(self, delivery: Delivery) -> str | None:
        return str(delivery.receipt)

    def release(self, owner: str, *, done: Collection[str]) -> None:
        numbers = {int(receipt) for receipt in done}
        with self.changed:
            for queue in tuple(self.queues.values()):
                queue.release(owner, numbers)
            self.changed.notify_all()

    # ---- looking, and forgetting -----------------------------------------------

    def queue_size(self, queue_name: str) -> QueueSize:
        with self.changed:
            queue = self.queues.get(queue_name)
            if queue is None:
                return QueueSize(0, 0)
            return QueueSize(len(queue), len(queue.claimed))

    def ready_envelopes(self) -> list[Envelope]:
        """Return what could run now, the most urgent first."""
        with self.changed:
            entries = [entry for queue in self.queues.values() for entry in queue.ready]
        return [
            envelope
            for *_, envelope in sorted(entries, key=_by_order)
            if self.journal.is_visible(envelope.message_id)
        ]

    def flush(self, queue_name: str) -> None:
        self.check_queue(queue_name)
        with self.changed:
            self.queues[queue_name].ready.clear()
            self.room.clear(queue_name)
            self.journal.forget(queue_name)
            self.failures[:] = [each for each in self.failures if each.queue_name != queue_name]
            self.changed.notify_all()

    def forget(self) -> None:
        """Be as new: the next test begins."""
        with self.changed:
            for queue in self.queues.values():
                queue.ready.clear()
                queue.claimed.clear()
            if self._is_in_memory:
                self.room.clear()
            self.journal.forget()
            self.failures.clear()
            self.refusals = self.crashes = 0
            self.changed.notify_all()

    def ping(self) -> None:
        """Do nothing: memory answers."""

    # ---- join ------------------------------------------------------------------

    def join(
        self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None
    ) -> None:
        """
        Wait until nothing of a queue is queued, delayed, waiting for a retry or running.

        Args:
            timeout: Milliseconds; no limit where it is ``None``.

            fail_fast: Whether the error of the queue's first dead letter is raised then.

        Raises:
            QueueNotFound: nobody declared the queue.

            QueueJoinTimeout: the time was over first, or nobody reads any queue.
        """
        self.check_queue(queue_name)
        began = time.monotonic()
        with self.changed:
            while self._is_busy(queue_name):
                self._wait(queue_name, timeout, time.monotonic() - began)
        if self.fail_fast if fail_fast is None else fail_fast:
            self._raise_first_failure(queue_name)

    def _wait(self, queue_name: str, timeout: int | None, waited: float) -> None:
        limit = None if timeout is None else timeout / clock.MS_PER_S
        if limit is None and not self.readers:
            limit = _NOBODY_READS_S
        if limit is not None and waited >= limit:
            raise QueueJoinTimeout(
                f"Queue {queue_name!r} still holds messages after {limit * clock.MS_PER_S:.0f} ms."
                f"{self._explain_standstill()}"
            )
        self.changed.wait(_LOOK_S if limit is None else min(limit - waited, _LOOK_S))

    def _explain_standstill(self) -> str:
        if not self.readers:
            return (
                " Nobody reads it: start a Worker(broker), or call "
                "django_actors.test.run_actors(), which needs no join()."
            )
        if current_is_open(self.journal):
            return (
                " Messages were sent in an atomic() block that is still open in this thread, so "
                "no worker gets them: join() after the block."
            )
        return ""

    def _raise_first_failure(self, queue_name: str) -> None:
        for delivery in self.dead_letters:
            if delivery.queue_name == queue_name and delivery.exception is not None:
                raise delivery.exception


def current_is_open(journal: Journal) -> bool:
    """Return whether something was sent that only the calling thread sees."""
    return any(record.is_visible and not record.is_public for record in journal.records())


class StubConsumer(Consumer):
    """A reader of some queues of a ``StubBroker``."""

    def __init__(self, broker: StubBroker, queue_names: Collection[str], owner: str) -> None:
        self._broker = broker
        self._owner = owner
        self._queues = set(queue_names)
        self._woken = self._closed = False
        broker.readers += 1

    def set_queues(self, queue_names: Collection[str]) -> None:
        self._queues = set(queue_names)

    def wake(self) -> None:
        with self._broker.changed:
            self._woken = True
            self._broker.changed.notify_all()

    def fetch(
        self, limit: int, *, timeout: float, below_priority: int | None = None
    ) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while True:
                found = self._claim(limit, below_priority)
                left = deadline - time.monotonic()
                if found or self._woken or left <= 0:
                    self._woken = False
                    return found
                # What is left there is of another thread's transaction; its end says nothing.
                hidden = any(queue.ready for queue in self._readable())
                self._broker.changed.wait(min(left, _LOOK_S) if hidden else left)

    def _readable(self) -> list[MemoryQueue]:
        queues = self._broker.queues
        return [queues[name] for name in self._queues if name in queues]

    def _claim(self, limit: int, below_priority: int | None) -> list[Delivery]:
        claimed: list[Delivery] = []
        while len(claimed) < limit and (entry := self._pop(below_priority)):
            claimed.append(_delivery(entry))
        return claimed

    def _pop(self, below_priority: int | None) -> Entry | None:
        queues = self._readable()
        heads = [(head, queue) for queue in queues if (head := queue.first()) is not None]
        if not heads:
            return None
        entry, queue = min(heads, key=lambda head: head[0][:2])
        if below_priority is not None and entry[0] >= below_priority:
            return None
        queue.claim(entry, self._owner)
        return entry

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        with self._broker.changed:
            for delivery in deliveries:
                self._broker.queues[delivery.queue_name].erase(delivery.receipt, self._owner)
            self._broker.changed.notify_all()

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        with self._broker.changed:
            for delivery in deliveries:
                self._broker.queues[delivery.queue_name].give_back(delivery.receipt, self._owner)
            self._broker.changed.notify_all()

    def lose(self, delivery: Delivery) -> None:
        """Have a message delivered again that was run but not acknowledged."""
        with self._broker.changed:
            queue = self._broker.queues[delivery.queue_name]
            queue.give_back(delivery.receipt, self._owner, redelivered=True)
            self._broker.changed.notify_all()

    def close(self) -> None:
        self._broker.readers -= not self._closed
        self._closed = True
        self._broker.release(self._owner, done=())


def _delivery(entry: Entry) -> Delivery:
    priority, number, redelivered, envelope = entry
    return Delivery(
        envelope.body,
        queue_name=envelope.queue_name,
        priority=priority,
        receipt=number,
        redelivered=redelivered,
    )


def _by_order(entry: Entry) -> tuple[int, int]:
    return entry[:2]


def _id_of(delivery: Delivery) -> str:
    return delivery.message.message_id if delivery.message else ""


_living: weakref.WeakSet[StubBroker] = weakref.WeakSet()


def _forget_all() -> None:
    for broker in tuple(_living):
        broker.forget()


isolation.at_start.append(_forget_all)
