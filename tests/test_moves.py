"""What came out of the waiting room runs once: the part that knows no broker."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.db import OperationalError
from django.test import TestCase

from django_actors import moves
from django_actors.delivery import Delivery, Fate
from django_actors.message import Message, Origin
from django_actors.models import Kind, WaitingMessage
from django_actors.waiting_room import WaitingRoom
from tests.brokers.contract import row_for
from tests.engine import EngineCase, deliver, make_message

ALIAS = "default"


class MovesCase(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.room = WaitingRoom()

    def put(self, *messages: Message, **options: Any) -> None:
        self.room.put([row_for(message, **options) for message in messages])

    def move(self, *messages: Message) -> None:
        """Write rows that a dispatcher takes into its hands."""
        self.put(*messages)
        self.room.claim_due("dispatcher", limit=len(messages))

    def ids(self) -> set[str | None]:
        return set(WaitingMessage.objects.values_list("message_id", flat=True))


class OriginTests(MovesCase):
    def claim(self) -> Origin:
        WaitingMessage.objects.update(due_ms=0)
        [(_, envelope)] = self.room.claim_due("me", limit=1)
        return envelope.origin

    def test_a_row_nobody_had_is_no_reason_for_doubt(self):
        self.put(make_message())

        self.assertIs(self.claim(), Origin.ROW)

    def test_a_row_that_somebody_had_is_doubtful_until_it_is_written_anew(self):
        message = make_message()
        self.move(message)
        self.assertIs(self.claim(), Origin.DOUBTFUL_ROW)

        self.put(message)

        self.assertIs(self.claim(), Origin.ROW)

    def test_whoever_left_a_row_in_the_outbox_may_have_published_it(self):
        self.put(make_message(), kind=Kind.OUTBOX)

        self.assertIs(self.claim(), Origin.DOUBTFUL_ROW)


class ReceivedTests(MovesCase):
    def receive(self, *messages: Message, origin: Origin = Origin.ROW) -> None:
        moves.note_received([deliver(each, origin=origin) for each in messages], ALIAS)

    def test_rows_that_were_published_are_deleted(self):
        one, two, other = make_message(), make_message(), make_message()
        self.move(one, two, other)

        self.receive(one, two)

        self.assertEqual(self.ids(), {other.message_id})

    def test_many_are_deleted_too(self):
        messages = [make_message() for _ in range(7)]
        self.move(*messages)

        with mock.patch.object(moves, "MOST_KEYS", 2):
            self.receive(*messages)

        self.assertEqual(self.ids(), set())

    def test_one_that_is_not_decoded_is_read(self):
        message = make_message()
        self.move(message)

        moves.note_received(
            [
                Delivery(body, queue_name="default", origin=Origin.ROW)
                for body in (b"no message", message.encode())
            ],
            ALIAS,
        )

        self.assertEqual(self.ids(), set())

    def test_a_row_nobody_has_taken_in_hand_stays(self):
        message = make_message()
        self.put(message)

        self.receive(message)

        self.assertEqual(self.ids(), {message.message_id})

    def test_a_row_of_another_attempt_stays(self):
        message = make_message()
        self.move(message.copy(options={"retries": 1}))

        self.receive(message)

        self.assertEqual(self.ids(), {message.message_id})

    def test_a_row_that_is_written_anew_in_that_moment_stays(self):
        message = make_message()
        self.move(message)
        found = list(moves._find([message.message_id], ALIAS))
        self.move(message)

        with mock.patch.object(moves, "_find", return_value=found):
            self.receive(message)

        self.assertEqual(self.ids(), {message.message_id})

    def test_what_does_not_come_out_of_a_row_asks_nothing(self):
        with self.assertNumQueries(0):
            self.receive(make_message(), origin=Origin.SENDER)
            # Its row tells it apart from another copy.
            self.receive(make_message(), origin=Origin.DOUBTFUL_ROW)

    def test_where_all_is_well_a_batch_is_one_question(self):
        with self.assertNumQueries(1):
            self.receive(make_message(), make_message())

    def test_the_rows_of_a_message_are_asked_for_once(self):
        delivery = deliver(make_message(), origin=Origin.ROW)
        moves.note_received([delivery], ALIAS)

        with self.assertNumQueries(0):
            moves.note_received([delivery], ALIAS)


class OutageTests(EngineCase):
    def test_a_database_that_is_away_keeps_nobody_from_running(self):
        delivery = deliver(make_message(), origin=Origin.ROW)

        with mock.patch.object(moves, "_find", side_effect=OperationalError("Away.")):
            moves.note_received([delivery], ALIAS)

        self.assertIsNone(delivery.fate)


class SettledTests(MovesCase):
    def settle(self, message: Message, fate: Fate) -> None:
        delivery = deliver(message, origin=Origin.DOUBTFUL_ROW, fate=fate)
        self.assertFalse(moves.is_late(delivery, ALIAS))
        moves.note_settled([delivery], ALIAS)
        self.assertEqual(moves.is_late(delivery, ALIAS), not self.ids())

    def test_what_has_run_or_was_skipped_needs_its_row_no_longer(self):
        for fate in (Fate.DONE, Fate.SKIPPED):
            message = make_message()
            self.move(message)

            self.settle(message, fate)

            self.assertEqual(self.ids(), set())

    def test_what_waits_again_or_is_dead_has_written_a_row_of_its_own(self):
        for fate in (Fate.RETRY, Fate.DEAD, Fate.POSTPONED):
            message = make_message()
            self.move(message)

            self.settle(message, fate)

            self.assertIn(message.message_id, self.ids())

    def test_only_a_doubtful_copy_can_be_late(self):
        for origin in (Origin.SENDER, Origin.ROW):
            self.assertFalse(moves.is_late(deliver(make_message(), origin=origin), ALIAS))
