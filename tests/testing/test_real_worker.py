"""``real_worker()``: a worker process on the database of the test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import TestCase, TransactionTestCase, tag

from django_actors import get_broker
from django_actors.brokers.stub import StubBroker
from django_actors.errors import QueueJoinTimeout
from django_actors.models import DeadLetter
from django_actors.test import real_worker
from tests.engine import wait_until
from tests.ledger.tasks import fail, record


@tag("processes")
class RealWorkerTests(TransactionTestCase):
    available_apps = ["django_actors"]

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="django_actors_ledger_")
        self.addCleanup(directory.cleanup)
        self.ledger = Path(directory.name, "ledger")
        self.ledger.touch()
        environment = mock.patch.dict(os.environ, {"LEDGER": str(self.ledger)})
        environment.start()
        self.addCleanup(environment.stop)

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def test_everything_has_run_in_another_process_at_the_end_of_the_block(self):
        with real_worker():
            self.assertNotIsInstance(get_broker(), StubBroker)
            record.send("now")
            record.send_with_options(args=("later",), delay=100)

        self.assertEqual({line[1] for line in self.lines()}, {"now", "later"})
        self.assertNotIn(str(os.getpid()), {line[2] for line in self.lines()})
        self.assertIsInstance(get_broker(), StubBroker)

    def test_the_test_can_wait_within_the_block(self):
        with real_worker() as worker:
            record.send("1")
            worker.join()
            self.assertEqual(len(self.lines()), 1)
            wait_until(lambda: "ready for action" in worker.log, "the worker to say so")

        self.assertIsNotNone(worker.process.poll())

    def test_dead_letters_are_in_the_database_of_the_test(self):
        with real_worker():
            fail.send_with_options(args=("x",), max_retries=0)

        self.assertEqual(DeadLetter.objects.get().error, "x always fails")

    def test_a_message_that_does_not_come_to_its_end_shows_the_log(self):
        with (
            self.assertRaisesMessage(QueueJoinTimeout, "RuntimeError: x always fails"),
            real_worker(timeout=100) as worker,
        ):
            fail.send_with_options(args=("x",), min_backoff=3_600_000, max_backoff=3_600_000)
            wait_until(lambda: "x always fails" in worker.log, "the failure")

    def test_a_worker_that_ends_by_itself_shows_its_log(self):
        with self.assertRaisesMessage(RuntimeError, "ended by itself"), real_worker() as worker:
            worker.process.kill()
            worker.process.wait()
            record.send("x")


class VisibilityTests(TestCase):
    def test_a_test_case_is_told_why_it_cannot_have_one(self):
        with (
            self.assertRaisesMessage(ImproperlyConfigured, "Use a TransactionTestCase"),
            real_worker(),
        ):
            """Never gets here."""

    def test_a_database_in_memory_is_told_too(self):
        if connection.vendor != "sqlite":
            return
        with (
            mock.patch.object(connection, "in_atomic_block", False),
            mock.patch.object(connection.creation, "is_in_memory_db", return_value=True),
            self.assertRaisesMessage(ImproperlyConfigured, "['TEST'] = {'NAME': <a file>}"),
            real_worker(),
        ):
            """Never gets here."""
