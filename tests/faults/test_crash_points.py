"""
A process dies between any two of its own steps that write: every message is found afterwards.

Nothing in the engine knows of this. A scene is played once to count the points at which its
writes begin and end: statements of the database, and calls of the broker. Then it is played once
for each of them, and ends there as a process ends: what is in memory is gone, a transaction that
is open is rolled back, and another process goes on.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from django.db import connection, transaction
from django.test import tag

from django_actors import crashes
from django_actors.board import Board
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.delivery import Delivery, Fate
from django_actors.dispatcher import Dispatcher
from django_actors.errors import Retry
from django_actors.executor import Executor
from django_actors.message import Envelope, Message
from django_actors.models import CrashRecord, Kind, Lease, WaitingMessage
from django_actors.recovery import recover
from tests.brokers.test_rabbitmq import URL as RABBITMQ_URL
from tests.brokers.test_rabbitmq import RabbitmqCase, needs_rabbitmq
from tests.brokers.test_redis import RedisMixin, needs_redis
from tests.engine import EngineCase, report, silence, wait_until

from .machine import SOON_MS, Expected, World, later_ms

WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")
OF_A_BROKER = ("publish", "release", "maintain")
QUIET_ROUNDS = 5
OF_A_CONSUMER = ("ack", "put_back", "close")


class Death(BaseException):
    """The end of a process, which nothing in the engine may catch."""


class Points:
    """
    The points a process comes to, of which one may be its last.

    Attributes:
        names: Of those it has passed.
    """

    def __init__(self, last: int | None) -> None:
        self._last = last
        self._is_elsewhere = False
        self.names: list[str] = []

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Do in another process, which lives on, what is done meanwhile."""
        self._is_elsewhere = True
        yield
        self._is_elsewhere = False

    def reach(self, name: str) -> None:
        if self._is_elsewhere:
            return
        if len(self.names) == self._last:
            raise Death(name)
        self.names.append(name)

    @contextmanager
    def watch(self, broker: Broker, consumer: Consumer | None = None) -> Iterator[None]:
        """Reach a point before and after each write."""
        with ExitStack() as stack:
            for thing, names in ((broker, OF_A_BROKER), (consumer, OF_A_CONSUMER)):
                for name in names if thing is not None else ():
                    wrapped = self._around(name, getattr(thing, name))
                    stack.enter_context(mock.patch.object(thing, name, wrapped))
            stack.enter_context(connection.execute_wrapper(self._execute))
            yield

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {name}()")
            result = function(*args, **kwargs)
            self.reach(f"after {name}()")
            return result

        return call

    def _execute(self, execute: Any, sql: str, *args: Any) -> Any:
        result = execute(sql, *args)
        if sql.lstrip().upper().startswith(WRITES):
            self.reach(f"after {sql[:50]!r}")
        return result


class CrashPoints(World):
    """The scenes; a subclass says of which broker."""

    def setUp(self) -> None:
        super().setUp()
        self.ran: Counter[str] = Counter()
        self.plan = "done"
        # Another process, which lives on.
        self.healthy: Any = self.make_broker()
        self.addCleanup(self.healthy.close)

    def act(self, key: str) -> None:
        if self.plan == "retry":
            raise Retry(delay=SOON_MS)
        if self.plan == "dead":
            raise Expected
        self.ran[key] += 1

    # ---- the play --------------------------------------------------------------

    def play_all(
        self, scene: Callable[[Points], Sequence[str]], *, at_most_once: bool = False
    ) -> None:
        """
        Play *scene*, which returns the keys that must be found, with every possible end.

        Args:
            at_most_once: Nothing is running where it ends, so that nothing may run again.
        """
        names = self.play(scene, None, at_most_once)
        self.assertGreater(len(names), 1)
        for last, name in enumerate(names):
            with self.subTest(last=last, point=name):
                self.play(scene, last, at_most_once)

    def play(
        self, scene: Callable[[Points], Sequence[str]], last: int | None, at_most_once: bool
    ) -> list[str]:
        self.begin()
        points = Points(last)
        try:
            keys = scene(points)
        except Death:
            keys = self.sent
        self.assertFalse(connection.in_atomic_block)
        self.die()
        self.let_others_work(keys)
        self.assert_found(keys, at_most_twice=last is not None and not at_most_once)
        return points.names

    def begin(self) -> None:
        self.ran.clear()
        self.plan = "done"
        # A scene may know better.
        self.is_found: Callable[[Sequence[str]], bool] = lambda keys: self.found() >= set(keys)
        self.sent: list[str] = []
        self.owner = uuid.uuid4().hex
        self.broker: Any = self.use(self.make_broker())
        self.queue = f"q_{uuid.uuid4().hex}"
        self.actor = self.declare(
            self.act,
            actor_name=f"act_{uuid.uuid4().hex}",
            queue_name=self.queue,
            throws=Expected,
            max_retries=None,
        )
        self.consumer: Any = None

    def die(self) -> None:
        """End the process, and have another one notice."""
        if self.consumer is not None:
            self.kill(self.consumer)
        self.expire(self.owner)
        self.plan = "done"
        with silence():
            self.healthy.release(self.owner, done=())
            self.healthy.waiting_room.release(self.owner)
            self.healthy.maintain()
        self.broker.close()

    def let_others_work(self, keys: Sequence[str]) -> None:
        """Run in another process whatever is there, until nothing is left."""
        self.use(self.healthy)
        quiet = 0
        consumer = self.healthy.consume([self.queue], owner=uuid.uuid4().hex)

        def is_done() -> bool:
            nonlocal quiet
            Dispatcher(self.healthy, owner=uuid.uuid4().hex).run_once(now=later_ms())
            deliveries = self.work(consumer)
            is_empty = not deliveries and not any(self.healthy.queue_size(self.queue))
            quiet = quiet + 1 if is_empty else 0
            # What a server has just pushed is for a moment neither ready nor claimed.
            return is_empty and (quiet >= QUIET_ROUNDS or self.is_found(keys))

        wait_until(is_done, "the queue to be empty")
        consumer.close()

    def work(self, consumer: Consumer) -> list[Delivery]:
        """Run in another process what is there, and return it."""
        deliveries: list[Delivery] = consumer.fetch(100, timeout=0.02)
        self.healthy.note_received(deliveries)
        self.execute(deliveries)
        self.healthy.settle(consumer, deliveries)
        return deliveries

    def execute(self, deliveries: Sequence[Delivery]) -> None:
        with silence():
            for delivery in deliveries:
                Executor(self.broker).run(delivery)

    def found(self) -> set[str]:
        """Return the keys of what ran, or is a dead letter."""
        dead = WaitingMessage.objects.filter(kind=Kind.DEAD)
        return {str(row.message.args[0]) for row in dead if row.message is not None} | set(self.ran)

    def assert_found(self, keys: Sequence[str], *, at_most_twice: bool) -> None:
        self.assertEqual(set(keys) - self.found(), set())
        self.assertLessEqual(max(self.ran.values(), default=0), 1 + at_most_twice)
        self.assertFalse(WaitingMessage.objects.exclude(kind=Kind.DEAD).exists())
        WaitingMessage.objects.all().delete()
        CrashRecord.objects.all().delete()

    # ---- what scenes do --------------------------------------------------------

    def message(self, key: str, **options: Any) -> Message:
        return self.actor.message_with_options(args=(key,), **options)

    def send(self, *keys: str, **options: Any) -> None:
        self.broker.enqueue_many([self.message(key, **options) for key in keys])
        self.sent += keys

    def take(self, count: int) -> list[Delivery]:
        self.consumer = self.broker.consume([self.queue], owner=self.owner)
        taken: list[Delivery] = []

        def is_enough() -> bool:
            taken.extend(self.consumer.fetch(count - len(taken), timeout=0.1))
            return len(taken) >= count

        wait_until(is_enough, f"{count} deliveries")
        return taken

    # ---- the scenes ------------------------------------------------------------

    def test_what_was_sent_is_there_or_send_did_not_return(self):
        def scene(points: Points) -> Sequence[str]:
            with points.watch(self.broker):
                self.send("at once", "too")
                self.send("later", delay=SOON_MS)
            return self.sent

        self.play_all(scene)

    def test_a_batch_of_every_outcome_is_settled(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("done", "retry", "dead", "back")
            done, retry, dead, back = self.take(4)
            for self.plan, delivery in (("retry", retry), ("dead", dead), ("done", done)):
                self.execute([delivery])
            back.fate = Fate.PUT_BACK
            with points.watch(self.broker, self.consumer):
                self.broker.settle(self.consumer, [done, retry, dead, back])
            return self.sent

        self.play_all(scene)

    def test_a_parent_is_not_erased_before_its_child_is_sent(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("parent")
            [parent] = self.take(1)
            self.execute([parent])
            parent.send_after(self.message("child"))
            self.is_found = lambda keys: bool(self.ran["child"] or self.ran["parent"] == 2)
            with points.watch(self.broker, self.consumer):
                self.broker.settle(self.consumer, [parent])
            return ["parent", "child"]

        def check(keys: Sequence[str], *, at_most_twice: bool) -> None:
            # Either the child was sent, or the parent runs again, and will send it.
            self.assertTrue(self.ran["child"] or self.ran["parent"] == 2, self.ran)
            assert_found(["parent"], at_most_twice=at_most_twice)

        assert_found = self.assert_found
        with mock.patch.object(self, "assert_found", check):
            self.play_all(scene)

    def test_due_messages_are_moved(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("one", "two", "three", delay=SOON_MS)
            with points.watch(self.broker):
                Dispatcher(self.broker, owner=self.owner).run_once(now=later_ms())
            return self.sent

        self.play_all(scene, at_most_once=True)

    def test_due_messages_that_run_before_their_rows_are_deleted_are_moved(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("one", "two", "three", delay=SOON_MS)
            with self.running_at_once(points), points.watch(self.broker):
                Dispatcher(self.broker, owner=self.owner).run_once(now=later_ms())
            return self.sent

        self.play_all(scene, at_most_once=True)

    @contextmanager
    def running_at_once(self, points: Points) -> Iterator[None]:
        """Have another process run what is published before ``publish()`` returns."""
        publish = self.broker.publish

        def publish_and_run(envelopes: Sequence[Envelope]) -> None:
            publish(envelopes)
            if connection.in_atomic_block:
                # The broker is in the database: before the commit nobody sees it.
                return
            with points.elsewhere():
                consumer = self.healthy.consume([self.queue], owner=uuid.uuid4().hex)
                wait_until(lambda: self.work(consumer), "what was published")
                consumer.close()

        with mock.patch.object(self.broker, "publish", publish_and_run):
            yield

    def test_a_commit_and_the_messages_of_its_transaction_are_one(self):
        def scene(points: Points) -> Sequence[str]:
            CrashRecord.objects.all().delete()
            self.is_found = lambda keys: set(self.ran) == {"one", "two"}
            with points.watch(self.broker), transaction.atomic():
                CrashRecord.objects.create(pk="business", updated_ms=0)
                self.send("one", "two")
            return self.sent

        def check(keys: Sequence[str], *, at_most_twice: bool) -> None:
            committed = CrashRecord.objects.filter(pk="business").exists()
            self.assertEqual(set(self.ran), {"one", "two"} if committed else set())
            assert_found((), at_most_twice=at_most_twice)

        assert_found = self.assert_found
        with mock.patch.object(self, "assert_found", check):
            self.play_all(scene, at_most_once=True)

    def test_what_a_dead_process_left_is_recovered_by_the_next_one(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("ran", "waited")
            running, _waiting = self.take(2)
            self.send("due", delay=SOON_MS)
            self.broker.waiting_room.claim_due(self.owner, limit=10, now=later_ms())
            self.kill(self.consumer)
            with self.board_of(running) as board, points.watch(self.broker), silence():
                recover(self.broker, board, "was killed")
            self.assertEqual(CrashRecord.objects.get().crashes, 1)
            return self.sent

        self.play_all(scene)

    @contextmanager
    def board_of(self, running: Delivery) -> Iterator[Board]:
        with TemporaryDirectory() as directory:
            board = Board.create(str(Path(directory, "board")), threads=1)
            board.owner = self.owner
            report(self.owner)
            board.begin(0, Message.decode(running.body).message_id, None)
            yield board
            board.close()

    def test_a_suspect_is_settled_and_then_forgotten(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("suspect")
            self.kill_holder()
            [suspect] = self.take(1)
            message_id = Message.decode(suspect.body).message_id
            alias = self.broker.waiting_room.alias
            crashes.count([message_id], overdue=(), detail="was killed", alias=alias)
            self.plan = "retry"
            self.execute([suspect])
            with points.watch(self.broker, self.consumer):
                self.broker.settle(self.consumer, [suspect])
            self.assertFalse(CrashRecord.objects.exists())
            return self.sent

        self.play_all(scene)

    def kill_holder(self) -> None:
        """Have what is in the queue delivered a second time."""
        self.take(len(self.sent))
        self.kill(self.consumer)
        self.broker.release(self.owner, done=())
        self.owner = uuid.uuid4().hex

    def test_a_dead_letter_that_is_requeued_is_dead_or_scheduled(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("letter")
            [delivery] = self.take(1)
            self.plan = "dead"
            self.execute([delivery])
            self.broker.settle(self.consumer, [delivery])
            rows = list(WaitingMessage.objects.all())
            with points.watch(self.broker, self.consumer):
                self.broker.waiting_room.requeue(rows)
            return self.sent

        self.play_all(scene)

    def test_what_a_lost_host_had_claimed_is_swept(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("one", "two")
            self.take(2)
            self.kill(self.consumer)
            self.expire(self.owner)
            with points.watch(self.broker), silence():
                self.broker.maintain()
            return self.sent

        self.play_all(scene)

    def test_a_worker_that_stops_gives_back_what_it_has(self):
        def scene(points: Points) -> Sequence[str]:
            self.send("one", "two")
            deliveries = self.take(2)
            with points.watch(self.broker, self.consumer):
                self.consumer.put_back(deliveries[:1])
                self.consumer.close()
            return self.sent

        self.play_all(scene)


class DatabaseCrashPoints(CrashPoints, EngineCase):
    def make_broker(self) -> Broker:
        return DatabaseBroker()

    def kill(self, consumer: Any) -> None:
        """Do nothing: it holds no connection of its own."""

    def expire(self, owner: str) -> None:
        Lease.objects.filter(owner=owner).update(expires_ms=1)


# With the tests of processes, which run once and beside the others: it mostly waits.
@tag("processes")
@needs_redis
class RedisCrashPoints(RedisMixin, CrashPoints, EngineCase):
    pass


@tag("processes")
@needs_rabbitmq
class RabbitmqCrashPoints(CrashPoints, RabbitmqCase):
    def make_broker(self) -> Broker:
        return RabbitmqBroker(RABBITMQ_URL)

    def kill(self, consumer: Any) -> None:
        consumer.drop()

    def expire(self, owner: str) -> None:
        """Do nothing: the claims ended with the connection."""
