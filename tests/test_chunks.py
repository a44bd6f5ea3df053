"""Portions of a sequence."""

from __future__ import annotations

from django.test import SimpleTestCase

from django_actors.chunks import chunks


class ChunksTests(SimpleTestCase):
    def test_everything_comes_once_in_order_and_never_too_much_at_a_time(self):
        for count, sizes in [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3])]:
            with self.subTest(count):
                found = list(chunks(range(count), 3))

                self.assertEqual([len(each) for each in found], sizes)
                self.assertEqual([item for each in found for item in each], list(range(count)))
