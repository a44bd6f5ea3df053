"""The guide's style: a stub broker, a worker with threads, and ``join()``."""

from __future__ import annotations

from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from django_actors import Worker
from django_actors.brokers.stub import StubBroker
from django_actors.errors import QueueJoinTimeout, QueueNotFound
from tests.engine import wait_until

from .base import HelpersCase

JOIN_MS = 20_000


class GuideCase(HelpersCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.stub

    def start(self) -> Worker:
        worker = Worker(self.broker, worker_timeout=100)
        worker.start()
        self.addCleanup(worker.stop)
        return worker


class GuideTests(GuideCase, SimpleTestCase):
    def test_the_guide_s_example_works_as_written(self):
        stub_broker = self.use(StubBroker())
        stub_broker.emit_after("process_boot")
        stub_worker = Worker(stub_broker, worker_timeout=100)
        stub_worker.start()

        self.greet.send("http://example.com")
        stub_broker.join(self.greet.queue_name)
        stub_worker.join()

        stub_worker.stop()
        self.assertEqual(self.calls, ["http://example.com"])

    def test_a_join_raises_what_the_first_dead_letter_has_raised(self):
        self.start()
        error = ValueError("broken")
        self.declare_failing(error, max_retries=0).send()

        with self.assertLogs("django_actors"), self.assertRaises(ValueError) as caught:
            self.broker.join("default", timeout=JOIN_MS)

        self.assertIs(caught.exception, error)

    def test_a_join_can_leave_errors_alone(self):
        self.start()
        self.declare_failing(ValueError(), max_retries=0).send()

        with self.assertLogs("django_actors"):
            self.broker.join("default", timeout=JOIN_MS, fail_fast=False)

        [dead] = self.broker.dead_letters
        self.assertEqual(dead.actor_name, "fail")

    def test_a_join_waits_for_retries(self):
        self.start()
        self.declare_failing(ValueError(), min_backoff=20, max_backoff=20).send()

        with self.assertLogs("django_actors"):
            self.broker.join("default", timeout=JOIN_MS)

        self.assertEqual(self.calls, [(), ()])

    def test_a_join_waits_for_delayed_messages(self):
        self.start()
        self.greet.send_with_options(args=("Ada",), delay=30)

        self.broker.join("default", timeout=JOIN_MS)

        self.assertEqual(self.calls, ["Ada"])

    def test_a_queue_nobody_declared_cannot_be_joined(self):
        self.assertRaises(QueueNotFound, self.broker.join, "defualt")

    def test_a_join_without_a_worker_names_what_is_missing(self):
        self.greet.send("Ada")

        with self.assertRaisesMessage(QueueJoinTimeout, "django_actors.test.run_actors()"):
            self.broker.join("default", timeout=10)

    def test_a_flush_forgets_what_was_sent_and_leaves_workers_usable(self):
        self.greet.send("Ada")
        self.greet.send_with_options(args=("Bob",), delay=60_000)

        self.broker.flush_all()
        self.start()
        self.greet.send("Cleo")
        self.broker.join("default", timeout=JOIN_MS)

        self.assertEqual(self.calls, ["Cleo"])

    def test_a_flush_forgets_dead_letters(self):
        self.start()
        self.declare_failing(ValueError(), max_retries=0).send()
        with self.assertLogs("django_actors"):
            self.broker.join("default", timeout=JOIN_MS, fail_fast=False)

        self.broker.flush("default")

        self.assertEqual(self.broker.dead_letters, [])
        self.broker.join("default")


class TestCaseTests(GuideCase, TestCase):
    def test_a_worker_gets_what_a_test_case_sends(self):
        self.start()
        with transaction.atomic():
            self.greet.send("Ada")

        self.broker.join("default", timeout=JOIN_MS)

        self.assertEqual(self.calls, ["Ada"])

    def test_a_worker_does_not_get_what_a_savepoint_takes_back(self):
        worker = self.start()
        with self.assertRaises(KeyError), transaction.atomic():
            self.greet.send("gone")
            self.greet.send_with_options(args=("gone",), delay=1)
            raise KeyError
        self.greet.send("Ada")

        self.broker.join("default", timeout=JOIN_MS)
        worker.join()

        self.assertEqual(self.calls, ["Ada"])

    def test_a_join_inside_of_the_transaction_says_so(self):
        self.start()
        with (
            transaction.atomic(),
            self.assertRaisesMessage(QueueJoinTimeout, "join() after the block"),
        ):
            self.greet.send("Ada")
            self.broker.join("default", timeout=50)

        self.broker.join("default", timeout=JOIN_MS)
        self.assertEqual(self.calls, ["Ada"])


class CommittedTests(GuideCase, TransactionTestCase):
    available_apps = ["django_actors"]

    def test_a_worker_gets_a_message_after_the_commit(self):
        self.start()
        with transaction.atomic():
            self.greet.send("Ada")
            self.assertRaises(QueueJoinTimeout, self.broker.join, "default", timeout=50)
            self.assertEqual(self.calls, [])

        wait_until(lambda: self.calls == ["Ada"], "the message to run")
