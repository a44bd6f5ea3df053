"""
The definition of a broker, as tests.

A broker's test class mixes one of these in, and says only how a broker is made and how its
servers are disturbed: ``BrokerContract`` for every broker, ``ServerContract`` for one that
talks to a server. What is not claimed here, nobody above the brokers may rely on.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from unittest import mock

from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.errors import BrokerUnavailable, QueueJoinTimeout, QueueNotFound
from django_actors.executor import Executor
from django_actors.message import Envelope, Message, generate_message_id
from django_actors.models import Kind, WaitingMessage
from django_actors.rows import build_row
from tests.engine import (
    ActorsMixin,
    Task,
    begin,
    envelop,
    make_message,
    silence,
    wait_until,
)

if TYPE_CHECKING:
    Base = ActorsMixin
else:
    # No test case by itself: it is one where it is mixed in.
    Base = object

# How long a fetch may wait that something is expected to end, in seconds. A test takes as long
# only if it fails.
LONG_S = 20.0

# What a fetch that is woken takes at most.
PROMPT_S = 5.0

PASSWORD = "s3cr3t"


class BrokerContract(Base):
    """
    What every broker does.

    Attributes:
        broker: The broker of this process; a new one for each test.

        queue: A declared queue that no other test uses.

        tells_age: Whether it knows since when a message is ready.
    """

    tells_age = False

    # ---- what the test class of a broker says ----------------------------------

    def make_broker(self) -> Broker:
        """Return a broker that shares its messages with all others made here."""
        raise NotImplementedError

    def make_sibling(self) -> Broker:
        """Return the same broker as another process has it."""
        return self.make_broker()

    def kill(self, consumer: Consumer) -> None:
        """End a consumer as if its process were killed: it gives nothing back."""

    def await_acks(self, consumer: Consumer) -> None:
        """Wait until the server has heard what was acknowledged, where ``ack()`` does not."""

    def expire(self, owner: str) -> None:
        """Make the time pass after which the claims of a dead owner may be given back."""

    def rows(self) -> list[WaitingMessage]:
        """Return what is in the waiting room."""
        return list(WaitingMessage.objects.order_by("pk"))

    # ---- helpers ---------------------------------------------------------------

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(self.make_broker())
        self.addCleanup(self.broker.close)
        self.queue = self.declare_queue("q")

    def declare_queue(self, name: str) -> str:
        name = f"{name}_{uuid.uuid4().hex}"
        self.broker.declare_queue(name)
        self.addCleanup(self.broker.flush, name)
        return name

    def publish(
        self,
        *bodies: bytes,
        queue: str | None = None,
        priority: int = 0,
        broker: Broker | None = None,
    ) -> None:
        """Publish bodies, which need not be messages, in one batch."""
        (broker or self.broker).publish(
            [
                Envelope(generate_message_id(), queue or self.queue, priority, body)
                for body in bodies
            ]
        )

    def consume(
        self, *queues: str, owner: str | None = None, broker: Broker | None = None
    ) -> Consumer:
        """Return a consumer of the test's queue, or of *queues*, for the calling thread."""
        consumer = (broker or self.broker).consume(
            queues or (self.queue,), owner=owner or uuid.uuid4().hex
        )
        if threading.current_thread() is threading.main_thread():
            self.addCleanup(consumer.close)
        return consumer

    def take(self, consumer: Consumer, count: int, **options: Any) -> list[Delivery]:
        """Fetch until there are *count* deliveries."""
        taken: list[Delivery] = []

        def is_enough() -> bool:
            taken.extend(consumer.fetch(count - len(taken), timeout=0.1, **options))
            return len(taken) >= count

        wait_until(is_enough, f"{count} deliveries")
        return taken

    def take_one(self, consumer: Consumer, **options: Any) -> Delivery:
        return self.take(consumer, 1, **options)[0]

    def take_bodies_singly(self, consumer: Consumer, count: int) -> list[bytes]:
        return [self.take_one(consumer).body for _ in range(count)]

    def assert_has_nothing(self, consumer: Consumer, **options: Any) -> None:
        self.assertEqual(bodies_of(consumer.fetch(100, timeout=0.05, **options)), [])

    def assert_size(self, ready: int, claimed: int) -> None:
        def size() -> tuple[int, int]:
            ready, claimed = self.broker.queue_size(self.queue)
            return ready, claimed

        try:
            wait_until(lambda: size() == (ready, claimed))
        except AssertionError:
            self.assertEqual(size(), (ready, claimed))

    def send(self, message: Message) -> Message:
        self.broker.publish([envelop(message)])
        return message

    def settle(self, consumer: Consumer, *deliveries: Delivery, fate: Fate) -> None:
        for delivery in deliveries:
            delivery.fate = fate
        self.broker.settle(consumer, deliveries)

    def time_fetch(self, consumer: Consumer, limit: int = 1) -> tuple[float, list[Delivery]]:
        """Fetch without end, as a worker does, until a fetch brings something or is woken."""
        began = time.monotonic()
        deliveries: list[Delivery] = []
        while not deliveries and time.monotonic() < began + LONG_S:
            deliveries = consumer.fetch(limit, timeout=LONG_S)
        return time.monotonic() - began, deliveries

    def wait_in_thread(self, consume: Callable[[], Consumer]) -> WaitingFetch:
        """Start a thread that waits for a message; return when it begins to wait."""
        waiting = WaitingFetch(consume, self.time_fetch)
        waiting.start()
        waiting.is_waiting.wait(LONG_S)
        return waiting

    # ---- publishing ------------------------------------------------------------

    def test_what_was_published_outlives_its_publisher(self):
        publisher = self.make_broker()
        self.publish(b"kept", broker=publisher)

        publisher.close()

        self.assertEqual(self.take_one(self.consume(broker=self.make_sibling())).body, b"kept")

    def test_a_message_arrives_as_it_was_sent(self):
        sent = make_message("greet", 1, "two", None, queue=self.queue, extra=[3])
        self.broker.publish([envelop(sent, priority=7)])

        delivery = self.take_one(self.consume())

        self.assertEqual(Message.decode(delivery.body), sent)
        self.assertEqual(delivery.queue_name, self.queue)
        self.assertEqual(delivery.priority, 7)
        self.assertFalse(delivery.redelivered)

    def test_a_large_batch_arrives_complete_and_in_order(self):
        bodies = [b"%d" % number for number in range(450)]
        self.publish(*bodies)

        self.assertEqual(bodies_of(self.take(self.consume(), 450)), bodies)

    def test_a_batch_may_hold_messages_of_several_queues_and_priorities(self):
        other = self.declare_queue("other")
        self.broker.publish(
            [
                Envelope(generate_message_id(), self.queue, 2, b"last"),
                Envelope(generate_message_id(), other, 1, b"second"),
                Envelope(generate_message_id(), self.queue, 0, b"first"),
            ]
        )

        taken = self.take_bodies_singly(self.consume(self.queue, other), 3)

        self.assertEqual(taken, [b"first", b"second", b"last"])

    def test_publishing_nothing_does_nothing(self):
        self.broker.publish([])

        self.assert_size(0, 0)

    def test_one_message_published_twice_is_there_at_least_once(self):
        message = make_message(queue=self.queue)
        self.send(message)
        self.send(message)

        self.assertEqual(self.take_one(self.consume()).body, message.encode())

    def test_any_bytes_arrive_unchanged(self):
        bodies = [bytes(range(256)), b"\0", b"\xff\xfe", b"null", b"'; DROP TABLE x; --", b"%s %%"]
        self.publish(*bodies)

        self.assertEqual(bodies_of(self.take(self.consume(), len(bodies))), bodies)

    def test_text_of_every_language_arrives_unchanged(self):
        words = ["naïve", "日本語", "שלום", "🦜🏳️‍🌈", "\u0000", "line\nbreak", "\u2028"]
        sent = make_message("greet", *words, queue=self.queue)
        self.send(sent)

        delivery = self.take_one(self.consume())

        self.assertEqual(Message.decode(delivery.body).args, tuple(words))

    def test_a_body_of_the_largest_size_arrives_unchanged(self):
        body = b"0123456789abcdef" * 65_536
        self.publish(body, body[1:])

        consumer = self.consume()

        # Singly: nobody has to hold all of them at once.
        self.assertEqual(self.take_one(consumer).body, body)
        self.assertEqual(self.take_one(consumer).body, body[1:])

    # ---- order -----------------------------------------------------------------

    def test_messages_of_one_priority_leave_in_the_order_they_came(self):
        for number in range(20):
            self.publish(b"%d" % number)
        consumer = self.consume()

        taken = [self.take(consumer, 4) for _ in range(5)]

        self.assertEqual(
            [body for batch in taken for body in bodies_of(batch)],
            [b"%d" % number for number in range(20)],
        )

    def test_the_lowest_number_of_the_whole_backlog_leaves_first(self):
        priorities = [5, 0, 100, -3, 2**31 - 1, 1, -(2**31), 5]
        for priority in priorities:
            self.publish(b"%d" % priority, priority=priority)

        taken = self.take_bodies_singly(self.consume(), len(priorities))

        self.assertEqual([int(body) for body in taken], sorted(priorities))

    def test_a_batch_comes_in_the_order_it_should_run(self):
        for priority in (3, 1, 2):
            self.publish(b"%d" % priority, b"%d again" % priority, priority=priority)

        taken = self.take(self.consume(), 6)

        self.assertEqual([each.priority for each in taken], [1, 1, 2, 2, 3, 3])
        self.assertEqual(bodies_of(taken)[:2], [b"1", b"1 again"])

    def test_the_lowest_number_of_all_queues_leaves_first(self):
        queues = [self.queue, self.declare_queue("b"), self.declare_queue("c")]
        for priority, queue in [(1, 0), (5, 1), (0, 2), (3, 0), (2, 1), (4, 2)]:
            self.publish(b"%d" % priority, queue=queues[queue], priority=priority)

        taken = self.take_bodies_singly(self.consume(*queues), 6)

        self.assertEqual(taken, [b"0", b"1", b"2", b"3", b"4", b"5"])

    def test_a_long_backlog_in_one_queue_does_not_hide_another_queue(self):
        other = self.declare_queue("other")
        self.publish(*[b"many"] * 50)
        self.publish(b"urgent", queue=other, priority=-1)

        taken = self.take(self.consume(self.queue, other), 5)

        self.assertEqual(bodies_of(taken), [b"urgent", *[b"many"] * 4])

    def test_an_urgent_message_overtakes_what_came_before(self):
        self.publish(*[b"low"] * 10, priority=10)
        consumer = self.consume()
        self.take(consumer, 2)

        self.publish(b"high", priority=1)

        self.assertEqual(self.take_bodies_singly(consumer, 2), [b"high", b"low"])

    def test_only_messages_below_a_priority_can_be_asked_for(self):
        for priority in (1, 2, 3):
            self.publish(b"%d" % priority, priority=priority)
        consumer = self.consume()

        urgent = consumer.fetch(10, timeout=LONG_S, below_priority=2)

        self.assertEqual(bodies_of(urgent), [b"1"])
        self.assert_has_nothing(consumer, below_priority=2)
        self.assertEqual(self.take_bodies_singly(consumer, 2), [b"2", b"3"])

    def test_only_messages_below_a_priority_can_be_asked_for_over_several_queues(self):
        other = self.declare_queue("other")
        self.publish(b"1", b"one", priority=1)
        self.publish(b"0", queue=other, priority=0)
        self.publish(b"5", queue=other, priority=5)

        urgent = self.take(self.consume(self.queue, other), 3, below_priority=5)

        self.assertEqual(bodies_of(urgent), [b"0", b"1", b"one"])

    def test_an_urgent_message_is_found_after_a_search_found_none(self):
        self.publish(b"low", priority=10)
        consumer = self.consume()
        self.assert_has_nothing(consumer, below_priority=10)

        self.publish(b"high", priority=9)

        self.assertEqual(self.take_one(consumer, below_priority=10).body, b"high")
        self.assertEqual(self.take_one(consumer).body, b"low")

    def test_no_more_is_claimed_than_was_asked_for(self):
        self.publish(*[b"x"] * 5)

        self.assertEqual(len(self.consume().fetch(3, timeout=LONG_S)), 3)
        self.assert_size(2, 3)

    def test_asking_for_nothing_claims_nothing(self):
        self.publish(b"x")

        self.assertEqual(self.consume().fetch(0, timeout=0.01), [])
        self.assert_size(1, 0)

    # ---- claims ----------------------------------------------------------------

    def test_what_one_consumer_has_claimed_no_other_gets(self):
        self.publish(*[b"%d" % number for number in range(6)])
        first, second = self.consume(), self.consume(broker=self.make_sibling())

        mine, theirs = self.take(first, 3), self.take(second, 3)

        self.assertEqual(len({*bodies_of(mine), *bodies_of(theirs)}), 6)
        self.assert_has_nothing(first)
        self.assert_has_nothing(second)

    def test_many_consumers_get_every_message_exactly_once(self):
        count, publishers = 120, 2
        settled: list[bytes] = []
        consumers = [begin(self.run_consumer, settled, publishers * count) for _ in range(4)]
        tasks = [begin(self.run_publisher, name, count) for name in range(publishers)]

        for task in (*tasks, *consumers):
            task.result()

        self.assertEqual(len(settled), publishers * count)
        self.assertEqual(set(Counter(settled).values()), {1})
        self.assert_size(0, 0)

    def run_publisher(self, name: int, count: int) -> None:
        broker = self.make_sibling()
        for number in range(count):
            self.publish(b"%d-%d" % (name, number), priority=number % 3, broker=broker)

    def run_consumer(self, settled: list[bytes], count: int) -> None:
        """Settle messages, giving every fifth one back first, until all are settled."""
        consumer = self.consume(broker=self.make_sibling())
        try:
            wait_until(lambda: self.consume_some(consumer, settled) >= count)
        finally:
            consumer.close()

    def consume_some(self, consumer: Consumer, settled: list[bytes]) -> int:
        deliveries = consumer.fetch(7, timeout=0.05)
        consumer.put_back(deliveries[4:5])
        mine = deliveries[:4] + deliveries[5:]
        consumer.ack(mine)
        settled += bodies_of(mine)
        return len(settled)

    def test_an_acknowledged_message_never_comes_back(self):
        self.publish(b"done", b"claimed")
        consumer = self.consume(owner="victim")
        done, _claimed = self.take(consumer, 2)
        consumer.ack([done])
        self.await_acks(consumer)

        self.end_violently(consumer, "victim")

        survivor = self.consume()
        self.assertEqual(self.take_one(survivor).body, b"claimed")
        self.assert_has_nothing(survivor)
        self.assert_size(0, 1)

    def end_violently(self, consumer: Consumer, owner: str) -> None:
        """Kill a consumer, and have another process notice after the time it takes."""
        self.kill(consumer)
        self.expire(owner)
        with silence():
            self.make_sibling().maintain()

    def test_acknowledging_twice_or_nothing_is_no_error(self):
        self.publish(b"x", b"y")
        consumer = self.consume()
        x, _y = self.take(consumer, 2)

        consumer.ack([])
        consumer.ack([x])
        consumer.ack([x])

        self.assert_size(0, 1)

    def test_a_large_batch_is_acknowledged_at_once(self):
        self.publish(*[b"x"] * 1_200)
        consumer = self.consume()
        deliveries = self.take(consumer, 1_200)

        consumer.ack(deliveries)

        self.assert_size(0, 0)

    def test_the_acknowledgement_of_a_lost_claim_is_ignored(self):
        self.publish(b"x")
        loser = self.consume(owner="loser")
        lost = self.take_one(loser)
        self.end_violently(loser, "loser")
        winner = self.consume()
        self.take_one(winner)

        loser.ack([lost])

        self.assert_size(0, 1)

    def test_a_lost_claim_cannot_be_put_back(self):
        self.publish(b"x")
        loser = self.consume(owner="loser")
        lost = self.take_one(loser)
        self.end_violently(loser, "loser")
        winner = self.consume()
        self.take_one(winner)

        loser.put_back([lost])

        self.assert_has_nothing(self.consume())
        self.assert_size(0, 1)

    def test_what_is_put_back_is_there_at_once_and_in_its_old_place(self):
        self.publish(b"1", b"2", b"3")
        first, second = self.consume(), self.consume(broker=self.make_sibling())
        deliveries = self.take(first, 2)

        first.put_back(deliveries)

        self.assertEqual(bodies_of(self.take(second, 3)), [b"1", b"2", b"3"])

    def test_what_a_consumer_puts_back_it_can_have_again(self):
        self.publish(b"x")
        consumer = self.consume()
        delivery = self.take_one(consumer)
        self.assert_has_nothing(consumer)

        consumer.put_back([delivery])

        self.assertEqual(self.take_one(consumer).body, b"x")

    def test_what_was_put_back_does_not_count_as_delivered(self):
        self.publish(b"x")
        consumer = self.consume()
        consumer.put_back([self.take_one(consumer)])

        self.assertFalse(self.take_one(consumer).redelivered)

    # ---- dead consumers --------------------------------------------------------

    def test_what_a_dead_owner_had_claimed_is_released_at_once(self):
        self.publish(b"1", b"2")
        victim = self.consume(owner="victim")
        self.take(victim, 2)
        self.kill(victim)

        self.broker.release("victim", done=())

        again = self.take(self.consume(), 2)
        self.assertEqual(bodies_of(again), [b"1", b"2"])
        self.assertTrue(all(each.redelivered for each in again))

    def test_what_was_redelivered_and_put_back_stays_redelivered(self):
        self.publish(b"x")
        victim = self.consume(owner="victim")
        self.take_one(victim)
        self.kill(victim)
        self.broker.release("victim", done=())
        consumer = self.consume()

        consumer.put_back([self.take_one(consumer)])

        self.assertTrue(self.take_one(consumer).redelivered)

    def test_the_claims_of_the_living_are_not_released(self):
        self.publish(b"1", b"2")
        victim, living = self.consume(owner="victim"), self.consume(owner="living")
        self.take_one(victim)
        kept = self.take_one(living)
        self.kill(victim)

        self.broker.release("victim", done=())

        survivor = self.consume()
        self.assertEqual(self.take_one(survivor).body, b"1")
        self.assert_has_nothing(survivor)
        living.ack([kept])
        self.assert_size(0, 1)

    def test_what_a_dead_owner_had_done_is_erased(self):
        self.publish(b"done", b"begun")
        victim = self.consume(owner="victim")
        done, _begun = self.take(victim, 2)
        receipt = self.broker.receipt_text(done)
        if receipt is None:
            return  # This broker can only give it back: it runs once more.
        self.kill(victim)

        self.broker.release("victim", done=[receipt])

        survivor = self.consume()
        self.assertEqual(self.take_one(survivor).body, b"begun")
        self.assert_has_nothing(survivor)
        self.assert_size(0, 1)

    def test_a_receipt_fits_on_the_board(self):
        self.publish(b"x")

        receipt = self.broker.receipt_text(self.take_one(self.consume()))

        if receipt is not None:
            self.assertTrue(receipt.isascii())
            self.assertLessEqual(len(receipt), 64)

    def test_a_receipt_of_somebody_else_erases_nothing(self):
        self.publish(b"x")
        living = self.consume(owner="living")
        receipt = self.broker.receipt_text(self.take_one(living))

        self.broker.release("victim", done=[receipt] if receipt else [])

        self.assert_size(0, 1)

    def test_releasing_an_owner_nobody_knows_does_nothing(self):
        self.publish(b"x")

        self.broker.release("stranger", done=())

        self.assertFalse(self.take_one(self.consume()).redelivered)

    def test_what_a_lost_process_had_claimed_comes_back_after_a_while(self):
        self.publish(b"1", b"2")
        victim = self.consume(owner="victim")
        self.take(victim, 2)

        self.end_violently(victim, "victim")

        again = self.take(self.consume(), 2)
        self.assertEqual(bodies_of(again), [b"1", b"2"])
        self.assertTrue(all(each.redelivered for each in again))

    def test_the_living_keep_what_they_have_claimed(self):
        self.publish(b"1", b"2")
        victim, living = self.consume(owner="victim"), self.consume(owner="living")
        self.take_one(victim)
        kept = self.take_one(living)

        self.end_violently(victim, "victim")

        survivor = self.consume()
        self.assertEqual(self.take_one(survivor).body, b"1")
        self.assert_has_nothing(survivor)
        living.ack([kept])
        self.assert_size(0, 1)

    def test_who_closes_gives_back_what_it_had(self):
        self.publish(b"1", b"2")
        consumer = self.consume()
        self.take(consumer, 2)

        consumer.close()

        self.assertEqual(bodies_of(self.take(self.consume(), 2)), [b"1", b"2"])

    def test_closing_twice_is_no_error(self):
        consumer = self.consume()

        consumer.close()
        consumer.close()

    # ---- waiting ---------------------------------------------------------------

    def test_an_empty_fetch_ends_with_its_timeout(self):
        consumer = self.consume()
        began = time.monotonic()

        self.assertEqual(consumer.fetch(1, timeout=0.1), [])

        self.assertLess(time.monotonic() - began, PROMPT_S)

    def test_a_fetch_that_claims_nothing_waits(self):
        self.publish(b"x")
        consumer = self.consume()
        began = time.monotonic()

        consumer.fetch(0, timeout=0.1)

        self.assertGreater(time.monotonic() - began, 0.08)

    def test_a_waiting_fetch_is_ended_by_a_wake(self):
        waiting = WaitingFetch(self.consume, lambda consumer: timed_fetch(consumer, LONG_S))
        waiting.start()
        waiting.is_waiting.wait(LONG_S)

        waiting.consumer.wake()

        elapsed, deliveries = waiting.result()
        self.assertEqual(deliveries, [])
        self.assertLess(elapsed, PROMPT_S)

    def test_a_fetch_that_only_waits_is_ended_by_a_wake(self):
        waiting = WaitingFetch(
            self.consume, lambda consumer: timed_fetch(consumer, LONG_S, limit=0)
        )
        waiting.start()
        waiting.is_waiting.wait(LONG_S)

        waiting.consumer.wake()

        self.assertLess(waiting.result()[0], PROMPT_S)

    def test_a_wake_before_the_fetch_is_not_lost(self):
        consumer = self.consume()
        consumer.fetch(0, timeout=0)

        consumer.wake()

        self.assertLess(timed_fetch(consumer, LONG_S, limit=0)[0], PROMPT_S)

    def test_a_thousand_wakes_are_as_good_as_one(self):
        consumer = self.consume()
        for _ in range(1_000):
            consumer.wake()

        consumer.fetch(0, timeout=LONG_S)

        self.assertGreater(timed_fetch(consumer, 0.1, limit=0)[0], 0.08)

    def test_a_message_of_this_process_is_seen_at_once_by_who_waits(self):
        waiting = self.wait_in_thread(self.consume)

        self.publish(b"x")

        elapsed, deliveries = waiting.result()
        self.assertEqual(bodies_of(deliveries), [b"x"])
        self.assertLess(elapsed, PROMPT_S)

    def test_a_message_of_another_process_is_seen_at_once_by_who_waits(self):
        sibling = self.make_sibling()
        waiting = self.wait_in_thread(self.consume)

        self.publish(b"x", broker=sibling)

        elapsed, deliveries = waiting.result()
        self.assertEqual(bodies_of(deliveries), [b"x"])
        self.assertLess(elapsed, PROMPT_S)

    def test_what_is_put_back_is_seen_at_once_by_who_waits(self):
        self.publish(b"x")
        consumer = self.consume()
        delivery = self.take_one(consumer)
        waiting = self.wait_in_thread(self.consume)

        consumer.put_back([delivery])

        elapsed, deliveries = waiting.result()
        self.assertEqual(bodies_of(deliveries), [b"x"])
        self.assertLess(elapsed, PROMPT_S)

    def test_what_is_released_is_seen_at_once_by_who_waits(self):
        self.publish(b"x")
        victim = self.consume(owner="victim")
        self.take_one(victim)
        self.kill(victim)
        waiting = self.wait_in_thread(self.consume)

        self.broker.release("victim", done=())

        elapsed, deliveries = waiting.result()
        self.assertEqual(bodies_of(deliveries), [b"x"])
        self.assertLess(elapsed, PROMPT_S)

    # ---- queues ----------------------------------------------------------------

    def test_a_consumer_reads_only_its_queues(self):
        other = self.declare_queue("other")
        self.publish(b"x", queue=other)

        self.assert_has_nothing(self.consume())

    def test_a_consumer_without_queues_gets_nothing(self):
        self.publish(b"x")
        consumer = self.consume()

        consumer.set_queues([])

        self.assert_has_nothing(consumer)

    def test_a_consumer_can_be_given_other_queues(self):
        other = self.declare_queue("other")
        consumer = self.consume()
        self.assert_has_nothing(consumer)
        self.publish(b"theirs", queue=other)
        self.publish(b"mine")

        consumer.set_queues([other])

        self.assertEqual(self.take_one(consumer).body, b"theirs")
        self.assert_has_nothing(consumer)

    def test_what_was_claimed_is_settled_though_its_queue_is_read_no_longer(self):
        self.publish(b"x")
        consumer = self.consume()
        delivery = self.take_one(consumer)
        consumer.set_queues([self.declare_queue("other")])

        consumer.ack([delivery])

        self.assert_size(0, 0)

    def test_the_size_of_a_queue_tells_what_is_ready_and_what_is_claimed(self):
        self.publish(*[b"x"] * 5)

        self.assert_size(5, 0)
        self.take(self.consume(), 2)
        self.assert_size(3, 2)

    def test_several_queues_are_measured_at_once(self):
        other = self.declare_queue("other")
        unused = f"q_{uuid.uuid4().hex}"
        self.publish(b"1", b"2", b"3")
        self.publish(b"4", queue=other)
        self.take_one(self.consume())

        sizes = self.broker.queue_sizes([self.queue, other, unused])

        self.assertEqual(sizes, {self.queue: (2, 1), other: (1, 0), unused: (0, 0)})

    def test_the_oldest_ready_message_of_a_queue_is_told_where_the_broker_knows_it(self):
        self.assertEqual(self.broker.oldest_ready([self.queue]), {})
        self.publish(b"first", priority=5)
        first = self.broker.oldest_ready([self.queue])
        if not self.tells_age:
            self.assertEqual(first, {})
            return
        self.assertLess(abs(first[self.queue] - time.time() * 1_000), 60_000)
        time.sleep(0.005)
        self.publish(b"second", priority=1)

        self.assertEqual(self.broker.oldest_ready([self.queue]), first)

    def test_what_is_claimed_is_not_the_oldest_ready_message_until_it_goes_back(self):
        if not self.tells_age:
            return
        self.publish(b"first")
        time.sleep(0.005)
        self.publish(b"second")
        first = self.broker.oldest_ready([self.queue])
        consumer = self.consume()
        delivery = self.take_one(consumer)

        self.assertGreater(self.broker.oldest_ready([self.queue])[self.queue], first[self.queue])
        consumer.put_back([delivery])
        self.assertEqual(self.broker.oldest_ready([self.queue]), first)

    def test_a_queue_that_nobody_used_is_empty(self):
        self.assertEqual(tuple(self.broker.queue_size(f"q_{uuid.uuid4().hex}")), (0, 0))

    def test_a_flush_drops_what_is_ready_in_one_queue(self):
        other = self.declare_queue("other")
        self.publish(b"claimed", b"1", b"2")
        self.publish(b"theirs", queue=other)
        consumer = self.consume()
        claimed = self.take_one(consumer)

        self.broker.flush(self.queue)

        self.assert_size(0, 1)
        self.assert_has_nothing(consumer)
        consumer.ack([claimed])
        self.assert_size(0, 0)
        self.assertEqual(self.take_one(self.consume(other)).body, b"theirs")

    def test_all_queues_can_be_flushed(self):
        other = self.declare_queue("other")
        self.publish(b"x")
        self.publish(b"y", queue=other)

        self.broker.flush_all()

        self.assert_has_nothing(self.consume(self.queue, other))

    def test_joining_an_empty_queue_returns(self):
        self.broker.join(self.queue, timeout=10_000)

    def test_a_join_waits_for_what_is_ready_and_for_what_is_claimed(self):
        self.publish(b"x")
        self.assertRaises(QueueJoinTimeout, self.broker.join, self.queue, timeout=10)
        consumer = self.consume()
        delivery = self.take_one(consumer)
        self.assertRaises(QueueJoinTimeout, self.broker.join, self.queue, timeout=10)

        consumer.ack([delivery])

        self.broker.join(self.queue, timeout=10_000)

    def test_a_join_waits_for_what_is_delayed(self):
        message = make_message(queue=self.queue)
        self.broker.enqueue(message, delay=600_000)

        self.assertRaises(QueueJoinTimeout, self.broker.join, self.queue, timeout=10)

    def test_joining_a_queue_nobody_declared_is_an_error(self):
        self.assertRaises(QueueNotFound, self.broker.join, "nobody_declared_it", timeout=10)

    def test_the_broker_answers(self):
        self.broker.ping()

    def test_a_closed_broker_opens_itself_again(self):
        self.publish(b"x")

        self.broker.close()

        self.publish(b"y")
        self.assertEqual(bodies_of(self.take(self.consume(), 2)), [b"x", b"y"])

    # ---- settling: what the engine does with a broker --------------------------

    def test_what_is_done_is_erased(self):
        self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)

        self.settle(consumer, delivery, fate=Fate.DONE)

        self.assert_size(0, 0)
        self.assertEqual(self.rows(), [])

    def run_here(self, consumer: Consumer) -> Delivery:
        """Take the next message, and decode it as a worker does."""
        delivery = self.take_one(consumer)
        delivery.message = Message.decode(delivery.body)
        return delivery

    def test_a_retry_waits_in_the_waiting_room_under_its_id(self):
        message = self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)
        delivery.retry(600_000)

        self.broker.settle(consumer, [delivery])

        [row] = self.rows()
        self.assertEqual((row.message_id, row.kind), (message.message_id, Kind.SCHEDULED))
        self.assert_size(0, 0)

    def test_a_settlement_can_be_repeated(self):
        self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)
        delivery.retry(600_000)

        self.broker.settle(consumer, [delivery])
        self.broker.settle(consumer, [delivery])

        self.assertEqual(len(self.rows()), 1)
        self.assert_size(0, 0)

    def test_a_settlement_that_failed_half_way_loses_and_doubles_nothing(self):
        self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)
        delivery.retry(600_000)

        with (
            mock.patch.object(consumer, "ack", side_effect=BrokerUnavailable("Cut.")),
            self.assertRaises(BrokerUnavailable),
        ):
            self.broker.settle(consumer, [delivery])
        self.broker.settle(consumer, [delivery])

        self.assertEqual(len(self.rows()), 1)
        self.assert_size(0, 0)

    def test_a_death_between_the_retry_and_the_ack_loses_and_doubles_nothing(self):
        message = self.send(make_message(queue=self.queue))
        victim = self.consume(owner="victim")
        delivery = self.run_here(victim)
        delivery.retry(600_000)
        with (
            mock.patch.object(victim, "ack", side_effect=BrokerUnavailable("Cut.")),
            self.assertRaises(BrokerUnavailable),
        ):
            self.broker.settle(victim, [delivery])
        self.kill(victim)
        self.broker.release("victim", done=())

        survivor = self.consume()
        again = self.take_one(survivor)
        if self.is_settled_already(again):
            self.settle(survivor, again, fate=Fate.SKIPPED)
        else:
            again.retry(600_000)
            self.broker.settle(survivor, [again])

        self.assertEqual([row.message_id for row in self.rows()], [message.message_id])
        self.assert_size(0, 0)

    def is_settled_already(self, delivery: Delivery) -> bool:
        self.assertTrue(delivery.redelivered)
        delivery.message = Message.decode(delivery.body)
        return bool(self.broker.waiting_room.find_settled([delivery.message_id]))

    def test_a_redelivered_message_that_waits_already_is_not_run(self):
        runs: list[int] = []
        actor = self.declare(lambda: runs.append(1), actor_name="count_runs")
        message = self.send(make_message(actor.actor_name, queue=self.queue))
        victim = self.consume(owner="victim")
        self.take_one(victim)
        self.kill(victim)
        self.broker.waiting_room.put([row_for(message)])
        self.broker.release("victim", done=())

        survivor = self.consume()
        delivery = self.take_one(survivor)
        Executor(self.broker).run(delivery)
        self.broker.settle(survivor, [delivery])

        self.assertEqual(delivery.fate, Fate.SKIPPED)
        self.assertEqual(runs, [])
        self.assertEqual(len(self.rows()), 1)
        self.assert_size(0, 0)

    def test_bytes_that_are_no_message_become_a_dead_letter_and_stop_nobody(self):
        runs: list[str] = []
        actor = self.declare(runs.append, actor_name="append")
        self.publish(b"\xff\0 no message", b"[]")
        self.send(make_message(actor.actor_name, "ran", queue=self.queue))
        consumer = self.consume()
        deliveries = self.take(consumer, 3)

        with self.assertLogs("django_actors", "ERROR"):
            for delivery in deliveries:
                Executor(self.broker).run(delivery)
        self.broker.settle(consumer, deliveries)

        self.assertEqual(runs, ["ran"])
        dead = [(bytes(row.body), row.reason) for row in self.rows()]
        self.assertEqual(
            dead, [(b"\xff\0 no message", Reason.UNDECODABLE), (b"[]", Reason.UNDECODABLE)]
        )
        self.assert_size(0, 0)

    def test_what_is_put_back_by_a_settlement_is_there_again(self):
        self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)

        self.settle(consumer, delivery, fate=Fate.PUT_BACK)

        self.assertEqual(self.take_one(self.consume()).body, delivery.body)

    def test_successors_are_sent(self):
        self.send(make_message(queue=self.queue))
        consumer = self.consume()
        delivery = self.run_here(consumer)
        self.assert_has_nothing(consumer)
        successor = make_message("next", queue=self.queue)
        delivery.send_after(successor)

        self.settle(consumer, delivery, fate=Fate.DONE)

        self.assertEqual(self.take_one(consumer).body, successor.encode())
        self.assert_size(0, 1)

    def test_a_delayed_message_waits_outside_of_the_queue(self):
        self.broker.enqueue(make_message(queue=self.queue), delay=600_000)

        self.assert_size(0, 0)
        self.assertEqual([row.kind for row in self.rows()], [Kind.SCHEDULED])


class ServerContract(BrokerContract):
    """
    What every broker does that talks to a server.

    Attributes:
        unreachable_place: What an error must name for people to find the server.
    """

    unreachable_place: str

    def call_unreachable(self, function: Callable[[Broker], Any]) -> Any:
        """Call *function* with a broker whose server does not answer; its URL has PASSWORD."""
        raise NotImplementedError

    def assert_unavailable(self, function: Callable[[Broker], Any]) -> None:
        with silence(), self.assertRaises(BrokerUnavailable) as caught:
            self.call_unreachable(function)
        self.assertIn(self.unreachable_place, str(caught.exception))
        self.assertNotIn(PASSWORD, str(caught.exception))

    def test_a_server_that_does_not_answer_is_named_without_its_password(self):
        self.assert_unavailable(lambda broker: broker.ping())

    def test_a_send_that_no_server_takes_is_an_error(self):
        envelope = Envelope(generate_message_id(), self.queue, 0, b"x")

        self.assert_unavailable(lambda broker: broker.publish([envelope]))

    def test_a_fetch_that_no_server_answers_is_an_error(self):
        self.assert_unavailable(
            lambda broker: broker.consume([self.queue], owner="o").fetch(1, timeout=1)
        )

    def test_an_outage_of_the_server_during_maintenance_is_an_error(self):
        self.assert_unavailable(lambda broker: broker.release("o", done=()))


class WaitingFetch(Task):
    """
    Fetches in a thread of its own; the result is how long it took, and what came.

    Attributes:
        is_waiting: Set when the consumer has found nothing and is about to wait.
    """

    def __init__(
        self,
        consume: Callable[[], Consumer],
        fetch: Callable[[Consumer], tuple[float, list[Delivery]]],
    ) -> None:
        super().__init__(self._fetch, consume, fetch)
        self.is_waiting = threading.Event()
        self.consumer: Any = None

    def _fetch(
        self,
        consume: Callable[[], Consumer],
        fetch: Callable[[Consumer], tuple[float, list[Delivery]]],
    ) -> tuple[float, list[Delivery]]:
        self.consumer = consume()
        try:
            # Twice: where a consumer begins with a look around, the second fetch waits.
            self.consumer.fetch(1, timeout=0.01)
            self.consumer.fetch(1, timeout=0.01)
            self.is_waiting.set()
            return fetch(self.consumer)
        finally:
            self.consumer.close()


def timed_fetch(
    consumer: Consumer, timeout: float, *, limit: int = 1
) -> tuple[float, list[Delivery]]:
    began = time.monotonic()
    deliveries = consumer.fetch(limit, timeout=timeout)
    return time.monotonic() - began, deliveries


def bodies_of(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def row_for(message: Message, *, kind: Kind = Kind.SCHEDULED, due_ms: int = 0) -> WaitingMessage:
    return build_row(
        message, message.encode(), kind=kind, reason=Reason.RETRY, priority=0, due_ms=due_ms
    )
