"""How long a retry waits."""

from __future__ import annotations

from unittest.mock import patch

from django.test import SimpleTestCase

from django_actors.backoff import compute_backoff

DAY_MS = 86_400_000


def lowest(low: float, high: float) -> float:
    return low


def highest(low: float, high: float) -> float:
    return high


def extremes(attempt: int, *, min_backoff: int, max_backoff: int) -> tuple[int, int]:
    """Return the shortest and the longest wait that chance may choose."""
    waits = []
    for chance in (lowest, highest):
        with patch("random.uniform", chance):
            waits.append(compute_backoff(attempt, min_backoff=min_backoff, max_backoff=max_backoff))
    return waits[0], waits[1]


class BackoffTests(SimpleTestCase):
    def test_the_kth_wait_lies_between_the_kth_power_of_two_minimums_and_its_double(self):
        for attempt in range(10):
            with self.subTest(attempt=attempt):
                least = 15_000 * 2**attempt

                waits = extremes(attempt, min_backoff=15_000, max_backoff=7 * DAY_MS)

                self.assertEqual(waits, (least, 2 * least))

    def test_above_the_maximum_a_wait_lies_between_its_half_and_itself(self):
        for attempt in (20, 63, 64, 1_000, 10**6):
            with self.subTest(attempt=attempt):
                waits = extremes(attempt, min_backoff=15_000, max_backoff=7 * DAY_MS)

                self.assertEqual(waits, (3.5 * DAY_MS, 7 * DAY_MS))

    def test_chance_decides_so_that_many_failures_do_not_come_back_together(self):
        waits = {compute_backoff(3, min_backoff=15_000, max_backoff=DAY_MS) for _ in range(50)}

        self.assertGreater(len(waits), 40)

    def test_a_wait_is_never_below_the_minimum(self):
        for maximum in (100, 101, 120, 199, 200, 300):
            for attempt in range(4):
                for _ in range(50):
                    wait = compute_backoff(attempt, min_backoff=100, max_backoff=maximum)

                    self.assertTrue(100 <= wait <= maximum, (attempt, maximum, wait))

    def test_without_a_minimum_there_is_no_wait(self):
        for attempt in (0, 1, 100):
            with self.subTest(attempt=attempt):
                self.assertEqual(extremes(attempt, min_backoff=0, max_backoff=DAY_MS), (0, 0))

    def test_a_minimum_above_the_maximum_gives_the_maximum_the_word(self):
        for _ in range(100):
            wait = compute_backoff(0, min_backoff=1_000, max_backoff=100)

            self.assertTrue(50 <= wait <= 100, wait)

    def test_a_maximum_of_zero_is_no_wait(self):
        self.assertEqual(extremes(5, min_backoff=100, max_backoff=0), (0, 0))

    def test_a_wait_is_whole_milliseconds(self):
        self.assertIs(type(compute_backoff(1, min_backoff=7, max_backoff=DAY_MS)), int)
