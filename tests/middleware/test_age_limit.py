"""Messages that are too old become dead letters instead of running."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_actors.delivery import Fate, Reason
from django_actors.errors import SkipMessage
from django_actors.middleware import AgeLimit, Retries
from django_actors.models import Kind
from tests.support import StubCase, actors_settings


class AgeLimitTests(StubCase):
    def setUp(self) -> None:
        super().setUp()
        self.ran: list[Any] = []

    def run_at_age(self, ms: int, *, message: Any = None, **options: Any) -> Any:
        declared = self.declare(self.ran.append, actor_name="note", **options)
        declared.send_with_options(args=("x",), **(message or {}))
        self.clock.advance(ms)
        (delivery,) = self.run_ready()
        return delivery

    def test_a_younger_message_runs(self):
        delivery = self.run_at_age(999, max_age=1_000)

        self.assertEqual((delivery.fate, self.ran), (Fate.DONE, ["x"]))

    def test_a_message_of_exactly_this_age_is_too_old(self):
        delivery = self.run_at_age(1_000, max_age=1_000)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.TOO_OLD))
        self.assertEqual(self.ran, [])

    def test_its_dead_letter_says_how_old_it_was(self):
        delivery = self.run_at_age(5_000, max_age=timedelta(seconds=1))

        self.assertIsInstance(delivery.exception, SkipMessage)
        (row,) = self.rows(Kind.DEAD)
        self.assertEqual((row.reason, row.due_ms), ("too old", None))
        self.assertIn("5000 ms old; its max_age is 1000 ms", row.error)

    def test_without_a_limit_a_message_never_is_too_old(self):
        self.assertEqual(self.run_at_age(10**12).fate, Fate.DONE)

    def test_a_limit_of_nothing_lets_nothing_run(self):
        self.assertEqual(self.run_at_age(0, max_age=0).fate, Fate.DEAD)

    def test_a_clock_that_went_back_makes_no_message_too_old(self):
        self.assertEqual(self.run_at_age(-5_000, max_age=1_000).fate, Fate.DONE)

    def test_the_limit_of_the_message_comes_first(self):
        for message, fate in (
            ({"max_age": 10_000}, Fate.DONE),
            ({"max_age": timedelta(seconds=10)}, Fate.DONE),
            ({"max_age": None}, Fate.DONE),
            ({"max_age": 1}, Fate.DEAD),
        ):
            with self.subTest(message=message):
                self.assertEqual(self.run_at_age(5_000, message=message, max_age=1_000).fate, fate)

    def test_then_that_of_the_actor_then_of_the_project_then_of_the_middleware(self):
        self.use_middleware(AgeLimit(max_age=timedelta(seconds=1)))

        self.assertEqual(self.run_at_age(2_000).fate, Fate.DEAD)
        for value in (3_000, timedelta(seconds=3)):
            with self.subTest(value=value), actors_settings(ACTOR_OPTIONS={"max_age": value}):
                self.assertEqual(self.run_at_age(2_999).fate, Fate.DONE)
                self.assertEqual(self.run_at_age(3_000).fate, Fate.DEAD)
                self.assertEqual(self.run_at_age(4_000, max_age=5_000).fate, Fate.DONE)
                self.assertEqual(self.run_at_age(4_000, max_age=None).fate, Fate.DONE)

    def test_it_grows_too_old_between_retries_as_well(self):
        self.use_middleware(AgeLimit(), Retries())

        def fail():
            self.ran.append("run")
            raise ValueError("no")

        self.declare(fail, max_age=1_000, min_backoff=400, max_backoff=400).send()

        *_, last = self.run_all()

        self.assertEqual(last.reason, Reason.TOO_OLD)
        self.assertTrue(3 <= len(self.ran) <= 6, self.ran)
        self.assertEqual(self.rows(Kind.SCHEDULED), [])

    def test_a_message_that_waits_for_its_eta_grows_old_meanwhile(self):
        self.declare(self.ran.append, actor_name="note", max_age=1_000).send_with_options(
            args=("x",), delay=1_000
        )

        (delivery,) = self.run_all()

        self.assertEqual(delivery.reason, Reason.TOO_OLD)

    def test_a_limit_that_is_none_is_refused(self):
        wrong: list[Any] = [("1h", TypeError), (-1, ValueError), (True, TypeError)]
        for value, kind in wrong:
            with self.subTest(value=value), self.assertRaisesRegex(kind, "^max_age must"):
                AgeLimit(max_age=value)
