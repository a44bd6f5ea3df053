"""Time as the engine tells it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from django.test import SimpleTestCase

from django_actors import clock

from .support import START_MS, stop_clock


class NowTests(SimpleTestCase):
    def test_now_is_the_wall_clock_in_milliseconds(self):
        before, now, after = time.time(), clock.now_ms(), time.time()

        self.assertIsInstance(now, int)
        self.assertTrue(before * 1_000 - 1 <= now <= after * 1_000)

    def test_a_virtual_clock_takes_its_place_until_it_is_taken_away(self):
        clock.set_source(lambda: 42)
        self.addCleanup(clock.set_source, None)

        self.assertEqual(clock.now_ms(), 42)

        clock.set_source(None)
        self.assertGreater(clock.now_ms(), START_MS)

    def test_the_clock_of_these_tests_moves_when_it_is_told_to(self):
        standing = stop_clock(self)

        standing.advance(minutes=1)

        self.assertEqual(clock.now_ms(), START_MS + 60_000)


class MomentTests(SimpleTestCase):
    def test_milliseconds_become_an_aware_time_in_utc(self):
        moment = clock.from_ms(1_498_560_453_548)

        self.assertEqual(moment, datetime(2017, 6, 27, 10, 47, 33, 548_000, tzinfo=UTC))
        self.assertIs(moment.tzinfo, UTC)

    def test_the_last_millisecond_has_a_datetime(self):
        self.assertEqual(clock.from_ms(clock.LAST_MS).year, 9999)
        with self.assertRaises((ValueError, OverflowError)):
            clock.from_ms(clock.LAST_MS + 1)

    def test_an_aware_time_becomes_milliseconds_whatever_its_zone(self):
        moment = datetime(2017, 6, 27, 10, 47, 33, 548_000, tzinfo=UTC)

        for zone in (UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-9.5))):
            with self.subTest(zone=zone):
                self.assertEqual(clock.datetime_to_ms(moment.astimezone(zone)), 1_498_560_453_548)

    def test_a_naive_time_is_refused_and_the_error_says_what_to_do(self):
        with self.assertRaisesRegex(ValueError, r"naive.*django\.utils\.timezone\.now\(\)"):
            clock.datetime_to_ms(datetime(2017, 6, 27))

    def test_a_zone_without_an_offset_makes_a_time_naive_too(self):
        class Nowhere(tzinfo):
            def utcoffset(self, moment):
                return None

            tzname = dst = utcoffset

        with self.assertRaisesRegex(ValueError, "naive"):
            clock.datetime_to_ms(datetime(2017, 6, 27, tzinfo=Nowhere()))


class DurationTests(SimpleTestCase):
    def test_a_number_is_milliseconds(self):
        for value, ms in ((0, 0), (1, 1), (10_000, 10_000), (2.9, 2)):
            with self.subTest(value=value):
                self.assertEqual(clock.duration_to_ms(value), ms)

    def test_a_timedelta_is_as_good(self):
        for value, ms in (
            (timedelta(0), 0),
            (timedelta(seconds=1.5), 1_500),
            (timedelta(days=7), 604_800_000),
            (timedelta(microseconds=1_600), 2),
        ):
            with self.subTest(value=value):
                self.assertEqual(clock.duration_to_ms(value), ms)

    def test_the_result_is_an_int(self):
        for value in (1, 1.5, timedelta(seconds=1)):
            with self.subTest(value=value):
                self.assertIs(type(clock.duration_to_ms(value)), int)

    def test_another_type_is_a_type_error_that_names_the_duration(self):
        wrong: list[Any] = ["10", None, True, False, [], datetime(2017, 6, 27)]
        for value in wrong:
            with self.subTest(value=value), self.assertRaisesRegex(TypeError, "^max_age must be"):
                clock.duration_to_ms(value, name="max_age")

    def test_what_is_no_duration_is_a_value_error_that_names_it(self):
        for value in (-1, timedelta(seconds=-1), float("nan"), float("inf"), 10**400):
            with self.subTest(value=value), self.assertRaisesRegex(ValueError, "^max_age must be"):
                clock.duration_to_ms(value, name="max_age")

    def test_every_duration_added_to_now_is_a_time_of_the_calendar(self):
        latest = clock.now_ms() + clock.duration_to_ms(clock.LONGEST_MS)

        self.assertLess(clock.from_ms(latest).year, 9999)
        with self.assertRaises(ValueError):
            clock.duration_to_ms(clock.LONGEST_MS + 1)
