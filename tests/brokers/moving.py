"""
The part of a broker's definition that is about messages on their way from the waiting room.

For brokers outside of its database: there a process can die when the broker has a message, and
its row is not deleted yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from django.conf import settings
from django.db import DatabaseError, transaction

from django_actors import clock, moves
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.dispatcher import Dispatcher
from django_actors.errors import Retry
from django_actors.executor import Executor
from django_actors.message import Message, Origin
from django_actors.models import Kind
from django_actors.waiting_room import WaitingRoom
from tests.engine import silence

from .contract import BrokerContract

# After every claim and every pause, and before a row is published because it was forgotten.
LATER_MS = 60_000

# Long enough for a row to wait, and shorter than LATER_MS.
SOON_MS = 1_000


class Death(BaseException):
    """The end of a process, which nothing in the engine may catch."""


class MovingContract(BrokerContract):
    """What a broker does that says where its messages came from."""

    def setUp(self) -> None:
        super().setUp()
        self.ran: Counter[str] = Counter()
        self.fails = False
        self.actor = self.declare(
            self.act, actor_name=f"act_{self.queue}", queue_name=self.queue, max_retries=None
        )

    def act(self, key: str) -> None:
        self.ran[key] += 1
        if self.fails:
            raise Retry(delay=SOON_MS)

    # ---- helpers ---------------------------------------------------------------

    def delay(self, *keys: str) -> None:
        for key in keys:
            self.actor.send_with_options(args=(key,), delay=SOON_MS)

    @contextmanager
    def dying_before(self, *names: str) -> Iterator[None]:
        """End the process before it does one of these things to the waiting room."""
        with mock.patch.multiple(WaitingRoom, **dict.fromkeys(names, mock.Mock(side_effect=Death))):
            try:
                yield
            except Death:
                self.broker.waiting_room.release("dead")

    def move(self, owner: str = "living", *, broker: Broker | None = None) -> int:
        """Have a dispatcher publish what is due."""
        now = clock.now_ms() + LATER_MS
        return Dispatcher(broker or self.broker, owner=owner).run_once(now=now)

    def move_and_die(self) -> None:
        """Have a dispatcher die when it has published what is due, and another one notice."""
        with self.dying_before("forget", "keep"):
            self.move("dead")

    def receive(self, consumer: Consumer, count: int = 1) -> list[Delivery]:
        """Take deliveries as a worker takes them."""
        deliveries = self.take(consumer, count)
        self.broker.note_received(deliveries)
        return deliveries

    def execute(self, deliveries: Sequence[Delivery]) -> None:
        with silence():
            for delivery in deliveries:
                Executor(self.broker).run(delivery)

    def work(self, consumer: Consumer, count: int = 1) -> list[Delivery]:
        """Run as many deliveries as a worker would."""
        deliveries = self.receive(consumer, count)
        self.execute(deliveries)
        self.broker.settle(consumer, deliveries)
        return deliveries

    def assert_ran_once(self, *keys: str) -> None:
        self.assertEqual(self.ran, Counter(keys))
        self.assertEqual(self.rows(), [])
        self.assert_size(0, 0)

    # ---- one copy --------------------------------------------------------------

    def test_a_message_says_whether_it_came_out_of_the_waiting_room(self):
        sent = self.actor.message("key")
        consumer = self.consume()

        for origin in Origin:
            with self.subTest(origin):
                envelope = self.broker._envelop(sent)._replace(origin=origin)
                self.broker.publish([envelope])
                # Through each of the ways by which a consumer comes to a message.
                for _ in range(2):
                    delivery = self.take_one(consumer)
                    self.assertEqual((delivery.origin, delivery.body), (origin, envelope.body))
                    consumer.put_back([delivery])
                consumer.ack([self.take_one(consumer)])

    def test_who_waits_for_a_message_is_told_where_it_came_from(self):
        waiting = self.wait_in_thread(self.consume)

        self.delay("key")
        self.move()

        [delivery] = waiting.result()[1]
        self.assertIs(delivery.origin, Origin.ROW)

    def test_what_was_moving_when_its_process_died_and_has_run_does_not_run_again(self):
        self.delay("key")
        self.move_and_die()
        self.work(self.consume())

        self.assertEqual(self.move(), 0)

        self.assert_ran_once("key")

    def test_what_runs_is_not_published_again(self):
        self.delay("key")
        self.move_and_die()
        consumer = self.consume()
        running = self.receive(consumer)

        self.assertEqual(self.move(), 0)

        self.execute(running)
        self.broker.settle(consumer, running)
        self.assert_ran_once("key")

    def test_what_runs_runs_again_if_its_process_dies(self):
        self.delay("key")
        self.move_and_die()
        victim = self.consume(owner="victim")
        self.receive(victim)
        self.kill(victim)
        self.broker.release("victim", done=())

        self.work(self.consume())

        self.assert_ran_once("key")

    def test_a_message_runs_though_its_row_cannot_be_deleted(self):
        self.delay("key")
        self.move()
        consumer = self.consume()

        with mock.patch.object(moves, "_finish", side_effect=DatabaseError("Away.")):
            self.work(consumer)

        self.assert_ran_once("key")

    def move_doubtfully(self, key: str) -> None:
        """Publish a message of which nobody knows whether somebody dead has published it before."""
        self.delay(key)
        self.broker.waiting_room.claim_due("dead", limit=1, now=clock.now_ms() + LATER_MS)
        self.broker.waiting_room.release("dead")
        self.move()

    # ---- two copies ------------------------------------------------------------

    def test_of_two_copies_that_wait_together_one_runs(self):
        self.delay("one", "two")
        self.move_and_die()
        self.move()

        self.work(self.consume(), 4)

        self.assert_ran_once("one", "two")

    def test_what_was_published_by_nobody_runs(self):
        self.move_doubtfully("key")

        self.work(self.consume())

        self.assert_ran_once("key")

    def test_a_row_stays_until_a_copy_has_run(self):
        self.delay("key")
        self.move_and_die()
        self.move()
        [row] = self.rows()

        self.assertGreater(row.due_ms or 0, clock.now_ms() + LATER_MS)
        self.assertEqual(self.move(), 0)
        self.assertFalse(self.broker.waiting_room.has_claimed("living"))
        self.work(self.consume(), 2)
        self.assertEqual(self.rows(), [])

    def test_of_copies_of_several_deaths_one_runs(self):
        self.delay("key")
        for _ in range(3):
            self.move_and_die()
        self.move()

        self.work(self.consume(), 4)

        self.assert_ran_once("key")

    def test_the_later_copy_may_come_first(self):
        self.delay("key")
        self.move_and_die()
        slow = self.consume()
        # It stands still before it has told anybody.
        with mock.patch.object(moves, "note_received"):
            late = self.take(slow, 1)
        self.move()

        consumer = self.consume()
        early = self.receive(consumer)
        self.broker.note_received(late)
        self.execute([*early, *late])
        self.broker.settle(consumer, early)
        self.broker.settle(slow, late)

        self.assertEqual([each.fate for each in (*early, *late)], [Fate.SKIPPED, Fate.DONE])
        self.assert_ran_once("key")

    def test_a_copy_that_was_put_back_or_held_by_a_dead_process_runs(self):
        self.move_doubtfully("key")
        first = self.consume()
        first.put_back(self.receive(first))
        first.close()
        victim = self.consume(owner="victim")
        self.receive(victim)
        self.kill(victim)
        self.broker.release("victim", done=())

        self.work(self.consume())

        self.assert_ran_once("key")

    def test_a_copy_that_has_run_and_was_not_acknowledged_does_not_run_again(self):
        self.move_doubtfully("key")
        victim = self.consume(owner="victim")
        deliveries = self.receive(victim)
        self.execute(deliveries)
        with mock.patch.object(victim, "ack", side_effect=Death), self.assertRaises(Death):
            self.broker.settle(victim, deliveries)
        self.kill(victim)
        self.broker.release("victim", done=())

        [again] = self.work(self.consume())

        self.assertIs(again.fate, Fate.SKIPPED)
        self.assert_ran_once("key")

    # ---- what else may become of it --------------------------------------------

    def test_a_retry_is_no_leftover(self):
        self.delay("key")
        self.move_and_die()
        self.move()
        self.fails = True
        consumer = self.consume()

        self.work(consumer, 2)

        [row] = self.rows()
        self.assertEqual((self.ran, row.attempts), (Counter(["key"]), 1))
        self.fails = False
        self.move()
        self.work(consumer)
        self.assert_ran_once("key", "key")

    def test_a_retry_that_was_moved_too_is_not_taken_for_the_attempt_before(self):
        self.delay("key")
        self.move_and_die()
        self.move()
        consumer = self.consume()
        first, copy = self.receive(consumer, 2)
        self.fails = True
        self.execute([first])
        self.broker.settle(consumer, [first])
        self.fails = False
        self.move_and_die()

        self.execute([copy])
        self.broker.settle(consumer, [copy])

        self.assertIs(copy.fate, Fate.SKIPPED)
        [row] = self.rows()
        self.assertEqual((row.attempts, row.kind), (1, Kind.SCHEDULED))
        self.work(consumer)
        self.assertEqual(self.move(), 0)
        self.assert_ran_once("key", "key")

    def test_a_row_that_was_written_with_the_same_bytes_is_kept(self):
        self.delay("key")
        self.move()
        victim = self.consume(owner="victim")
        [delivery] = self.receive(victim)
        delivery.message = Message.decode(delivery.body)
        # No exception, so nothing is noted on the message.
        delivery.retry(600_000)
        with mock.patch.object(victim, "ack", side_effect=Death), self.assertRaises(Death):
            self.broker.settle(victim, [delivery])
        self.kill(victim)
        self.broker.release("victim", done=())

        [again] = self.work(self.consume())

        self.assertIs(again.fate, Fate.SKIPPED)
        self.assertEqual([bytes(row.body) for row in self.rows()], [delivery.body])

    def test_a_dead_letter_that_is_requeued_runs(self):
        self.delay("key")
        self.move_and_die()
        self.move()
        consumer = self.consume()
        with mock.patch.dict(self.actor.options, {"max_age": 0}), silence():
            first, copy = self.receive(consumer, 2)
            self.execute([first, copy])
        first.fail()
        self.broker.settle(consumer, [first, copy])
        self.broker.waiting_room.requeue(self.rows())
        self.ran.clear()

        self.move()
        self.work(consumer)

        self.assert_ran_once("key")

    def test_a_copy_that_nobody_may_read_is_a_dead_letter_once(self):
        self.move_doubtfully("key")

        with self.settings(DJANGO_ACTORS={**settings.DJANGO_ACTORS, "SIGNING": "require"}):
            self.work(self.consume())

        self.assertEqual([row.reason for row in self.rows()], [Reason.BAD_SIGNATURE])
        self.assertEqual(self.ran, Counter())

    # ---- the outbox ------------------------------------------------------------

    def commit(self, key: str) -> None:
        with transaction.atomic():
            self.actor.send(key)

    def test_what_an_outbox_had_published_when_its_process_died_does_not_run_again(self):
        with self.dying_before("forget_outbox"):
            self.commit("key")
        self.work(self.consume())

        self.assertEqual(self.move(), 0)

        self.assert_ran_once("key")

    def test_what_an_outbox_had_published_may_wait_beside_its_copy(self):
        with self.dying_before("forget_outbox"):
            self.commit("key")
        self.move()

        self.work(self.consume(), 2)

        self.assert_ran_once("key")

    def test_what_an_outbox_had_not_published_runs(self):
        with mock.patch.object(self.broker, "publish", side_effect=Death):
            self.assertRaises(Death, self.commit, "key")
        self.move()

        self.work(self.consume())

        self.assert_ran_once("key")
