"""Who uses the connection that the threads of a process send by, and what that costs the others."""

from __future__ import annotations

import threading
from collections import Counter
from unittest import mock

from django.test import SimpleTestCase

from django_actors.brokers import rabbitmq_outlet
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.rabbitmq_link import Link
from django_actors.brokers.rabbitmq_outlet import Outlet
from django_actors.brokers.rabbitmq_parcels import Batch
from django_actors.errors import BrokerUnavailable
from django_actors.interrupts import expect_interrupts
from django_actors.message import Envelope, generate_message_id
from tests.engine import begin, in_thread, wait_until

from .contract import bodies_of
from .test_rabbitmq import URL, RabbitmqCase, needs_rabbitmq


@needs_rabbitmq
class HelmTests(RabbitmqCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = RabbitmqBroker(URL)
        self.addCleanup(self.broker.close)
        # Threads that waited for something to send, or to hear.
        self.waited: list[str] = []
        self.looked_around: list[str] = []
        turn = Outlet.turn

        def noted(outlet: Outlet, timeout: float) -> None:
            turns = self.waited if timeout else self.looked_around
            turns.append(threading.current_thread().name)
            turn(outlet, timeout)

        self.enterContext(mock.patch.object(Outlet, "turn", noted))
        self.publish(b"first")
        self.waited.clear()

    def publish(self, *bodies: bytes) -> None:
        self.broker.publish([Envelope(generate_message_id(), "q", 0, body) for body in bodies])

    def who_waits_for_a_message(self) -> set[str]:
        self.waited.clear()
        self.publish(b"x")
        return set(self.waited)

    def take_all(self) -> list[bytes]:
        consumer = self.broker.consume(["q"], owner="o")
        self.addCleanup(consumer.close)
        bodies: list[bytes] = []
        while found := consumer.fetch(100, timeout=1):
            consumer.ack(found)
            bodies += bodies_of(found)
        return bodies

    def test_a_thread_that_sends_alone_uses_the_connection_itself(self):
        # The keeper may still be there from the message before, or just look around.
        wait_until(lambda: self.who_waits_for_a_message() == {threading.current_thread().name})

    def test_a_thread_that_runs_actors_leaves_the_connection_to_the_keeper(self):
        def run() -> None:
            expect_interrupts()
            self.publish(b"second")

        in_thread(run)

        self.assertEqual(set(self.waited), {"RabbitMQ publisher"})

    def test_the_keeper_looks_after_a_connection_that_nobody_uses(self):
        self.enterContext(mock.patch.object(rabbitmq_outlet, "IDLE_S", 0.01))
        self.publish(b"second")
        self.looked_around.clear()

        wait_until(lambda: len(self.looked_around) > 3, "the keeper to look around")

        self.assertEqual(set(self.looked_around), {"RabbitMQ publisher"})

    def test_threads_that_send_at_the_same_time_wait_for_nothing_but_their_own(self):
        def send(name: int) -> None:
            for number in range(25):
                self.publish(b"%d.%d" % (name, number), b"%d.%d.more" % (name, number))

        for task in [begin(send, name) for name in range(8)]:
            task.result()

        taken = Counter(self.take_all())
        self.assertEqual(len(taken), 1 + 8 * 25 * 2)
        self.assertEqual(set(taken.values()), {1})

    def wait_for_the_helm(self) -> None:
        """Wait until the keeper has done what it was called for, and lets others steer."""
        publisher = self.broker.publisher
        wait_until(lambda: not publisher._keeper_called.is_set() and not publisher._helm.locked())

    def test_who_is_interrupted_at_the_helm_costs_nobody_a_message(self):
        me, step = threading.current_thread(), Link.step
        at_the_helm, others_are_there = threading.Event(), threading.Event()

        def interrupted(link: Link, timeout: float) -> None:
            if threading.current_thread() is me and not others_are_there.is_set():
                at_the_helm.set()
                wait_until(lambda: len(self.broker.publisher._outlet.inbox) >= 3)
                others_are_there.set()
                raise KeyboardInterrupt
            step(link, timeout)

        def follow(number: int) -> None:
            at_the_helm.wait(10)
            self.publish(b"%d" % number)

        self.wait_for_the_helm()
        with mock.patch.object(Link, "step", interrupted):
            others = [begin(follow, number) for number in range(3)]
            self.assertRaises(KeyboardInterrupt, self.publish, b"interrupted")
            for task in others:
                task.result()
        self.publish(b"last")

        taken = set(self.take_all()) - {b"interrupted"}
        self.assertEqual(taken, {b"first", b"0", b"1", b"2", b"last"})

    def test_a_closed_publisher_opens_again_for_the_next_message(self):
        self.broker.close()

        self.publish(b"second")

        self.assertEqual(self.take_all(), [b"first", b"second"])


class BatchTests(SimpleTestCase):
    def test_who_waits_is_told_when_all_are_confirmed(self):
        batch = Batch(2, patience=30)
        waiting = begin(batch.wait)

        batch.confirm()
        self.assertGreater(batch.left, 0)
        batch.confirm()

        self.assertTrue(waiting.result())
        self.assertEqual((batch.left, batch.abandoned), (0, False))

    def test_who_waits_in_vain_gives_up(self):
        batch = Batch(1, patience=0.05)

        self.assertFalse(batch.wait())

        self.assertTrue(batch.abandoned)

    def test_who_waits_for_what_has_failed_is_told_at_once(self):
        batch = Batch(2, patience=30)
        error = BrokerUnavailable("no")

        batch.fail(error)
        batch.fail(error)

        self.assertFalse(batch.wait())
        self.assertEqual((batch.error, batch.missing), (error, 2))


class OutletTests(SimpleTestCase):
    def test_the_reason_why_a_connection_was_given_up_is_not_that_it_was_given_up(self):
        outlet = Outlet(mock.Mock(), mock.Mock())
        reason = BrokerUnavailable("RabbitMQ sent no confirmation.")
        link = mock.Mock()
        # As pika does: to drop the connection closes its channels.
        link.drop.side_effect = lambda: outlet._on_channel_closed(None, OSError("dropped"))
        outlet._link = link

        outlet.give_up(reason)

        self.assertIs(outlet.trouble, reason)
        self.assertEqual((outlet.is_open, outlet.failures), (False, 1))
