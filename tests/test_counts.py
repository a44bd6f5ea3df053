"""What became of messages, counted in rows that stay few."""

from __future__ import annotations

from unittest import mock

from django.db import DatabaseError, connection
from django.test import SimpleTestCase, TestCase

from django_actors import clock, counts
from django_actors.counts import HOUR_MS, MINUTE_MS, MOST_ACTORS, Source, Tally
from django_actors.delivery import Delivery, Fate
from django_actors.models import ActorCount, Period

from .engine import EngineCase, begin, deliver, make_message
from .support import StandingClock

ALIAS = "default"


def settled(fate: Fate, name: str = "greet", *, ran_s: float | None = 0.25) -> Delivery:
    delivery = deliver(make_message(name), fate=fate)
    if ran_s is not None:
        delivery.began, delivery.ended = 10.0, 10.0 + ran_s
    return delivery


def minutes() -> list[tuple[object, ...]]:
    rows = ActorCount.objects.filter(period=Period.MINUTE).order_by("bucket_ms", "actor_name")
    names = ("actor_name", "succeeded", "failed", "retried", "dead", "run_ms")
    return list(rows.values_list(*names))


class ClockMixin(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = StandingClock(1_500_000_000_000)
        clock.set_source(self.clock)
        self.addCleanup(clock.set_source, None)
        self.tally = Tally()


class TallyTests(ClockMixin, TestCase):
    def test_every_end_of_a_message_is_counted(self):
        self.tally.note(
            [settled(Fate.DONE), settled(Fate.DONE), settled(Fate.RETRY), settled(Fate.DEAD)]
        )

        self.tally.write(ALIAS)

        self.assertEqual(minutes(), [("greet", 2, 2, 1, 1, 1_000)])

    def test_what_was_put_back_put_off_or_skipped_is_not_counted(self):
        self.tally.note([settled(f) for f in (Fate.PUT_BACK, Fate.POSTPONED, Fate.SKIPPED)])

        with self.assertNumQueries(0):
            self.tally.write(ALIAS)

    def test_a_message_that_never_ran_is_dead_but_no_failed_attempt(self):
        self.tally.note([settled(Fate.DEAD, ran_s=None)])

        self.tally.write(ALIAS)

        self.assertEqual(minutes(), [("greet", 0, 0, 0, 1, 0)])

    def test_bytes_that_are_no_message_have_no_actor(self):
        delivery = Delivery(b"?", queue_name="default")
        delivery.fail()
        self.tally.note([delivery])

        self.tally.write(ALIAS)

        self.assertEqual(minutes(), [("", 0, 0, 0, 1, 0)])

    def test_numbers_are_added_to_what_is_there(self):
        for _ in range(3):
            self.tally.note([settled(Fate.DONE)])
            self.tally.write(ALIAS)

        self.assertEqual(minutes(), [("greet", 3, 0, 0, 0, 750)])

    def test_each_minute_has_a_row_and_each_hour(self):
        for _ in range(3):
            self.tally.note([settled(Fate.DONE)])
            self.clock.advance(MINUTE_MS)

        self.tally.write(ALIAS)

        self.assertEqual([row[1] for row in minutes()], [1, 1, 1])
        hour = ActorCount.objects.get(period=Period.HOUR)
        self.assertEqual((hour.succeeded, hour.bucket_ms % HOUR_MS), (3, 0))

    def test_a_thousand_messages_are_written_with_one_statement(self):
        self.tally.note([settled(Fate.DONE)] * 1_000)

        # The savepoint of the transaction, its release, and the rows.
        with self.assertNumQueries(3):
            self.tally.write(ALIAS)

    def test_more_rows_than_a_statement_takes_are_all_written(self):
        self.tally.note([settled(Fate.DONE, f"actor_{n}") for n in range(250)])

        self.tally.write(ALIAS)

        self.assertEqual(len(minutes()), 250)

    def test_made_up_names_fill_no_table(self):
        self.tally.note([settled(Fate.DEAD, f"made_up_{n}") for n in range(MOST_ACTORS + 50)])

        self.tally.write(ALIAS)

        self.assertEqual(ActorCount.objects.filter(period=Period.MINUTE).count(), MOST_ACTORS + 1)
        self.assertEqual(minutes()[0], ("", 0, 50, 0, 50, 12_500))

    def test_an_outage_of_weeks_fills_no_memory(self):
        for _ in range(2 * MOST_ACTORS + 50):
            self.tally.note([settled(Fate.DONE)])
            self.clock.advance(MINUTE_MS)

        self.tally.write(ALIAS)

        rows = ActorCount.objects.filter(period=Period.MINUTE)
        self.assertEqual(rows.count(), 2 * MOST_ACTORS)

    def test_what_could_not_be_written_is_written_the_next_time(self):
        self.tally.note([settled(Fate.DONE)])
        with (
            mock.patch.object(counts, "add", side_effect=DatabaseError),
            self.assertRaises(DatabaseError),
        ):
            self.tally.write(ALIAS)
        self.tally.note([settled(Fate.DONE)])

        self.tally.write(ALIAS)

        self.assertEqual(minutes(), [("greet", 2, 0, 0, 0, 500)])

    def test_a_name_that_no_database_takes_is_written_readably(self):
        counts.add({Source(0, "q", "a\0b"): [1, 0, 0, 0, 0]}, ALIAS)

        self.assertEqual(minutes(), [("a\\x00b", 1, 0, 0, 0, 0)])


class PruneTests(ClockMixin, TestCase):
    def test_a_million_messages_of_a_month_leave_a_bounded_number_of_rows(self):
        month_ms, step_ms = 30 * 24 * HOUR_MS, 4 * HOUR_MS
        for _ in range(month_ms // step_ms):
            minute = self.clock.now_ms - self.clock.now_ms % MINUTE_MS
            counts.add({Source(minute, "default", "greet"): [5_600, 0, 0, 0, 0]}, ALIAS)
            counts.prune(keep_ms=7 * 24 * HOUR_MS, alias=ALIAS)
            self.clock.advance(step_ms)

        self.assertLessEqual(ActorCount.objects.filter(period=Period.MINUTE).count(), 120)
        self.assertLessEqual(ActorCount.objects.filter(period=Period.HOUR).count(), 7 * 24 + 1)

    def test_minutes_go_after_two_hours_and_hours_after_their_time(self):
        now = self.clock.now_ms - self.clock.now_ms % HOUR_MS
        for age in (0, 1, 3, 30):
            counts.add({Source(now - age * HOUR_MS, "q", "a"): [1, 0, 0, 0, 0]}, ALIAS)

        counts.prune(keep_ms=24 * HOUR_MS, alias=ALIAS)

        ages = [
            (row.period, (now - row.bucket_ms) // HOUR_MS) for row in ActorCount.objects.order_by()
        ]
        self.assertEqual(
            sorted(ages), [("hour", 0), ("hour", 1), ("hour", 3), ("minute", 0), ("minute", 1)]
        )


class ManyWorkersTests(ClockMixin, EngineCase):
    def test_workers_that_write_at_the_same_time_lose_no_count(self):
        def work() -> None:
            from django_actors.claims import retry_when_locked

            tally = Tally()
            for _ in range(10):
                tally.note([settled(Fate.DONE, f"actor_{n}") for n in range(20)])
                retry_when_locked(connection, lambda: tally.write(ALIAS))

        for task in [begin(work) for _ in range(4)]:
            task.result()

        self.assertEqual([row[1] for row in minutes()], [40] * 20)
