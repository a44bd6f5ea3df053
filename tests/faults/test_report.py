"""What the report of a trial says of a ledger."""

from __future__ import annotations

from django.test import SimpleTestCase

from tests.processes.base import Entry

from .report import find_accused, find_unfounded

KILLED, OTHER = 10, 20


class UnfoundedTests(SimpleTestCase):
    """Two runs of a message; the first was in a process that was killed at 100 s."""

    def find(self, *entries: Entry) -> set[str]:
        last = [Entry("began", "key", OTHER, 101.0), Entry("ran", "key", OTHER, 101.1)]
        return find_unfounded([*entries, *last], {KILLED: 100.0})

    def test_who_ran_when_its_process_died_runs_again_for_a_reason(self):
        self.assertEqual(self.find(Entry("began", "key", KILLED, 99.9)), set())

    def test_so_does_who_ran_there_for_the_second_time(self):
        found = self.find(
            Entry("began", "key", KILLED, 90.0),
            Entry("failed", "key", KILLED, 90.1),
            Entry("began", "key", KILLED, 99.9),
        )

        self.assertEqual(found, set())

    def test_so_does_who_was_done_and_not_acknowledged(self):
        found = self.find(Entry("began", "key", KILLED, 99.8), Entry("ran", "key", KILLED, 99.9))

        self.assertEqual(found, set())

    def test_who_was_done_long_before_does_not(self):
        found = self.find(Entry("began", "key", KILLED, 90.0), Entry("ran", "key", KILLED, 90.1))

        self.assertEqual(found, {"key"})

    def test_nor_does_who_ran_where_nobody_died(self):
        self.assertEqual(self.find(Entry("began", "key", OTHER, 99.9)), {"key"})


class AccusedTests(SimpleTestCase):
    """A dead letter, and the processes that it ran in when they were killed."""

    def find(self, *killed: int) -> set[str]:
        entries = [Entry("began", "key", pid, 99.9) for pid in killed]
        return find_accused(["key"], entries, dict.fromkeys(killed, 100.0))

    def test_who_ran_in_three_killed_processes_is_a_dead_letter_for_a_reason(self):
        self.assertEqual(self.find(1, 2, 3), set())

    def test_who_ran_in_two_is_not(self):
        self.assertEqual(self.find(1, 2), {"key"})

    def test_nor_who_ran_twice_in_one_of_two(self):
        self.assertEqual(self.find(1, 2, 2), {"key"})
