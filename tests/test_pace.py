"""How much a worker claims ahead, by how fast it finishes."""

from __future__ import annotations

from unittest import mock

from django.test import SimpleTestCase

from django_actors.pace import AHEAD_S, LONGEST_AHEAD_S, ROUND_TRIPS, SILENCE_S, WINDOW_S, Pace


class PaceCase(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.enterContext(
            mock.patch("django_actors.pace.time.monotonic", side_effect=lambda: self.now)
        )
        self.pace = Pace(1_000)

    def finish(self, count: int, *, after_s: float) -> None:
        self.now += after_s
        self.pace.note(count)


class PaceTests(PaceCase):
    def test_nothing_is_claimed_ahead_before_anything_was_measured(self):
        self.assertEqual(self.pace.ahead, 0)

        self.finish(100, after_s=WINDOW_S / 2)

        self.assertEqual(self.pace.ahead, 0)

    def test_after_one_window_it_is_the_work_of_a_moment(self):
        self.finish(400, after_s=WINDOW_S)

        self.assertEqual(self.pace.ahead, int(400 / WINDOW_S * AHEAD_S))

    def test_there_is_a_limit_however_fast_a_worker_is(self):
        self.finish(1_000_000, after_s=WINDOW_S)

        self.assertEqual(self.pace.ahead, 1_000)

    def test_who_was_silent_for_long_is_measured_anew(self):
        self.finish(400, after_s=WINDOW_S)

        self.now += 2 * SILENCE_S

        self.assertEqual(self.pace.ahead, 0)

    def test_messages_that_take_longer_than_a_window_have_a_pace_too(self):
        # Eight threads, 100 ms each.
        self.finish(8, after_s=0.1)

        self.now += 0.09

        self.assertEqual(self.pace.ahead, 1)


class FarBrokerTests(PaceCase):
    """Every answer takes a while."""

    def test_work_for_some_round_trips_is_claimed_ahead(self):
        self.pace.round_trip_s = 0.1
        self.finish(1_000, after_s=1.0)

        self.assertEqual(self.pace.ahead, int(1_000 * 0.1 * ROUND_TRIPS))

    def test_a_broker_that_hangs_is_no_reason_to_hoard(self):
        self.pace.round_trip_s = 10.0
        self.finish(1_000, after_s=1.0)

        self.assertEqual(self.pace.ahead, int(1_000 * LONGEST_AHEAD_S))

    def test_a_part_of_a_gust_is_not_taken_for_the_pace(self):
        self.pace.round_trip_s = 0.1
        self.finish(400, after_s=1.0)

        self.finish(1, after_s=0.1)

        self.assertEqual(self.pace.ahead, int(400 * 0.1 * ROUND_TRIPS))

    def test_a_worker_that_only_waits_for_answers_claims_more_and_more(self):
        self.pace.round_trip_s, threads, trips = 0.1, 8, 3
        claimed = threads
        for _ in range(15):
            self.finish(claimed, after_s=trips * self.pace.round_trip_s)
            claimed = threads + self.pace.ahead

        self.assertGreater(claimed, 20 * threads)
