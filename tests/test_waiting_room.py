"""The waiting room: one row a message, claimed by one dispatcher, written over by the newest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from django_actors import clock
from django_actors.delivery import Delivery, Reason
from django_actors.message import Message, Origin
from django_actors.models import Kind, WaitingMessage
from django_actors.rows import build_delivery_row, build_row
from django_actors.waiting_room import CLAIM_MS, WaitingRoom, renew
from tests.engine import EngineCase, begin, deliver, in_thread, make_message

PAST_MS = 1_000


def future_ms() -> int:
    return clock.now_ms() + 600_000


def make_row(
    message: Message | None = None,
    *,
    kind: Kind = Kind.SCHEDULED,
    due_ms: int | None = PAST_MS,
    priority: int = 0,
) -> WaitingMessage:
    message = message or make_message()
    return build_row(
        message,
        message.encode(),
        kind=kind,
        reason=Reason.RETRIES_EXHAUSTED if kind == Kind.DEAD else Reason.DELAY,
        priority=priority,
        due_ms=None if kind == Kind.DEAD else due_ms,
    )


class RoomMixin:
    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.room = WaitingRoom()

    def put(self, *rows: WaitingMessage) -> list[str]:
        self.room.put(rows)
        return [row.message_id or "" for row in rows]

    def claim(self, owner: str = "me", limit: int = 100, **options: Any) -> list[str]:
        claimed = self.room.claim_due(owner, limit=limit, **options)
        return [envelope.message_id for _, envelope in claimed]


class PutTests(RoomMixin, TestCase):
    def test_a_row_shows_the_message_it_holds(self):
        message = make_message("greet", "Ada", loud=True)

        self.put(make_row(message, priority=3, due_ms=5))

        row = WaitingMessage.objects.get()
        self.assertEqual(row.message, message)
        self.assertEqual(row.call, "greet('Ada')")
        self.assertEqual((row.priority, row.due_ms, row.actor_name), (3, 5, "greet"))

    def test_the_newest_row_of_a_message_takes_the_place_of_the_old_one(self):
        message = make_message()
        self.put(make_row(message, kind=Kind.OUTBOX))

        self.put(make_row(message.copy(options={"retries": 2}), due_ms=99))

        row = WaitingMessage.objects.get()
        self.assertEqual((row.kind, row.attempts, row.due_ms), (Kind.SCHEDULED, 2, 99))

    def test_a_message_that_dies_leaves_nothing_of_its_wait(self):
        message = make_message()
        self.put(make_row(message))
        self.claim()

        self.put(make_row(message, kind=Kind.DEAD))

        row = WaitingMessage.objects.get()
        self.assertEqual((row.kind, row.due_ms, row.claimed_by), (Kind.DEAD, None, ""))

    def test_of_two_rows_for_a_message_in_a_batch_the_last_is_kept(self):
        message = make_message()

        self.put(make_row(message, due_ms=1), make_row(message, due_ms=2), make_row())

        self.assertEqual(WaitingMessage.objects.count(), 2)
        self.assertEqual(WaitingMessage.objects.get(message_id=message.message_id).due_ms, 2)

    def test_bytes_without_an_id_never_replace_each_other(self):
        for _ in range(2):
            delivery = Delivery(b"\xff", queue_name="q")
            delivery.fail(Reason.UNDECODABLE)
            self.room.put([build_delivery_row(delivery), build_delivery_row(delivery)])

        self.assertEqual(WaitingMessage.objects.count(), 4)

    def test_nothing_is_no_trouble(self):
        with self.assertNumQueries(0):
            self.put()

    def test_many_rows_are_written_together(self):
        self.put(*[make_row() for _ in range(1_200)])

        self.assertEqual(WaitingMessage.objects.count(), 1_200)

    def test_text_that_databases_refuse_is_stored_all_the_same(self):
        for argument in ("nul \0", "half \ud83d", "🦜", "x" * 70_000):
            with self.subTest(argument=argument[:10]):
                delivery = deliver(make_message())
                delivery.message = make_message("greet", argument)
                delivery.exception = ValueError(argument)
                delivery.fail()

                self.put(build_delivery_row(delivery))


class ListenerTests(RoomMixin, EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[int] = []
        self.room.listeners.add(self.heard.append)

    def test_who_listens_is_told_of_the_earliest_row(self):
        self.put(make_row(due_ms=7), make_row(due_ms=5), make_row(kind=Kind.DEAD))

        self.assertEqual(self.heard, [5])

    def test_dead_letters_and_the_outbox_are_no_news(self):
        self.put(make_row(kind=Kind.DEAD), make_row(kind=Kind.OUTBOX))

        self.assertEqual(self.heard, [])

    def test_who_listens_is_told_when_the_row_can_be_seen(self):
        with transaction.atomic():
            self.put(make_row(due_ms=5))
            self.assertEqual(self.heard, [])

        self.assertEqual(self.heard, [5])

    def test_of_a_row_that_was_rolled_back_nobody_hears(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.put(make_row())
            raise ZeroDivisionError

        self.assertEqual(self.heard, [])


class ClaimTests(RoomMixin, TestCase):
    def test_only_what_is_due_is_claimed(self):
        due, _, _ = self.put(make_row(), make_row(due_ms=future_ms()), make_row(kind=Kind.DEAD))

        self.assertEqual(self.claim(), [due])

    def test_the_time_can_be_told(self):
        first, second = self.put(make_row(due_ms=1_000), make_row(due_ms=2_000))

        self.assertEqual(self.claim(now=999), [])
        self.assertEqual(self.claim(now=1_000), [first])
        self.assertEqual(self.claim(now=2_000), [second])

    def test_the_earliest_is_the_first_though_it_was_written_last(self):
        third, second, first = self.put(*[make_row(due_ms=due) for due in (30, 20, 10)])

        self.assertEqual(self.claim(), [first, second, third])

    def test_no_more_is_claimed_than_asked_for_and_the_earliest(self):
        third, first, second = self.put(*[make_row(due_ms=due) for due in (30, 10, 20)])

        self.assertEqual(self.claim(limit=2), [first, second])
        self.assertEqual(self.claim(limit=2), [third])

    def test_what_the_broker_needs_is_returned(self):
        message = make_message(queue="mail")
        self.put(make_row(message, priority=5))

        [(key, envelope)] = self.room.claim_due("me", limit=1)

        self.assertEqual(key, WaitingMessage.objects.get().pk)
        self.assertEqual(envelope, (message.message_id, "mail", 5, message.encode(), Origin.ROW))

    def test_a_claimed_row_is_nobody_elses(self):
        self.put(make_row())
        self.claim("me")

        self.assertEqual(self.claim("you"), [])

    def test_a_claim_ends_by_itself(self):
        claimed = self.put(make_row())
        self.claim("me")
        expires_ms = WaitingMessage.objects.get().due_ms
        assert expires_ms is not None

        self.assertAlmostEqual(expires_ms, clock.now_ms() + CLAIM_MS, delta=10_000)
        self.assertEqual(self.claim("you", now=expires_ms), claimed)

    def test_a_released_claim_can_be_had_at_once(self):
        mine = self.put(make_row())
        self.claim("me")

        self.room.release("me")

        self.assertEqual(self.claim("you", now=clock.now_ms() + 1), mine)

    def test_only_the_rows_of_the_owner_are_released(self):
        self.put(make_row())
        self.claim("me")

        self.room.release("you")

        self.assertEqual(self.claim("you", now=clock.now_ms() + 1), [])

    def test_what_was_published_is_forgotten(self):
        self.put(make_row(), make_row())
        [(key, _)] = self.room.claim_due("me", limit=1)

        self.room.forget([key], "me")

        self.assertFalse(WaitingMessage.objects.filter(pk=key).exists())
        self.assertEqual(WaitingMessage.objects.count(), 1)

    def test_a_row_that_was_written_anew_since_is_not_forgotten(self):
        message = make_message()
        self.put(make_row(message))
        [(key, _)] = self.room.claim_due("me", limit=1)
        self.put(make_row(message.copy(options={"retries": 1}), due_ms=future_ms()))

        self.room.forget([key], "me")

        self.assertEqual(WaitingMessage.objects.get().attempts, 1)

    def test_a_row_that_another_one_claimed_since_is_not_forgotten(self):
        self.put(make_row())
        [(key, _)] = self.room.claim_due("slow", limit=1)
        self.claim("fast", now=future_ms())

        self.room.forget([key], "slow")

        self.assertEqual(WaitingMessage.objects.count(), 1)

    def test_who_is_publishing_is_known_until_it_is_done(self):
        self.put(make_row())
        [(key, _)] = self.room.claim_due("me", limit=1)
        self.assertTrue(self.room.has_claimed("me"))
        self.assertFalse(self.room.has_claimed("another"))

        self.room.forget([key], "me")

        self.assertFalse(self.room.has_claimed("me"))

    def test_forgetting_nothing_asks_nothing(self):
        with self.assertNumQueries(0):
            self.room.forget([], "me")

    def test_of_the_outbox_only_what_is_still_there_is_forgotten(self):
        waiting, retried, dead = make_message(), make_message(), make_message()
        self.put(
            make_row(waiting, kind=Kind.OUTBOX),
            make_row(retried),
            make_row(dead, kind=Kind.DEAD),
        )

        self.room.forget_outbox([each.message_id for each in (waiting, retried, dead)])

        left = set(WaitingMessage.objects.values_list("message_id", flat=True))
        self.assertEqual(left, {retried.message_id, dead.message_id})


class RivalTests(RoomMixin, EngineCase):
    def test_each_row_is_claimed_by_one_of_many(self):
        sent = self.put(*[make_row(due_ms=due) for due in range(120)])

        tasks = [begin(self.claim_all, f"owner-{number}") for number in range(3)]
        claimed = [message_id for task in tasks for message_id in task.result()]

        self.assertEqual(sorted(claimed), sorted(sent))

    def claim_all(self, owner: str) -> list[str]:
        room = WaitingRoom()
        claimed: list[str] = []
        while room.wait_ms() == 0:
            claimed += [each.message_id for _, each in room.claim_due(owner, limit=7)]
        return claimed


class QuestionTests(RoomMixin, TestCase):
    def test_how_long_until_something_is_due(self):
        self.assertIsNone(self.room.wait_ms())

        self.put(make_row(kind=Kind.DEAD))
        self.assertIsNone(self.room.wait_ms())

        self.put(make_row(due_ms=clock.now_ms() + 60_000))
        wait = self.room.wait_ms()
        assert wait is not None
        self.assertAlmostEqual(wait, 60_000, delta=10_000)

        self.put(make_row())
        self.assertEqual(self.room.wait_ms(), 0)

    def test_which_messages_have_come_to_rest_here(self):
        for kind, claimed_by, expected in [
            (Kind.SCHEDULED, "", True),
            (Kind.DEAD, "", True),
            # Somebody has just published these, and is about to delete them.
            (Kind.OUTBOX, "", False),
            (Kind.SCHEDULED, "dispatcher", False),
        ]:
            with self.subTest(kind=kind, claimed_by=claimed_by):
                row = make_row(kind=kind)
                row.claimed_by = claimed_by
                [message_id] = self.put(row)

                self.assertEqual(
                    self.room.find_settled([message_id, "unknown"]),
                    {message_id} if expected else set(),
                )

    def test_a_dead_letter_does_not_wait(self):
        self.put(make_row(make_message(queue="dead"), kind=Kind.DEAD))
        self.put(make_row(make_message(queue="waiting")))

        self.assertFalse(self.room.has_waiting("dead"))
        self.assertTrue(self.room.has_waiting("waiting"))

    def test_the_room_is_in_the_database_of_the_settings(self):
        with self.settings(DJANGO_ACTORS={"DATABASE": "other"}):
            self.assertEqual(WaitingRoom().alias, "other")
            self.assertEqual(WaitingRoom("default").alias, "default")


class TransactionTests(RoomMixin, EngineCase):
    def test_a_row_joins_the_transaction(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.assertTrue(self.room.joins_transaction)
            self.put(make_row())
            self.assertEqual(in_thread(WaitingMessage.objects.count), 0)
            raise ZeroDivisionError

        self.assertFalse(self.room.joins_transaction)
        self.assertEqual(WaitingMessage.objects.count(), 0)


class PruneTests(RoomMixin, TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.put(*[make_row(kind=kind) for kind in (Kind.DEAD, Kind.DEAD, Kind.SCHEDULED)])
        WaitingMessage.objects.update(stored_at=timezone.now() - timedelta(days=8))
        self.put(make_row(kind=Kind.DEAD))

    def test_old_dead_letters_are_deleted_and_nothing_else(self):
        self.assertEqual(self.room.prune(older_than_ms=7 * 86_400_000), 2)

        kinds = WaitingMessage.objects.order_by("kind").values_list("kind", flat=True)
        self.assertEqual(list(kinds), [Kind.DEAD, Kind.SCHEDULED])

    def test_a_little_at_a_time(self):
        self.assertEqual(self.room.prune(older_than_ms=7 * 86_400_000, limit=1), 1)
        self.assertEqual(self.room.prune(older_than_ms=7 * 86_400_000, limit=1), 1)
        self.assertEqual(self.room.prune(older_than_ms=7 * 86_400_000, limit=1), 0)


class RescheduleTests(RoomMixin, TestCase):
    def reschedule(self, *rows: WaitingMessage) -> WaitingMessage:
        self.put(*rows)
        self.room.reschedule(WaitingMessage.objects.all(), due_ms=5)
        return WaitingMessage.objects.get()

    def test_it_is_the_same_message_at_another_time(self):
        message = make_message("greet", "Ada", loud=True)

        row = self.reschedule(make_row(message))

        assert row.message is not None
        self.assertEqual((row.due_ms, row.kind), (5, Kind.SCHEDULED))
        self.assertEqual(
            row.message.copy(options={"requeue_timestamp": 0}),
            message.copy(options={"requeue_timestamp": 0}),
        )

    def test_a_retry_stays_the_retry_it_is(self):
        message = make_message("greet", retries=2, requeue_timestamp=7)

        self.assertEqual(self.reschedule(make_row(message)).message, message)

    def test_one_with_a_bad_signature_does_not_get_a_good_one(self):
        message = make_message("greet")
        with self.settings(DJANGO_ACTORS={"SIGNING": "require"}):
            row = self.reschedule(make_row(message))

            self.assertIsNone(row.runnable)
        self.assertEqual(row.message, message)


class RequeueTests(RoomMixin, TestCase):
    def test_a_dead_letter_runs_again_from_its_first_attempt_under_its_id(self):
        message = make_message("greet", "Ada", retries=20, traceback="...", eta=5, loud=True)
        [message_id] = self.put(make_row(message, kind=Kind.DEAD))

        [again] = self.room.requeue(WaitingMessage.objects.all())

        row = WaitingMessage.objects.get()
        self.assertEqual((row.kind, row.attempts, row.message), (Kind.SCHEDULED, 0, again))
        self.assertEqual((again.message_id, again.args), (message_id, ("Ada",)))
        self.assertEqual(again.options, {"loud": True, "requeue_timestamp": mock.ANY})
        self.assertEqual(self.claim(now=clock.now_ms() + 1), [message_id])

    def test_its_age_counts_from_now(self):
        message = Message("default", "greet", (), {}, {}, message_timestamp=5)

        self.assertAlmostEqual(renew(message).message_timestamp, clock.now_ms(), delta=10_000)

    def test_bytes_that_are_no_message_are_left_alone(self):
        delivery = Delivery(b"\xff", queue_name="q")
        delivery.fail(Reason.UNDECODABLE)
        self.room.put([build_delivery_row(delivery)])

        self.assertEqual(self.room.requeue(WaitingMessage.objects.all()), [])
        self.assertEqual(WaitingMessage.objects.get().kind, Kind.DEAD)
