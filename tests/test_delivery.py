"""The delivery: what hooks and the executor see of a message that has arrived."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from django.test import SimpleTestCase

from django_actors.delivery import Delivery, Fate, Reason
from django_actors.errors import MessageTooLarge, UnencodableArgument
from django_actors.message import Envelope

from .engine import deliver, make_message
from .support import START_MS, actors_settings, stop_clock


class AttributesTests(SimpleTestCase):
    def test_it_passes_the_attributes_of_the_message_on(self):
        message = make_message("add", 1, queue="mail", eta=5)
        delivery = deliver(message)

        for name in ("actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"):
            with self.subTest(name):
                self.assertEqual(getattr(delivery, name), getattr(message, name))
        self.assertEqual(delivery.queue_name, "mail")
        self.assertEqual(delivery.message_datetime, message.message_datetime)
        self.assertEqual(delivery.encode(), message.encode())
        self.assertEqual(str(delivery), "add(1)")

    def test_it_equals_its_message_from_both_sides(self):
        message = make_message("add", 1)

        self.assertEqual(deliver(message), message)
        self.assertEqual(message, deliver(message))
        self.assertEqual(deliver(message), deliver(message))
        self.assertIn(message, {deliver(message)})
        self.assertNotEqual(deliver(message), make_message("add", 1))
        self.assertNotEqual(deliver(message), "add(1)")

    def test_what_neither_of_both_has_is_an_attribute_error(self):
        with self.assertRaisesRegex(AttributeError, "no_such_thing"):
            _ = deliver(make_message()).no_such_thing

    def test_before_it_is_decoded_the_error_says_so(self):
        delivery = Delivery(b"?", queue_name="mail")

        with self.assertRaisesRegex(AttributeError, "not decoded.*'message_id'"):
            _ = delivery.message_id
        self.assertEqual(delivery.queue_name, "mail")

    def test_undecoded_deliveries_are_told_apart_by_their_bytes(self):
        first, second = (Delivery(body, queue_name="mail") for body in (b"1", b"2"))

        self.assertNotEqual(first, second)
        self.assertEqual(first, Delivery(b"1", queue_name="mail"))

    def test_its_envelope_carries_the_bytes_as_they_came(self):
        message = make_message("add", queue="mail")
        delivery = Delivery(b" " + message.encode(), queue_name="mail", priority=7, message=message)

        self.assertEqual(
            delivery.envelope(), Envelope(message.message_id, "mail", 7, b" " + message.encode())
        )
        self.assertEqual(Delivery(b"?", queue_name="q").envelope(), Envelope("", "q", 0, b"?"))


class FateTests(SimpleTestCase):
    def setUp(self) -> None:
        self.clock = stop_clock(self)
        self.delivery = deliver(make_message())

    def test_nothing_is_decided_at_first(self):
        self.assertIsNone(self.delivery.fate)
        self.assertFalse(self.delivery.failed)

    def test_fail_makes_it_a_dead_letter(self):
        self.delivery.fail()

        self.assertTrue(self.delivery.failed)
        self.assertEqual((self.delivery.fate, self.delivery.reason), (Fate.DEAD, Reason.REJECTED))

    def test_fail_may_say_why(self):
        self.delivery.fail(Reason.TOO_OLD)

        self.assertEqual(self.delivery.reason, "too old")

    def test_retry_takes_milliseconds_or_a_timedelta(self):
        for delay in (1_500, timedelta(seconds=1.5)):
            with self.subTest(delay=delay):
                self.delivery.retry(delay)

                self.assertEqual(
                    (self.delivery.fate, self.delivery.reason), (Fate.RETRY, Reason.RETRY)
                )
                self.assertEqual(self.delivery.due_ms, START_MS + 1_500)

    def test_retry_takes_back_a_failure(self):
        self.delivery.fail()
        self.delivery.retry(0)

        self.assertFalse(self.delivery.failed)

    def test_a_retry_in_the_past_is_refused(self):
        with self.assertRaisesRegex(ValueError, "^delay must"):
            self.delivery.retry(-1)

    def test_postpone_is_no_failure(self):
        self.delivery.postpone(5_000, Reason.MISSING_ACTOR)

        self.assertFalse(self.delivery.failed)
        self.assertEqual(self.delivery.fate, Fate.POSTPONED)
        self.assertEqual(self.delivery.due_ms, START_MS + 5_000)


class SuccessorTests(SimpleTestCase):
    def test_messages_are_sent_in_the_order_they_were_given(self):
        delivery, first, second = deliver(make_message()), make_message("a"), make_message("b")

        delivery.send_after(first)
        delivery.send_after(second)

        self.assertEqual(list(delivery.successors), [first, second])

    def test_one_that_cannot_be_sent_is_refused_at_once(self):
        delivery = deliver(make_message())

        with self.assertRaisesRegex(UnencodableArgument, "Argument 1 of b"):
            delivery.send_after(make_message("b", object()))
        with actors_settings(MAX_MESSAGE_SIZE=100), self.assertRaises(MessageTooLarge):
            delivery.send_after(make_message("b"))

        self.assertEqual(list(delivery.successors), [])


class OptionTests(SimpleTestCase):
    """Message before actor before project before middleware."""

    def option(self, *, message: Any = None, actor: Any = None, defaults: Any = None) -> Any:
        actor_or_none = None if actor is None else SimpleNamespace(options=actor)
        delivery = deliver(
            make_message(**(message or {})), actor=actor_or_none, defaults=defaults or {}
        )
        return delivery.option("max_age", "middleware")

    def test_the_first_of_message_actor_project_and_middleware_decides(self):
        at = {name: {"max_age": name} for name in ("message", "actor", "defaults")}

        self.assertEqual(self.option(**at), "message")
        self.assertEqual(self.option(actor=at["actor"], defaults=at["defaults"]), "actor")
        self.assertEqual(self.option(actor={}, defaults=at["defaults"]), "defaults")
        self.assertEqual(self.option(actor={}), "middleware")

    def test_none_is_a_value_that_overrides(self):
        self.assertIsNone(self.option(message={"max_age": None}, actor={"max_age": 5}))
        self.assertIsNone(self.option(actor={"max_age": None}, defaults={"max_age": 5}))
        self.assertIsNone(self.option(actor={}, defaults={"max_age": None}))

    def test_it_can_be_asked_before_the_actor_is_found(self):
        self.assertEqual(self.option(message={"max_age": 1}), 1)
        self.assertEqual(self.option(), "middleware")

    def test_an_option_nobody_has_is_none(self):
        self.assertIsNone(deliver(make_message()).option("no_such_option"))
