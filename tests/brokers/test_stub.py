"""The stub broker: the contract, and what the guide says about tests with threads."""

from __future__ import annotations

from typing import Any

from django.test import SimpleTestCase, TestCase

from django_actors.brokers.stub import StubBroker
from django_actors.errors import QueueJoinTimeout, QueueNotFound
from django_actors.models import WaitingMessage
from tests.engine import ActorsMixin, silence, wait_until

from .contract import BrokerContract


class StubBrokerTests(BrokerContract, ActorsMixin, TestCase):
    """All of the contract holds in memory; other processes are the same one."""

    stub: StubBroker

    def make_broker(self) -> StubBroker:
        if not hasattr(self, "stub"):
            self.stub = StubBroker()
        return self.stub

    def expire(self, owner: str) -> None:
        # There is no lease: the memory of a dead process is gone.
        self.stub.release(owner, done=())

    def rows(self) -> list[WaitingMessage]:
        return list(self.stub.room.rows.values())


class GuideCase(ActorsMixin, SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(StubBroker())
        self.ran: list[Any] = []
        self.note = self.declare(self.ran.append, actor_name="note")
        self.fail_with = self.declare(self.raise_error, actor_name="fail_with", max_retries=0)

    def raise_error(self, text: str) -> None:
        raise ValueError(text)


class JoinTests(GuideCase):
    def test_it_waits_for_what_is_queued_running_delayed_and_retried(self):
        attempts: list[int] = []

        def fail_once() -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise ValueError

        flaky = self.declare(fail_once, actor_name="flaky", min_backoff=30, max_backoff=30)
        with silence():
            self.start_worker(self.broker)
            flaky.send()
            self.note.send_with_options(args=("later",), delay=50)

            self.broker.join("default", timeout=10_000)

        self.assertEqual((len(attempts), self.ran), (2, ["later"]))

    def test_it_raises_the_first_error_when_everything_is_done(self):
        with silence():
            self.start_worker(self.broker, worker_threads=1)
            self.fail_with.send("first")
            self.fail_with.send("second")
            self.note.send("ran")

            with self.assertRaisesMessage(ValueError, "first"):
                self.broker.join("default", timeout=10_000)

        self.assertEqual(self.ran, ["ran"])

    def test_the_broker_can_be_told_not_to_raise(self):
        self.broker.fail_fast = False
        with silence():
            self.start_worker(self.broker)
            self.fail_with.send("x")

            self.broker.join("default", timeout=10_000)
            with self.assertRaises(ValueError):
                self.broker.join("default", fail_fast=True)

    def test_errors_of_other_queues_are_none_of_its_business(self):
        other = self.declare(
            self.raise_error, actor_name="other", queue_name="other", max_retries=0
        )
        with silence():
            self.start_worker(self.broker)
            other.send("x")
            wait_until(lambda: self.broker.dead_letters)

            self.broker.join("default", timeout=10_000)

    def test_it_ends_with_its_timeout(self):
        self.note.send("never")

        with self.assertRaisesMessage(QueueJoinTimeout, "after 20 ms"):
            self.broker.join("default", timeout=20)

    def test_a_queue_that_nobody_declared_is_an_error(self):
        self.assertRaises(QueueNotFound, self.broker.join, "nobody_declared_it")


class LookTests(GuideCase):
    def test_dead_letters_can_be_looked_at(self):
        with silence():
            self.start_worker(self.broker)
            self.fail_with.send("x")
            self.broker.join("default", timeout=10_000, fail_fast=False)

        [dead] = self.broker.dead_letters
        self.assertEqual((dead.actor_name, dead.args), ("fail_with", ("x",)))
        self.assertIsInstance(dead.exception, ValueError)

    def test_a_queue_can_be_counted(self):
        self.note.send_many([(1,), (2,)])

        self.assertEqual(len(self.broker.queues["default"]), 2)

    def test_messages_really_pass_through_their_wire_form(self):
        self.start_worker(self.broker)

        self.note.send((1, 2))

        wait_until(lambda: self.ran)
        self.assertEqual(self.ran, [[1, 2]])
        with self.assertRaises(TypeError):
            self.note.send(object())


class FlushTests(GuideCase):
    def test_a_flush_forgets_what_waits_and_what_is_dead(self):
        with silence():
            worker = self.start_worker(self.broker)
            self.fail_with.send("x")
            self.broker.join("default", timeout=10_000, fail_fast=False)
            worker.stop()
        self.note.send("queued")
        self.note.send_with_options(args=("delayed",), delay=600_000)

        self.broker.flush("default")

        self.assertEqual(self.broker.dead_letters, [])
        self.assertEqual(self.broker.room.rows, {})
        self.broker.join("default")

    def test_a_running_worker_goes_on_after_it(self):
        self.start_worker(self.broker)
        self.note.send("before")
        self.broker.join("default", timeout=10_000)

        self.broker.flush_all()
        self.note.send("after")
        self.broker.join("default", timeout=10_000)

        self.assertEqual(self.ran, ["before", "after"])

    def test_a_queue_that_nobody_declared_is_an_error(self):
        self.assertRaises(QueueNotFound, self.broker.flush, "nobody_declared_it")
