"""Bad days on demand: redelivery, a broker out of reach, a crash before the ack."""

from __future__ import annotations

from django.test import SimpleTestCase, TestCase

from django_actors.errors import BrokerUnavailable
from django_actors.test import (
    assert_sent,
    crash_before_ack,
    fail_next_send,
    redeliver,
    run_actors,
    sent,
)

from .base import HelpersCase, outcomes


class RedeliveryTests(HelpersCase, SimpleTestCase):
    def test_a_message_can_be_delivered_again(self):
        self.greet.send("Ada")
        run_actors()

        redeliver(assert_sent(self.greet, "Ada"))

        self.assertEqual(outcomes(run_actors()), ["done"])
        self.assertEqual(self.calls, ["Ada", "Ada"])
        self.assertEqual(len(sent()), 1)

    def test_what_waits_for_its_retry_is_skipped_when_it_comes_again(self):
        message = self.declare_failing(ValueError()).send()
        run_actors(raise_errors=False)

        redeliver(message)

        self.assertEqual(outcomes(run_actors()), ["skipped"])
        self.assertEqual(outcomes(run_actors(until_idle=True)), ["done"])


class RefusalTests(HelpersCase, TestCase):
    def test_the_next_send_fails_and_leaves_nothing(self):
        fail_next_send()

        self.assertRaises(BrokerUnavailable, self.greet.send, "Ada")

        self.assertEqual(sent(), [])
        self.greet.send("Bob")
        self.assertEqual(len(sent()), 1)

    def test_several_sends_can_fail(self):
        fail_next_send(times=2)

        self.assertRaises(BrokerUnavailable, self.greet.send, "Ada")
        self.assertRaises(BrokerUnavailable, self.greet.send_with_options, args=("A",), delay=1)
        self.greet.send("Bob")

    def test_an_actor_whose_send_fails_is_retried(self):
        self.declare(lambda: self.greet.send("Ada"), actor_name="outer").send()
        fail_next_send()

        results = run_actors(until_idle=True)

        self.assertEqual(outcomes(results), ["retry", "done", "done"])


class CrashTests(HelpersCase, SimpleTestCase):
    def test_a_run_that_was_not_acknowledged_comes_again(self):
        self.greet.send("Ada")
        crash_before_ack()

        self.assertEqual(outcomes(run_actors()), ["crashed", "done"])
        self.assertEqual(self.calls, ["Ada", "Ada"])

    def test_what_the_actor_has_sent_stays(self):
        self.declare(lambda: self.greet.send("Ada"), actor_name="outer").send()
        crash_before_ack()

        run_actors()

        self.assertEqual(self.calls, ["Ada", "Ada"])

    def test_several_workers_can_crash(self):
        self.greet.send("Ada")
        crash_before_ack(times=3)

        self.assertEqual(outcomes(run_actors()), ["crashed"] * 3 + ["done"])

    def test_the_next_test_has_no_bad_day(self):
        fail_next_send()
        crash_before_ack()

        self.stub.forget()

        self.greet.send("Ada")
        self.assertEqual(outcomes(run_actors()), ["done"])
