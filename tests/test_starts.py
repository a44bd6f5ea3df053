"""Places where worker processes die at every start, as the rows tell."""

from __future__ import annotations

from django.test import TestCase

from django_actors import starts
from django_actors.models import FailedStart

ALIAS = "default"


def note(key: str = "boss.0", *, deaths: int = 3, host: str = "mars") -> None:
    starts.note(
        key, host=host, pid=9, number=0, deaths=deaths, detail="exited with code 7", alias=ALIAS
    )


class StartsTests(TestCase):
    def test_three_deaths_in_a_row_are_a_loop_and_two_are_an_accident(self):
        note(deaths=2)
        self.assertEqual(starts.find_loops(ALIAS), [])

        note(deaths=3)

        [row] = starts.find_loops(ALIAS)
        self.assertEqual((row.host, row.pid, row.number, row.deaths), ("mars", 9, 0, 3))
        self.assertEqual((row.detail, str(row)), ("exited with code 7", "mars:9 #0"))

    def test_each_place_of_each_supervisor_has_a_row(self):
        note("boss.0", host="venus")
        note("boss.1", host="mars")
        note("other.0", host="mars")

        self.assertEqual([row.host for row in starts.find_loops(ALIAS)], ["mars", "mars", "venus"])

    def test_a_place_that_has_a_process_again_is_forgotten(self):
        note("boss.0")
        note("boss.1")

        starts.forget(["boss.0"], ALIAS)

        self.assertEqual([row.key for row in starts.find_loops(ALIAS)], ["boss.1"])

    def test_what_a_supervisor_said_that_was_killed_is_soon_no_longer_told_and_deleted(self):
        note("boss.0")
        note("old.0")
        old = FailedStart.objects.filter(key="old.0")
        old.update(seen_ms=old.get().seen_ms - starts.CURRENT_MS - 1)
        self.assertEqual([row.key for row in starts.find_loops(ALIAS)], ["boss.0"])

        starts.prune(ALIAS)

        self.assertEqual([row.key for row in FailedStart.objects.all()], ["boss.0"])

    def test_a_long_story_of_a_death_is_cut(self):
        starts.note("b.0", host="m" * 300, pid=9, number=0, deaths=3, detail="x" * 900, alias=ALIAS)

        [row] = starts.find_loops(ALIAS)
        self.assertEqual((len(row.host), len(row.detail)), (255, 500))
