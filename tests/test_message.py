"""The message and its wire form."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from django.test import SimpleTestCase
from hypothesis import strategies as st

from django_actors import Message
from django_actors import message as message_module
from django_actors.errors import ActorsError, DecodeError
from django_actors.message import (
    MAX_ID_LENGTH,
    MAX_NAME_LENGTH,
    encode_json,
    generate_message_id,
)

from .support import LONE_SURROGATE, START_MS, property_test, stop_clock

FIELDS = [
    "queue_name",
    "actor_name",
    "args",
    "kwargs",
    "options",
    "message_id",
    "message_timestamp",
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def make_message(*args: Any, **changes: Any) -> Message:
    fields = {"queue_name": "default", "actor_name": "add", "kwargs": {}, "options": {}}
    return Message(args=args, **{**fields, **changes})


def wire(**changes: Any) -> bytes:
    """Return the wire form of a good message with *changes*; ``None`` drops a field."""
    body = json.loads(make_message(1, message_id="m-1", message_timestamp=START_MS).encode())
    body = {**body, **changes}
    return json.dumps({k: v for k, v in body.items() if v is not None}).encode()


class MessageTests(SimpleTestCase):
    def test_the_fields_have_a_fixed_order_and_the_last_two_have_defaults(self):
        fields = dataclasses.fields(Message)

        message = Message("default", "add", (1,), {"x": 2}, {})

        self.assertEqual([field.name for field in fields], FIELDS)
        self.assertEqual(
            (message.queue_name, message.actor_name, message.args, message.kwargs, message.options),
            ("default", "add", (1,), {"x": 2}, {}),
        )

    def test_an_id_is_a_random_uuid(self):
        ids = {generate_message_id() for _ in range(100)}

        self.assertEqual(len(ids), 100)
        self.assertEqual({uuid.UUID(text).version for text in ids}, {4})
        self.assertEqual({str(uuid.UUID(text)) for text in ids}, ids)
        self.assertEqual({uuid.UUID(text).variant for text in ids}, {uuid.RFC_4122})

    def test_every_message_has_an_id_of_its_own(self):
        self.assertNotEqual(make_message().message_id, make_message().message_id)

    def test_the_timestamp_is_the_time_at_which_it_was_made(self):
        clock = stop_clock(self)

        first = make_message()
        clock.advance(250)
        second = make_message()

        self.assertEqual(first.message_timestamp, START_MS)
        self.assertEqual(second.message_timestamp, START_MS + 250)

    def test_its_time_as_a_datetime_is_aware_and_in_utc(self):
        message = make_message(message_timestamp=1_498_557_015_410)

        self.assertEqual(
            message.message_datetime, datetime(2017, 6, 27, 9, 50, 15, 410_000, tzinfo=UTC)
        )
        self.assertIs(message.message_datetime.tzinfo, UTC)

    def test_it_is_frozen(self):
        message = make_message()

        with self.assertRaises(dataclasses.FrozenInstanceError):
            message.queue_name = "mail"  # type: ignore[misc]

    def test_it_compares_by_value(self):
        message = make_message(1)

        self.assertEqual(message, dataclasses.replace(message))
        self.assertEqual(hash(message), hash(dataclasses.replace(message)))
        for change in ({"args": (2,)}, {"queue_name": "mail"}, {"message_id": "other"}):
            with self.subTest(change=change):
                self.assertNotEqual(message, dataclasses.replace(message, **change))
        self.assertNotEqual(message, "add(1)")

    def test_it_orders_by_time(self):
        late, early = make_message(message_timestamp=2), make_message(message_timestamp=1)

        self.assertEqual(sorted([late, early]), [early, late])
        self.assertLess(early, late)
        self.assertGreater(late, early)

    def test_it_has_no_order_with_anything_else(self):
        with self.assertRaises(TypeError):
            make_message() < 5  # noqa: B015

    def test_as_text_it_is_the_call(self):
        self.assertEqual(str(make_message(1, kwargs={"x": 2})), "add(1, x=2)")
        self.assertEqual(str(make_message()), "add()")
        self.assertEqual(str(make_message("foo")), "add('foo')")


class CopyTests(SimpleTestCase):
    def test_options_are_merged_and_the_original_stays(self):
        message = make_message(options={"eta": 1, "max_age": 2})

        copy = message.copy(options={"eta": 3, "retries": 1})

        self.assertEqual(copy.options, {"eta": 3, "max_age": 2, "retries": 1})
        self.assertEqual(message.options, {"eta": 1, "max_age": 2})

    def test_other_fields_are_replaced_and_the_rest_is_kept(self):
        message = make_message(1, options={"eta": 1})

        copy = message.copy(queue_name="mail", args=(2,))

        self.assertEqual((copy.queue_name, copy.args, copy.options), ("mail", (2,), {"eta": 1}))
        self.assertEqual(copy.message_id, message.message_id)
        self.assertEqual(copy.message_timestamp, message.message_timestamp)

    def test_the_options_of_a_copy_are_its_own(self):
        message = make_message(options={"eta": 1})

        message.copy().options["eta"] = 2

        self.assertEqual(message.options, {"eta": 1})

    def test_a_field_that_no_message_has_is_a_type_error(self):
        with self.assertRaises(TypeError):
            make_message().copy(queue="mail")


class WireTests(SimpleTestCase):
    def test_the_wire_form_is_json_of_exactly_the_seven_fields(self):
        message = make_message(1, "é", kwargs={"x": None}, options={"eta": 5})

        fields = json.loads(message.encode())

        self.assertEqual(list(fields), FIELDS)
        self.assertEqual(fields["args"], [1, "é"])
        self.assertEqual(fields["kwargs"], {"x": None})
        self.assertEqual(fields["message_timestamp"], message.message_timestamp)

    def test_the_wire_form_is_compact_utf_8(self):
        body = make_message("é", [1, 2], kwargs={"x": {"y": 1}}).encode()

        self.assertIn('"args":["é",[1,2]],"kwargs":{"x":{"y":1}}'.encode(), body)

    def test_encoding_and_decoding_gives_an_equal_message(self):
        message = make_message(1, "Ada\0\n\u2028", [None, True, 1.5, {"ключ": []}])

        self.assertEqual(Message.decode(message.encode()), message)
        self.assertIsInstance(Message.decode(message.encode()).args, tuple)

    @property_test(st.lists(JSON, max_size=3), st.dictionaries(TEXT, JSON, max_size=3))
    def test_every_json_value_survives_the_wire(self, args, kwargs):
        message = make_message(*args, kwargs=kwargs)

        self.assertEqual(Message.decode(message.encode()), message)

    def test_blanks_around_the_json_and_fields_in_another_order_are_read(self):
        message = Message("default", "count_words", ("a",), {}, {})
        fields = json.loads(message.encode())
        turned = json.dumps(dict(reversed(fields.items())), indent=1)

        self.assertEqual(Message.decode(f" {turned}\n".encode()), message)

    def test_a_decoded_message_is_frozen_and_can_be_copied(self):
        message = Message.decode(Message("default", "count_words", (), {}, {}).encode())

        with self.assertRaises(dataclasses.FrozenInstanceError):
            message.args = (1,)  # type: ignore[misc]
        self.assertEqual(message.copy(args=(1,)).args, (1,))

    def test_bytes_may_come_as_any_buffer(self):
        message = make_message(1)

        for kind in (memoryview, bytearray):
            body: Any = kind(message.encode())
            with self.subTest(kind):
                self.assertEqual(Message.decode(body), message)

    def test_a_python_with_another_encoder_writes_the_same(self):
        value = {"a": [1, 1.5, None, True, "é\n"], "b": {"c": ()}}

        for make in (None, lambda: None):
            with self.subTest(make):
                with mock.patch.object(json.encoder, "c_make_encoder", make):
                    encode = message_module._build_encode()

                self.assertEqual(encode(value), encode_json(value))

    def test_what_holds_itself_is_not_encoded(self):
        endless: list[Any] = []
        endless.append(endless)

        with self.assertRaises(RecursionError):
            make_message(endless).encode()

    def test_what_has_no_json_form_is_not_encoded(self):
        for value in (object(), float("nan"), float("inf"), LONE_SURROGATE, {1, 2}, b"x"):
            with self.subTest(value=value), self.assertRaises((TypeError, ValueError)):
                make_message(value).encode()


class GarbageTests(SimpleTestCase):
    """Whatever comes from a broker is a message or a ``DecodeError``, and nothing else."""

    def assertGarbage(self, body: bytes, text: str = "") -> None:
        with self.assertRaisesRegex(DecodeError, text):
            Message.decode(body)

    def test_the_example_that_the_cases_below_are_made_of_is_a_message(self):
        message = Message.decode(wire())

        self.assertEqual((str(message), message.message_id), ("add(1)", "m-1"))

    def test_bytes_that_are_no_json(self):
        whole = wire()
        for body in (b"", b"\xff\xfe", b"\0", whole[:-1], whole + b"}", b"\xef\xbb\xbf" + whole):
            with self.subTest(body=body):
                self.assertGarbage(body, "not JSON in UTF-8")

    def test_json_of_another_shape(self):
        for body in (b"null", b"[]", b"5", b'"text"', b"true", b"1.5"):
            with self.subTest(body=body):
                self.assertGarbage(body, "not an object")

    def test_a_missing_field_is_named(self):
        for name in FIELDS:
            with self.subTest(name):
                self.assertGarbage(wire(**{name: None}), f"missing {name}; unknown nothing")

    def test_an_unknown_field_is_named(self):
        self.assertGarbage(wire(pickle="x"), "missing nothing; unknown pickle")

    def test_the_error_stays_short_whatever_the_fields_are_called(self):
        body = json.dumps({"x" * 100_000: 1}).encode()

        with self.assertRaises(DecodeError) as caught:
            Message.decode(body)

        self.assertLess(len(str(caught.exception)), 500)

    def test_fields_of_another_type(self):
        wrong: dict[str, list[Any]] = {
            "queue_name": [5, [], {}],
            "actor_name": [5, True],
            "args": [{}, "ab", 5],
            "kwargs": [[], "ab", [["a", 1]]],
            "options": [[], 0],
            "message_id": [5, []],
            "message_timestamp": ["1", 1.5, True, []],
        }
        for name, values in wrong.items():
            for value in values:
                with self.subTest(name, value=value):
                    self.assertGarbage(wire(**{name: value}), f"Field '{name}' of the body is ")

    def test_names_that_are_none(self):
        for name in ("queue_name", "actor_name"):
            for value in ("", "a\0b", "x" * (MAX_NAME_LENGTH + 1)):
                with self.subTest(name, value=value[:5]):
                    self.assertGarbage(wire(**{name: value}), f"Field '{name}' of the body is no")

    def test_ids_that_are_none(self):
        for value in ("", "x" * (MAX_ID_LENGTH + 1), "a b", "a\n", "é", "a\0"):
            with self.subTest(value=value):
                self.assertGarbage(wire(message_id=value), "visible ASCII")

    def test_an_id_of_another_engine_is_fine(self):
        for value in ("1", "x" * MAX_ID_LENGTH, "task:42/7"):
            with self.subTest(value=value):
                self.assertEqual(Message.decode(wire(message_id=value)).message_id, value)

    def test_times_that_no_calendar_has(self):
        for value in (-1, 253_402_300_800_000, 10**30):
            with self.subTest(value=value):
                self.assertGarbage(wire(message_timestamp=value), "no time in milliseconds")

    def test_the_last_time_of_the_calendar_is_fine(self):
        message = Message.decode(wire(message_timestamp=253_402_300_799_999))

        self.assertEqual(message.message_datetime.year, 9999)

    def test_numbers_that_json_has_not(self):
        for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"9" * 10_000):
            with self.subTest(number=number[:10]):
                self.assertGarbage(wire().replace(b"[1]", b"[" + number + b"]"))

    def test_half_of_a_surrogate_pair(self):
        for text in (rb"\ud83d", rb"\ude00", rb"\uDE00\uD83D"):
            with self.subTest(text=text):
                self.assertGarbage(wire().replace(b"[1]", b'["' + text + b'"]'))

    def test_a_whole_surrogate_pair_is_a_character(self):
        body = wire().replace(b"[1]", rb'["\ud83d\ude00"]')

        self.assertEqual(Message.decode(body).args, ("😀",))

    def test_nesting_without_end(self):
        for left, right in ((b"[", b"]"), (b'{"a":', b"}")):
            nested = left * 200_000 + b"1" + right * 200_000
            with self.subTest(left):
                self.assertGarbage(nested)
                self.assertGarbage(wire().replace(b"[1]", b"[" + nested + b"]"))

    @property_test(st.binary(max_size=64))
    def test_no_bytes_make_another_error(self, body):
        with self.assertRaises(DecodeError):
            Message.decode(body)

    @property_test(st.sampled_from(FIELDS), JSON)
    def test_no_value_of_a_field_makes_another_error(self, name, value):
        try:
            message = Message.decode(wire(**{name: value}))
        except DecodeError:
            return
        self.assertEqual(Message.decode(message.encode()), message)

    def test_a_decode_error_is_an_error_of_this_package(self):
        self.assertTrue(issubclass(DecodeError, ActorsError))
