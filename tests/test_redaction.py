"""What is sensitive is hidden wherever a message is shown."""

from __future__ import annotations

from typing import Any
from unittest import TestCase, mock

from django_actors import Message
from django_actors.redaction import redact, traceback_of

from .engine import ActorsMixin, deliver, make_message

CARD = "4111-1111"


def charge(card, amount=0, *rest, note="", **extra): ...


class RedactionTests(ActorsMixin):
    def redact(self, *args: Any, sensitive: Any = ("card",), **kwargs: Any) -> Any:
        charged = self.declare(charge, sensitive=sensitive)
        return redact(charged.message(*args, **kwargs))

    def test_a_sensitive_argument_is_shown_as_stars(self):
        for args, kwargs, shown in (
            ((CARD, 5), {}, "charge(***, 5)"),
            ((), {"card": CARD, "amount": 5}, "charge(card=***, amount=5)"),
        ):
            with self.subTest(shown):
                self.assertEqual(str(self.redact(*args, **kwargs)), shown)

    def test_without_sensitive_arguments_everything_is_shown(self):
        shown = self.redact(CARD, 5, sensitive=())

        self.assertEqual(str(shown), f"charge('{CARD}', 5)")
        self.assertEqual(shown.hide(CARD), CARD)

    def test_all_arguments_of_a_star_parameter_are_hidden(self):
        shown = self.redact("x", 1, CARD, "other", note="n", sensitive=("rest",))

        self.assertEqual(str(shown), "charge('x', 1, ***, ***, note='n')")

    def test_all_arguments_of_a_double_star_parameter_are_hidden(self):
        shown = self.redact("x", note="n", pin=CARD, rest=CARD, sensitive=("extra",))

        self.assertEqual(str(shown), "charge('x', note='n', pin=***, rest=***)")

    def test_a_keyword_only_argument_does_not_hide_a_positional_one(self):
        shown = self.redact("x", 1, 2, 3, note=CARD, sensitive=("note",))

        self.assertEqual(str(shown), "charge('x', 1, 2, 3, note=***)")

    def test_the_arguments_are_hidden_one_by_one_too(self):
        shown = self.redact(CARD, 5, note="n")

        self.assertEqual((repr(shown.args), shown.kwargs), ("(***, 5)", {"note": "n"}))

    def test_the_value_is_hidden_in_texts_that_repeat_it(self):
        shown = self.redact(CARD)

        self.assertEqual(shown.hide(f"{CARD} is bad: {CARD!r}"), "*** is bad: ***")

    def test_the_value_is_hidden_in_the_form_of_a_repr(self):
        shown = self.redact('it\'s "quoted"\n')

        self.assertEqual(shown.hide(repr('it\'s "quoted"\n')), "***")

    def test_parts_of_a_value_are_hidden_too(self):
        shown = self.redact({"number": CARD, "codes": [{"cvc": 987}]})

        text = shown.hide(f"{CARD} with 987 in {{'cvc': 987}}")

        self.assertEqual(text, "*** with *** in ***")

    def test_no_part_of_a_longer_value_is_left_over(self):
        shown = self.redact(["secret", "secret-and-more"])

        self.assertEqual(shown.hide("secret-and-more"), "***")

    def test_values_that_are_everywhere_hide_nothing_else(self):
        values: list[Any] = [None, True, False, "", "x", 0, 7, [], {}]
        for value in values:
            with self.subTest(value=value):
                text = f"None, True and False: {[]!r}, x, 7"

                self.assertEqual(self.redact(value).hide(text), text)

    def test_a_message_for_an_actor_this_process_lacks_is_shown_as_it_is(self):
        self.assertEqual(str(redact(make_message("somebody", CARD))), f"somebody('{CARD}')")

    def test_no_message_is_shown_as_nothing(self):
        self.assertEqual(str(redact(None)), "")
        self.assertEqual(redact(None).hide("text"), "text")

    def test_a_message_that_does_not_fit_the_actor_is_shown_all_the_same(self):
        declared = self.declare(lambda card: None, actor_name="charge", sensitive=("card",))
        message = Message("default", declared.actor_name, (CARD, 1, 2), {"cvc": 3}, {})

        self.assertEqual(str(redact(message)), "charge(***, 1, 2, cvc=3)")


class TracebackTests(TestCase):
    def test_what_a_delivery_failed_with_is_put_together_once(self):
        delivery, error = deliver(make_message("add")), ValueError("no")

        with mock.patch("django_actors.redaction.format_traceback", return_value="text") as format:
            texts = {traceback_of(delivery, error) for _ in range(3)}

        self.assertEqual((texts, format.call_count), ({"text"}, 1))

    def test_another_error_of_the_same_delivery_has_a_text_of_its_own(self):
        delivery = deliver(make_message("add"))

        self.assertIn("first", traceback_of(delivery, ValueError("first")))
        self.assertIn("second", traceback_of(delivery, ValueError("second")))
