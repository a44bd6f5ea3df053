"""What is remembered of messages that failed, and that it stays little."""

from __future__ import annotations

import threading
from unittest import mock

from django.db import DatabaseError, connection
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext

from django_actors import clock, crashes, failures
from django_actors.brokers.database import DatabaseBroker
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.dispatcher import Dispatcher
from django_actors.errors import Retry
from django_actors.executor import Executor
from django_actors.models import (
    Attempt,
    DeadLetter,
    ErrorCount,
    ErrorGroup,
    Outcome,
    ScheduledMessage,
    WaitingMessage,
)
from django_actors.waiting_room import WaitingRoom
from tests.engine import ActorsMixin, EngineCase, begin, make_message, silence

DAY_MS = 86_400_000


def ship(order):
    if order == "lost":
        raise KeyError(order)
    if order == "later":
        raise Retry("not yet", delay=1_000)


class SettleMixin(ActorsMixin):
    def setUp(self):
        super().setUp()
        self.ship = self.declare(ship, actor_name="ship", max_retries=2)
        self.broker = self.use(DatabaseBroker())

    def run_once(self, *messages):
        """Have the messages run and settled as a worker does; return their deliveries."""
        executor = Executor(self.broker)
        deliveries = [Delivery(message.encode(), queue_name="default") for message in messages]
        with silence():
            for delivery in deliveries:
                executor.run(delivery)
        consumer = mock.Mock()
        self.broker.settle(consumer, deliveries)
        return deliveries

    def run_to_death(self, message):
        for _ in range(3):
            (delivery,) = self.run_once(message)
            message = delivery.message
        return DeadLetter.objects.get(message_id=message.message_id)

    def story(self, message):
        rows = Attempt.objects.filter(message_id=message.message_id).order_by("id")
        return [(row.number, row.outcome) for row in rows]


class AttemptTests(SettleMixin, TestCase):
    def test_a_message_that_succeeds_at_once_leaves_nothing_and_costs_nothing(self):
        with CaptureQueriesContext(connection) as queries:
            self.run_once(self.ship.message("1"), self.ship.message("2"))

        self.assertEqual(len(queries), 0)
        self.assertFalse(Attempt.objects.exists())
        self.assertFalse(ErrorGroup.objects.exists())

    def test_each_failure_is_remembered_with_where_and_when(self):
        message = self.ship.message("lost")

        self.run_to_death(message)

        self.assertEqual(self.story(message), [(1, "retried"), (2, "retried"), (3, "dead")])
        first = Attempt.objects.earliest("id")
        self.assertEqual((first.error_class, first.error), ("KeyError", "'lost'"))
        self.assertEqual((first.actor_name, first.queue_name), ("ship", "default"))
        self.assertTrue(first.frame.startswith("tests.test_failures.ship:"))
        self.assertGreater(first.pid, 0)
        self.assertTrue(first.host)
        assert first.began_ms is not None and first.retry_ms is not None
        self.assertLessEqual(first.began_ms, first.ended_ms)
        self.assertGreater(first.retry_ms, first.ended_ms)

    def test_the_success_of_a_retry_ends_the_story(self):
        message = self.ship.message("lost")
        (delivery,) = self.run_once(message)
        assert delivery.message is not None

        self.run_once(delivery.message.copy(args=("found",)))

        self.assertEqual(self.story(message), [(1, "retried"), (2, "succeeded")])

    def test_the_success_of_a_message_whose_worker_died_ends_the_story(self):
        message = self.ship.message("found")
        crashes.count([message.message_id], overdue=(), detail="died", alias="default")
        delivery = Delivery(message.encode(), queue_name="default", redelivered=True)

        Executor(self.broker).run(delivery)
        self.broker.settle(mock.Mock(), [delivery])

        self.assertEqual(self.story(message), [(1, "succeeded")])

    def test_a_requeue_and_the_success_after_it_are_part_of_the_story(self):
        row = self.run_to_death(self.ship.message("lost"))

        (message,) = WaitingRoom().requeue(
            [row], edit=lambda message: message.copy(args=("found",)), by="ada"
        )
        self.run_once(message)

        self.assertEqual(self.story(message)[3:], [(0, Outcome.REQUEUED), (1, Outcome.SUCCEEDED)])
        self.assertEqual(Attempt.objects.get(outcome=Outcome.REQUEUED).by, "ada")

    def test_the_success_of_a_scheduled_message_that_an_operator_touched_is_part_of_it(self):
        messages = [self.ship.message("1"), self.ship.message("2")]
        for each in messages:
            self.broker.enqueue(each, delay=60_000)
        touched = ScheduledMessage.objects.filter(message_id=messages[0].message_id)

        WaitingRoom().reschedule(touched, due_ms=clock.now_ms(), by="ada")
        self.run_once(*(row.message for row in ScheduledMessage.objects.all()))

        self.assertEqual(
            self.story(messages[0]), [(0, Outcome.RESCHEDULED), (1, Outcome.SUCCEEDED)]
        )
        self.assertEqual(self.story(messages[1]), [])

    def test_what_died_without_a_run_has_its_reason(self):
        message = self.ship.message("1")
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.fail(Reason.TOO_OLD)

        self.broker.settle(mock.Mock(), [delivery])

        attempt = Attempt.objects.get()
        self.assertEqual((attempt.outcome, attempt.error_class), ("dead", "too old"))
        self.assertIsNone(attempt.began_ms)
        self.assertEqual(ErrorGroup.objects.get().error_class, "too old")

    def test_bytes_that_are_no_message_have_a_group_and_no_story(self):
        delivery = Delivery(b"junk", queue_name="default")
        with silence():
            Executor(self.broker).run(delivery)

        self.broker.settle(mock.Mock(), [delivery])

        self.assertFalse(Attempt.objects.exists())
        self.assertIn("DecodeError", ErrorGroup.objects.get().error_class)

    def test_a_settlement_that_is_tried_again_tells_nothing_twice(self):
        deliveries = self.run_once(self.ship.message("lost"), self.ship.message("lost"))

        WaitingRoom().put([], failures.build_attempts(deliveries, []))

        self.assertEqual(Attempt.objects.count(), 2)

    def test_a_hostile_number_of_retries_is_stored(self):
        for retries in (-1, "7", 2**40, None, 2**31 - 2):
            message = make_message("ship", "lost", retries=retries)
            with self.subTest(retries=retries):
                self.run_once(message)
                self.assertEqual(len(self.story(message)), 1)

    def test_a_message_that_is_retried_for_ever_keeps_a_bounded_story(self):
        message = self.ship.message("lost")
        for number in range(1, 201):
            attempt = Attempt(
                message_id=message.message_id,
                number=number,
                outcome=Outcome.RETRIED,
                ended_ms=number,
                began_ms=number,
            )
            failures.write_attempts([attempt], "default")

        numbers = [number for number, _ in self.story(message)]
        self.assertLessEqual(len(numbers), failures.KEPT_ATTEMPTS + failures.DROPPED_TOGETHER)
        self.assertEqual(numbers[-1], 200)


class GroupTests(SettleMixin, TestCase):
    def test_failures_of_one_kind_are_one_group(self):
        self.run_once(*(self.ship.message("lost") for _ in range(5)))
        self.run_once(*(self.ship.message("lost") for _ in range(2)))

        group = ErrorGroup.objects.get()
        self.assertEqual((group.count, group.actor_name), (7, "ship"))
        self.assertEqual((group.error_class, group.error), ("KeyError", "'lost'"))
        self.assertIn("KeyError: 'lost'", group.traceback)
        self.assertLessEqual(group.first_ms, group.last_ms)
        self.assertEqual(sum(ErrorCount.objects.values_list("count", flat=True)), 7)
        self.assertEqual(
            set(WaitingMessage.objects.values_list("fingerprint", flat=True)), {group.pk}
        )

    def test_a_batch_writes_a_group_once(self):
        self.run_once(self.ship.message("lost"))

        def queries_for(count):
            with CaptureQueriesContext(connection) as queries:
                self.run_once(*(self.ship.message("lost") for _ in range(count)))
            return len(queries)

        self.assertEqual(queries_for(1), queries_for(40))

    def test_who_asks_for_a_retry_has_not_failed(self):
        self.run_once(self.ship.message("later"))

        self.assertFalse(ErrorGroup.objects.exists())
        self.assertEqual(ScheduledMessage.objects.get().fingerprint, "")
        self.assertEqual(Attempt.objects.get().outcome, Outcome.RETRIED)

    def test_a_group_that_cannot_be_counted_does_not_stop_a_settlement(self):
        consumer = mock.Mock()
        message = self.ship.message("lost")
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.fail(Reason.REJECTED)

        with (
            mock.patch.object(failures, "_count_group", side_effect=DatabaseError("no")),
            self.assertLogs("django_actors.failures", "WARNING"),
        ):
            self.broker.settle(consumer, [delivery])

        consumer.ack.assert_called_once()
        self.assertEqual(DeadLetter.objects.count(), 1)

    def test_dead_letters_are_counted_by_group_and_to_a_limit(self):
        for _ in range(3):
            self.run_to_death(self.ship.message("lost"))
        group = ErrorGroup.objects.get()

        with self.assertNumQueries(1):
            self.assertEqual(
                failures.count_dead([group.pk, "nobody"], "default", limit=2),
                {group.pk: 2, "nobody": 0},
            )
        with self.assertNumQueries(0):
            self.assertEqual(failures.count_dead([], "default", limit=2), {})

    @override_settings(DJANGO_ACTORS={"ATTEMPT_TTL": DAY_MS})
    def test_the_dispatcher_forgets_what_is_old(self):
        self.run_once(self.ship.message("lost"))
        group = ErrorGroup.objects.get()
        old = clock.now_ms() - 2 * DAY_MS
        Attempt.objects.update(ended_ms=old)
        ErrorCount.objects.update(start_ms=old)
        self.run_once(self.ship.message("lost"))

        Dispatcher(self.broker)._prune()

        self.assertEqual(Attempt.objects.count(), 1)
        self.assertEqual(ErrorCount.objects.count(), 1)
        self.assertEqual(ErrorGroup.objects.get().count, 2)

        ErrorGroup.objects.filter(pk=group.pk).update(last_ms=old)
        Dispatcher(self.broker)._prune()

        self.assertFalse(ErrorGroup.objects.exists())

    def test_more_than_a_batch_is_forgotten(self):
        Attempt.objects.bulk_create(
            Attempt(message_id=str(n), number=1, outcome="dead", ended_ms=5) for n in range(7)
        )

        with mock.patch.object(failures, "PRUNE_BATCH", 3):
            self.assertEqual(failures.prune(older_than_ms=DAY_MS, alias="default"), 7)


class ConcurrencyTests(SettleMixin, EngineCase):
    def test_workers_that_fail_together_lose_no_count(self):
        barrier = threading.Barrier(4)

        def work():
            barrier.wait(10)
            for _ in range(5):
                delivery = []
                for name in ("a", "b"):
                    message = make_message(name)
                    each = Delivery(message.encode(), queue_name="default", message=message)
                    each.exception = ValueError("no")
                    each.fate = Fate.DEAD
                    each.reason = Reason.REJECTED
                    delivery.append(each)
                self.broker.settle(mock.Mock(), delivery)

        tasks = [begin(work) for _ in range(4)]
        for task in tasks:
            task.result()

        self.assertEqual(
            dict(ErrorGroup.objects.values_list("actor_name", "count")), {"a": 20, "b": 20}
        )
        self.assertEqual(Attempt.objects.count(), 40)
