"""What a row of the waiting room says about a message, whatever that holds."""

from __future__ import annotations

from typing import Any

from django.test import SimpleTestCase, TestCase

from django_actors.delivery import Delivery, Reason
from django_actors.errors import exception_text
from django_actors.models import Kind, WaitingMessage
from django_actors.redaction import MAX_TEXT, format_traceback, redact
from django_actors.rows import (
    build_delivery_row,
    exception_name,
    storable,
)
from django_actors.waiting_room import WaitingRoom
from tests.engine import deliver, make_message


class RowTests(TestCase):
    def build(self, delivery: Delivery) -> WaitingMessage:
        row = build_delivery_row(delivery)
        WaitingRoom().put([row])
        return WaitingMessage.objects.get()

    def failed(self, error: BaseException, **options: Any) -> Delivery:
        try:
            raise error
        except type(error) as raised:
            return deliver(make_message("greet", "Ada", **options), exception=raised)

    def test_a_retry_waits_for_its_time_and_tells_why(self):
        delivery = self.failed(ValueError("No such name."), retries=1)
        delivery.retry(60_000)

        row = self.build(delivery)

        self.assertEqual((row.kind, row.reason, row.attempts), (Kind.SCHEDULED, "retry", 1))
        self.assertEqual((row.error_class, row.error), ("ValueError", "No such name."))
        self.assertEqual(row.due_ms, delivery.due_ms)
        self.assertIn("raise error", row.traceback)

    def test_a_dead_letter_counts_the_run_that_ended_it(self):
        delivery = self.failed(ValueError("No such name."), retries=2)
        delivery.fail(Reason.RETRIES_EXHAUSTED)

        row = self.build(delivery)

        self.assertEqual((row.kind, row.attempts, row.due_ms), (Kind.DEAD, 3, None))

    def test_an_option_a_hook_has_spoilt_does_not_lose_the_message(self):
        delivery = deliver(make_message("greet", "Ada"))
        body = delivery.body
        delivery.message = make_message("greet", "Ada", spoilt=object())
        delivery.fail()

        self.assertEqual(bytes(self.build(delivery).body), body)

    def test_a_nonsensical_number_of_retries_is_none(self):
        for retries in (-1, "many", 2**31, None, [1]):
            with self.subTest(retries=retries):
                message = make_message(retries=retries)

                delivery = deliver(message)
                delivery.fail()

                self.assertEqual(build_delivery_row(delivery).attempts, 0)

    def test_bytes_are_kept_as_they_came(self):
        delivery = Delivery(b"\xff\0", queue_name="q" * 300, priority=4)
        delivery.fail(Reason.UNDECODABLE)

        row = self.build(delivery)

        self.assertEqual((bytes(row.body), row.priority, row.kind), (b"\xff\0", 4, Kind.DEAD))


class TextTests(SimpleTestCase):
    def test_text_is_cut_and_freed_of_what_databases_refuse(self):
        self.assertEqual(storable("a\0b"), "a\\x00b")
        self.assertEqual(storable("half \ud83d"), "half \\ud83d")
        self.assertEqual(storable("12345", 3), "123")
        self.assertEqual(len(storable("\0" * 300, 255)), 255)
        self.assertEqual(storable("🦜"), "🦜")

    def test_an_exception_is_named_with_its_module(self):
        self.assertEqual(exception_name(ValueError()), "ValueError")
        self.assertEqual(exception_name(Broken()), NAME)

    def test_an_exception_whose_text_cannot_be_made_has_one_all_the_same(self):
        self.assertEqual(exception_text(ValueError("why")), "why")
        self.assertIn("could not be made", exception_text(Broken()))

    def test_of_a_long_traceback_the_end_is_kept(self):
        error = ValueError("x" * 2 * MAX_TEXT + "the end")

        text = format_traceback(error, redact(None))

        self.assertEqual(len(text), MAX_TEXT)
        self.assertTrue(text.rstrip().endswith("the end"))


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError


NAME = f"{__name__}.Broken"
