"""Actors: how they are declared, named and called, and what sending builds."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from django.test import SimpleTestCase

import django_actors
from django_actors import Actor, GenericActor, Message, actor, clock, set_broker
from django_actors.brokers.stub import StubBroker
from django_actors.errors import MessageTooLarge, UnencodableArgument
from django_actors.middleware import Middleware
from django_actors.registry import registry
from tests.ledger import tasks as ledger

from .engine import ActorsMixin
from .support import LONE_SURROGATE, START_MS, StubCase, actors_settings


def add(x, y=2): ...


def count_words(url): ...


class Colors(Middleware):
    """A middleware of a project, with an option of its own."""

    @property
    def actor_options(self):
        return ("color",)

    def clean_option(self, name, value):
        if value not in ("red", "green"):
            raise ValueError(f"{name} must be red or green, not {value!r}.")
        return value.upper()


class DecoratorTests(StubCase):
    def forget_later(self, *names: str) -> None:
        for name in names:
            self.addCleanup(registry.remove, name)

    def test_it_may_be_bare_or_called(self):
        self.forget_later("bare", "called", "empty")

        @actor
        def bare(): ...

        @actor()
        def empty(): ...

        @actor(queue_name="mail", max_retries=3)
        def called(): ...

        for declared in (bare, empty, called):
            with self.subTest(declared=declared):
                self.assertIsInstance(declared, Actor)
                self.assertIs(registry.get(declared.actor_name), declared)
        self.assertEqual((bare.queue_name, bare.priority, bare.options), ("default", 0, {}))
        self.assertEqual((called.queue_name, called.options), ("mail", {"max_retries": 3}))

    def test_calling_an_actor_runs_the_function_and_returns_its_value(self):
        declared = self.declare(lambda x, y=2: x + y, actor_name="add")

        self.assertEqual(declared(1), 3)
        self.assertEqual(declared(1, y=5), 6)
        self.assertEqual(self.sent(), [])

    def test_an_error_of_the_function_comes_as_it_is(self):
        with self.assertRaises(ZeroDivisionError):
            self.declare(lambda: 1 / 0, actor_name="fail")()

    def test_it_looks_like_the_function(self):
        def greet(name: str) -> None:
            """Greet somebody."""

        declared: Any = self.declare(greet)

        self.assertIs(declared.fn, greet)
        self.assertEqual((declared.__name__, declared.__doc__), ("greet", "Greet somebody."))
        self.assertEqual(declared.__module__, __name__)

    def test_as_text_it_is_its_name(self):
        declared = self.declare(add)

        self.assertEqual(str(declared), "Actor(add)")
        self.assertIn("Actor(add) at ", repr(declared))
        self.assertIn("test_actor.py:", repr(declared))

    def test_its_logger_has_the_name_of_its_module_and_its_own(self):
        self.assertIs(self.declare(add).logger, logging.getLogger(f"{__name__}.add"))

    def test_its_broker_is_the_one_of_today(self):
        declared = self.declare(add)

        self.assertIs(declared.broker, self.broker)
        other = self.use(StubBroker())
        self.assertIs(declared.broker, other)

    def test_only_a_function_can_be_an_actor(self):
        for thing in (5, "add", None):
            with self.subTest(thing=thing), self.assertRaisesRegex(TypeError, "@actor stands on"):
                actor(max_retries=1)(thing)  # type: ignore[arg-type]

    def test_a_class_of_the_project_is_honored(self):
        class Loud(Actor):
            def shout(self):
                return self.actor_name.upper()

        declared: Any = self.declare(add, actor_class=Loud, priority=5, max_age=10)

        self.assertIsInstance(declared, Loud)
        self.assertEqual(declared.shout(), "ADD")
        self.assertEqual((declared.priority, declared.options), (5, {"max_age": 10}))


class NameTests(StubCase):
    def test_outside_of_an_installed_app_it_is_the_name_of_the_function(self):
        self.assertEqual(self.declare(add).actor_name, "add")

    def test_in_an_installed_app_the_label_comes_first(self):
        self.assertEqual(ledger.record.actor_name, "ledger.record")
        self.assertEqual(str(ledger.record), "Actor(ledger.record)")

    def test_a_name_may_be_given(self):
        for name in ("count", "shop.count", "läden zählen", "x" * 255):
            with self.subTest(name=name):
                declared = self.declare(add, actor_name=name)

                self.assertEqual(declared.actor_name, name)
                self.assertIs(registry.get(name), declared)
                self.assertEqual(declared.message(1).actor_name, name)

    def test_a_name_that_cannot_be_shown_or_sent_is_refused(self):
        for name in ("", "a\0", "a\nb", LONE_SURROGATE, "x" * 256, 5, b"add"):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, "An actor's name"):
                self.declare(add, actor_name=name)

    def test_a_name_that_is_taken_is_an_error_that_names_both_places(self):
        first = self.declare(add, actor_name="same")

        with self.assertRaises(ValueError) as caught:
            self.declare(count_words, actor_name="same")

        for function in (add, count_words):
            self.assertIn(
                f"test_actor.py:{function.__code__.co_firstlineno}", str(caught.exception)
            )
        self.assertIs(registry.get("same"), first)

    def test_the_place_of_a_wrapped_function_is_its_own(self):
        def decorated(*args):
            return add(*args)

        decorated.__wrapped__ = add  # type: ignore[attr-defined]

        place = self.declare(decorated, actor_name="decorated").place

        self.assertTrue(place.endswith(f":{add.__code__.co_firstlineno}"), place)

    def test_a_callable_without_code_has_a_place_too(self):
        self.assertEqual(self.declare(len).place, "builtins.len")


class QueueNameTests(StubCase):
    def test_good_names(self):
        for name in ("default", "_", "A1", "mail.eu-west_1", "x" * 255):
            with self.subTest(name=name):
                self.assertEqual(self.declare(add, queue_name=name).queue_name, name)

    def test_bad_names_are_a_value_error_at_the_decoration(self):
        for name in ("", "1a", "-a", ".a", "a b", "a\n", "a:b", "é", "x" * 256, None, 5):
            with (
                self.subTest(name=name),
                self.assertRaisesRegex(ValueError, "is no name for a queue"),
            ):
                self.declare(add, queue_name=name)


class PriorityTests(StubCase):
    def test_any_integer_of_32_bits_is_a_priority(self):
        for priority in (0, 10, -5, 2**31 - 1, -(2**31)):
            with self.subTest(priority=priority):
                self.assertEqual(self.declare(add, priority=priority).priority, priority)

    def test_others_are_refused_for_actors_and_for_messages(self):
        declared = self.declare(add)

        for priority, kind in (
            (2**31, ValueError),
            (-(2**31) - 1, ValueError),
            (1.0, TypeError),
            ("1", TypeError),
            (True, TypeError),
            (None, TypeError),
        ):
            with self.subTest(priority=priority):
                with self.assertRaisesRegex(kind, "^priority must"):
                    self.declare(add, priority=priority)
                with self.assertRaisesRegex(kind, "^priority must"):
                    declared.send_with_options(args=(1,), priority=priority)
        self.assertEqual(self.sent(), [])

    def test_the_lower_number_runs_first_and_equal_ones_in_the_order_they_were_sent(self):
        low, high = self.declare(add, priority=100), self.declare(count_words, priority=-1)
        sent = [low.send(1), low.send(2), high.send("a"), high.send("b")]

        self.assertEqual(self.sent(), [sent[2], sent[3], sent[0], sent[1]])

    def test_a_message_may_have_a_priority_of_its_own(self):
        declared = self.declare(add, priority=10)

        late = declared.send_with_options(args=(1,), priority=20)
        usual = declared.send(2)
        soon = declared.send_with_options(args=(3,), priority=0)

        self.assertEqual(self.sent(), [soon, usual, late])


class OptionTests(StubCase):
    def test_an_unknown_option_is_a_value_error_that_names_the_closest_one(self):
        for wrong, right in (
            ("max_retry", "max_retries"),
            ("time_limits", "time_limit"),
            ("queue", "queue_name"),
            ("prioritty", "priority"),
            ("sensitiv", "sensitive"),
        ):
            with (
                self.subTest(wrong),
                self.assertRaisesRegex(ValueError, f"'{wrong}'.*Did you mean '{right}'"),
            ):
                self.declare(add, **{wrong: 1})
        self.assertIsNone(registry.find("add"))

    def test_every_option_of_the_reference_is_known(self):
        options = {
            "max_retries": 3,
            "min_backoff": 100,
            "max_backoff": 1_000,
            "retry_when": lambda retries, exception: True,
            "throws": (ValueError,),
            "max_age": 1_000,
            "time_limit": 1_000,
            "notify_shutdown": True,
            "on_success": "add",
            "on_failure": "add",
            "on_retry_exhausted": "add",
            "sensitive": ("x",),
        }

        self.assertEqual(self.declare(add, **options).options, options)

    def test_a_timedelta_is_kept_as_milliseconds(self):
        minute = timedelta(minutes=1)

        declared = self.declare(
            add, max_age=minute, time_limit=minute, min_backoff=minute, max_backoff=minute
        )

        self.assertEqual(set(declared.options.values()), {60_000})

    def test_a_wrong_value_is_an_error_that_names_the_actor_and_the_option(self):
        for name, value, kind in (
            ("max_retries", -1, TypeError),
            ("max_retries", "3", TypeError),
            ("max_retries", True, TypeError),
            ("min_backoff", None, TypeError),
            ("min_backoff", -1, ValueError),
            ("max_backoff", timedelta(days=7, milliseconds=1), ValueError),
            ("max_age", "1h", TypeError),
            ("max_age", timedelta(-1), ValueError),
            ("time_limit", float("nan"), ValueError),
            ("notify_shutdown", 1, TypeError),
            ("retry_when", 5, TypeError),
            ("throws", "ValueError", TypeError),
            ("throws", (ValueError, 5), TypeError),
            ("throws", [ValueError], TypeError),
            ("on_success", add, TypeError),
            ("on_failure", 5, TypeError),
            ("on_retry_exhausted", print, TypeError),
            ("sensitive", "x", TypeError),
            ("sensitive", 5, TypeError),
            ("sensitive", None, TypeError),
            ("sensitive", (5,), TypeError),
            ("sensitive", ("z",), ValueError),
        ):
            with (
                self.subTest(name, value=value),
                self.assertRaisesRegex(kind, rf"^add: {name}\b"),
            ):
                self.declare(add, **{name: value})

    def test_none_lifts_the_limits_that_can_be_lifted(self):
        options = {"max_retries": None, "max_age": None, "time_limit": None, "throws": None}

        self.assertEqual(self.declare(add, **options).options, options)

    def test_seven_days_is_the_longest_backoff(self):
        declared = self.declare(add, max_backoff=timedelta(days=7))

        self.assertEqual(declared.options["max_backoff"], 604_800_000)

    def test_a_callback_is_an_actor_or_the_name_of_one(self):
        target = self.declare(count_words, actor_name="after")

        for value in (target, "after"):
            with self.subTest(value=value):
                self.assertEqual(self.declare(add, on_success=value).options["on_success"], "after")

    def test_a_middleware_of_the_project_brings_options_and_cleans_them(self):
        self.use_middleware(Colors())

        self.assertEqual(self.declare(add, color="red").options, {"color": "RED"})
        with self.assertRaisesRegex(ValueError, "add: color must be red or green, not 'blue'"):
            self.declare(add, color="blue")

    def test_without_its_middleware_an_option_is_unknown(self):
        self.use_middleware()

        with self.assertRaisesRegex(ValueError, "'max_retries', which no installed middleware"):
            self.declare(add, max_retries=3)

    def test_before_there_is_a_broker_the_middleware_of_the_settings_decides(self):
        set_broker(None)

        with actors_settings(MIDDLEWARE=[f"{__name__}.Colors"]):
            self.assertEqual(self.declare(add, color="red").options, {"color": "RED"})
            with self.assertRaisesRegex(ValueError, "'max_retries'"):
                self.declare(add, max_retries=3)

    def test_wrong_settings_do_not_keep_a_module_from_being_imported(self):
        set_broker(None)

        for middleware in (["no.such.Middleware"], "retries", [5]):
            with self.subTest(middleware=middleware), actors_settings(MIDDLEWARE=middleware):
                self.assertEqual(self.declare(add, max_retries=3).options, {"max_retries": 3})


class CallTests(StubCase):
    """A call that does not fit the function fails where it is made."""

    def test_what_does_not_fit_is_a_type_error_that_names_the_actor_and_the_argument(self):
        declared = self.declare(add)

        for args, kwargs, text in (
            ((), {}, "missing a required argument: 'x'"),
            ((1, 2, 3), {}, "too many positional arguments"),
            ((1,), {"z": 3}, "unexpected keyword argument 'z'"),
            ((1,), {"x": 3}, "multiple values for argument 'x'"),
        ):
            with self.subTest(text):
                for send in (declared.send, declared.message):
                    with self.assertRaisesRegex(TypeError, rf"^add\(x, y=2\) .*{text}"):
                        send(*args, **kwargs)
                with self.assertRaisesRegex(TypeError, text):
                    declared.send_with_options(args=args, kwargs=kwargs)
        self.assertEqual(self.sent(), [])

    def test_every_form_of_signature_is_understood(self):
        forms: list[tuple[Any, list[Any], list[Any]]] = [
            (lambda: 0, [((), {})], [((1,), {}), ((), {"x": 1})]),
            (lambda x, /: 0, [((1,), {})], [((), {"x": 1}), ((), {}), ((1, 2), {})]),
            (lambda *, x: 0, [((), {"x": 1})], [((1,), {}), ((), {})]),
            (lambda *, x=1: 0, [((), {"x": 1}), ((), {})], [((1,), {})]),
            (lambda x, *rest: 0, [((1,), {}), ((1, 2, 3), {})], [((), {}), ((1,), {"y": 1})]),
            (lambda *rest, x: 0, [((1, 2), {"x": 1})], [((1, 2), {})]),
            (lambda **kw: 0, [((), {}), ((), {"x": 1})], [((1,), {})]),
            (lambda x, y=1, **kw: 0, [((1,), {"z": 1}), ((1, 2), {})], [((), {"y": 1})]),
        ]
        for number, (function, right, wrong) in enumerate(forms):
            declared = self.declare(function, actor_name=f"form{number}")
            for args, kwargs in right:
                with self.subTest(args=args, kwargs=kwargs):
                    self.assertEqual(declared.message(*args, **kwargs).args, args)
            for args, kwargs in wrong:
                with (
                    self.subTest(args=args, kwargs=kwargs),
                    self.assertRaisesRegex(TypeError, "was sent wrongly"),
                ):
                    declared.message(*args, **kwargs)

    def test_keywords_that_are_no_text_are_refused(self):
        declared = self.declare(lambda **kw: 0, actor_name="any")

        with self.assertRaises(TypeError):
            declared.send_with_options(kwargs={1: 2})  # type: ignore[dict-item]

    def test_what_has_no_json_form_is_not_sent_and_named(self):
        declared = self.declare(add)

        with self.assertRaisesRegex(UnencodableArgument, "Argument 'x' of add"):
            declared.send(object())

        self.assertEqual(self.sent(), [])

    def test_what_is_too_large_is_not_sent(self):
        with actors_settings(MAX_MESSAGE_SIZE=1_000), self.assertRaises(MessageTooLarge):
            self.declare(add).send("x" * 1_000)

        self.assertEqual(self.sent(), [])


class MessageTests(StubCase):
    def test_message_builds_and_does_not_send(self):
        message = self.declare(add, queue_name="mail").message(1, y=5)

        self.assertEqual(
            (message.queue_name, message.actor_name, message.args, message.kwargs),
            ("mail", "add", (1,), {"y": 5}),
        )
        self.assertEqual((message.options, message.message_timestamp), ({}, START_MS))
        self.assertEqual(self.sent(), [])

    def test_send_returns_the_message_that_was_sent(self):
        declared = self.declare(add)

        for message in (
            declared.send(1, y=5),
            declared.send_with_options(args=(1,), kwargs={"y": 5}),
            declared.send_with_options(args=[1], kwargs={"y": 5}),
        ):
            with self.subTest(message=message):
                self.assertIsInstance(message, Message)
                self.assertIn(message, self.sent())
                self.assertEqual(str(message), "add(1, y=5)")

    def test_a_built_message_can_be_sent_by_the_broker(self):
        message = self.declare(add).message(1)

        self.assertEqual(self.broker.enqueue(message), message)
        self.assertEqual(self.sent(), [message])

    def test_what_the_caller_changes_later_does_not_change_what_was_sent(self):
        values = [1]
        self.declare(add).send(values)

        values.append(2)

        self.assertEqual(self.sent()[0].args, ([1],))

    def test_the_arguments_of_the_caller_are_left_alone(self):
        kwargs = {"y": 5}

        message = self.declare(add).message_with_options(args=(1,), kwargs=kwargs)
        message.kwargs["y"] = 6

        self.assertEqual(kwargs, {"y": 5})


class MessageOptionTests(StubCase):
    def options(self, **options: Any) -> dict[str, Any]:
        return self.declare(add).message_with_options(args=(1,), **options).options

    def test_options_nobody_knows_travel_along(self):
        self.assertEqual(self.options(tenant="acme", trace=[1]), {"tenant": "acme", "trace": [1]})

    def test_options_that_are_known_are_checked_when_the_message_is_built(self):
        for name, value, kind in (
            ("max_age", "1h", TypeError),
            ("max_retries", -1, TypeError),
            ("max_backoff", timedelta(days=8), ValueError),
            ("time_limit", -1, ValueError),
            ("throws", "ValueError", TypeError),
        ):
            with self.subTest(name), self.assertRaisesRegex(kind, rf"^add: {name} must"):
                self.options(**{name: value})

    def test_a_timedelta_becomes_milliseconds(self):
        minute = timedelta(minutes=1)

        self.assertEqual(
            self.options(max_age=minute, time_limit=minute, of_ours=minute),
            {"max_age": 60_000, "time_limit": 60_000, "of_ours": 60_000},
        )

    def test_a_callback_is_an_actor_or_a_name(self):
        target = self.declare(count_words, actor_name="after")

        for name in ("on_success", "on_failure", "on_retry_exhausted"):
            with self.subTest(name):
                self.assertEqual(self.options(**{name: target}), {name: "after"})
                self.assertEqual(self.options(**{name: "after"}), {name: "after"})

    def test_another_callable_as_a_callback_is_a_type_error_when_the_message_is_built(self):
        for name in ("on_success", "on_failure", "on_retry_exhausted"):
            with self.subTest(name), self.assertRaisesRegex(TypeError, f"{name} must be an actor"):
                self.options(**{name: print})

    def test_a_function_cannot_travel_and_the_error_names_the_option(self):
        declared = self.declare(add)

        with self.assertRaisesRegex(UnencodableArgument, "Option 'retry_when' of add"):
            declared.send_with_options(args=(1,), retry_when=lambda retries, exception: True)


class DelayTests(StubCase):
    def eta(self, **options: Any) -> Any:
        return self.declare(add).message_with_options(args=(1,), **options).options.get("eta")

    def test_a_delay_counts_from_the_time_of_the_message(self):
        declared = self.declare(add)

        with patch.object(clock, "_source", itertools.count(START_MS).__next__):
            message = declared.message_with_options(args=(1,), delay=1_000)

        self.assertEqual(message.options["eta"], message.message_timestamp + 1_000)

    def test_a_delay_is_milliseconds_or_a_timedelta_from_now(self):
        self.assertEqual(self.eta(delay=10_000), START_MS + 10_000)
        self.assertEqual(self.eta(delay=timedelta(seconds=10)), START_MS + 10_000)
        self.assertEqual(self.eta(delay=0), START_MS)

    def test_an_eta_is_an_aware_datetime_or_milliseconds_since_1970(self):
        moment = datetime(2027, 1, 1, tzinfo=UTC)

        self.assertEqual(self.eta(eta=moment), 1_798_761_600_000)
        self.assertEqual(self.eta(eta=1_798_761_600_000), 1_798_761_600_000)

    def test_without_an_eta_the_message_carries_none_and_runs_at_once(self):
        declared = self.declare(add)

        message = declared.send_with_options(args=(1,), eta=None, delay=None)

        self.assertEqual(message.options, {})
        self.assertEqual(self.sent(), [message])

    def test_what_is_no_time_is_refused(self):
        for options, kind in (
            ({"delay": -1}, ValueError),
            ({"delay": timedelta(-1)}, ValueError),
            ({"delay": "10"}, TypeError),
            ({"delay": True}, TypeError),
            ({"delay": float("nan")}, ValueError),
            ({"delay": 10**30}, ValueError),
            ({"eta": datetime(2027, 1, 1)}, ValueError),
            ({"eta": "tomorrow"}, TypeError),
            ({"eta": 1.5}, TypeError),
            ({"eta": True}, TypeError),
            ({"eta": -1}, ValueError),
            ({"eta": 10**15}, ValueError),
            ({"delay": 0, "eta": 0}, ValueError),
        ):
            with self.subTest(options=options), self.assertRaises(kind):
                self.eta(**options)

    def test_a_delayed_message_waits_in_the_waiting_room_under_its_own_queue(self):
        declared = self.declare(add, queue_name="mail")

        message = declared.send_with_options(args=(1,), delay=1_000)

        self.assertEqual(self.sent(), [])
        self.assertEqual(message.queue_name, "mail")
        (row,) = self.rows()
        self.assertEqual(
            (row.queue_name, row.due_ms, row.message), ("mail", START_MS + 1_000, message)
        )

    def test_an_eta_that_is_over_runs_at_once(self):
        declared = self.declare(add)

        for eta in (START_MS, START_MS - 1, datetime(1960, 1, 1, tzinfo=UTC)):
            with self.subTest(eta=eta):
                self.assertIn(declared.send_with_options(args=(1,), eta=eta), self.sent())


class SendManyTests(StubCase):
    def test_it_takes_tuples_and_messages_and_returns_messages_in_their_order(self):
        declared = self.declare(add)
        built = declared.message_with_options(args=(3,), priority=-1)

        messages = declared.send_many([(1,), [2, 5], built])

        self.assertEqual([str(each) for each in messages], ["add(1)", "add(2, 5)", "add(3)"])
        self.assertEqual(messages[2], built)
        self.assertCountEqual(self.sent(), messages)

    def test_it_takes_any_iterable(self):
        messages = self.declare(add).send_many((n,) for n in range(3))

        self.assertEqual([each.args for each in messages], [(0,), (1,), (2,)])

    def test_nothing_is_an_empty_list(self):
        self.assertEqual(self.declare(add).send_many([]), [])

    def test_all_go_in_one_round_trip(self):
        declared = self.declare(add)

        with patch.object(self.broker, "publish", wraps=self.broker.publish) as publish:
            declared.send_many([(n,) for n in range(50)])

        (batch,) = publish.call_args_list
        self.assertEqual(len(batch.args[0]), 50)

    def test_a_bare_argument_is_a_type_error_that_does_not_repeat_it(self):
        for call in ("41x11-1111", 5, {"x": 1}, None):
            with self.subTest(call=call), self.assertRaises(TypeError) as caught:
                self.declare(add).send_many([call])  # type: ignore[list-item]

            self.assertIn(f"not a {type(call).__name__}", str(caught.exception))
            self.assertNotIn("41x11", str(caught.exception))

    def test_one_wrong_call_sends_none(self):
        declared = self.declare(add)

        for wrong in ((), (object(),)):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                declared.send_many([(1,), wrong, (2,)])

        self.assertEqual(self.sent(), [])


class AsyncTests(StubCase):
    def test_messages_are_sent_from_coroutines(self):
        declared = self.declare(add)

        async def send_all():
            return [
                await declared.asend(1, y=5),
                await declared.asend_with_options(args=(2,), priority=5),
                *await declared.asend_many([(3,)]),
            ]

        messages = asyncio.run(send_all())

        self.assertEqual(self.sent(), [messages[0], messages[2], messages[1]])

    def test_a_wrong_call_fails_there_too(self):
        declared = self.declare(add)

        with self.assertRaisesRegex(TypeError, "missing a required argument: 'x'"):
            asyncio.run(declared.asend())

    def test_a_coroutine_function_runs_to_its_end(self):
        ended = []

        async def sleep(key):
            await asyncio.sleep(0)
            ended.append(key)
            return key

        declared = self.declare(sleep)
        declared.send("a")
        (delivery,) = self.run_ready()

        self.assertEqual((ended, delivery.result), (["a"], "a"))

    def test_a_coroutine_behind_a_decorator_is_not_forgotten(self):
        async def double(x):
            return 2 * x

        def plain(*args):
            return double(*args)

        self.assertEqual(self.declare(plain).run(4), 8)

    def test_an_error_of_a_coroutine_is_an_error_of_the_actor(self):
        async def fail():
            raise ValueError("no")

        with self.assertRaisesRegex(ValueError, "no"):
            self.declare(fail).run()

    def test_calling_a_coroutine_actor_gives_the_coroutine_as_any_function_does(self):
        async def double(x):
            return 2 * x

        self.assertEqual(asyncio.run(self.declare(double)(4)), 8)


class GenericActorTests(ActorsMixin):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(StubBroker())
        self.addCleanup(self.forget_all_but, set(registry.actors()))

    def forget_all_but(self, names: set[str]) -> None:
        for name in set(registry.actors()) - names:
            registry.remove(name)

    def test_a_class_is_an_actor_that_runs_perform(self):
        class Greet(GenericActor):
            """Greets."""

            def perform(self, name):
                return f"Hello, {name}"

        message: Any = Greet.send("Ada")

        self.assertEqual(Greet.actor_name, "Greet")
        self.assertEqual(Greet()("Bob"), "Hello, Bob")
        self.assertEqual(registry.get("Greet").run(*message.args), "Hello, Ada")
        self.assertEqual(str(Greet), "Actor(Greet)")
        self.assertEqual(Greet.logger.name, f"{__name__}.Greet")
        self.assertEqual(Greet.__actor__.__doc__, "Greets.")

    def test_meta_holds_what_the_decorator_would_be_given(self):
        class Greet(GenericActor):
            class Meta:
                actor_name = "greet"
                queue_name = "mail"
                priority = 5
                max_age = timedelta(seconds=1)

            def perform(self): ...

        self.assertEqual(
            (Greet.actor_name, Greet.queue_name, Greet.priority, Greet.options),
            ("greet", "mail", 5, {"max_age": 1_000}),
        )

    def test_a_wrong_option_in_meta_is_an_error_of_the_class(self):
        with self.assertRaisesRegex(ValueError, "Wrong has the option 'max_retry'"):

            class Wrong(GenericActor):
                class Meta:
                    max_retry = 3

    def test_an_abstract_base_is_no_actor_and_hands_its_meta_down(self):
        class Base(GenericActor):
            class Meta:
                abstract = True
                queue_name = "mail"
                max_retries = 3

            def perform(self, x):
                return self.work(x)

            def work(self, x): ...

        class Double(Base):
            class Meta:
                max_retries = 5

            def work(self, x):
                return 2 * x

        class Triple(Base):
            def work(self, x):
                return 3 * x

        self.assertIsNone(registry.find("Base"))
        self.assertEqual((Double.queue_name, Double.options), ("mail", {"max_retries": 5}))
        self.assertEqual((Triple.queue_name, Triple.options), ("mail", {"max_retries": 3}))
        self.assertEqual((Double()(2), Triple()(2)), (4, 6))

    def test_being_abstract_is_not_inherited_by_a_derived_meta(self):
        class Base(GenericActor):
            class Meta:
                abstract = True

        class Concrete(Base):
            class Meta(Base.Meta):
                queue_name = "mail"

        self.assertEqual(Concrete.queue_name, "mail")

    def test_sending_to_an_abstract_class_says_that_it_is_abstract(self):
        class Base(GenericActor):
            class Meta:
                abstract = True

        with self.assertRaisesRegex(AttributeError, "Base is abstract: it has no 'send'"):
            Base.send()
        self.assertEqual(str(Base), "Base")

    def test_calling_one_without_perform_is_an_error_with_the_name_of_the_class(self):
        class Lazy(GenericActor):
            pass

        with self.assertRaisesRegex(NotImplementedError, "Lazy does not implement perform"):
            Lazy()()
        with self.assertRaisesRegex(NotImplementedError, "Lazy does not implement perform"):
            registry.get("Lazy").run()

    def test_every_run_has_an_instance_of_its_own(self):
        instances = []

        class Keep(GenericActor):
            def perform(self):
                instances.append(self)

        registry.get("Keep").run()
        registry.get("Keep").run()

        self.assertIsNot(instances[0], instances[1])

    def test_a_call_is_checked_against_perform(self):
        class Greet(GenericActor):
            def perform(self, name): ...

        with self.assertRaisesRegex(TypeError, r"Greet\(name\) .*argument: 'name'"):
            Greet.send()

    def test_a_coroutine_perform_runs_to_its_end(self):
        class Double(GenericActor):
            async def perform(self, x):
                return 2 * x

        self.assertEqual(registry.get("Double").run(4), 8)

    def test_it_can_be_the_target_of_a_callback(self):
        class After(GenericActor):
            def perform(self, message, result): ...

        declared = self.declare(add, on_success=After)

        self.assertEqual(declared.options["on_success"], "After")

    def test_two_classes_of_one_name_at_other_places_are_an_error(self):
        class Greet(GenericActor):
            pass

        self.assertTrue(Greet.place.endswith("<locals>.Greet"), Greet.place)
        with self.assertRaisesRegex(ValueError, "Two actors are called 'Greet'"):
            self.declare(add, actor_name="Greet")


EARLY = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_actors"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
from django_actors import actor
from django_actors.registry import registry

@actor(max_retries=3)
def early(x): ...

print(str(early), registry.actors())

import django
django.setup()
print(str(early), list(registry.actors()), early.message(1))

@actor(max_retry=3)
def wrong(): ...
"""


class EarlyTests(SimpleTestCase):
    def test_an_actor_may_stand_in_a_module_that_is_imported_before_django_is_ready(self):
        process = subprocess.run(
            [sys.executable, "-c", EARLY],
            cwd=Path(django_actors.__file__).parent.parent,
            capture_output=True,
            text=True,
        )

        self.assertEqual(
            process.stdout.splitlines(),
            ["Actor(early) {}", "Actor(early) ['early'] early(1)"],
            process.stderr,
        )
        self.assertIn("Did you mean 'max_retries'?", process.stderr)
