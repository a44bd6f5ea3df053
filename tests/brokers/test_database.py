"""The database broker: the contract on the database of this run, and what is its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from django.db import (
    Error as DatabaseError,
)
from django.db import (
    OperationalError,
    connections,
    transaction,
)
from django.test import SimpleTestCase

from django_actors import wakeup
from django_actors.brokers import database
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.brokers.database import DatabaseBroker, again_after_reconnect
from django_actors.errors import BrokerUnavailable
from django_actors.message import Envelope
from django_actors.models import Lease, QueuedMessage
from tests.engine import (
    EngineCase,
    begin,
    envelop,
    in_thread,
    make_message,
    needs_server,
    silence,
    wait_until,
)

from .contract import PASSWORD, PROMPT_S, ServerContract, bodies_of

UNREACHABLE = {
    "sqlite": {"NAME": "/no/such/directory/db.sqlite3", "PASSWORD": PASSWORD},
    "postgresql": {"HOST": "127.0.0.1", "PORT": "1", "PASSWORD": PASSWORD},
    "mysql": {"HOST": "127.0.0.1", "PORT": "1", "PASSWORD": PASSWORD},
}


class DatabaseBrokerTests(ServerContract, EngineCase):
    tells_age = True

    """All of the contract holds on Django's own database."""

    unreachable_place = "'default'"

    def setUp(self) -> None:
        super().setUp()
        # PostgreSQL tells of every message; the look around that is there for safety hides it.
        self.enterContext(mock.patch.object(wakeup, "LISTEN_S", 60.0))

    def make_broker(self) -> DatabaseBroker:
        return DatabaseBroker()

    def expire(self, owner: str) -> None:
        Lease.objects.filter(owner=owner).update(expires_ms=1)

    def call_unreachable(self, function: Callable[[Broker], Any]) -> Any:
        return in_thread(self._call_unreachable, function)

    def _call_unreachable(self, function: Callable[[Broker], Any]) -> Any:
        connection = connections["default"]
        connection.settings_dict = {**connection.settings_dict, **UNREACHABLE[connection.vendor]}
        return function(DatabaseBroker())


class DatabaseCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())

    def consume(self, owner: str = "owner") -> Consumer:
        consumer = self.broker.consume(["default"], owner=owner)
        self.addCleanup(consumer.close)
        return consumer

    def publish(self, *bodies: bytes) -> None:
        self.broker.publish([Envelope("id", "default", 0, body) for body in bodies])


class UrlTests(SimpleTestCase):
    def test_the_url_names_the_database(self):
        self.assertEqual(DatabaseBroker("database://default").alias, "default")
        self.assertEqual(DatabaseBroker("database://").alias, "default")

    def test_a_database_that_does_not_exist_is_an_error_that_names_those_that_do(self):
        with self.assertRaisesMessage(ValueError, "names the database 'defualt'"):
            DatabaseBroker("database://defualt")
        with self.assertRaisesMessage(ValueError, "It has: default"):
            DatabaseBroker("database://defualt")


class PublishingTests(DatabaseCase):
    def test_a_single_message_takes_a_single_statement(self):
        with self.assertNumQueries(1):
            self.publish(b"x")

    def test_a_batch_of_many_statements_is_published_whole_or_not_at_all(self):
        bodies: list[Any] = [b"x"] * 300 + [None] + [b"x"] * 300

        self.assertRaises(DatabaseError, self.publish, *bodies)

        self.assertEqual(QueuedMessage.objects.count(), 0)

    def test_a_message_joins_the_transaction_of_its_sender(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.publish(b"rolled back")
            raise ZeroDivisionError
        with transaction.atomic():
            self.publish(b"committed")
            self.assertEqual(in_thread(QueuedMessage.objects.count), 0)

        self.assertEqual(bodies_of(self.consume().fetch(9, timeout=1)), [b"committed"])

    def test_who_waits_hears_of_a_message_when_it_is_committed(self):
        waiting = begin(self.wait_for_one)
        wait_until(Lease.objects.exists)

        with transaction.atomic():
            self.publish(b"x")
            published_at = time.monotonic()

        body, came_at = waiting.result()
        self.assertEqual(body, b"x")
        self.assertLess(came_at - published_at, PROMPT_S)

    def wait_for_one(self) -> tuple[bytes, float]:
        consumer = self.broker.consume(["default"], owner="waiting")
        try:
            [delivery] = wait_until(lambda: consumer.fetch(1, timeout=20))
            return delivery.body, time.monotonic()
        finally:
            consumer.close()

    def test_a_consumer_sees_what_its_own_connection_has_published(self):
        consumer = self.consume()
        self.assertEqual(consumer.fetch(1, timeout=0), [])

        with transaction.atomic():
            self.publish(b"x")

        self.assertEqual(bodies_of(consumer.fetch(1, timeout=0)), [b"x"])

    def test_missing_tables_are_reported_with_the_way_to_make_them(self):
        with (
            mock.patch.object(QueuedMessage._meta, "db_table", "missing_table"),
            self.assertRaisesMessage(BrokerUnavailable, "Run manage.py migrate."),
        ):
            self.broker.ping()


class DeadConnectionTests(DatabaseCase):
    @needs_server
    def test_a_publisher_connects_again(self):
        self.publish(b"before")

        self.cut_connections()
        self.publish(b"after")

        self.assertEqual(bodies_of(self.consume().fetch(9, timeout=1)), [b"before", b"after"])

    @needs_server
    def test_inside_a_transaction_a_dead_connection_is_an_error(self):
        with self.assertRaises(DatabaseError), transaction.atomic():
            QueuedMessage.objects.count()
            self.cut_connections()
            with self.assertRaises(BrokerUnavailable):
                self.publish(b"x")
            # Nobody may think that the transaction was committed.
            raise OperationalError

        self.assertEqual(QueuedMessage.objects.count(), 0)

    @needs_server
    def test_a_consumer_connects_again_and_can_settle_what_it_had(self):
        self.publish(b"1", b"2")
        consumer = self.consume()
        [first] = consumer.fetch(1, timeout=1)

        self.cut_connections()
        self.until_it_answers(lambda: consumer.ack([first]))

        self.assertEqual([bytes(row.body) for row in QueuedMessage.objects.all()], [b"2"])
        self.assertEqual(bodies_of(consumer.fetch(1, timeout=1)), [b"2"])

    def test_a_claim_whose_answer_is_lost_is_made_again(self):
        self.publish(b"1", b"2", b"3")
        consumer = self.consume()
        [held] = consumer.fetch(1, timeout=1)
        claim = database._claim.run

        def claim_and_die(*args: Any, **options: Any) -> Any:
            claim(*args, **options)
            raise OperationalError("server closed the connection unexpectedly")

        with (
            mock.patch.object(database._claim, "run", claim_and_die),
            self.assertRaises(BrokerUnavailable),
        ):
            consumer.fetch(9, timeout=1)
        self.assertEqual(self.broker.queue_size("default"), (0, 3))

        with self.assertLogs("django_actors.brokers.database", "WARNING") as logs:
            found = self.until_it_answers(lambda: consumer.fetch(9, timeout=1))

        self.assertEqual(bodies_of(found), [b"2", b"3"])
        self.assertIn("Gave back 2 messages", logs.output[0])
        consumer.ack([held, *found])
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    @needs_server
    def test_a_consumer_that_only_waits_notices_and_hears_again(self):
        waiting = begin(self.wait_through_an_outage)
        wait_until(Lease.objects.exists)

        self.cut_connections()
        self.publish(b"x")

        self.assertEqual(waiting.result(), b"x")

    def wait_through_an_outage(self) -> bytes:
        consumer = self.broker.consume(["default"], owner="waiting")
        try:
            [delivery] = self.until_it_answers(
                lambda: wait_until(lambda: consumer.fetch(1, timeout=0.5))
            )
            return bytes(delivery.body)
        finally:
            consumer.close()

    @needs_server
    def test_what_a_consumer_puts_back_is_put_back_after_an_outage(self):
        self.publish(b"x")
        consumer = self.consume()
        deliveries = consumer.fetch(1, timeout=1)

        self.cut_connections()
        self.until_it_answers(lambda: consumer.put_back(deliveries))

        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def until_it_answers(self, call: Callable[[], Any]) -> Any:
        """Call again as a worker does; whoever has said so twice must have connected again."""
        for _ in range(2):
            try:
                return call()
            except BrokerUnavailable:
                continue
        return call()


class LeaseTests(DatabaseCase):
    def expiry(self) -> int:
        return Lease.objects.get().expires_ms - time.time_ns() // 1_000_000

    def test_who_has_claimed_has_a_lease(self):
        consumer = self.consume()

        consumer.fetch(0, timeout=0)

        self.assertEqual(Lease.objects.get().owner, "owner")
        self.assertAlmostEqual(self.expiry(), database.LEASE_MS, delta=5_000)

    def test_a_fetch_renews_the_lease_in_time(self):
        consumer = self.consume()
        consumer.fetch(0, timeout=0)
        Lease.objects.update(expires_ms=1)

        later = time.monotonic() + database.RENEW_S
        with mock.patch.object(time, "monotonic", return_value=later):
            consumer.fetch(0, timeout=0)

        self.assertAlmostEqual(self.expiry(), database.LEASE_MS, delta=5_000)

    def test_a_lease_is_not_written_at_every_fetch(self):
        consumer = self.consume()
        consumer.fetch(1, timeout=0)

        with self.assertNumQueries(0):
            consumer.fetch(1, timeout=0)

    def test_a_lease_is_longer_than_several_renewals_take(self):
        self.assertGreaterEqual(database.LEASE_MS, 3_000 * database.RENEW_S)

    def test_a_lease_that_was_taken_away_is_taken_out_again(self):
        consumer = self.consume()
        consumer.fetch(0, timeout=0)
        Lease.objects.all().delete()
        consumer._renew_at = 0.0  # type: ignore[attr-defined]

        consumer.fetch(0, timeout=0)

        self.assertEqual(Lease.objects.get().owner, "owner")

    def test_an_expired_lease_is_removed_with_the_claims_it_stood_for(self):
        self.publish(b"x")
        self.consume().fetch(1, timeout=1)
        Lease.objects.update(expires_ms=1)

        with self.assertLogs("django_actors.brokers.database", "WARNING") as logs:
            self.broker.maintain()

        self.assertEqual(
            logs.records[0].getMessage(), "Gave back 1 messages of workers that are gone"
        )
        self.assertEqual(Lease.objects.count(), 0)
        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_claims_without_any_lease_are_given_back(self):
        self.publish(b"x")
        QueuedMessage.objects.update(claimed_by="nobody")

        with silence():
            self.broker.maintain()

        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_nothing_is_said_where_nothing_was_given_back(self):
        self.publish(b"x")
        self.consume().fetch(1, timeout=1)

        with self.assertNoLogs("django_actors.brokers.database"):
            self.broker.maintain()

        self.assertEqual(self.broker.queue_size("default"), (0, 1))

    def test_a_released_owner_has_no_lease(self):
        self.consume().fetch(0, timeout=0)

        self.broker.release("owner", done=())

        self.assertEqual(Lease.objects.count(), 0)

    def test_a_consumer_that_closes_leaves_no_lease(self):
        consumer = self.consume()
        consumer.fetch(0, timeout=0)

        consumer.close()

        self.assertEqual(Lease.objects.count(), 0)


class OtherDatabaseTests(EngineCase):
    """The queue is in another database than the waiting room."""

    databases = {"default", "other"}

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker("database://other"))

    def test_messages_travel_through_the_other_database(self):
        self.broker.publish([envelop(make_message())])

        self.assertEqual(QueuedMessage.objects.using("other").count(), 1)
        self.assertEqual(QueuedMessage.objects.using("default").count(), 0)

    def test_a_transaction_on_one_is_none_on_the_other(self):
        with transaction.atomic(using="default"):
            self.assertFalse(self.broker.joins_transaction)
        with transaction.atomic(using="other"):
            self.assertFalse(self.broker.joins_transaction)

    def test_the_whole_way_of_a_message_works_there(self):
        self.broker.publish([envelop(make_message())])
        consumer = self.broker.consume(["default"], owner="owner")
        self.addCleanup(consumer.close)

        consumer.ack(consumer.fetch(1, timeout=1))

        self.assertEqual(self.broker.queue_size("default"), (0, 0))


class ReconnectTests(SimpleTestCase):
    """Work is done once more where the connection had died, and only there."""

    def setUp(self) -> None:
        self.connection = mock.Mock(in_atomic_block=False)
        self.enterContext(mock.patch.object(time, "sleep"))

    def test_a_dead_connection_is_replaced_once(self):
        self.connection.is_usable.return_value = False
        work = mock.Mock(side_effect=[OperationalError("server has gone away"), "done"])

        self.assertEqual(again_after_reconnect(self.connection, work), "done")

        self.connection.close.assert_called_once()

    def test_a_server_that_stays_away_is_an_error(self):
        self.connection.is_usable.return_value = False
        work = mock.Mock(side_effect=OperationalError("server has gone away"))

        self.assertRaises(OperationalError, again_after_reconnect, self.connection, work)

        self.assertEqual(work.call_count, 2)

    def test_work_that_failed_on_a_living_connection_is_not_done_again(self):
        self.connection.is_usable.return_value = True
        work = mock.Mock(side_effect=OperationalError("disk full"))

        self.assertRaises(OperationalError, again_after_reconnect, self.connection, work)

        work.assert_called_once()
