"""``actor_clock()``: time passes when the test says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.test import SimpleTestCase
from django.utils import timezone

from django_actors import Worker, clock
from django_actors.test import actor_clock, run_actors

from .base import HelpersCase, outcomes


class ActorClockTests(HelpersCase, SimpleTestCase):
    def test_it_begins_now_and_stands_still(self):
        before = clock.now_ms()

        with actor_clock() as standing:
            first = clock.now_ms()
            while time.time_ns() // 1_000_000 <= first:
                time.sleep(0.001)
            self.assertEqual(clock.now_ms(), first)
            self.assertEqual(standing.now(), clock.from_ms(first))

        self.assertGreaterEqual(first, before)

    def test_it_can_begin_at_another_time(self):
        start = datetime(2031, 5, 1, tzinfo=UTC)

        with actor_clock(start) as standing:
            self.assertEqual(self.greet.send("Ada").message_datetime, start)
            self.assertEqual(standing.advance(days=1), datetime(2031, 5, 2, tzinfo=UTC))

    def test_a_naive_time_is_refused(self):
        with self.assertRaises(ValueError), actor_clock(datetime(2031, 5, 1)):
            """Never gets here."""

    def test_time_does_not_go_back(self):
        with actor_clock() as standing, self.assertRaises(ValueError):
            standing.advance(seconds=-1)

    def test_the_wall_clock_is_back_after_it(self):
        with self.assertRaises(KeyError), actor_clock() as standing:
            standing.advance(days=400)
            raise KeyError

        self.assertLess(clock.now_ms(), (time.time() + 60) * 1_000)

    def test_a_clock_inside_of_one_is_the_same(self):
        with actor_clock() as outer:
            with actor_clock() as inner:
                inner.advance(days=1)

            self.assertIs(inner, outer)
            self.assertEqual(clock.now_ms(), clock.datetime_to_ms(outer.now()))

    def test_delays_obey_it(self):
        with actor_clock() as standing:
            self.greet.send_with_options(args=("Ada",), delay=timedelta(minutes=5))
            standing.advance(minutes=4, seconds=59.999)
            self.assertEqual(run_actors(), [])

            standing.advance(milliseconds=1)

            self.assertEqual(len(run_actors()), 1)

    def test_an_eta_obeys_it(self):
        with actor_clock() as standing:
            eta = timezone.now() + timedelta(days=30)
            self.greet.send_with_options(args=("Ada",), eta=eta)
            self.assertEqual(run_actors(), [])

            standing.advance(days=31)

            self.assertEqual(len(run_actors()), 1)

    def test_delayed_messages_run_in_the_order_of_their_eta(self):
        for days in (2, 1, 3):
            self.greet.send_with_options(args=(days,), delay=timedelta(days=days))

        run_actors(until_idle=True)

        self.assertEqual(self.calls, [1, 2, 3])

    def test_max_age_obeys_it(self):
        with actor_clock() as standing:
            self.greet.send_with_options(args=("old",), max_age=timedelta(hours=1))
            standing.advance(minutes=59)
            self.greet.send_with_options(args=("young",), max_age=timedelta(hours=1))
            standing.advance(minutes=1)

            self.assertEqual(outcomes(run_actors(raise_errors=False)), ["dead", "done"])

    def test_retries_obey_it(self):
        self.declare_failing(
            ValueError(), ValueError(), min_backoff=60_000, max_backoff=3_600_000
        ).send()

        with actor_clock() as standing:
            self.assertEqual(outcomes(run_actors(raise_errors=False)), ["retry"])
            standing.advance(minutes=2)
            self.assertEqual(outcomes(run_actors(raise_errors=False)), ["retry"])
            standing.advance(minutes=4)
            self.assertEqual(outcomes(run_actors(raise_errors=False)), ["done"])

    def test_the_age_between_retries_obeys_it(self):
        self.declare_failing(
            *[ValueError()] * 9, min_backoff=60_000, max_age=timedelta(minutes=10)
        ).send()

        results = run_actors(until_idle=True, raise_errors=False)

        self.assertEqual(results[-1].reason, "too old")

    def test_until_idle_leaves_the_clock_where_the_last_message_was_due(self):
        with actor_clock() as standing:
            due = standing.now() + timedelta(days=7)
            self.greet.send_with_options(args=("Ada",), delay=timedelta(days=7))

            run_actors(until_idle=True)

            self.assertEqual(standing.now(), due)

    def test_without_a_clock_nothing_waits_either(self):
        self.greet.send_with_options(args=("Ada",), delay=timedelta(days=7))

        self.assertEqual(run_actors(), [])
        self.assertEqual(len(run_actors(until_idle=True)), 1)

    def test_until_idle_only_waits_for_its_queues(self):
        other = self.declare(lambda: None, actor_name="other", queue_name="others")
        other.send_with_options(delay=1_000)

        self.assertEqual(run_actors(queues=["default"], until_idle=True), [])

    def test_a_threaded_worker_wakes_when_time_passes(self):
        worker = Worker(self.stub, worker_timeout=100, worker_threads=1)
        with actor_clock() as standing:
            self.greet.send_with_options(args=("Ada",), delay=timedelta(days=7))
            worker.start()
            self.addCleanup(worker.stop)

            standing.advance(days=7)
            self.stub.join("default", timeout=20_000)

        self.assertEqual(self.calls, ["Ada"])
