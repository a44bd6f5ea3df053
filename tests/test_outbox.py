"""Sending inside a transaction: what is rolled back never runs, what is committed always does."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.db import OperationalError, transaction

from django_actors import clock, outbox
from django_actors.brokers.database import DatabaseBroker
from django_actors.dispatcher import Dispatcher
from django_actors.errors import MessageTooLarge
from django_actors.models import Kind, QueuedMessage, WaitingMessage
from django_actors.outbox import HAND_OVER_MS, HandOver
from tests.brokers.contract import row_for
from tests.engine import EngineCase, RemoteBroker, in_thread

LOGGER = "django_actors.outbox"


class OutboxCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.greet = self.declare(lambda name: None, actor_name="greet")
        self.broker = self.make_broker()

    def make_broker(self) -> Any:
        return self.use(RemoteBroker())

    def send(self, name: str) -> str:
        return self.greet.send(name).message_id

    def rows(self) -> list[str | None]:
        return list(WaitingMessage.objects.order_by("pk").values_list("message_id", flat=True))

    def dispatch(self) -> int:
        """Run the dispatcher at a time at which nobody hands the rows over any more."""
        return Dispatcher(self.broker).run_once(now=clock.now_ms() + HAND_OVER_MS + 1)


class CommitTests(OutboxCase):
    def test_outside_of_a_transaction_a_message_goes_straight_to_the_broker(self):
        with self.assertNumQueries(0):
            sent = self.send("Ada")

        self.assertEqual(self.broker.published_ids, [sent])

    def test_inside_of_one_it_is_a_row_of_the_transaction(self):
        with transaction.atomic():
            sent = self.send("Ada")

            self.assertEqual(self.broker.published, [])
            self.assertEqual(self.rows(), [sent])
            self.assertEqual(in_thread(self.rows), [])
            self.assertEqual(WaitingMessage.objects.get().kind, Kind.OUTBOX)

    def test_after_the_commit_it_is_handed_over(self):
        with transaction.atomic():
            sent = self.send("Ada")

        self.assertEqual(self.broker.published_ids, [sent])
        self.assertEqual(self.rows(), [])

    def test_a_transaction_is_handed_over_in_one_batch_and_in_order(self):
        publish = mock.Mock(wraps=self.broker.publish)

        with mock.patch.object(self.broker, "publish", publish), transaction.atomic():
            sent = [self.send(name) for name in "abcde"]
            sent += [each.message_id for each in self.greet.send_many([("f",), ("g",)])]

        publish.assert_called_once()
        self.assertEqual(self.broker.published_ids, sent)

    def test_a_transaction_of_thousands_is_handed_over(self):
        with transaction.atomic():
            self.greet.send_many([(number,) for number in range(2_000)])

        self.assertEqual(len(self.broker.published), 2_000)
        self.assertEqual(self.rows(), [])

    def test_a_delayed_message_joins_the_transaction(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.greet.send_with_options(args=("Ada",), delay=60_000)
            raise ZeroDivisionError
        with transaction.atomic():
            sent = self.greet.send_with_options(args=("Eve",), delay=60_000)

        self.assertEqual(self.rows(), [sent.message_id])
        self.assertEqual(self.broker.published, [])

    def test_what_is_refused_leaves_nothing_in_the_transaction(self):
        with transaction.atomic():
            self.assertRaises(MessageTooLarge, self.send, "x" * 1_048_576)

        self.assertEqual((self.rows(), self.broker.published), ([], []))


class RollbackTests(OutboxCase):
    def test_what_is_rolled_back_was_never_sent(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send("Ada")
            raise ZeroDivisionError

        self.assertEqual((self.rows(), self.broker.published), ([], []))

    def test_a_savepoint_takes_with_it_what_was_sent_inside(self):
        with transaction.atomic():
            first = self.send("first")
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                self.send("inside")
                raise ZeroDivisionError
            second = self.send("second")

        self.assertEqual(self.broker.published_ids, [first, second])
        self.assertEqual(self.rows(), [])

    def test_a_savepoint_that_is_kept_keeps_the_order(self):
        with transaction.atomic():
            sent = [self.send("first")]
            with transaction.atomic():
                sent.append(self.send("inside"))
            sent.append(self.send("second"))

        self.assertEqual(self.broker.published_ids, sent)
        self.assertEqual(self.rows(), [])

    def test_an_outer_savepoint_takes_the_kept_inner_ones_with_it(self):
        with transaction.atomic():
            kept = self.send("kept")
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                with transaction.atomic():
                    self.send("inside of inside")
                self.send("inside")
                raise ZeroDivisionError

        self.assertEqual(self.broker.published_ids, [kept])
        self.assertEqual(self.rows(), [])

    def test_an_inner_savepoint_leaves_the_outer_one_alone(self):
        with transaction.atomic():
            with transaction.atomic():
                kept = [self.send("before")]
                with self.assertRaises(ZeroDivisionError), transaction.atomic():
                    self.send("inside of inside")
                    raise ZeroDivisionError
                kept.append(self.send("after"))
            with transaction.atomic():
                kept.append(self.send("another one"))

        self.assertEqual(self.broker.published_ids, kept)
        self.assertEqual(self.rows(), [])

    def test_a_block_without_a_savepoint_takes_the_whole_transaction(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send("outside")
            with transaction.atomic(savepoint=False):
                self.send("inside")
                raise ZeroDivisionError

        self.assertEqual((self.rows(), self.broker.published), ([], []))

    def test_a_rollback_that_was_asked_for_counts(self):
        with transaction.atomic():
            self.send("Ada")
            transaction.set_rollback(True)

        self.assertEqual((self.rows(), self.broker.published), ([], []))


class TroubleTests(OutboxCase):
    def test_while_the_broker_is_down_the_message_waits_for_the_dispatcher(self):
        self.broker.refuses = True
        with self.assertLogs(LOGGER, "WARNING") as logs, transaction.atomic():
            sent = self.send("Ada")
        self.assertEqual(self.rows(), [sent])
        self.assertIn("1 messages stay in the outbox", logs.output[0])
        self.broker.refuses = False

        self.assertEqual(self.dispatch(), 1)

        self.assertEqual(self.broker.published_ids, [sent])
        self.assertEqual(self.rows(), [])

    def test_a_death_after_the_commit_leaves_the_message_to_the_dispatcher(self):
        with mock.patch.object(HandOver, "__call__"), transaction.atomic():
            sent = self.send("Ada")
        self.assertEqual(self.broker.published, [])

        self.assertEqual(self.dispatch(), 1)

        self.assertEqual(self.broker.published_ids, [sent])

    def test_a_death_between_publish_and_delete_sends_twice_and_loses_nothing(self):
        with (
            mock.patch.object(
                self.broker.waiting_room, "forget_outbox", side_effect=OperationalError("Dead.")
            ),
            self.assertLogs(LOGGER, "WARNING"),
            transaction.atomic(),
        ):
            sent = self.send("Ada")

        self.dispatch()

        self.assertEqual(self.broker.published_ids, [sent, sent])
        self.assertEqual(self.rows(), [])

    def test_the_dispatcher_leaves_a_fresh_row_to_its_sender(self):
        with mock.patch.object(HandOver, "__call__"), transaction.atomic():
            self.send("Ada")

        self.assertEqual(Dispatcher(self.broker).run_once(), 0)

    def test_after_a_long_transaction_the_dispatcher_sends(self):
        began_ms = clock.now_ms()
        self.addCleanup(clock.set_source, None)
        with transaction.atomic():
            sent = self.send("Ada")
            clock.set_source(lambda: began_ms + HAND_OVER_MS)
        clock.set_source(None)

        self.assertEqual(self.broker.published, [])
        self.assertEqual(self.dispatch(), 1)
        self.assertEqual(self.broker.published_ids, [sent])

    def test_trouble_of_any_kind_is_not_the_committers(self):
        after: list[str] = []
        with (
            mock.patch.object(self.broker, "publish", side_effect=RuntimeError("A bug.")),
            self.assertLogs(LOGGER, "WARNING"),
            transaction.atomic(),
        ):
            sent = self.send("Ada")
            transaction.on_commit(lambda: after.append("ran"))

        self.assertEqual(after, ["ran"])
        self.assertEqual(self.rows(), [sent])

    def test_a_retry_written_during_the_hand_over_is_kept(self):
        self.hand_over_while_a_fast_worker_writes(Kind.SCHEDULED)

    def test_a_dead_letter_written_during_the_hand_over_is_kept(self):
        self.hand_over_while_a_fast_worker_writes(Kind.DEAD)

    def hand_over_while_a_fast_worker_writes(self, kind: Kind) -> None:
        publish = self.broker.publish

        def publish_and_run(envelopes: Any) -> None:
            publish(envelopes)
            in_thread(self.broker.waiting_room.put, [row_for(message, kind=kind)])

        with mock.patch.object(self.broker, "publish", publish_and_run), transaction.atomic():
            message = self.greet.send("Ada")

        row = WaitingMessage.objects.get()
        self.assertEqual((row.message_id, row.kind), (message.message_id, kind))

    def test_two_brokers_get_their_own_messages(self):
        other = RemoteBroker()
        with transaction.atomic():
            mine = self.send("mine")
            theirs = other.enqueue(self.greet.message("theirs")).message_id

        self.assertEqual(self.broker.published_ids, [mine])
        self.assertEqual(other.published_ids, [theirs])


class OnCommitTests(OutboxCase):
    """The setting ``on_commit``: no row; what dies after the commit is lost."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(self.settings(DJANGO_ACTORS={"ON_TRANSACTION": "on_commit"}))
        self.use(self.broker)

    def test_a_message_is_published_after_the_commit(self):
        with transaction.atomic():
            sent = self.send("Ada")
            self.assertEqual((self.rows(), self.broker.published), ([], []))

        self.assertEqual(self.broker.published_ids, [sent])

    def test_a_message_that_is_rolled_back_is_not_published(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send("Ada")
            raise ZeroDivisionError

        self.assertEqual(self.broker.published, [])


class IgnoreTests(OutboxCase):
    """The setting ``ignore``: a transaction changes nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(self.settings(DJANGO_ACTORS={"ON_TRANSACTION": "ignore"}))
        self.use(self.broker)

    def test_a_message_is_published_at_once_though_it_is_rolled_back(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            sent = self.send("Ada")
            self.assertEqual(self.broker.published_ids, [sent])
            raise ZeroDivisionError

        self.assertEqual(self.broker.published_ids, [sent])


class SameDatabaseTests(OutboxCase):
    """With the database broker on the same database the queue entry is the row."""

    def make_broker(self) -> DatabaseBroker:
        return self.use(DatabaseBroker())

    def test_the_message_joins_the_transaction_without_an_outbox(self):
        with transaction.atomic():
            sent = self.send("Ada")
            self.assertEqual(self.rows(), [])
            self.assertEqual(in_thread(QueuedMessage.objects.count), 0)

        self.assertEqual(QueuedMessage.objects.get().message_id, sent)

    def test_a_savepoint_takes_with_it_what_was_sent_inside(self):
        with transaction.atomic():
            sent = self.send("kept")
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                self.send("rolled back")
                raise ZeroDivisionError

        self.assertEqual(QueuedMessage.objects.get().message_id, sent)

    def test_on_commit_it_joins_as_well_because_nothing_is_lost_that_way(self):
        with self.settings(DJANGO_ACTORS={"ON_TRANSACTION": "on_commit"}):
            self.use(self.broker)
            with transaction.atomic():
                sent = self.send("Ada")
                self.assertEqual(QueuedMessage.objects.get().message_id, sent)
                self.assertEqual(in_thread(QueuedMessage.objects.count), 0)


class OtherDatabaseTests(OutboxCase):
    """The database broker on another database is a broker like any other."""

    databases = {"default", "other"}

    def make_broker(self) -> DatabaseBroker:
        return self.use(DatabaseBroker("database://other"))

    def queued(self) -> list[str]:
        return list(QueuedMessage.objects.using("other").values_list("message_id", flat=True))

    def test_a_message_goes_through_the_outbox(self):
        with transaction.atomic():
            sent = self.send("Ada")
            self.assertEqual(self.rows(), [sent])
            self.assertEqual(self.queued(), [])

        self.assertEqual(self.rows(), [])
        self.assertEqual(self.queued(), [sent])

    def test_a_rollback_undoes_it(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send("Ada")
            raise ZeroDivisionError

        self.assertEqual((self.rows(), self.queued()), ([], []))

    def test_the_dispatcher_moves_rows_from_one_to_the_other(self):
        with mock.patch.object(HandOver, "__call__"), transaction.atomic():
            sent = self.send("Ada")

        self.assertEqual(self.dispatch(), 1)

        self.assertEqual((self.rows(), self.queued()), ([], [sent]))


class MarginTests(OutboxCase):
    def test_a_sender_gives_up_well_before_the_dispatcher_takes_over(self):
        began_ms = clock.now_ms()
        with mock.patch.object(HandOver, "__call__"), transaction.atomic():
            self.send("Ada")

        due_ms = WaitingMessage.objects.get().due_ms
        assert due_ms is not None
        self.assertGreaterEqual(due_ms, began_ms + outbox.HAND_OVER_MS)
