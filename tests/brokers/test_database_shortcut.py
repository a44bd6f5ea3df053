"""A single message may go past the cursors, and nothing but the time it takes tells of it."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError, connection, transaction
from django.test import tag
from django.test.utils import CaptureQueriesContext

from django_actors.brokers import database_insert
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.database_shortcut import PREPARE_AFTER, insert_one
from django_actors.message import Envelope, generate_message_id
from django_actors.models import QueuedMessage
from tests.engine import EngineCase, in_thread, needs_server

from .test_database_insert import SPECIAL

# More than it takes to have a statement prepared.
MANY = 2 * PREPARE_AFTER


def envelope(queue_name: str = "default", body: bytes = b"x") -> Envelope:
    return Envelope(generate_message_id(), queue_name, 0, body)


class ShortcutCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        # Whether statements are prepared is a matter of what a connection has sent before.
        connection.close()
        connection.ensure_connection()
        self.broker = DatabaseBroker()
        self.ways: list[bool] = []
        spy = mock.patch.object(database_insert, "insert_one", self.insert_and_note)
        self.enterContext(spy)

    def insert_and_note(self, *arguments: Any) -> bool:
        self.ways.append(insert_one(*arguments))
        return self.ways[-1]

    def send(self, *envelopes: Envelope) -> None:
        for each in envelopes:
            self.broker.publish([each])

    def send_many(self, count: int = MANY) -> list[Envelope]:
        sent = [envelope(body=b"%d" % number) for number in range(count)]
        self.send(*sent)
        return sent

    def rows(self) -> list[Envelope]:
        return [
            Envelope(row.message_id, row.queue_name, row.priority, bytes(row.body))
            for row in QueuedMessage.objects.order_by("pk")
        ]


class WayTests(ShortcutCase):
    def test_it_is_taken_where_there_is_one(self):
        expected = {
            "sqlite": [True] * MANY,
            "postgresql": [False] * PREPARE_AFTER + [True] * (MANY - PREPARE_AFTER),
        }

        self.send_many()

        self.assertEqual(self.ways, expected.get(connection.vendor, [False] * MANY))

    def test_any_text_and_any_bytes_are_kept(self):
        sent = [
            Envelope(text, text, number - 5, text.encode() + b"\0\\\xff")
            for number, text in enumerate(SPECIAL)
        ]

        self.send(*sent)

        self.assertGreater(len(sent), MANY)
        self.assertEqual(self.rows(), sent)

    @tag("postgresql")
    def test_a_name_that_the_database_refuses_is_refused_whole(self):
        sent = self.send_many()

        self.assertRaises(DataError, self.send, envelope("cut\0here"))

        self.assertEqual(self.rows(), sent)

    def test_a_transaction_takes_a_message_with_it(self):
        self.send_many()
        QueuedMessage.objects.all().delete()

        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send_many(1)
            raise ZeroDivisionError
        with transaction.atomic():
            sent = self.send_many(1)
            self.assertEqual(in_thread(QueuedMessage.objects.count), 0)

        self.assertEqual(self.rows(), sent)

    def test_a_coroutine_is_told_not_to(self):
        self.send_many()

        async def send() -> None:
            self.send_many(1)

        self.assertRaises(SynchronousOnlyOperation, asyncio.run, send())

    @needs_server
    def test_a_connection_that_has_died_is_replaced(self):
        sent = self.send_many()
        self.cut_connections()

        sent += self.send_many()

        self.assertEqual(self.rows(), sent)


class WatchedTests(ShortcutCase):
    """Whoever watches what runs on a connection sees it."""

    def test_the_log_of_queries(self):
        with CaptureQueriesContext(connection) as queries:
            self.send_many()

        self.assertEqual(len(queries), MANY)

    def test_a_wrapper_of_queries(self):
        seen = []

        def wrapper(execute, sql, *rest):
            seen.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(wrapper):
            self.send_many()

        self.assertEqual(len(seen), MANY)

    def test_a_cursor_in_place_of_the_connection_s_own(self):
        own = connection.cursor
        with mock.patch.object(connection, "cursor", side_effect=own) as cursor:
            self.send_many()

        self.assertEqual(cursor.call_count, MANY)


@tag("postgresql")
class PreparedTests(ShortcutCase):
    """PostgreSQL, where a pooler may put another server process behind a connection."""

    def prepared(self) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_prepared_statements")
            return [name for (name,) in cursor.fetchall()]

    def forget(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")

    def test_a_connection_that_sends_little_prepares_nothing(self):
        self.send_many(PREPARE_AFTER)

        self.assertEqual(self.prepared(), [])

    def test_one_that_sends_more_prepares_one_statement(self):
        self.send_many()

        self.assertEqual(len(self.prepared()), 1)

    def test_a_process_that_has_not_prepared_it_costs_no_message_and_none_twice(self):
        sent = self.send_many()
        self.forget()

        sent += self.send_many()

        self.assertEqual(self.rows(), sent)
        # It is not tried again: each time would be a line in the log of the server.
        self.assertEqual(self.ways[MANY:], [False] * MANY)

    def test_a_process_that_has_prepared_it_for_another_connection_is_as_good(self):
        self.send_many()
        (name,) = self.prepared()
        definition = self.definition()
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute(f"PREPARE {name} AS {definition}")
        QueuedMessage.objects.all().delete()
        self.ways.clear()

        sent = self.send_many()

        self.assertEqual(self.rows(), sent)
        self.assertEqual(self.ways[PREPARE_AFTER:], [True] * (MANY - PREPARE_AFTER))

    def definition(self) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements")
            ((statement,),) = cursor.fetchall()
            return str(statement)

    def test_a_transaction_that_is_not_django_s_own_is_left_alone(self):
        sent = self.send_many()
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            self.send_many(1)
            cursor.execute("ROLLBACK")

        self.assertEqual(self.ways[-1], False)
        self.assertEqual(self.rows(), sent)
