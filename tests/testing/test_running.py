"""``run_actors()``: what is pending runs in the test's own thread and transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.test import SimpleTestCase, TestCase

from django_actors import Message, get_broker, set_broker
from django_actors.brokers import build_broker
from django_actors.errors import (
    ActorNotFound,
    QueueNotFound,
    Retry,
    Shutdown,
    TimeLimitExceeded,
)
from django_actors.middleware import CurrentMessage
from django_actors.registry import registry
from django_actors.test import (
    EndlessChain,
    Outcome,
    actor_clock,
    fail_next_send,
    run_actors,
)

from .base import HelpersCase, outcomes


class RunTests(HelpersCase, SimpleTestCase):
    def test_nothing_runs_by_itself(self):
        self.greet.send("Ada")

        self.assertEqual(self.calls, [])

    def test_what_is_pending_runs_in_order_and_says_what_happened(self):
        first, second = self.greet.send("Ada"), self.greet.send("Bob")

        results = run_actors()

        self.assertEqual([r.message for r in results], [first, second])
        self.assertEqual([r.value for r in results], ["Hello, Ada", "Hello, Bob"])
        self.assertEqual({r.outcome for r in results}, {Outcome.DONE})
        self.assertEqual(results[0].outcome, "done")
        self.assertIsNone(results[0].exception)

    def test_what_ran_does_not_run_again(self):
        self.greet.send("Ada")

        self.assertEqual(len(run_actors()), 1)
        self.assertEqual(run_actors(), [])

    def test_it_runs_in_the_thread_of_the_test(self):
        threads = []
        self.declare(lambda: threads.append(threading.current_thread()), actor_name="a").send()

        run_actors()

        self.assertEqual(threads, [threading.current_thread()])

    def test_arguments_arrive_as_json_brings_them(self):
        self.greet.send(("a", {"b": (1,)}))

        run_actors()

        self.assertEqual(self.calls, [["a", {"b": [1]}]])

    def test_what_actors_send_runs_too(self):
        self.declare(lambda: self.greet.send("Ada"), actor_name="outer").send()

        self.assertEqual(len(run_actors()), 2)
        self.assertEqual(self.calls, ["Ada"])

    def test_callbacks_run_too(self):
        heard = []
        self.declare(lambda message, value: heard.append(value), actor_name="listen")
        self.greet.send_with_options(args=("Ada",), on_success="listen")

        run_actors()

        self.assertEqual(heard, ["Hello, Ada"])

    def test_priorities_count(self):
        low = self.declare(lambda: self.calls.append("low"), actor_name="low", priority=9)
        low.send()
        self.greet.send("high")

        run_actors()

        self.assertEqual(self.calls, ["high", "low"])

    def test_only_some_queues_can_be_run(self):
        other = self.declare(
            lambda: self.calls.append("other"), actor_name="other", queue_name="others"
        )
        other.send()
        self.greet.send("Ada")

        run_actors(queues=["others"])

        self.assertEqual(self.calls, ["other"])
        self.assertEqual(len(run_actors()), 1)

    def test_a_queue_that_is_misspelled_is_an_error(self):
        with self.assertRaisesMessage(QueueNotFound, "Did you mean 'default'?"):
            run_actors(queues=["defualt"])
        with self.assertRaisesMessage(TypeError, "queues=['default']"):
            run_actors(queues="default")

    def test_the_middleware_is_that_of_a_worker(self):
        current = []
        self.declare(lambda: current.append(CurrentMessage.get_current_message()), actor_name="ask")
        message = get_broker().enqueue(get_broker().get_actor("ask").message())

        run_actors()

        self.assertEqual(current, [message])

    def test_messages_can_be_sent_without_their_actor(self):
        get_broker().enqueue(Message("default", "greet", ("Ada",), {}, {}))

        run_actors()

        self.assertEqual(self.calls, ["Ada"])

    def test_a_send_that_the_engine_makes_is_tried_again_when_the_broker_is_back(self):
        self.declare(lambda message, value: None, actor_name="listen")
        self.greet.send_with_options(args=("Ada",), on_success="listen")
        fail_next_send()

        self.assertEqual(outcomes(run_actors()), ["done", "done"])
        self.assertEqual(self.calls, ["Ada"])


class ErrorTests(HelpersCase, SimpleTestCase):
    def test_an_error_comes_up_after_everything_has_run(self):
        self.declare_failing(ValueError("broken")).send()
        self.greet.send("Ada")

        with self.assertRaisesMessage(ValueError, "broken") as caught:
            run_actors()

        self.assertEqual(self.calls, [(), "Ada"])
        self.assertIn("Raised by fail(): retry.", caught.exception.__notes__[0])

    def test_the_retry_of_a_failed_message_stays_scheduled(self):
        fail = self.declare_failing(ValueError("broken"), min_backoff=60_000)
        message = fail.send()

        self.assertRaises(ValueError, run_actors)

        self.assertEqual(run_actors(), [])
        [result] = run_actors(until_idle=True)
        self.assertEqual(result.message.message_id, message.message_id)
        self.assertEqual(result.message.options["retries"], 1)

    def test_errors_can_be_returned_instead(self):
        error = ValueError("broken")
        self.declare_failing(error).send()

        [result] = run_actors(raise_errors=False)

        self.assertIs(result.exception, error)
        self.assertEqual(result.outcome, "retry")

    def test_all_failed_messages_are_named(self):
        self.declare_failing(ValueError("1"), ValueError("2"), max_retries=0).send_many(
            [(1,), (2,)]
        )

        with self.assertRaises(ValueError) as caught:
            run_actors()

        self.assertEqual(str(caught.exception), "1")
        self.assertIn(
            "Failed as well: fail(2): dead after ValueError('2')", caught.exception.__notes__[0]
        )

    def test_a_later_success_makes_up_for_an_error(self):
        self.declare_failing(ValueError("1"), ValueError("2")).send()

        results = run_actors(until_idle=True)

        self.assertEqual(outcomes(results), ["retry", "retry", "done"])

    def test_a_dead_letter_is_an_error_and_stays_to_be_looked_at(self):
        self.declare_failing(ValueError("broken"), max_retries=0).send()

        self.assertRaises(ValueError, run_actors)

        [dead] = self.stub.dead_letters
        self.assertEqual(str(dead.exception), "broken")

    def test_an_expected_exception_is_an_error_of_the_test_all_the_same(self):
        self.declare_failing(KeyError("x"), throws=KeyError).send()

        self.assertRaises(KeyError, run_actors)

    def test_who_asks_for_a_retry_has_not_failed(self):
        self.declare_failing(Retry("Not yet.", delay=1_000)).send()

        self.assertEqual(outcomes(run_actors()), ["retry"])
        self.assertEqual(outcomes(run_actors(until_idle=True)), ["done"])

    def test_an_actor_that_is_not_there_is_named(self):
        get_broker().enqueue(Message("default", "great", (), {}, {}))

        with self.assertRaisesMessage(ActorNotFound, "There is no actor 'great'"):
            run_actors()

    def test_a_message_that_is_too_old_is_an_error(self):
        with actor_clock() as clock:
            self.greet.send_with_options(args=("Ada",), max_age=1_000)
            clock.advance(seconds=1)

            self.assertRaisesMessage(Exception, "max_age is 1000 ms", run_actors)

    def test_a_shutdown_puts_the_message_back(self):
        self.declare_failing(Shutdown()).send()

        self.assertEqual(outcomes(run_actors(raise_errors=False)), ["put back"])
        self.assertEqual(outcomes(run_actors()), ["done"])

    def test_a_time_limit_that_an_actor_raises_itself_is_a_failure(self):
        self.declare_failing(TimeLimitExceeded(), max_retries=0).send()

        self.assertRaises(TimeLimitExceeded, run_actors)

    def test_ctrl_c_ends_the_test_and_not_the_actor(self):
        self.declare_failing(KeyboardInterrupt()).send()
        self.greet.send("Ada")

        self.assertRaises(KeyboardInterrupt, run_actors)

        self.assertEqual(self.calls, [()])

    def test_nothing_is_printed_where_no_logging_is_set_up(self):
        self.declare_failing(ValueError("broken")).send()

        with self.assertLogs("django_actors", "WARNING") as logs:
            run_actors(raise_errors=False)

        self.assertIn("Failed to process message fail()", logs.output[0])


class ChainTests(HelpersCase, SimpleTestCase):
    def test_an_endless_chain_ends_with_what_sent_what(self):
        ping = self.declare(lambda n: pong.send(n + 1), actor_name="ping")
        pong = self.declare(lambda n: ping.send(n + 1), actor_name="pong")
        ping.send(0)

        with self.assertRaises(EndlessChain) as caught:
            run_actors(max_messages=100)

        text = str(caught.exception)
        self.assertIn("has run 100 messages", text)
        self.assertIn("  ping(0)\n  pong(1)\n  ... 91 more ...\n  pong(93)", text)
        self.assertIn("  ping(100)\nIf that is no endless chain", text)

    def test_an_endless_retry_ends_too(self):
        self.declare(lambda: 1 / 0, actor_name="divide", max_retries=None, min_backoff=0).send()

        with self.assertRaisesMessage(EndlessChain, "divide() (retry 1000)"):
            run_actors(until_idle=True)

    def test_exactly_as_many_messages_as_allowed_may_run(self):
        self.greet.send_many([(1,), (2,)])

        self.assertEqual(len(run_actors(max_messages=2)), 2)

    def test_the_message_that_came_next_is_not_lost(self):
        self.greet.send_many([(1,), (2,)])

        self.assertRaises(EndlessChain, run_actors, max_messages=1)

        self.assertEqual(len(run_actors()), 1)


class OtherBrokerTests(SimpleTestCase):
    def test_another_broker_than_the_stub_is_an_error_that_says_why(self):
        set_broker(build_broker("database://default"))
        self.addCleanup(set_broker, None)

        with self.assertRaisesMessage(RuntimeError, "sends to a DatabaseBroker"):
            run_actors()


class SpeedTests(HelpersCase, TestCase):
    """
    Real time, but that of this thread: what another process does on the machine is hardly in it.
    """

    def test_twenty_retries_over_a_month_take_milliseconds(self):
        self.assert_takes_no_time(self.retry_twenty_times)

    def assert_takes_no_time(self, function: Callable[[], None]) -> None:
        # Nobody can do it faster than it is; a machine that is full makes any one of them slow.
        self.assertTrue(any(self.time(function) < 50 for _ in range(20)))

    def retry_twenty_times(self) -> None:
        actor = self.declare_failing(
            *[ValueError() for _ in range(20)],
            min_backoff=timedelta(hours=1),
            max_backoff=timedelta(days=7),
        )
        actor.send()

        with actor_clock() as clock:
            start = clock.now()
            results = run_actors(until_idle=True)
            passed = clock.now() - start

        self.assertEqual(outcomes(results), ["retry"] * 20 + ["done"])
        self.assertGreater(passed, timedelta(days=30))
        registry.remove(actor.actor_name)

    def test_a_delay_of_a_week_takes_no_time(self):
        self.assert_takes_no_time(self.wait_for_a_week)

    def wait_for_a_week(self) -> None:
        with actor_clock() as clock:
            message = self.greet.send_with_options(args=("Ada",), delay=timedelta(days=7))
            clock.advance(days=7)
            [result] = run_actors()

        self.assertEqual(result.message, message)

    def time(self, function: Callable[[], None]) -> float:
        began = time.thread_time()
        function()
        return (time.thread_time() - began) * 1_000
