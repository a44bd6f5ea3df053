"""The tables as other code sees them."""

from __future__ import annotations

from datetime import UTC, datetime

from django.test import TestCase

from django_actors.delivery import Delivery, Reason
from django_actors.message import Envelope
from django_actors.models import (
    ActorCount,
    CrashRecord,
    DeadLetter,
    Kind,
    Lease,
    PausedQueue,
    Period,
    QueuedMessage,
    ScheduledMessage,
    WaitingMessage,
    WorkerRecord,
)
from django_actors.rows import build_delivery_row
from django_actors.waiting_room import WaitingRoom
from tests.brokers.contract import row_for
from tests.engine import make_message


class WaitingMessageTests(TestCase):
    def test_a_row_is_shown_as_its_call(self):
        self.assertEqual(str(row_for(make_message("greet", "Ada"))), "greet('Ada')")

    def test_bytes_that_are_no_message_are_shown_by_their_number(self):
        delivery = Delivery(b"\xff" * 1_234, queue_name="q")
        delivery.fail(Reason.UNDECODABLE)
        row = build_delivery_row(delivery)

        self.assertEqual(str(row), "1,234 bytes that are no message")
        self.assertIsNone(row.message)
        self.assertEqual(row.envelope(), Envelope("", "q", 0, b"\xff" * 1_234))

    def test_its_time_is_aware_and_in_utc(self):
        row = row_for(make_message(), due_ms=86_400_000)

        self.assertEqual(row.available_at, datetime(1970, 1, 2, tzinfo=UTC))

    def test_a_dead_letter_has_no_time(self):
        row = row_for(make_message(), kind=Kind.DEAD)
        row.due_ms = None

        self.assertIsNone(row.available_at)

    def test_a_stored_row_gives_its_message_back(self):
        message = make_message("greet", "Ada", queue="mail")
        WaitingRoom().put([row_for(message)])

        row = WaitingMessage.objects.get()

        self.assertEqual(row.message, message)
        self.assertEqual(row.envelope(), Envelope(message.message_id, "mail", 0, message.encode()))

    def test_dead_letters_and_scheduled_messages_are_told_apart(self):
        rows = [row_for(make_message(kind.value), kind=kind) for kind in Kind]
        WaitingRoom().put(rows)

        self.assertEqual([row.actor_name for row in DeadLetter.objects.all()], ["dead"])
        self.assertEqual(
            sorted(row.actor_name for row in ScheduledMessage.objects.all()),
            ["outbox", "scheduled"],
        )


class OtherTableTests(TestCase):
    def test_rows_are_shown_by_what_they_are_about(self):
        self.assertEqual(str(QueuedMessage(message_id="id")), "id")
        self.assertEqual(str(Lease(owner="owner")), "owner")
        self.assertEqual(str(CrashRecord(message_id="id")), "id")
        self.assertEqual(str(WorkerRecord(host="mars", pid=7)), "mars:7")
        self.assertEqual(str(PausedQueue(queue_name="mail")), "mail")
        count = ActorCount(
            period=Period.MINUTE, bucket_ms=60_000, queue_name="mail", actor_name="shop.greet"
        )
        self.assertEqual(str(count), "shop.greet (mail), minute 60000")
