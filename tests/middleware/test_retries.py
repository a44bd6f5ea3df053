"""Failed messages run again, later and later, and are given up at the right moment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_actors.delivery import Fate, Reason
from django_actors.errors import Retry
from django_actors.middleware import Retries
from django_actors.models import Kind
from tests.support import START_MS, Failing, StubCase, actors_settings

DAY_MS = 86_400_000


class RetriesCase(StubCase):
    def fails(self, *errors: BaseException, **options: Any) -> Failing:
        """Declare an actor that raises *errors* and then succeeds; without any, it always fails."""
        failing = Failing(*(errors or [ValueError("no") for _ in range(1_000)]))
        self.work = self.replace(failing.as_function(), "work", **options)
        return failing

    def run_once(self, **options: Any) -> Any:
        self.work.send_with_options(**options)
        (delivery,) = self.run_ready()
        return delivery

    def waits(self) -> list[int]:
        """Run everything, and return the milliseconds between the runs."""
        self.run_ready()
        waits = []
        while (wait := self.broker.waiting_room.wait_ms()) is not None:
            waits.append(wait)
            self.clock.advance(wait)
            self.run_due()
        return waits


class CountTests(RetriesCase):
    def test_max_retries_n_is_n_plus_one_runs(self):
        for count in (0, 1, 3):
            with self.subTest(count):
                failing = self.fails(max_retries=count)
                self.work.send()

                *_, last = self.run_all()

                self.assertEqual(len(failing.calls), count + 1)
                self.assertEqual((last.fate, last.reason), (Fate.DEAD, Reason.RETRIES_EXHAUSTED))

    def test_the_default_is_twenty_retries(self):
        failing = self.fails()
        self.work.send()

        self.run_all()

        self.assertEqual(len(failing.calls), 21)

    def test_none_is_for_ever(self):
        failing = self.fails(max_retries=None, min_backoff=0)
        self.work.send()

        with self.assertRaisesRegex(AssertionError, "More than 100 messages"):
            self.run_all(limit=100)

        self.assertGreaterEqual(len(failing.calls), 100)

    def test_a_message_that_succeeds_at_last_is_done(self):
        failing = self.fails(ValueError("1"), ValueError("2"))
        self.work.send()

        fates = [each.fate for each in self.run_all()]

        self.assertEqual(fates, [Fate.RETRY, Fate.RETRY, Fate.DONE])
        self.assertEqual(len(failing.calls), 3)
        self.assertEqual(self.rows(*Kind), [])

    def test_message_before_actor_before_project_before_middleware(self):
        self.use_middleware(Retries(max_retries=1))

        def runs(message: Any = None, **options: Any) -> int:
            failing = self.fails(min_backoff=0, **options)
            self.work.send_with_options(**(message or {}))
            self.run_all()
            return len(failing.calls)

        self.assertEqual(runs(), 2)
        with actors_settings(ACTOR_OPTIONS={"max_retries": 2}):
            self.assertEqual(runs(), 3)
            self.assertEqual(runs(max_retries=3), 4)
            self.assertEqual(runs(max_retries=3, message={"max_retries": 4}), 5)
            self.assertEqual(runs(max_retries=3, message={"max_retries": 0}), 1)

    def test_a_count_that_came_over_the_wire_may_be_anything(self):
        for retries, fate in (
            ("x", Fate.RETRY),
            (-5, Fate.RETRY),
            (None, Fate.RETRY),
            (7, Fate.DEAD),
        ):
            with self.subTest(retries=retries):
                self.fails(max_retries=3)

                self.assertEqual(self.run_once(retries=retries).fate, fate)

    def test_every_kind_of_exception_is_retried(self):
        for error in (ValueError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()):
            with self.subTest(error=error):
                self.fails(error)

                self.assertEqual(self.run_once().fate, Fate.RETRY)


class WaitTests(RetriesCase):
    def test_the_kth_wait_is_between_two_to_the_k_minimums_and_its_double(self):
        self.fails(max_retries=6, min_backoff=100)
        self.work.send()

        for k, wait in enumerate(self.waits()):
            with self.subTest(k):
                self.assertTrue(100 * 2**k <= wait <= 200 * 2**k, wait)

    def test_the_first_wait_of_an_actor_that_says_nothing_is_15_to_30_seconds(self):
        self.fails(ValueError("no"))
        self.work.send()

        (wait,) = self.waits()

        self.assertTrue(15_000 <= wait <= 30_000, wait)

    def test_no_wait_is_longer_than_the_maximum(self):
        self.fails(max_retries=8, min_backoff=100, max_backoff=timedelta(seconds=1))
        self.work.send()

        waits = self.waits()

        self.assertLessEqual(max(waits), 1_000)
        self.assertTrue(all(wait >= 500 for wait in waits[4:]), waits)

    def test_a_minimum_of_zero_is_an_immediate_retry(self):
        self.fails(ValueError("no"), min_backoff=0)

        self.assertEqual(self.run_once().due_ms, START_MS)

    def test_a_minimum_above_the_maximum_is_legal(self):
        self.fails(ValueError("no"), min_backoff=10_000, max_backoff=100)

        wait = self.run_once().due_ms - START_MS

        self.assertTrue(50 <= wait <= 100, wait)

    def test_message_before_actor_before_project_before_middleware(self):
        self.use_middleware(Retries(min_backoff=1_000, max_backoff=1_000))

        def longest(message: Any = None, **options: Any) -> int:
            self.fails(ValueError("no"), **options)
            self.work.send_with_options(**(message or {}))
            (wait,) = self.waits()
            return wait

        self.assertTrue(longest() == 1_000)
        second = timedelta(seconds=2)
        with actors_settings(ACTOR_OPTIONS={"min_backoff": second, "max_backoff": second}):
            self.assertEqual(longest(), 2_000)
            self.assertEqual(longest(min_backoff=500, max_backoff=500), 500)
            self.assertEqual(longest(min_backoff=9, max_backoff=9, message={"min_backoff": 0}), 0)

    def test_seven_days_is_the_longest_maximum(self):
        Retries(max_backoff=timedelta(days=7))
        with self.assertRaisesRegex(ValueError, "max_backoff must be 7 days at most"):
            Retries(max_backoff=7 * DAY_MS + 1)


class TravelTests(RetriesCase):
    """What a retried message carries, and where it waits."""

    def test_it_waits_in_the_waiting_room_until_it_is_due(self):
        self.fails(ValueError("no"), min_backoff=1_000, max_backoff=1_000)
        self.run_once()

        (row,) = self.rows()

        self.assertEqual(
            (row.kind, row.reason, row.due_ms), (Kind.SCHEDULED, "retry", START_MS + 1_000)
        )
        self.assertEqual(self.sent(), [])
        self.clock.advance(999)
        self.assertEqual(self.run_due(), [])
        self.clock.advance(1)
        self.assertEqual(len(self.run_due()), 1)

    def test_its_id_time_and_arguments_stay_the_same(self):
        failing = Failing(ValueError("1"), ValueError("2"))
        message = self.declare(failing.as_function(), actor_name="work").send("x", y=1)

        runs = self.run_all()

        self.assertEqual({each.message_id for each in runs}, {message.message_id})
        self.assertEqual({each.message_timestamp for each in runs}, {START_MS})
        self.assertEqual({(each.args, *each.kwargs.items()) for each in runs}, {(("x",), ("y", 1))})

    def test_it_carries_how_often_why_and_when(self):
        self.fails(ValueError("first"), ValueError("second"), min_backoff=0)
        self.work.send_with_options(tenant="acme")

        self.run_ready()
        options = self.rows()[0].message.options

        self.assertEqual((options["retries"], options["tenant"]), (1, "acme"))
        self.assertEqual(options["requeue_timestamp"], START_MS)
        self.assertIn("ValueError: first", options["traceback"])
        self.run_due()
        options = self.rows()[0].message.options
        self.assertEqual(options["retries"], 2)
        self.assertIn("ValueError: second", options["traceback"])
        self.assertNotIn("first", options["traceback"])

    def test_the_traceback_it_carries_is_bounded_and_keeps_the_end(self):
        self.fails(ValueError("x" * 100_000 + "END"))

        message = self.run_once().message

        self.assertLessEqual(len(message.options["traceback"]), 2_000)
        self.assertTrue(message.options["traceback"].rstrip().endswith("END"))

    def test_an_error_with_half_characters_and_nul_can_be_stored(self):
        self.fails(ValueError("\ud800 and \0"))

        delivery = self.run_once()

        self.assertEqual(delivery.fate, Fate.RETRY)
        (row,) = self.rows()
        self.assertIn(r"\ud800 and \x00", row.error)
        self.assertIn(r"\ud800 and \x00", row.message.options["traceback"])

    def test_an_error_whose_text_cannot_be_made_is_retried_too(self):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        self.fails(Mute())

        delivery = self.run_once()

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertEqual(self.rows()[0].error_class.rpartition(".")[2], "Mute")


class LogTests(RetriesCase):
    def test_a_failure_and_its_retry_are_logged_as_in_the_guide(self):
        self.fails(ValueError("no"), min_backoff=100, max_backoff=100)
        message = self.work.send("foo")

        delivery = self.run_ready()[0]

        text = self.log.text()
        self.assertIn(
            "[django_actors.worker.WorkerThread] [WARNING] Failed to process message work('foo') "
            "with unhandled exception.\nTraceback (most recent call last):",
            text,
        )
        self.assertIn("ValueError: no", text)
        self.assertIn(
            "[django_actors.middleware.retries.Retries] [INFO] Retrying message "
            f"'{message.message_id}' in {delivery.due_ms - START_MS} milliseconds.",
            text,
        )

    def test_giving_up_is_logged_with_the_id(self):
        self.fails(max_retries=0)

        delivery = self.run_once()

        self.assertIn(
            f"[WARNING] Retries exhausted for message '{delivery.message_id}'.", self.log.text()
        )


class RetryWhenTests(RetriesCase):
    def test_it_decides_in_the_place_of_max_retries(self):
        asked = []

        def twice(retries, exception):
            asked.append((retries, type(exception)))
            return retries < 2

        failing = self.fails(max_retries=0, retry_when=twice, min_backoff=0)
        self.work.send()

        *_, last = self.run_all()

        self.assertEqual(asked, [(0, ValueError), (1, ValueError), (2, ValueError)])
        self.assertEqual((len(failing.calls), last.reason), (3, Reason.RETRIES_EXHAUSTED))

    def test_actor_before_project_before_middleware(self):
        def never(retries, exception):
            return False

        def once(retries, exception):
            return retries < 1

        def runs(**options: Any) -> int:
            failing = self.fails(min_backoff=0, **options)
            self.work.send()
            self.run_all()
            return len(failing.calls)

        self.use_middleware(Retries(retry_when=once))
        self.assertEqual(runs(), 2)
        with actors_settings(ACTOR_OPTIONS={"retry_when": never}):
            self.assertEqual(runs(), 1)
            self.assertEqual(runs(retry_when=once), 2)

    def test_one_that_raises_is_logged_and_the_message_kept_as_a_dead_letter(self):
        for error in (TypeError("wrong question"), SystemExit(1)):
            with self.subTest(error=error):

                def fail(retries, exception, error=error):
                    raise error

                self.fails(ValueError("no"), retry_when=fail)

                delivery = self.run_once()

                self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.REJECTED))
                self.assertIsInstance(delivery.exception, ValueError)
                self.assertIn(type(error).__name__, self.log.text())
                self.assertIn(delivery, self.broker.dead_letters)


class ThrowsTests(RetriesCase):
    def test_an_expected_exception_is_not_retried(self):
        for throws in (ValueError, (KeyError, ValueError), (Exception,)):
            with self.subTest(throws=throws):
                self.fails(ValueError("expected"), throws=throws)

                delivery = self.run_once()

                self.assertEqual(
                    (delivery.fate, delivery.reason), (Fate.DEAD, Reason.EXPECTED_EXCEPTION)
                )

    def test_others_are_retried(self):
        self.fails(ValueError("no"), throws=(KeyError,))

        self.assertEqual(self.run_once().fate, Fate.RETRY)

    def test_it_is_logged_at_info_without_a_traceback(self):
        self.fails(ValueError("expected"), throws=ValueError)
        self.run_once()

        self.assertIn("[INFO] Message work() raised ValueError: expected", self.log.text())
        self.assertNotIn("Traceback", self.log.text())
        self.assertNotIn("WARNING", self.log.text())

    def test_its_dead_letter_has_the_error_and_the_attempt(self):
        self.fails(ValueError("expected"), throws=ValueError)
        self.run_once()

        (row,) = self.rows(Kind.DEAD)

        self.assertEqual(
            (row.reason, row.error_class, row.error, row.attempts),
            ("expected exception", "ValueError", "expected", 1),
        )
        self.assertIn("Traceback", row.traceback)

    def test_it_comes_before_retry_when_and_does_not_count_as_exhausted(self):
        heard: list[Any] = []
        self.declare(lambda *args: heard.append(args), actor_name="exhausted")
        self.fails(
            ValueError("expected"),
            throws=ValueError,
            retry_when=lambda *args: True,
            on_retry_exhausted="exhausted",
        )

        self.assertEqual(self.run_once().fate, Fate.DEAD)
        self.assertEqual(heard, [])

    def test_the_project_may_expect_exceptions_everywhere(self):
        self.fails(ValueError("expected"))

        with actors_settings(ACTOR_OPTIONS={"throws": (ValueError,)}):
            self.assertEqual(self.run_once().reason, Reason.EXPECTED_EXCEPTION)
        self.assertNotIn("WARNING", self.log.text())

    def test_nonsense_that_came_over_the_wire_loses_no_message(self):
        self.fails(ValueError("no"))
        message = self.work.message().copy(options={"throws": "ValueError", "max_retries": "x"})

        delivery = self.run_one(message)

        self.assertEqual(delivery.fate, Fate.DEAD)
        self.assertIsInstance(delivery.exception, ValueError)


class RetryErrorTests(RetriesCase):
    """Raising ``Retry`` asks for a retry."""

    def test_it_runs_again_after_the_delay_it_names(self):
        for delay in (1_500, timedelta(seconds=1.5)):
            with self.subTest(delay=delay):
                self.fails(Retry("busy", delay=delay))

                delivery = self.run_once()

                self.assertEqual((delivery.fate, delivery.due_ms), (Fate.RETRY, START_MS + 1_500))

    def test_its_delay_may_be_nothing_or_above_the_maximum(self):
        for delay in (0, 30 * DAY_MS):
            with self.subTest(delay=delay):
                self.fails(Retry(delay=delay), max_backoff=1_000)

                self.assertEqual(self.run_once().due_ms, START_MS + delay)

    def test_without_a_delay_the_backoff_of_the_actor_decides(self):
        self.fails(Retry("busy"), min_backoff=100, max_backoff=100)

        self.assertEqual(self.run_once().due_ms, START_MS + 100)

    def test_it_is_not_logged_as_an_error(self):
        self.fails(Retry("the printer is busy", delay=1))
        self.run_once()

        self.assertIn(
            "[INFO] Message work() asked for a retry: the printer is busy", self.log.text()
        )
        self.assertNotIn("Failed", self.log.text())
        self.assertNotIn("Traceback", self.log.text())

    def test_it_counts_as_a_retry(self):
        failing = self.fails(*[Retry(delay=0) for _ in range(10)], max_retries=3)
        self.work.send()

        *_, last = self.run_all()

        self.assertEqual((len(failing.calls), last.reason), (4, Reason.RETRIES_EXHAUSTED))

    def test_a_wrong_delay_is_a_failure_that_is_retried_with_its_place(self):
        def ask():
            raise Retry(delay=-1)

        self.declare(ask).send()

        (delivery,) = self.run_ready()

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertIn("in ask\n", self.rows()[0].traceback)


class ExhaustedTests(RetriesCase):
    def test_on_retry_exhausted_is_sent_once_at_the_end(self):
        heard: list[Any] = []
        self.declare(lambda message, counts: heard.append((message, counts)), actor_name="listen")
        self.fails(max_retries=2, min_backoff=0, on_retry_exhausted="listen")
        message = self.work.send()

        self.run_all()

        ((data, counts),) = heard
        self.assertEqual(data["message_id"], message.message_id)
        self.assertEqual(counts, {"retries": 2, "max_retries": 2})

    def test_a_message_may_name_another_actor(self):
        heard: list[Any] = []
        listen = self.declare(lambda message, counts: heard.append(counts), actor_name="listen")
        self.fails(max_retries=0, on_retry_exhausted="nobody")
        self.work.send_with_options(on_retry_exhausted=listen)

        self.run_all()

        self.assertEqual(heard, [{"retries": 0, "max_retries": 0}])

    def test_one_that_does_not_exist_is_logged_and_the_dead_letter_written(self):
        self.fails(max_retries=0, on_retry_exhausted="nobody")

        delivery = self.run_once()

        self.assertEqual(delivery.reason, Reason.RETRIES_EXHAUSTED)
        self.assertIn("There is no actor 'nobody'", self.log.text())
        self.assertEqual(len(self.rows(Kind.DEAD)), 1)

    def test_its_dead_letter_has_the_number_of_runs_and_the_last_error(self):
        self.fails(ValueError("1"), ValueError("2"), ValueError("3"), max_retries=2)
        self.work.send()
        self.run_all()

        (row,) = self.rows(Kind.DEAD)

        self.assertEqual((row.attempts, row.error, row.due_ms), (3, "3", None))
        self.assertEqual(row.reason, "retries exhausted")


class ArgumentTests(RetriesCase):
    def test_arguments_of_the_middleware_are_checked(self):
        wrong: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"max_retries": -1}, TypeError),
            ({"max_retries": True}, TypeError),
            ({"max_retries": 1.5}, TypeError),
            ({"min_backoff": -1}, ValueError),
            ({"min_backoff": None}, TypeError),
            ({"max_backoff": timedelta(days=8)}, ValueError),
            ({"retry_when": 5}, TypeError),
        ]
        for arguments, kind in wrong:
            with self.subTest(arguments), self.assertRaisesRegex(kind, f"^{next(iter(arguments))}"):
                Retries(**arguments)

    def test_without_this_middleware_a_failure_is_a_dead_letter(self):
        self.use_middleware()
        self.fails(ValueError("no"))

        delivery = self.run_once()

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.REJECTED))

    def test_who_has_decided_before_is_not_overruled(self):
        class Reject(Retries):
            def after_process_message(self, broker, message, *, result=None, exception=None):
                message.fail(Reason.REJECTED)

        # After hooks run in reverse: this one comes before the retries.
        self.use_middleware(Retries(), Reject())
        self.fails(ValueError("no"))

        self.assertEqual(self.run_once().reason, Reason.REJECTED)
