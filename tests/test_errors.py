"""The errors: which one a caller can catch as what."""

from __future__ import annotations

import inspect
import pickle
from datetime import timedelta

from django.test import SimpleTestCase

from django_actors import errors, middleware


def error_classes() -> dict[str, type[BaseException]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }


class HierarchyTests(SimpleTestCase):
    def test_all_but_the_interrupts_are_errors_of_this_package(self):
        strangers = {
            name
            for name, kind in error_classes().items()
            if not issubclass(kind, (errors.ActorsError, errors.Interrupt))
        }

        self.assertEqual(strangers, set())

    def test_an_interrupt_is_not_eaten_by_except_exception(self):
        for kind in (errors.TimeLimitExceeded, errors.Shutdown):
            with self.subTest(kind):
                self.assertTrue(issubclass(kind, errors.Interrupt))
                self.assertFalse(issubclass(kind, Exception))

    def test_each_can_be_caught_as_the_builtin_error_it_is(self):
        for kind, builtin in {
            errors.UnencodableArgument: TypeError,
            errors.MessageTooLarge: ValueError,
            errors.ActorNotFound: LookupError,
            errors.QueueNotFound: LookupError,
            errors.QueueJoinTimeout: TimeoutError,
            errors.BrokerUnavailable: ConnectionError,
        }.items():
            with self.subTest(kind):
                self.assertTrue(issubclass(kind, builtin))

    def test_skip_message_is_heard_by_the_engine(self):
        self.assertTrue(issubclass(errors.SkipMessage, errors.MiddlewareError))

    def test_what_actors_raise_and_catch_is_found_beside_the_middleware(self):
        for name in ("Interrupt", "MiddlewareError", "Retry", "Shutdown", "SkipMessage"):
            with self.subTest(name):
                self.assertIs(getattr(middleware, name), getattr(errors, name))
        self.assertIs(middleware.TimeLimitExceeded, errors.TimeLimitExceeded)

    def test_every_error_says_what_it_means(self):
        for name, kind in error_classes().items():
            with self.subTest(name):
                self.assertTrue(kind.__doc__)


class RetryTests(SimpleTestCase):
    def test_it_needs_neither_a_reason_nor_a_delay(self):
        error = errors.Retry()

        self.assertEqual((str(error), error.delay), ("", None))

    def test_its_delay_is_milliseconds_or_a_timedelta(self):
        for delay in (1_500, timedelta(seconds=1.5)):
            with self.subTest(delay=delay):
                self.assertEqual(errors.Retry("busy", delay=delay).delay, 1_500)

    def test_a_wrong_delay_fails_in_the_actor_where_it_was_written(self):
        for delay, kind in (("soon", TypeError), (True, TypeError), (-1, ValueError)):
            with self.subTest(delay=delay), self.assertRaisesRegex(kind, "^delay must be"):
                errors.Retry("busy", delay=delay)  # type: ignore[arg-type]

    def test_it_travels_between_processes(self):
        error = pickle.loads(pickle.dumps(errors.Retry("busy", delay=5)))

        self.assertEqual((str(error), error.delay), ("busy", 5))
