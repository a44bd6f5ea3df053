"""What was sent, and failures that show it in the form of the right call."""

from __future__ import annotations

from unittest import mock

from django.db import transaction
from django.test import SimpleTestCase, TestCase

from django_actors import GenericActor
from django_actors.errors import ActorNotFound
from django_actors.registry import registry
from django_actors.test import (
    ActorsTestMixin,
    assert_not_sent,
    assert_sent,
    capture_messages,
    run_actors,
    sent,
)

from .base import HelpersCase


class SentTests(HelpersCase, SimpleTestCase):
    def test_all_that_was_sent_is_there_in_order_run_or_not(self):
        first = self.greet.send("Ada")
        run_actors()
        second = self.greet.send_with_options(args=("Bob",), delay=1_000)

        self.assertEqual(sent(), [first, second])

    def test_the_messages_of_one_actor_can_be_asked_for(self):
        other = self.declare(lambda: None, actor_name="other")
        self.greet.send("Ada")
        message = other.send()

        self.assertEqual(sent(other), [message])
        self.assertEqual(sent("other"), [message])

    def test_a_retry_is_no_new_send(self):
        self.declare_failing(ValueError(), ValueError()).send()

        run_actors(until_idle=True)

        self.assertEqual(len(sent()), 1)

    def test_arguments_are_those_the_actor_gets(self):
        self.greet.send(("a", "b"))

        self.assertEqual(sent()[0].args, (["a", "b"],))

    def test_the_name_of_an_actor_that_is_not_there_is_an_error(self):
        with self.assertRaisesMessage(ActorNotFound, "Did you mean 'greet'?"):
            assert_not_sent("great")
        with self.assertRaisesMessage(TypeError, "neither an actor nor the name of one"):
            assert_sent(len)


class AssertSentTests(HelpersCase, SimpleTestCase):
    def test_the_first_message_that_fits_is_returned(self):
        self.greet.send("Bob")
        message = self.greet.send("Ada")
        self.greet.send("Ada")

        self.assertEqual(assert_sent(self.greet, "Ada"), message)

    def test_it_does_not_matter_how_an_argument_was_given(self):
        self.greet.send("Ada", polite=True)

        assert_sent(self.greet, "Ada", True)
        assert_sent(self.greet, polite=True, name="Ada")

    def test_a_default_is_as_good_as_an_argument(self):
        self.greet.send("Ada")

        assert_sent(self.greet, "Ada", polite=False)

    def test_a_tuple_equals_the_list_that_arrives(self):
        self.greet.send((1, {"a": (2,)}))

        assert_sent(self.greet, (1, {"a": (2,)}))
        assert_sent(self.greet, [1, {"a": [2]}])

    def test_any_equals_everything(self):
        self.greet.send({"name": "Ada", "at": 17})

        assert_sent(self.greet, mock.ANY)
        assert_sent(self.greet, {"name": "Ada", "at": mock.ANY})

    def test_without_arguments_any_call_will_do(self):
        self.greet.send("Ada")

        assert_sent(self.greet)
        self.assertRaises(AssertionError, assert_not_sent, self.greet)

    def test_arguments_that_no_call_could_have_are_an_error(self):
        self.greet.send("Ada")

        self.assertRaises(TypeError, assert_sent, self.greet, "Ada", loud=True)

    def test_what_was_not_sent_passes_as_not_sent(self):
        self.greet.send("Ada")

        assert_not_sent(self.greet, "Bob")

    def test_actors_that_are_classes_have_a_name_too(self):
        class Greeter(GenericActor):
            def perform(self, name):
                """Do nothing."""

        self.addCleanup(registry.remove, Greeter.actor_name)
        Greeter.send("Ada")

        assert_sent(Greeter, "Ada")
        with self.assertRaisesMessage(AssertionError, "assert_sent(Greeter, 'Ada')"):
            assert_sent(Greeter, "Bob")


class ExplanationTests(HelpersCase, TestCase):
    def explain(self, *args: object) -> str:
        with self.assertRaises(AssertionError) as caught:
            assert_sent(self.greet, *args)
        return str(caught.exception)

    def test_a_failure_says_when_nothing_was_sent(self):
        self.assertEqual(self.explain("Ada"), "greet('Ada') was not sent.\nNothing was sent.")

    def test_a_failure_shows_lines_that_would_have_passed(self):
        self.greet.send("Ada", polite=True)
        self.greet.send_with_options(args=([1, {"a": None}],), delay=3_600_000)

        *_, first, second = self.explain("Bob").splitlines()

        self.assertEqual(first, "    assert_sent(greet, 'Ada', polite=True)")
        self.assertEqual(second, "    assert_sent(greet, [1, {'a': None}])  # delay: 1:00:00")
        for line in (first, second):
            exec(line.strip(), {"assert_sent": assert_sent, "greet": self.greet})

    def test_an_actor_without_a_python_name_is_shown_by_its_own(self):
        self.declare(lambda x: None, actor_name="other").send(1)

        line = self.explain("Ada").splitlines()[-1]

        self.assertEqual(line, "    assert_sent('other', 1)")
        exec(line.strip(), {"assert_sent": assert_sent})

    def test_a_failure_shows_what_was_rolled_back(self):
        with self.assertRaises(KeyError), transaction.atomic():
            self.greet.send("Ada")
            raise KeyError

        self.assertIn(
            "rolled back with its transaction:\n    assert_sent(greet, 'Ada')", self.explain("Ada")
        )

    def test_a_failure_names_the_helper_for_commit_callbacks(self):
        transaction.on_commit(lambda: self.greet.send("Ada"))

        self.assertIn("with self.captureOnCommitCallbacks(execute=True):", self.explain("Ada"))

    def test_what_was_sent_and_should_not_is_shown(self):
        self.greet.send("Ada")

        with self.assertRaisesMessage(
            AssertionError, "greet('Ada') was sent:\n    assert_sent(greet, 'Ada')"
        ):
            assert_not_sent(self.greet, "Ada")


class CaptureTests(HelpersCase, TestCase):
    def test_what_is_sent_in_the_block_is_collected(self):
        self.greet.send("before")

        with capture_messages() as messages:
            self.greet.send("Ada")
            self.assertEqual([m.args for m in messages], [("Ada",)])
            self.greet.send_with_options(args=("Bob",), delay=1_000)

        self.greet.send("after")
        self.assertEqual([m.args for m in messages], [("Ada",), ("Bob",)])

    def test_what_was_rolled_back_is_not_in_it(self):
        with (
            capture_messages() as messages,
            self.assertRaises(KeyError),
            transaction.atomic(),
        ):
            self.greet.send("Ada")
            raise KeyError

        self.assertEqual(messages, [])

    def test_captured_messages_run_like_others(self):
        with capture_messages():
            self.greet.send("Ada")

        self.assertEqual(len(run_actors()), 1)


class MixinTests(ActorsTestMixin, HelpersCase, TestCase):
    def test_the_helpers_are_methods(self):
        with self.capture() as messages, self.stopped_clock() as clock:
            self.greet.send_with_options(args=("Ada",), delay=1_000)
            self.assertEqual(self.run(), [])
            clock.advance(seconds=1)
            self.assertEqual(len(self.run(queues=["default"])), 1)

        self.assertEqual(self.sent(), messages)
        self.assert_sent(self.greet, "Ada")
        self.assert_not_sent(self.greet, "Bob")

    def stopped_clock(self):
        return self.clock()

    def test_a_failure_shows_the_method(self):
        self.greet.send("Ada")

        with self.assertRaisesMessage(AssertionError, "    self.assert_sent(greet, 'Ada')"):
            self.assert_sent(self.greet, "Bob")

    async def test_coroutines_await(self):
        await self.greet.asend("Ada")

        self.assertEqual(len(await self.arun()), 1)
