"""What an operator sees of the broker, queues, workers and actors."""

from __future__ import annotations

import time
from unittest import mock

from django_actors import clock, control, pauses
from django_actors.errors import BrokerUnavailable
from django_actors.models import WorkerRecord
from tests.admin.cases import bury, wait

from .cases import ALIAS, ControlCase, greet


class QueueTests(ControlCase):
    def mail(self) -> control.QueueInfo:
        return next(queue for queue in control.queues() if queue.name == "mail")

    def test_a_queue_tells_what_it_holds_in_the_broker_and_in_the_waiting_room(self):
        self.send(3)
        wait(greet.message("later"))
        bury(greet.message("dead"))

        mail = self.mail()

        self.assertEqual((mail.ready, mail.running, mail.scheduled, mail.dead), (3, 0, 1, 1))

    def test_it_tells_for_how_long_the_oldest_message_waits(self):
        self.assertIsNone(self.mail().oldest_ms)
        self.send()
        time.sleep(0.005)

        oldest_ms = self.mail().oldest_ms

        self.assertTrue(oldest_ms is not None and 0 < oldest_ms < 60_000, oldest_ms)

    def test_it_tells_how_fast_it_is_and_how_often_it_fails(self):
        self.count(succeeded=40, failed=10, minutes_ago=1)
        self.count(succeeded=10, minutes_ago=50)

        mail = self.mail()

        self.assertEqual(mail.per_minute, 8.0)
        self.assertEqual(mail.last_hour.failure_rate, 10 / 60)
        self.assertEqual([len(mail.minutes), len(mail.hours)], [60, 24])
        self.assertEqual(mail.minutes[-2].succeeded, 40)
        self.assertEqual(sum(hour.succeeded for hour in mail.hours), 50)

    def test_it_tells_who_has_paused_it_and_how_many_workers_read_it(self):
        pauses.pause("mail", by="ada", alias=ALIAS)
        self.have_worker("mail", "default", owner="1")
        self.have_worker("default", owner="2")

        mail = self.mail()

        self.assertEqual((mail.is_paused, mail.paused_by, mail.workers), (True, "ada", 1))

    def test_a_queue_that_no_actor_names_any_more_is_told_of_while_it_holds_something(self):
        bury(greet.message("dead").copy(queue_name="gone"))

        self.assertIn("gone", [queue.name for queue in control.queues()])

    def test_a_broker_that_is_down_hides_no_queue(self):
        bury(greet.message("dead"))
        with mock.patch.object(self.broker, "ping", side_effect=BrokerUnavailable("away")):
            self.assertFalse(control.broker().answers)
            mail = self.mail()

        self.assertEqual((mail.ready, mail.running, mail.dead), (None, None, 1))

    def test_a_broker_that_goes_away_in_between_is_survived(self):
        with mock.patch.object(self.broker, "queue_sizes", side_effect=BrokerUnavailable("away")):
            self.assertIsNone(self.mail().ready)

    def test_counting_may_stop_early(self):
        for _ in range(3):
            bury(greet.message("dead"))

        capped = next(q for q in control.queues(count_at_most=2) if q.name == "mail")

        self.assertEqual((capped.dead, capped.is_capped), (2, True))
        self.assertEqual((self.mail().dead, self.mail().is_capped), (3, False))

    def test_more_queues_and_messages_take_no_more_queries(self):
        self.send()
        # Paused queues, two kinds of waiting rows, minutes, hours, the broker's answer, its
        # sizes, its oldest messages in two rounds, and the time and rows of the workers.
        with self.assertNumQueries(11):
            control.queues(count_at_most=1_000)
        for number in range(5):
            self.broker.declare_queue(f"queue_{number}")
            bury(greet.message(number).copy(queue_name=f"queue_{number}"))
        self.send(50)

        with self.assertNumQueries(11):
            control.queues(count_at_most=1_000)


class WorkerTests(ControlCase):
    def test_a_worker_tells_what_it_runs_and_for_how_long(self):
        began = clock.now_ms() - 5_000
        run = {"message_id": "1", "actor_name": "a", "queue_name": "q", "since_ms": began}
        self.have_worker("mail", running=[run])

        [worker] = control.workers()

        self.assertEqual((worker.host, worker.busy, worker.queues), ("mars", 1, ["mail"]))
        self.assertGreaterEqual(worker.running[0].for_ms, 5_000)
        self.assertGreaterEqual(worker.up_ms, 60_000)

    def test_who_is_silent_does_not_live(self):
        self.have_worker("mail")
        WorkerRecord.objects.update(seen_ms=1)

        self.assertEqual(control.workers(), [])


class ActorTests(ControlCase):
    def test_an_actor_tells_its_signature_its_options_and_its_day(self):
        def add(x: int, *, y: int = 2) -> None:
            """Add two numbers."""

        self.declare(add, actor_name="add", queue_name="math", max_retries=3)
        self.count(succeeded=5, actor="add", queue="math")

        found = next(each for each in control.actors() if each.name == "add")

        self.assertEqual((found.queue, found.options["max_retries"]), ("math", 3))
        self.assertIn("*, y", found.signature)
        self.assertEqual(found.description, "Add two numbers.")
        self.assertEqual(found.last_day.succeeded, 5)

    def test_stats_are_by_actor(self):
        self.count(succeeded=3, failed=1)
        self.count(succeeded=1, queue="other")

        figures = control.stats()["admin_tests.greet"]

        self.assertEqual((figures.succeeded, figures.failed), (4, 1))
        self.assertEqual((figures.failure_rate, figures.mean_ms), (0.2, 10.0))


class PauseTests(ControlCase):
    def test_a_queue_is_paused_and_resumed(self):
        self.assertTrue(control.pause("mail", by="ada"))
        self.assertFalse(control.pause("mail"))
        self.assertEqual(pauses.read_names(ALIAS), {"mail"})

        self.assertTrue(control.resume("mail"))
        self.assertFalse(control.resume("mail"))

    def test_a_misspelled_queue_is_refused_with_the_nearest(self):
        with self.assertRaisesMessage(control.UnknownQueue, "Did you mean 'mail'?"):
            control.pause("mial")
        with self.assertRaisesMessage(control.UnknownQueue, "Did you mean 'mail'?"):
            control.resume("mial")

    def test_a_queue_that_no_actor_names_any_more_can_be_resumed(self):
        pauses.pause("gone", by="", alias=ALIAS)

        self.assertTrue(control.resume("gone"))
