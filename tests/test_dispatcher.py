"""The dispatcher: due messages go to the broker, none is lost, none waits longer than it must."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

from django.db import OperationalError, connections
from django.test import SimpleTestCase

from django_actors import clock, crashes, dispatcher
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.dispatcher import Dispatcher, DispatcherThread
from django_actors.errors import BrokerUnavailable
from django_actors.message import Message
from django_actors.models import CrashRecord, Kind, QueuedMessage, WaitingMessage
from tests.brokers.contract import row_for
from tests.engine import (
    TIMEOUT_S,
    EngineCase,
    RemoteBroker,
    begin,
    in_thread,
    make_message,
    needs_server,
    silence,
    wait_until,
)

LOGGER = "django_actors.dispatcher"


class DispatcherCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(self.make_broker())
        self.dispatcher = Dispatcher(self.broker, owner="me")

    def make_broker(self) -> Any:
        return RemoteBroker()

    def put(self, *due_ms: int, kind: Kind = Kind.SCHEDULED) -> list[str]:
        """Write a row for each time, and return the ids of the messages."""
        rows = [row_for(make_message(), due_ms=each, kind=kind) for each in due_ms]
        self.broker.waiting_room.put(rows)
        return [row.message_id or "" for row in rows]

    def rows(self) -> list[str | None]:
        return list(WaitingMessage.objects.order_by("pk").values_list("message_id", flat=True))


class RunOnceTests(DispatcherCase):
    def test_what_is_due_is_published_and_deleted(self):
        due, _ = self.put(0, clock.now_ms() + 600_000)

        self.assertEqual(self.dispatcher.run_once(), 1)

        self.assertEqual(self.broker.published_ids, [due])
        self.assertEqual(len(self.rows()), 1)

    def test_without_anything_due_nothing_is_published(self):
        self.assertEqual(self.dispatcher.run_once(), 0)

        self.assertEqual(self.broker.published, [])

    def test_dead_letters_stay_where_they_are(self):
        message = make_message()
        row = row_for(message, kind=Kind.DEAD)
        row.due_ms = None
        self.broker.waiting_room.put([row])

        self.assertEqual(self.dispatcher.run_once(now=2**50), 0)

    def test_messages_are_published_in_the_order_of_their_time(self):
        third, first, second = self.put(30, 10, 20)

        self.dispatcher.run_once()

        self.assertEqual(self.broker.published_ids, [first, second, third])

    def test_a_message_is_published_as_it_was_written(self):
        message = make_message("greet", "Ada", queue="mail")
        self.broker.waiting_room.put([row_for(message)])

        self.dispatcher.run_once()

        [envelope] = self.broker.published
        self.assertEqual((envelope.queue_name, envelope.body), ("mail", message.encode()))

    def test_a_batch_has_a_limit(self):
        self.put(*range(5))

        with mock.patch.object(dispatcher, "BATCH", 3):
            self.assertEqual(self.dispatcher.run_once(), 3)
            self.assertEqual(self.dispatcher.run_once(), 2)

    def test_how_long_to_sleep(self):
        self.assertIsNone(self.dispatcher.seconds_until_due())

        self.put(clock.now_ms() + 60_000)

        self.assertAlmostEqual(self.dispatcher.seconds_until_due() or 0, 60, delta=10)


class TroubleTests(DispatcherCase):
    def test_while_the_broker_is_down_the_rows_stay(self):
        [due] = self.put(0)
        self.broker.refuses = True
        self.assertRaises(BrokerUnavailable, self.dispatcher.run_once)
        self.assertEqual(self.rows(), [due])

        self.broker.refuses = False
        self.dispatcher.let_go()
        self.dispatcher.run_once(now=clock.now_ms() + 1)

        self.assertEqual(self.broker.published_ids, [due])
        self.assertEqual(self.rows(), [])

    def test_a_death_before_the_publish_loses_nothing(self):
        [due] = self.put(0)
        self.broker.waiting_room.claim_due("dead", limit=1)
        self.assertEqual(self.dispatcher.run_once(), 0)

        self.dispatcher.run_once(now=clock.now_ms() + 60_000)

        self.assertEqual(self.broker.published_ids, [due])

    def test_a_death_between_publish_and_delete_sends_twice_and_loses_nothing(self):
        [due] = self.put(0)
        with mock.patch.object(self.broker.waiting_room, "forget", side_effect=OSError("Dead.")):
            self.assertRaises(OSError, self.dispatcher.run_once)
        self.assertEqual((self.broker.published_ids, self.rows()), ([due], [due]))

        Dispatcher(self.broker, owner="survivor").run_once(now=clock.now_ms() + 60_000)

        self.assertEqual(self.broker.published_ids, [due, due])
        self.assertEqual(self.rows(), [])

    def test_a_retry_written_while_the_old_row_is_moved_is_kept(self):
        self.move_while_a_fast_worker_writes(Kind.SCHEDULED)

    def test_a_dead_letter_written_while_the_old_row_is_moved_is_kept(self):
        self.move_while_a_fast_worker_writes(Kind.DEAD)

    def move_while_a_fast_worker_writes(self, kind: Kind) -> None:
        message = make_message()
        self.broker.waiting_room.put([row_for(message)])
        publish = self.broker.publish

        def publish_and_run(envelopes: Any) -> None:
            publish(envelopes)
            again = row_for(message.copy(options={"retries": 1}), kind=kind, due_ms=2**50)
            in_thread(self.broker.waiting_room.put, [again])

        with mock.patch.object(self.broker, "publish", publish_and_run):
            self.dispatcher.run_once()
        self.dispatcher.let_go()

        row = WaitingMessage.objects.get()
        self.assertEqual((row.kind, row.attempts, row.due_ms), (kind, 1, 2**50))

    def test_many_dispatchers_send_each_message_once(self):
        sent = self.put(*range(100))

        with mock.patch.object(dispatcher, "BATCH", 7):
            tasks = [begin(self.dispatch_all, f"owner-{number}") for number in range(3)]
            for task in tasks:
                task.result()

        self.assertEqual(sorted(self.broker.published_ids), sorted(sent))
        self.assertEqual(self.rows(), [])

    def dispatch_all(self, owner: str) -> None:
        mine = Dispatcher(self.broker, owner=owner)
        while mine.seconds_until_due() == 0:
            mine.run_once()


class SameDatabaseTests(DispatcherCase):
    """With the database broker on the same database a move is one transaction."""

    def make_broker(self) -> DatabaseBroker:
        return DatabaseBroker()

    def test_a_due_message_moves_to_the_queue(self):
        [due] = self.put(0)

        self.dispatcher.run_once()

        self.assertEqual(QueuedMessage.objects.get().message_id, due)
        self.assertEqual(self.rows(), [])

    def test_a_death_at_any_moment_sends_once(self):
        [due] = self.put(0)
        with mock.patch.object(self.broker.waiting_room, "forget", side_effect=OSError("Dead.")):
            self.assertRaises(OSError, self.dispatcher.run_once)
        self.assertEqual(QueuedMessage.objects.count(), 0)

        self.dispatcher.run_once()

        self.assertEqual(QueuedMessage.objects.get().message_id, due)

    def test_messages_run_in_the_order_of_their_time(self):
        third, first, second = self.put(30, 10, 20)

        self.dispatcher.run_once()

        queued = QueuedMessage.objects.order_by("pk").values_list("message_id", flat=True)
        self.assertEqual(list(queued), [first, second, third])


class TendTests(DispatcherCase):
    def test_the_broker_is_maintained_every_few_seconds(self):
        with mock.patch.object(self.broker, "maintain") as maintain:
            self.dispatcher.tend()
            self.dispatcher.tend()
            self.assertEqual(maintain.call_count, 1)

            with mock.patch.object(time, "monotonic", return_value=time.monotonic() + 6):
                self.dispatcher.tend()
            self.assertEqual(maintain.call_count, 2)

    def test_what_is_too_old_is_pruned_every_few_minutes(self):
        row = row_for(make_message(), kind=Kind.DEAD)
        row.due_ms = None
        self.broker.waiting_room.put([row])
        crashes.count(["id"], overdue=(), detail="", alias="default")
        self.dispatcher.tend()
        self.assertEqual(WaitingMessage.objects.count(), 1)

        with (
            self.settings(DJANGO_ACTORS={"DEAD_LETTER_TTL": 0}),
            mock.patch.object(time, "monotonic", return_value=time.monotonic() + 601),
            mock.patch.object(clock, "now_ms", return_value=clock.now_ms() + 10),
            self.assertLogs(LOGGER, "INFO") as logs,
        ):
            self.dispatcher.tend()

        self.assertEqual(WaitingMessage.objects.count(), 0)
        self.assertEqual(CrashRecord.objects.count(), 0)
        self.assertIn("Pruned 1 dead letters", logs.output[0])


class ThreadTests(DispatcherCase):
    def start(self) -> DispatcherThread:
        thread = DispatcherThread(self.broker, owner="me")
        thread.start()
        self.addCleanup(self.stop, thread)
        return thread

    def stop(self, thread: DispatcherThread) -> None:
        thread.stop()
        thread.join(TIMEOUT_S)

    def test_what_is_due_is_moved_and_what_becomes_due_later_as_well(self):
        [now, soon] = self.put(0, clock.now_ms() + 150)

        self.start()

        wait_until(lambda: self.broker.published_ids == [now, soon])
        wait_until(lambda: not self.rows())

    def test_a_row_of_this_process_is_moved_at_its_time(self):
        self.start()
        self.wait_until_asleep()

        due_ms = clock.now_ms() + 100
        self.put(due_ms)

        wait_until(lambda: self.broker.published)
        self.assertGreaterEqual(clock.now_ms(), due_ms)

    def wait_until_asleep(self) -> None:
        wait_until(lambda: self.broker.waiting_room.listeners)

    def test_a_row_of_another_process_is_moved_soon(self):
        self.start()
        self.wait_until_asleep()

        other = RemoteBroker()
        other.waiting_room.put([row_for(make_message())])

        wait_until(lambda: self.broker.published)

    def test_an_outage_of_the_broker_is_said_once_and_survived(self):
        self.broker.refuses = True
        [due] = self.put(0)
        with (
            mock.patch.object(dispatcher, "LONGEST_PAUSE_S", 0.01),
            self.assertLogs(LOGGER, "WARNING") as logs,
        ):
            thread = self.start()
            wait_until(lambda: thread._failures >= 3)
            self.broker.refuses = False
            wait_until(lambda: self.broker.published)

        self.assertEqual(len(logs.records), 1)
        self.assertIn("The remote broker is out of reach", logs.output[0])
        self.assertEqual(self.broker.published_ids, [due])

    def test_an_outage_of_the_database_is_survived(self):
        failures = [OperationalError("The server is away.")] * 3
        wait_ms = self.broker.waiting_room.wait_ms

        def fail_first() -> Any:
            if failures:
                raise failures.pop()
            return wait_ms()

        self.put(0)
        with (
            mock.patch.object(dispatcher, "LONGEST_PAUSE_S", 0.01),
            mock.patch.object(self.broker.waiting_room, "wait_ms", fail_first),
            silence(),
        ):
            self.start()
            wait_until(lambda: self.broker.published)

    @needs_server
    def test_a_restart_of_the_database_is_survived(self):
        with mock.patch.object(dispatcher, "LONGEST_PAUSE_S", 0.01), silence():
            thread = self.start()
            self.wait_until_asleep()

            self.cut_connections()
            connections.close_all()
            self.put(0)

            wait_until(lambda: self.broker.published)
        self.assertTrue(thread.is_alive())

    def test_an_error_nobody_expected_does_not_end_the_thread(self):
        failures = [RuntimeError("A bug.")]

        def fail_first() -> None:
            if failures:
                raise failures.pop()

        with (
            mock.patch.object(dispatcher, "LONGEST_PAUSE_S", 0.01),
            mock.patch.object(self.broker, "maintain", fail_first),
            self.assertLogs(LOGGER, "ERROR"),
        ):
            self.put(0)
            self.start()
            wait_until(lambda: self.broker.published)

    def test_rows_in_the_hands_of_another_dispatcher_are_no_reason_to_spin(self):
        asked = mock.Mock(return_value=0)
        with (
            mock.patch.object(self.broker.waiting_room, "wait_ms", asked),
            mock.patch.object(self.broker.waiting_room, "claim_due", return_value=[]),
        ):
            self.start()
            wait_until(lambda: asked.call_count >= 5)
            count, began = asked.call_count, time.monotonic()
            wait_until(lambda: asked.call_count >= count + 10)

        self.assertGreater(time.monotonic() - began, 10 * 0.02 * 0.5)

    def test_a_sleeping_dispatcher_stops_at_once_and_listens_no_more(self):
        self.enterContext(mock.patch.object(dispatcher, "LONGEST_WAIT_S", 20.0))
        thread = self.start()
        self.wait_until_asleep()
        began = time.monotonic()

        self.stop(thread)

        self.assertFalse(thread.is_alive())
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(self.broker.waiting_room.listeners, set())
        self.put(0)


class StubTests(SimpleTestCase):
    """The dispatcher runs on a waiting room in memory as well."""

    def test_a_due_message_is_published(self):
        broker = StubBroker()
        broker.enqueue(Message("default", "greet", (), {}, {}), delay=1_000)

        self.assertEqual(Dispatcher(broker).run_once(), 0)
        self.assertEqual(Dispatcher(broker).run_once(now=clock.now_ms() + 1_000), 1)

        self.assertEqual(broker.queue_size("default").ready, 1)
        self.assertIsNone(broker.waiting_room.wait_ms())
