"""Every run has a deadline; who enforces it is tested with the watchdog and the supervisor."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django_actors.delivery import Fate, Reason
from django_actors.errors import TimeLimitExceeded
from django_actors.middleware import Retries, TimeLimit
from tests.support import StubCase, actors_settings


class TimeLimitTests(StubCase):
    def limit_of(self, *, message: Any = None, **options: Any) -> Any:
        """Return the seconds a message has from its begin."""
        declared = self.declare(lambda: None, actor_name="nothing", **options)
        declared.send_with_options(**(message or {}))
        before = time.monotonic()
        (delivery,) = self.run_ready()
        if delivery.deadline is None:
            return None
        self.assertLess(delivery.deadline, time.monotonic() + 10**6)
        return round(delivery.deadline - before, 1)

    def test_the_default_is_ten_minutes(self):
        self.assertEqual(self.limit_of(), 600)

    def test_an_actor_has_its_own_in_milliseconds_or_as_a_timedelta(self):
        self.assertEqual(self.limit_of(time_limit=60_000), 60)
        self.assertEqual(self.limit_of(time_limit=timedelta(minutes=1)), 60)
        self.assertIsNone(self.limit_of(time_limit=None))

    def test_message_before_actor_before_project_before_middleware(self):
        self.use_middleware(TimeLimit(time_limit=1_000))

        self.assertEqual(self.limit_of(), 1)
        for value in (2_000, timedelta(seconds=2)):
            with actors_settings(ACTOR_OPTIONS={"time_limit": value}):
                self.assertEqual(self.limit_of(), 2)
                self.assertEqual(self.limit_of(time_limit=3_000), 3)
                self.assertEqual(self.limit_of(time_limit=3_000, message={"time_limit": 4_000}), 4)
                self.assertIsNone(self.limit_of(message={"time_limit": None}))

    def test_a_clock_that_is_set_interrupts_nobody(self):
        self.declare(lambda: None, actor_name="nothing", time_limit=1_000).send()
        self.clock.advance(days=365)

        (delivery,) = self.run_ready()

        self.assertGreater(delivery.deadline, time.monotonic())

    def test_a_limit_that_is_none_is_refused(self):
        for value, kind in (("10m", TypeError), (-1, ValueError), (float("nan"), ValueError)):
            with self.subTest(value=value), self.assertRaisesRegex(kind, "^time_limit must"):
                TimeLimit(time_limit=value)  # type: ignore[arg-type]


class ExceededTests(StubCase):
    """What the exception means where it is raised."""

    def run_actor(self, function: Any, **options: Any) -> Any:
        self.declare(function, **options).send()
        (delivery,) = self.run_ready()
        return delivery

    def test_except_exception_does_not_eat_it(self):
        def stubborn():
            try:
                raise TimeLimitExceeded
            except Exception:
                return "eaten"

        delivery = self.run_actor(stubborn)

        self.assertIsInstance(delivery.exception, TimeLimitExceeded)
        self.assertEqual(delivery.fate, Fate.RETRY)

    def test_an_actor_that_catches_it_and_returns_is_done(self):
        def graceful():
            try:
                raise TimeLimitExceeded
            except TimeLimitExceeded:
                return "cleaned up"

        self.assertEqual(self.run_actor(graceful).fate, Fate.DONE)

    def test_it_is_retried_like_any_failure_and_then_a_dead_letter(self):
        self.use_middleware(Retries(max_retries=0))

        def slow():
            raise TimeLimitExceeded

        delivery = self.run_actor(slow)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.RETRIES_EXHAUSTED))
