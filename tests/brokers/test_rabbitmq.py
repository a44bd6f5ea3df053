"""The RabbitMQ broker: the contract, on a real server."""

from __future__ import annotations

import gc
import os
import threading
import time
import unittest
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pika
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from django_actors.brokers import (
    build_broker,
    rabbitmq_consumer,
    rabbitmq_lane,
    rabbitmq_link,
    rabbitmq_topology,
)
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.rabbitmq_concerns import concerns_of_place
from django_actors.brokers.rabbitmq_topology import LaneKey, Topology
from django_actors.delivery import Fate, Reason
from django_actors.dispatcher import Dispatcher
from django_actors.errors import BrokerUnavailable, ServerTooOld
from django_actors.message import Envelope, Message, generate_message_id
from django_actors.models import Kind, WaitingMessage
from tests.engine import EngineCase, begin, envelop, make_message, silence, wait_until
from tests.proxy import Proxy

from .contract import PASSWORD, PROMPT_S, ServerContract, bodies_of
from .moving import MovingContract

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))
RECONNECTS = 50 * SCALE
HUGE_BODY = min(64, 4 * SCALE) * 1_048_576

URL = os.environ.get("TEST_RABBITMQ_URL", "")

needs_rabbitmq = unittest.skipUnless(URL, "RabbitMQ does not answer")


class RabbitmqCase(EngineCase):
    """Queues in a namespace that no other test uses; they are deleted after each test."""

    def setUp(self) -> None:
        namespace = f"test_{uuid.uuid4().hex}"
        changed = override_settings(
            DJANGO_ACTORS={**settings.DJANGO_ACTORS, "NAMESPACE": namespace}
        )
        changed.enable()
        self.addCleanup(changed.disable)
        self.addCleanup(self.delete_queues)
        super().setUp()

    def delete_queues(self) -> None:
        broker = RabbitmqBroker(URL)
        broker.delete_queues()
        broker.close()


@needs_rabbitmq
class RabbitmqBrokerTests(MovingContract, ServerContract, RabbitmqCase):
    """All of the contract holds with quorum queues."""

    unreachable_place = "127.0.0.1:1"
    options: dict[str, Any] = {}

    def make_broker(self) -> RabbitmqBroker:
        broker = RabbitmqBroker(URL, **self.options)
        self.addCleanup(broker.close)
        return broker

    def kill(self, consumer: Any) -> None:
        consumer.drop()

    def await_acks(self, consumer: Any) -> None:
        # RabbitMQ confirms none, and what is on its way may be lost with the connection. It does
        # in turn what comes on a channel, so its answer to a later question is one to them, too.
        lanes = list(consumer._lanes)
        for lane in lanes:
            lane.ask()
        self.assertTrue(consumer._link.run(lambda: not any(lane.asked for lane in lanes), 5.0))

    def test_what_is_released_is_seen_at_once_by_who_waits(self):
        # RabbitMQ needs no release(): the end of the connection is enough.
        self.publish(b"x")
        victim = self.consume(owner="victim")
        self.take_one(victim)
        waiting = self.wait_in_thread(self.consume)

        self.kill(victim)

        elapsed, deliveries = waiting.result()
        self.assertEqual(bodies_of(deliveries), [b"x"])
        self.assertLess(elapsed, PROMPT_S)

    def test_what_was_pushed_and_is_not_wanted_yet_is_not_published_again(self):
        consumer: Any = self.consume()
        consumer.fetch(2, timeout=0.05)
        self.delay("one", "two")
        self.move_and_die()
        wait_until(lambda: self.holds_two(consumer), "both messages")

        self.assertEqual(self.move(), 0)

        self.work(consumer, 2)
        self.assert_ran_once("one", "two")

    def holds_two(self, consumer: Any) -> bool:
        consumer.fetch(2, timeout=0.02, below_priority=-1)
        return sum(len(lane.buffer) for lane in consumer._lanes) == 2

    def call_unreachable(self, function: Callable[[Broker], Any]) -> Any:
        broker = RabbitmqBroker(f"amqp://user:{PASSWORD}@127.0.0.1:1/%2F", send_timeout=300)
        try:
            return function(broker)
        finally:
            broker.close()


@needs_rabbitmq
class ClassicQueueTests(RabbitmqBrokerTests):
    """All of the contract holds with classic queues, too."""

    options = {"queue_type": "classic"}

    def test_what_was_put_back_does_not_count_as_delivered(self):
        """Skip a claim: a classic queue does not count, so any return looks like a redelivery."""

    def test_what_is_put_back_is_there_at_once_and_in_its_old_place(self):
        # So it waits for a roll call, and others of its priority overtake it meanwhile.
        self.publish(b"1", b"2", b"3")
        first, second = self.consume(), self.consume()

        first.put_back(self.take(first, 2))

        self.assertEqual(set(bodies_of(self.take(second, 3))), {b"1", b"2", b"3"})


@needs_rabbitmq
class SendingTests(RabbitmqCase):
    def setUp(self) -> None:
        super().setUp()
        parts = urlsplit(URL)
        self.proxy = Proxy(str(parts.hostname), parts.port or 5672)
        self.addCleanup(self.proxy.close)
        login, at, _ = parts.netloc.rpartition("@")
        self.proxy_url = parts._replace(netloc=f"{login}{at}127.0.0.1:{self.proxy.port}").geturl()

    def make_broker(self, url: str = URL, **options: Any) -> RabbitmqBroker:
        broker = RabbitmqBroker(url, **options)
        self.addCleanup(broker.close)
        return broker

    def publish(self, broker: Broker, *bodies: bytes) -> None:
        broker.publish([Envelope(generate_message_id(), "q", 0, body) for body in bodies])

    def take_all(self, broker: Broker) -> list[bytes]:
        consumer = broker.consume(["q"], owner="o")
        bodies: list[bytes] = []
        while found := consumer.fetch(100, timeout=1):
            consumer.ack(found)
            bodies += bodies_of(found)
        consumer.close()
        return bodies

    def test_a_connection_that_is_cut_costs_no_message(self):
        broker = self.make_broker(self.proxy_url)
        for number in range(60):
            if number % 10 == 5:
                self.proxy.cut()
            self.publish(broker, b"%d" % number)

        self.assertEqual({int(body) for body in self.take_all(broker)}, set(range(60)))

    def test_a_lost_confirmation_costs_no_message_and_no_second_run(self):
        broker = self.make_broker(self.proxy_url)
        self.publish(broker, b"before")

        self.proxy.lose_next_reply()
        self.publish(broker, b"once")

        self.assertEqual(sorted(self.take_all(broker)), [b"before", b"once"])

    def test_a_stalled_connection_is_replaced_within_the_deadline(self):
        broker = self.make_broker(self.proxy_url, send_timeout=2_000)
        self.publish(broker, b"before")

        self.proxy.stall()
        began = time.monotonic()
        with silence(), self.assertRaises(BrokerUnavailable):
            self.publish(broker, b"refused")
        self.assertLess(time.monotonic() - began, 3)
        self.proxy.cut()
        self.proxy.resume()

        self.publish(broker, b"after")

    def test_a_queue_that_was_deleted_is_declared_again(self):
        broker = self.make_broker()
        self.publish(broker, b"before")
        with broker.desk.visit() as visit:
            visit.call("queue_delete", queue=broker.topology.lane_name(LaneKey(0, "q")))

        self.publish(broker, b"after")

        self.assertEqual(self.take_all(broker), [b"after"])

    def test_threads_share_the_connection(self):
        broker = self.make_broker(self.proxy_url)
        self.publish(broker, b"x")
        before = self.proxy.accepted

        for task in [begin(self.publish, broker, b"x") for _ in range(8)]:
            task.result()

        self.assertEqual(self.proxy.accepted, before)
        self.assertEqual(len(self.take_all(broker)), 9)

    def test_a_server_that_is_too_old_is_named_with_its_version(self):
        broker = self.make_broker()

        with (
            mock.patch.object(rabbitmq_link, "OLDEST", (99, 0)),
            self.assertRaisesMessage(ServerTooOld, " has version "),
        ):
            broker.ping()

    def test_a_server_that_is_too_old_is_a_concern_of_a_deploy(self):
        broker = self.make_broker()
        self.publish(broker, b"x")

        with mock.patch.object(rabbitmq_link, "OLDEST", (99, 0)):
            found = {each.id: each.text for each in self.make_broker().concerns()}

        self.assertEqual(list(found), ["W204"])
        self.assertIn("needs 3.10 or newer", found["W204"])

    def test_a_queue_with_other_arguments_is_explained(self):
        self.publish(self.make_broker(), b"x")
        other = self.make_broker(queue_type="classic")

        with self.assertRaises(BrokerUnavailable) as caught:
            self.publish(other, b"x")

        name = other.topology.lane_name(LaneKey(0, "q"))
        for word in (name, "x-queue-type", "classic", "quorum", "rabbitmqctl delete_queue"):
            self.assertIn(word, str(caught.exception))

    def test_queues_with_other_arguments_are_a_concern_of_a_deploy(self):
        self.publish(self.make_broker(), b"x")

        found = {each.id for each in self.make_broker(queue_type="classic").concerns()}

        self.assertEqual(found, {"W203"})
        self.assertEqual(list(self.make_broker().concerns()), [])

    def test_a_forked_child_has_a_connection_of_its_own(self):
        broker = self.make_broker()
        self.publish(broker, b"parent")

        child = os.fork()
        if child == 0:
            try:
                self.publish(broker, b"child")
                broker.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        self.publish(broker, b"parent again")

        self.assertEqual(sorted(self.take_all(broker)), [b"child", b"parent", b"parent again"])

    def test_reconnects_leave_nothing_behind(self):
        broker = self.make_broker(self.proxy_url)
        consumer = broker.consume(["q"], owner="o")
        self.addCleanup(consumer.close)
        self.reconnect(broker, consumer, 10)
        before = self.footprint()

        self.reconnect(broker, consumer, RECONNECTS)

        # The last of the proxy's own threads may still be on their way out.
        wait_until(lambda: self.footprint()[0] <= before[0], "the threads to be as few as before")
        self.assertLessEqual(self.footprint()[1], before[1] + 2)

    def reconnect(self, broker: Broker, consumer: Consumer, times: int) -> None:
        for _ in range(times):
            self.proxy.cut()
            self.publish(broker, b"x")
            with silence():
                wait_until(lambda: fetch_one(consumer), "a delivery")

    def footprint(self) -> tuple[int, int]:
        gc.collect()
        names = [thread.name for thread in threading.enumerate() if thread.name != "Proxy"]
        wait_until(lambda: self.proxy.open_connections <= 2, "old connections to end")
        return len(names), len(os.listdir("/proc/self/fd"))


def fetch_one(consumer: Consumer) -> bool:
    try:
        found = consumer.fetch(1, timeout=0.5)
    except BrokerUnavailable:
        return False
    consumer.ack(found)
    return bool(found)


@needs_rabbitmq
class NewQueueTests(RabbitmqCase):
    """RabbitMQ may end the connection of whoever reads a quorum queue that is just being made."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = RabbitmqBroker(URL)
        self.addCleanup(self.broker.close)
        self.publish(self.broker, priority=100, count=3)

    def publish(self, broker: RabbitmqBroker, *, priority: int, count: int = 1) -> None:
        broker.publish([Envelope(generate_message_id(), "q", priority, b"x") for _ in range(count)])

    def consume(self) -> Any:
        consumer = self.broker.consume(["q"], owner=uuid.uuid4().hex)
        self.addCleanup(consumer.close)
        return consumer

    def take(self, consumer: Any) -> Any:
        [delivery] = wait_until(lambda: consumer.fetch(1, timeout=0.1), "a message")
        return delivery

    def test_nobody_reads_it_who_holds_a_claim(self):
        consumer = self.consume()
        claimed = [self.take(consumer) for _ in range(3)]
        with mock.patch.object(rabbitmq_lane, "RIPEN_S", 600.0):
            lane = self.open_empty(consumer, 1)

            self.assertEqual(consumer.fetch(1, timeout=0.3, below_priority=100), [])
            self.assertEqual(lane.grants, [])
            consumer.ack(claimed)

            self.assertEqual(consumer.fetch(1, timeout=0.3, below_priority=100), [])
            self.assertEqual(len(lane.grants), 1)

    def test_with_its_first_message_it_is_read_by_all(self):
        consumer = self.consume()
        self.take(consumer)
        with mock.patch.object(rabbitmq_lane, "RIPEN_S", 600.0):
            self.open_empty(consumer, 1)

            self.publish(self.broker, priority=1)

            wait_until(lambda: consumer.fetch(1, timeout=0.1, below_priority=100), "the message")

    def open_empty(self, consumer: Any, priority: int) -> Any:
        key = LaneKey(priority, "q")
        consumer._lanes.note(key)
        wait_until(lambda: self.has_opened(consumer, priority), "the new lane")
        self.broker.lanes.add({key})
        return next(lane for lane in consumer._lanes if lane.key == key)

    def has_opened(self, consumer: Any, priority: int) -> bool:
        consumer.fetch(0, timeout=0.05)
        return any(lane.key.priority == priority and lane.is_ready for lane in consumer._lanes)

    def test_after_a_second_it_is_read_as_well(self):
        consumer = self.consume()
        self.take(consumer)

        self.publish(self.broker, priority=1)

        wait_until(lambda: consumer.fetch(1, timeout=0.1, below_priority=100), "the new message")

    def test_queues_that_are_made_under_busy_readers_cost_no_connection(self):
        readers = [self.consume() for _ in range(3)]
        for reader in readers:
            self.take(reader)
        links = [reader._link for reader in readers]
        publishers = [RabbitmqBroker(URL) for _ in range(3)]
        made = threading.Event()

        reading = [begin(self.read, reader, made) for reader in readers]
        making = [begin(self.make_queues, publisher) for publisher in publishers]
        for task in making:
            task.result()
        made.set()

        # One of each publisher and priority, and none a second time.
        self.assertEqual(sum(task.result() for task in reading), 3 * 8)
        self.assertEqual([reader._link for reader in readers], links)

    def read(self, reader: Any, made: threading.Event) -> int:
        """Take what is urgent until all is made and nothing is left; return how much that was."""
        count = 0
        is_over = False
        while not is_over:
            is_over = made.is_set()
            while found := reader.fetch(4, timeout=2, below_priority=100):
                count += len(found)
        return count

    def make_queues(self, broker: RabbitmqBroker) -> None:
        for priority in range(8):
            self.publish(broker, priority=priority)
        broker.close()


@needs_rabbitmq
class GrantTests(RabbitmqCase):
    """How much RabbitMQ may push: as much as was asked for, and again when that is done."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = RabbitmqBroker(URL)
        self.addCleanup(self.broker.close)
        self.bodies = [b"%d" % number for number in range(400)]
        self.broker.publish([Envelope(generate_message_id(), "q", 0, body) for body in self.bodies])
        self.consumer: Any = self.broker.consume(["q"], owner="o")
        self.addCleanup(self.consumer.close)

    def take(self, count: int) -> list[Any]:
        taken: list[Any] = []

        def is_enough() -> bool:
            taken.extend(self.consumer.fetch(count - len(taken), timeout=0.1))
            return len(taken) == count

        wait_until(is_enough, f"{count} messages")
        return taken

    @property
    def lane(self) -> Any:
        [lane] = self.consumer._lanes
        return lane

    def test_a_worker_that_has_just_started_may_ask_for_more(self):
        with mock.patch.object(rabbitmq_lane, "RIPEN_S", 600.0):
            self.assertEqual(len([*self.take(8), *self.take(30)]), 38)

    def test_what_is_settled_makes_room_for_as_much(self):
        self.consumer.ack([*self.take(8), *self.take(16)])
        granted = list(self.lane.grants)

        for _ in range(3):
            self.consumer.ack(self.take(24))

        self.assertEqual(self.lane.grants, granted)
        self.assertEqual(sum(grant.size for grant in granted), 24)

    def test_however_often_more_is_asked_for_there_are_few(self):
        for count in range(1, 20):
            self.take(count)

        self.assertLessEqual(len(self.lane.grants), rabbitmq_lane.MOST_GRANTS)

    def test_messages_come_in_order_over_all_of_them(self):
        bodies: list[bytes] = []
        for count in [*range(1, 20), *[30] * 7]:
            taken = self.take(count)
            bodies += [each.body for each in taken]
            self.consumer.ack(taken)

        self.assertEqual(bodies, self.bodies)

    def test_what_nobody_asks_for_any_more_is_given_back_from_all_of_them(self):
        self.consumer.ack([*self.take(8), *self.take(16)])

        wait_until(self.holds_nothing, "the return")

        self.assertEqual([each.body for each in self.take(2)], self.bodies[24:26])

    def test_what_is_run_soon_is_not_given_back(self):
        self.consumer.ack([*self.take(8), *self.take(16)])
        taken: list[Any] = []

        with mock.patch.object(rabbitmq_consumer, "HOLD_S", 0.6):
            end = time.monotonic() + 2 * rabbitmq_consumer.HOLD_S
            while time.monotonic() < end:
                # There is always something that is not wanted now.
                self.consumer.fetch(8, timeout=0.05, below_priority=0)
                taken += self.take(12)
                self.consumer.ack(taken[-12:])

        self.assertEqual([each.body for each in taken if each.receipt.is_redelivered], [])

    def test_what_is_not_run_soon_is_given_back_from_the_end(self):
        self.consumer.ack([*self.take(8), *self.take(16)])
        wait_until(self.has_filled, "24 messages in the buffer")
        self.consumer.fetch(0, timeout=0)

        self.consumer.ack(self.take(4))
        wait_until(self.has_given_back, "the return")

        self.assertEqual([each.body for each in self.lane.buffer], self.bodies[28:36])

    def has_given_back(self) -> bool:
        self.consumer.fetch(0, timeout=0.02)
        return len(self.lane.buffer) < 20

    def has_filled(self) -> bool:
        self.consumer.fetch(8, timeout=0.01, below_priority=0)
        return len(self.lane.buffer) == 24

    def test_nothing_is_pushed_any_more_when_much_less_is_wanted(self):
        self.consumer.ack([*self.take(8), *self.take(30), *self.take(120)])

        wait_until(self.gets_no_more, "the end of the grants")

        self.assertGreater(len(self.lane.buffer), 0)

    def gets_no_more(self) -> bool:
        self.consumer.fetch(2, timeout=0.01, below_priority=0)
        return not self.lane.grants

    def holds_nothing(self) -> bool:
        self.consumer.fetch(0, timeout=0.02)
        return not self.lane.grants and not self.lane.outstanding


@needs_rabbitmq
class ForeignBodyTests(RabbitmqCase):
    """Whatever somebody puts into a queue, it becomes a dead letter and stops nobody."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(RabbitmqBroker(URL))
        self.addCleanup(self.broker.close)
        self.actor = self.declare(lambda: None, actor_name="nothing")
        self.broker.publish([envelop(make_message("nothing"))])
        self.lane = self.broker.topology.lane_name(LaneKey(0, "default"))

    def push(self, *bodies: bytes, **properties: Any) -> None:
        with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(
                    "", self.lane, body, pika.BasicProperties(**properties), mandatory=True
                )

    def sweep(self) -> list[WaitingMessage]:
        self.broker.maintain()
        return self.dead()

    def dead(self) -> list[WaitingMessage]:
        return list(WaitingMessage.objects.filter(kind=Kind.DEAD).order_by("pk"))

    def test_it_is_kept_with_its_bytes(self):
        huge = b"x" * HUGE_BODY
        bodies = [b"\xff garbage", b"null", b"[1]", b'{"queue_name": 1}', b"[" * 50_000, huge]
        with silence():
            self.push(*bodies, correlation_id="same for all")
            self.start_worker(self.broker)
            wait_until(lambda: len(self.dead()) == len(bodies), "the dead letters")

        self.assertEqual({bytes(row.body) for row in self.dead()}, set(bodies))
        self.assertEqual({row.reason for row in self.dead()}, {Reason.UNDECODABLE})
        self.broker.join("default", timeout=20_000)

    def test_what_rabbitmq_gives_up_is_swept_into_the_waiting_room(self):
        message = make_message("nothing")

        [row] = self.have_given_up(message.encode())

        self.assertEqual((row.message_id, row.reason), (message.message_id, Reason.GIVEN_UP))
        self.assertIn("rejected", row.error)
        self.assertEqual(row.queue_name, "default")

    def test_what_was_delivered_too_often_is_swept_into_the_waiting_room(self):
        # From RabbitMQ 4.0 on a queue has a limit of 20 where none is given.
        message = make_message("nothing", queue="limited")
        with mock.patch.object(rabbitmq_topology, "DELIVERY_LIMIT", 2):
            self.broker.publish([envelop(message)])
            for _ in range(3):
                consumer = self.broker.consume(["limited"], owner="o")
                wait_until(lambda: consumer.fetch(1, timeout=0.1), "the message")  # noqa: B023
                consumer.drop()

            with silence():
                [row] = wait_until(self.sweep, "the dead letter")

        self.assertEqual((row.message_id, row.reason), (message.message_id, Reason.GIVEN_UP))
        self.assertIn("delivery_limit", row.error)
        self.assertEqual(row.queue_name, "limited")
        self.assertEqual(tuple(self.broker.queue_size("limited")), (0, 0))

    def have_given_up(self, body: bytes) -> list[WaitingMessage]:
        """Have RabbitMQ dead-letter a body, and return what is swept."""
        self.broker.flush("default")
        self.push(body)
        with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
            channel = connection.channel()
            method, _, _ = channel.basic_get(self.lane)
            channel.basic_reject(method.delivery_tag, requeue=False)
        with silence():
            rows: list[WaitingMessage] = wait_until(self.sweep, "the dead letter")
        return rows

    def test_what_is_swept_without_a_signature_is_not_signed(self):
        body = make_message("nothing").encode()

        signing = {**settings.DJANGO_ACTORS, "SIGNING": "require"}
        with override_settings(DJANGO_ACTORS=signing):
            [row] = self.have_given_up(body)

        self.assertEqual((row.message_id, row.reason), (None, Reason.BAD_SIGNATURE))
        self.assertEqual(bytes(row.body), body)


@needs_rabbitmq
class LongRunTests(RabbitmqCase):
    """Messages that are held for longer than RabbitMQ allows."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(RabbitmqBroker(URL, consumer_timeout=300))
        self.addCleanup(self.broker.close)
        self.message = make_message("nothing", queue="q")
        self.broker.publish([envelop(self.message)])
        self.consumer: Any = self.broker.consume(["q"], owner="o")
        self.addCleanup(self.consumer.close)
        [self.delivery] = wait_until(lambda: self.consumer.fetch(1, timeout=1), "the delivery")
        self.delivery.message = self.message
        wait_until(self.is_parked, "the row")

    def is_parked(self) -> bool:
        self.consumer._look_at = 0.0
        self.consumer.fetch(0, timeout=0.05)
        return WaitingMessage.objects.exists()

    def test_a_row_takes_their_place_and_is_not_due_while_they_run(self):
        [row] = WaitingMessage.objects.all()

        self.assertEqual(row.message_id, self.message.message_id)
        self.assertEqual(self.broker.waiting_room.claim_due("somebody", limit=10), [])
        self.assertEqual(tuple(self.broker.queue_size("q")), (0, 0))

    def test_the_row_goes_when_they_are_done(self):
        self.delivery.fate = Fate.DONE

        self.broker.settle(self.consumer, [self.delivery])

        self.assertFalse(WaitingMessage.objects.exists())

    def test_a_retry_takes_the_place_of_the_row(self):
        self.delivery.retry(600_000)

        self.broker.settle(self.consumer, [self.delivery])

        [row] = WaitingMessage.objects.all()
        self.assertEqual((row.reason, row.claimed_by), (Reason.RETRY, ""))

    def test_what_is_put_back_is_due_at_once(self):
        self.delivery.fate = Fate.PUT_BACK

        self.broker.settle(self.consumer, [self.delivery])

        room = self.broker.waiting_room
        [(_, envelope)] = wait_until(lambda: room.claim_due("somebody", limit=10), "the row")
        self.assertEqual(envelope.message_id, self.message.message_id)

    def test_the_death_of_their_worker_makes_them_due_and_suspects(self):
        self.consumer.drop()

        self.broker.release("o", done=())

        # By the clock of the database they may be due a millisecond later.
        wait_until(Dispatcher(self.broker).run_once, "the row")
        survivor = self.broker.consume(["q"], owner="survivor")
        self.addCleanup(survivor.close)
        [again] = wait_until(lambda: survivor.fetch(1, timeout=1), "the delivery")
        self.assertTrue(again.redelivered)
        self.assertEqual(Message.decode(again.body).message_id, self.message.message_id)


class OptionTests(SimpleTestCase):
    """How a broker is described; no server is asked."""

    def test_a_url_may_name_several_servers(self):
        for url in (
            "amqp://u:p@one:1/v;amqp://u:p@two:2/v",
            "amqp://u:p@one:1/v;two:2",
            ["amqp://u:p@one:1/v", "amqp://u:p@two:2/v"],
        ):
            target = RabbitmqBroker(url).target

            places = [(each.host, each.port) for each in target.parameters]
            self.assertEqual(places, [("one", 1), ("two", 2)])
            self.assertEqual({each.virtual_host for each in target.parameters}, {"v"})

    def test_a_broker_can_be_built_without_a_url(self):
        parameters = pika.ConnectionParameters(host="one")
        for options in (
            {"host": "one"},
            {"parameters": parameters},
            {"parameters": [{"host": "one"}]},
        ):
            target = RabbitmqBroker(**options).target

            self.assertEqual([each.host for each in target.parameters], ["one"])

    def test_a_url_and_another_place_are_an_error(self):
        several: list[dict[str, Any]] = [{"host": "x"}, {"parameters": []}, {"credentials": None}]
        for options in several:
            with self.assertRaisesMessage(ValueError, "says it again"):
                RabbitmqBroker("amqp://localhost", **options)

    def test_parameters_of_pika_are_options_and_query_parameters(self):
        url = "amqp://localhost?heartbeat=7&connection_attempts=3&queue_type=classic"

        broker = RabbitmqBroker(url, blocked_connection_timeout=9)

        [parameters] = broker.target.parameters
        self.assertEqual(parameters.heartbeat, 7)
        self.assertEqual(parameters.connection_attempts, 3)
        self.assertEqual(parameters.blocked_connection_timeout, 9)
        self.assertEqual(broker.target.queue_type, "classic")

    def test_the_old_name_of_heartbeat_is_explained(self):
        for arguments in (
            {"host": "x", "heartbeat_interval": 0},
            {"url": "amqp://x?heartbeat_interval=0"},
            {"parameters": [{"heartbeat_interval": 0}]},
        ):
            with self.assertRaisesMessage(Exception, "heartbeat"):
                RabbitmqBroker(**arguments)

    def test_what_is_no_option_is_an_error(self):
        for setting in (
            "amqp://x?colour=red",
            "amqp://x?queue_type=red",
            "amqp://x?send_timeout=0",
        ):
            with self.assertRaises(ImproperlyConfigured):
                build_broker(setting)

    def test_amqps_encrypts(self):
        [parameters] = RabbitmqBroker("amqps://host").target.parameters

        self.assertIsNotNone(parameters.ssl_options)
        self.assertEqual(parameters.port, 5671)

    def test_queues_are_such_as_rabbitmq_4_takes_and_as_lose_nothing_there(self):
        topology = Topology("quorum", "n")
        lane = topology.lane_name(LaneKey(0, "q"))

        for name in (lane, topology.dead_name, topology.roll_name):
            self.assertTrue(topology.declaration(name)["durable"], name)
        for name in (lane, topology.dead_name):
            # Where it is not given, a message that came back 20 times is dropped.
            self.assertGreaterEqual(
                topology.declaration(name)["arguments"]["x-delivery-limit"], 1_000
            )
        self.assertEqual(
            topology.declaration(lane)["arguments"]["x-dead-letter-routing-key"],
            topology.dead_name,
        )

    def test_plain_text_and_guest_on_another_host_are_concerns(self):
        found = concerns_of_place(RabbitmqBroker("amqp://guest:guest@192.0.2.1").target)

        self.assertEqual([each.id for each in found], ["W201", "W202"])
        self.assertEqual(list(concerns_of_place(RabbitmqBroker("amqp://localhost").target)), [])

    def test_a_name_that_would_be_too_long_stays_unique(self):
        topology = RabbitmqBroker("amqp://localhost").topology
        names = {topology.lane_name(LaneKey(n, "q" * 250)) for n in range(3)}

        self.assertEqual(len(names), 3)
        self.assertTrue(all(len(name) <= 255 for name in names))
