"""Who killed a worker: counted by message, looked at when the message comes again."""

from __future__ import annotations

from typing import Any

from django.test import TestCase

from django_actors import clock, crashes
from django_actors.brokers.database import DatabaseBroker
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.executor import Executor
from django_actors.models import CrashRecord, WaitingMessage
from tests.engine import ActorsMixin, EngineCase, begin, deliver, make_message, silence

DETAIL = "was killed by signal 9 (SIGKILL)"


def count(*message_ids: str, overdue: tuple[str, ...] = (), detail: str = DETAIL) -> None:
    crashes.count(message_ids, overdue=overdue, detail=detail, alias="default")


class CountTests(TestCase):
    def test_each_death_counts_for_each_message_that_was_running(self):
        count("a", "b")
        count("a")

        found = crashes.find(["a", "b", "c"], "default")
        self.assertEqual({key: record.crashes for key, record in found.items()}, {"a": 2, "b": 1})
        self.assertEqual(found["a"].detail, DETAIL)

    def test_a_broken_time_limit_is_no_crash(self):
        count("a", "b", overdue=("a",))

        found = crashes.find(["a", "b"], "default")
        self.assertEqual((found["a"].crashes, found["a"].overdue), (0, True))
        self.assertEqual((found["b"].crashes, found["b"].overdue), (1, False))

    def test_the_last_death_is_the_one_that_is_told(self):
        count("a", overdue=("a",), detail="was ended")
        count("a", detail="exited with code 3 " + "x" * 300)

        record = CrashRecord.objects.get()
        self.assertEqual((record.crashes, record.overdue), (1, False))
        self.assertTrue(record.detail.startswith("exited with code 3"))

    def test_a_message_that_came_to_an_end_is_forgotten(self):
        count("a", "b")

        crashes.forget(["a"], "default")

        self.assertEqual(list(crashes.find(["a", "b"], "default")), ["b"])

    def test_what_was_not_seen_for_long_is_forgotten(self):
        count("old", "new")
        CrashRecord.objects.filter(pk="old").update(updated_ms=clock.now_ms() - 5_000)

        crashes.prune(older_than_ms=4_000, alias="default")

        self.assertEqual(list(crashes.find(["old", "new"], "default")), ["new"])


class RivalTests(EngineCase):
    def test_no_death_is_lost_when_several_are_counted_together(self):
        count("a")

        tasks = [begin(self.count_some) for _ in range(3)]
        for task in tasks:
            task.result()

        self.assertEqual(CrashRecord.objects.get().crashes, 1 + 3 * 5)

    def count_some(self) -> None:
        for _ in range(5):
            count("a")


class VerdictTests(ActorsMixin, TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())
        self.runs: list[str] = []
        self.actor = self.declare(self.runs.append, actor_name="append", max_retries=0)

    def run_again(self, **options: Any) -> Delivery:
        """Run a message that a dead worker had, and return its delivery."""
        message = make_message("append", "ran", **options)
        self.delivery = deliver(message, redelivered=True)
        return self.delivery

    def execute(self, delivery: Delivery) -> None:
        with silence():
            Executor(self.broker).run(delivery)

    def test_a_message_that_nobody_blames_runs_among_others(self):
        delivery = self.run_again()

        self.execute(delivery)

        self.assertEqual((delivery.fate, delivery.alone), (Fate.DONE, False))

    def test_a_suspect_runs_again_alone(self):
        delivery = self.run_again()
        count(delivery.message_id)

        self.execute(delivery)

        self.assertEqual((delivery.fate, delivery.alone), (Fate.DONE, True))
        self.assertEqual(self.runs, ["ran"])

    def test_who_has_killed_three_workers_is_buried_with_the_way_they_died(self):
        delivery = self.run_again()
        for _ in range(3):
            count(delivery.message_id)

        self.execute(delivery)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.KILLED_WORKER))
        self.assertIn("3 worker processes died", str(delivery.exception))
        self.assertIn(DETAIL, str(delivery.exception))
        self.assertEqual(self.runs, [])

    def test_the_setting_says_how_many_deaths_are_too_many(self):
        delivery = self.run_again()
        count(delivery.message_id)

        with self.settings(DJANGO_ACTORS={"CRASH_LIMIT": 1}):
            self.execute(delivery)

        self.assertEqual(delivery.reason, Reason.KILLED_WORKER)

    def test_who_had_to_be_ended_with_its_worker_has_failed(self):
        delivery = self.run_again()
        count(delivery.message_id, overdue=(delivery.message_id,), detail="It held the GIL.")

        self.execute(delivery)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.TIME_LIMIT))
        self.assertEqual(self.runs, [])

    def test_who_had_to_be_ended_is_retried_if_it_has_retries_left(self):
        delivery = self.run_again(max_retries=1)
        count(delivery.message_id, overdue=(delivery.message_id,))

        self.execute(delivery)

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertEqual(self.runs, [])

    def test_a_message_that_comes_for_the_first_time_is_not_looked_up(self):
        delivery = self.run_again()
        delivery.redelivered = False

        with self.assertNumQueries(0):
            self.execute(delivery)

    def test_a_message_that_waits_or_is_dead_already_is_skipped(self):
        delivery = self.run_again()
        again = Delivery(delivery.body, queue_name="default", redelivered=True)
        delivery.fail()
        self.settle(delivery)

        self.execute(again)
        self.settle(again)

        self.assertEqual(again.fate, Fate.SKIPPED)
        self.assertEqual(self.runs, [])
        self.assertEqual(WaitingMessage.objects.count(), 1)

    def settle(self, delivery: Delivery) -> None:
        consumer = self.broker.consume(["default"], owner="owner")
        self.addCleanup(consumer.close)
        self.broker.settle(consumer, [delivery])

    def test_a_suspect_that_came_to_its_end_is_none_any_more(self):
        delivery = self.run_again()
        count(delivery.message_id)
        self.execute(delivery)

        self.settle(delivery)

        self.assertEqual(CrashRecord.objects.count(), 0)

    def test_a_suspect_that_was_put_back_stays_one(self):
        delivery = self.run_again()
        count(delivery.message_id)
        Executor(self.broker).prepare(delivery)
        delivery.fate = Fate.PUT_BACK

        self.settle(delivery)

        self.assertEqual(CrashRecord.objects.count(), 1)
