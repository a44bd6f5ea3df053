"""Each test starts empty, and what happens in it survives a change of the settings."""

from __future__ import annotations

import unittest
from unittest import mock

from django.core import mail
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings

from django_actors import brokers, get_broker, isolation, set_broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.middleware import Middleware
from django_actors.test import (
    ActorsRunnerMixin,
    actor_clock,
    assert_sent,
    fail_next_send,
    run_actors,
    sent,
)

from .base import HelpersCase


class Extra(Middleware):
    """A middleware that is not in the settings."""


class SettingsTests(HelpersCase, TestCase):
    def test_what_was_sent_survives_a_change_of_the_settings(self):
        self.greet.send("Ada")

        with override_settings(DJANGO_ACTORS={"MIDDLEWARE": []}):
            self.assertEqual(get_broker().middleware, [])
            self.assertEqual(len(run_actors()), 1)
            self.greet.send("Bob")

        assert_sent(self.greet, "Ada")
        self.assertEqual([result.message.args for result in run_actors()], [("Bob",)])

    def test_dead_letters_survive_it_too(self):
        self.declare_failing(ValueError(), max_retries=0).send()
        with override_settings(DJANGO_ACTORS={}):
            run_actors(raise_errors=False)

        self.assertEqual(len(self.stub.dead_letters), 1)


class StartTests(HelpersCase, SimpleTestCase):
    def test_the_next_test_finds_nothing(self):
        self.greet.send("ready")
        self.greet.send_with_options(args=("later",), delay=1_000)
        self.declare_failing(ValueError(), max_retries=0).send()
        run_actors(queues=["default"], raise_errors=False)
        self.greet.send("again")
        fail_next_send()

        isolation.begin_test()

        self.assertEqual(sent(), [])
        self.assertEqual(run_actors(until_idle=True), [])
        self.assertEqual(self.stub.dead_letters, [])
        self.greet.send("not refused")

    def test_an_emptied_mailbox_is_no_new_test(self):
        self.greet.send("Ada")

        mail.outbox = []

        assert_sent(self.greet, "Ada")

    def test_a_broker_that_was_asked_for_too_early_is_replaced(self):
        early = DatabaseBroker()
        early.add_middleware(Extra())
        with mock.patch.object(brokers, "_configured", early):
            isolation.begin_test()

            broker = get_broker()

        self.assertIsInstance(broker, StubBroker)
        self.assertIsInstance(broker.middleware[-1], Extra)

    def test_a_broker_that_was_set_stays(self):
        broker = DatabaseBroker()
        set_broker(broker)
        self.addCleanup(set_broker, None)

        isolation.begin_test()

        self.assertIs(get_broker(), broker)

    def test_installing_twice_is_no_error(self):
        before = SimpleTestCase.__call__

        isolation.install()

        self.assertIs(SimpleTestCase.__call__, before)

    def test_processes_of_tests_are_known_before_django_is_set_up(self):
        with mock.patch("sys.argv", ["manage.py", "test"]):
            self.assertTrue(isolation.is_test_process())
        with (
            mock.patch("sys.argv", ["manage.py", "runserver"]),
            mock.patch.dict("sys.modules", clear=True),
        ):
            self.assertFalse(isolation.is_test_process())

    def test_a_process_can_say_that_it_runs_tests(self):
        outbox = mail.outbox
        del mail.outbox
        self.addCleanup(setattr, mail, "outbox", outbox)
        with mock.patch.object(isolation, "_declared", False):
            self.assertFalse(isolation.is_in_test())
            isolation.declare_tests()
            self.assertTrue(isolation.is_in_test())


class RunnerTests(SimpleTestCase):
    def test_a_runner_of_one_s_own_puts_the_stub_in_place(self):
        called = []

        class Base:
            def setup_test_environment(self, **kwargs):
                called.append(kwargs)

        class Runner(ActorsRunnerMixin, Base):
            """A runner of one's own."""

        with mock.patch.object(brokers, "_configured", DatabaseBroker()):
            Runner().setup_test_environment(debug=False)
            self.assertIsInstance(get_broker(), StubBroker)

        self.assertEqual(called, [{"debug": False}])


class ForgetfulCase(HelpersCase):
    """Runs a test of its own within a project that makes forgotten messages an error."""

    kind: type[SimpleTestCase]

    def failure_of(self, function) -> str:
        """Return how a ``TestCase`` with this test method fails; nothing if it passes."""
        case = type("Case", (self.kind,), {"test": lambda test: function() and None})
        result = unittest.TestResult()
        with override_settings(DJANGO_ACTORS={"TEST_FORGOTTEN": "error"}):
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        return "\n".join(text for _, text in result.failures + result.errors)


class ForgottenTests(ForgetfulCase, SimpleTestCase):
    kind = SimpleTestCase

    def test_a_message_nobody_looked_at_is_an_error(self):
        failure = self.failure_of(lambda: self.greet.send("Ada"))

        self.assertIn("neither ran nor looked at:\n    assert_sent(greet, 'Ada')\nCall", failure)

    def test_a_message_that_ran_is_none(self):
        def run() -> None:
            self.greet.send("Ada")
            run_actors()

        self.assertEqual(self.failure_of(run), "")

    def test_a_message_that_was_looked_at_is_none(self):
        def look() -> None:
            self.greet.send("Ada")
            assert_sent(self.greet, "Ada")

        self.assertEqual(self.failure_of(look), "")

    def test_a_message_that_waits_for_its_time_is_none(self):
        def wait() -> None:
            self.greet.send_with_options(args=("Ada",), delay=60_000)

        self.assertEqual(self.failure_of(wait), "")

    def test_a_message_whose_time_has_come_is_one(self):
        def wait() -> None:
            with actor_clock() as clock:
                self.greet.send_with_options(args=("Ada",), delay=1)
                clock.advance(seconds=1)
                isolation.end_test()

        self.assertIn("delay: 0:00:00.001", self.failure_of(wait))

    def test_one_failure_is_enough(self):
        def fail() -> None:
            self.greet.send("Ada")
            raise KeyError("the test's own")

        failure = self.failure_of(fail)

        self.assertIn("the test's own", failure)
        self.assertNotIn("looked at", failure)


class ForgottenInTransactionTests(ForgetfulCase, TransactionTestCase):
    """The check comes before the rollback of the test."""

    available_apps = ["django_actors"]
    kind = TestCase

    def test_a_message_nobody_looked_at_is_an_error(self):
        self.assertIn("assert_sent(greet, 'Ada')", self.failure_of(lambda: self.greet.send("Ada")))
