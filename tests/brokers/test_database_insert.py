"""Messages get into the queue table unchanged, at once, and whoever waits is told."""

from __future__ import annotations

import time
from unittest import mock

from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_actors import wakeup
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.database_insert import ROWS_AT_ONCE, insert
from django_actors.message import Envelope, generate_message_id
from django_actors.models import Lease, QueuedMessage
from tests.engine import EngineCase, begin, wait_until

from .contract import PROMPT_S

# What has a meaning in some statement, or in an array of PostgreSQL.
SPECIAL = ["NULL", "null", "", " ", "{}", "{a,b}", "a,b", '"', "'", "\\", '\\"', "%s", "%", "é"]


def envelopes(count: int) -> list[Envelope]:
    return [Envelope(generate_message_id(), "default", n, b"%d" % n) for n in range(count)]


class InsertTests(EngineCase):
    def test_any_text_and_any_bytes_of_a_batch_are_kept(self):
        sent = [
            Envelope(text, text, number - 5, text.encode() + b"\0\\\xff")
            for number, text in enumerate(SPECIAL)
        ]

        insert(connections["default"], sent)

        self.assertEqual(self.rows(), sent)

    def test_a_batch_of_any_size_is_kept_in_its_order(self):
        for count in (1, 2, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE + 2):
            with self.subTest(count):
                QueuedMessage.objects.all().delete()
                sent = envelopes(count)

                insert(connections["default"], sent)

                self.assertEqual(self.rows(), sent)

    def test_a_batch_takes_a_single_statement(self):
        for count in (1, 2, ROWS_AT_ONCE):
            with self.subTest(count), CaptureQueriesContext(connections["default"]) as queries:
                insert(connections["default"], envelopes(count))
            self.assertEqual(len(queries), 1)

    def test_the_database_says_since_when_a_message_is_there(self):
        before = time.time()

        insert(connections["default"], envelopes(1))
        insert(connections["default"], envelopes(2))

        for since_ms in QueuedMessage.objects.values_list("enqueued_ms", flat=True):
            self.assertAlmostEqual(since_ms / 1_000, before, delta=60)

    def test_who_waits_hears_of_a_batch(self):
        # A look around at PostgreSQL for safety's sake would find it as well.
        self.enterContext(mock.patch.object(wakeup, "LISTEN_S", 60.0))
        for count in (1, 2, 3):
            with self.subTest(count):
                waiting = begin(self.wait_for, count)
                wait_until(Lease.objects.exists)

                insert(connections["default"], envelopes(count))
                inserted_at = time.monotonic()

                self.assertLess(waiting.result() - inserted_at, PROMPT_S)
                Lease.objects.all().delete()

    def wait_for(self, count: int) -> float:
        consumer = DatabaseBroker().consume(["default"], owner="waiting")
        try:
            deliveries = wait_until(lambda: consumer.fetch(count, timeout=20))
            came_at = time.monotonic()
            consumer.ack(deliveries)
            return came_at
        finally:
            consumer.close()

    def rows(self) -> list[Envelope]:
        return [
            Envelope(row.message_id, row.queue_name, row.priority, bytes(row.body))
            for row in QueuedMessage.objects.order_by("pk")
        ]
