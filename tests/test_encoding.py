"""Encoding a message for sending, and the errors that name what is wrong with it."""

from __future__ import annotations

import decimal
import uuid
from datetime import UTC, date, datetime
from typing import Any

from django.contrib.auth.models import User
from django.test import SimpleTestCase

from django_actors import Message
from django_actors.encoding import encode_checked
from django_actors.errors import MessageTooLarge, UnencodableArgument

from .engine import ActorsMixin, make_message
from .support import LONE_SURROGATE, actors_settings


def charge(card, amount=0, *rest, note="", **extra): ...


class UnencodableTests(ActorsMixin):
    def setUp(self) -> None:
        super().setUp()
        self.charge = self.declare(charge)

    def explain(self, *args: Any, **kwargs: Any) -> str:
        with self.assertRaises(UnencodableArgument) as caught:
            encode_checked(self.charge.message(*args, **kwargs))
        return str(caught.exception)

    def test_the_error_is_a_type_error_with_its_cause(self):
        with self.assertRaises(TypeError) as caught:
            encode_checked(self.charge.message(object()))

        self.assertIsInstance(caught.exception.__cause__, TypeError)

    def test_a_positional_argument_is_named_by_its_parameter(self):
        self.assertIn("Argument 'card' of charge", self.explain(object()))
        self.assertIn("Argument 'amount' of charge", self.explain("x", object()))
        self.assertIn("Argument 'rest' of charge", self.explain("x", 1, 2, object()))

    def test_a_keyword_argument_is_named(self):
        self.assertIn("Argument 'note' of charge", self.explain("x", note=object()))
        self.assertIn("Argument 'color' of charge", self.explain("x", color=object()))

    def test_an_option_is_named(self):
        message = self.charge.message_with_options(args=("x",), tag=object())

        with self.assertRaisesRegex(UnencodableArgument, "Option 'tag' of charge"):
            encode_checked(message)

    def test_an_argument_of_an_unknown_actor_is_named_by_its_position(self):
        with self.assertRaisesRegex(UnencodableArgument, "Argument 2 of somebody"):
            encode_checked(make_message("somebody", 1, object()))

    def test_the_innermost_culprit_is_described(self):
        text = self.explain({"lines": [1, {"at": datetime(2017, 6, 27, tzinfo=UTC)}]})

        self.assertIn("Argument 'card' of charge cannot be sent: a datetime has no JSON", text)

    def test_the_error_says_what_to_send_instead(self):
        for value, advice in (
            (datetime(2017, 6, 27, tzinfo=UTC), "isoformat()"),
            (date(2017, 6, 27), "isoformat()"),
            (decimal.Decimal("1.10"), "Send str(value)."),
            (uuid.uuid4(), "Send str(value)."),
            (b"raw", "base64"),
            ({1, 2}, "Send a list."),
            (User(pk=5), "Send its primary key"),
            (float("nan"), "JSON has no NaN and no infinity."),
            (float("-inf"), "JSON has no NaN and no infinity."),
            (LONE_SURROGATE, "half of a surrogate pair"),
            ({LONE_SURROGATE: 1}, "half of a surrogate pair"),
        ):
            with self.subTest(value=value):
                self.assertIn(advice, self.explain(value))

    def test_keys_that_are_no_text_are_named_with_their_dict(self):
        self.assertIn("Argument 'card' of charge", self.explain({(1, 2): 3}))

    def test_what_holds_itself_is_refused(self):
        circle: list[Any] = []
        circle.append(circle)

        self.assertIn("Argument 'card' of charge", self.explain(circle))

    def test_what_is_nested_too_deeply_is_refused(self):
        nested: Any = "bottom"
        for _ in range(20_000):
            nested = [nested]

        self.assertIn("Argument 'card' of charge", self.explain(nested))

    def test_a_number_with_too_many_digits_is_refused(self):
        self.assertIn("Argument 'card' of charge", self.explain(10**10_000))

    def test_values_stay_out_of_the_error_because_they_may_be_secret(self):
        class Card:
            def __repr__(self):
                return "41x11"

        self.assertNotIn("41x11", self.explain(Card()))
        self.assertNotIn("41x11", self.explain({"41x11": Card()}))

    def test_a_name_that_has_no_utf_8_form_is_refused_too(self):
        message = Message("default", LONE_SURROGATE, (), {}, {})

        with self.assertRaises(UnencodableArgument):
            encode_checked(message)


class SizeTests(SimpleTestCase):
    def test_a_message_of_the_largest_size_is_fine(self):
        message = make_message("add", "é" * 100)

        with actors_settings(MAX_MESSAGE_SIZE=len(message.encode())):
            self.assertEqual(encode_checked(message), message.encode())

    def test_one_byte_more_is_an_error_that_names_both_sizes_and_the_way_out(self):
        message = make_message("add", "é" * 2_000)
        size = len(message.encode())

        with (
            actors_settings(MAX_MESSAGE_SIZE=size - 1),
            self.assertRaisesRegex(
                MessageTooLarge, rf"for add has {size:,} bytes.*{size - 1:,}.*send its key"
            ),
        ):
            encode_checked(message)

    def test_without_a_setting_the_limit_is_a_mebibyte(self):
        with actors_settings():
            encode_checked(make_message("add", "x" * 1_040_000))
            with self.assertRaises(MessageTooLarge):
                encode_checked(make_message("add", "x" * 1_048_576))
