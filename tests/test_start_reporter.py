"""What a supervisor tells of worker processes that cannot start, without waiting for a database."""

from __future__ import annotations

import threading
from unittest import mock

from django.db import OperationalError

from django_actors import starts
from django_actors.models import FailedStart
from django_actors.start_reporter import StartReporter
from tests.engine import EngineCase, wait_until

ALIAS = "default"


class StartReporterTests(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.reporter = StartReporter(ALIAS)
        self.addCleanup(self.reporter.close)

    def deaths(self) -> dict[int, int]:
        return dict(FailedStart.objects.values_list("number", "deaths"))

    def test_the_deaths_of_each_place_are_told(self):
        self.reporter.failed(0, 1, "exited with code 7")
        self.reporter.failed(1, 1, "exited with code 7")
        self.reporter.failed(1, 2, "exited with code 8")

        wait_until(lambda: self.deaths() == {0: 1, 1: 2}, "the rows")
        self.assertEqual(FailedStart.objects.get(number=1).detail, "exited with code 8")

    def test_they_are_repeated_until_a_process_lives(self):
        self.enterContext(mock.patch.object(starts, "REPEAT_S", 0.01))
        self.reporter.failed(0, 3, "exited with code 7")
        self.reporter.failed(1, 3, "exited with code 7")
        wait_until(lambda: len(self.deaths()) == 2, "the rows")
        FailedStart.objects.update(seen_ms=0)

        wait_until(lambda: len(starts.find_loops(ALIAS)) == 2, "both to be told again")

        self.reporter.started(0)
        wait_until(lambda: self.deaths() == {1: 3}, "one to go")

    def test_what_a_killed_supervisor_told_is_not_told_for_long(self):
        self.assertGreaterEqual(starts.CURRENT_MS, 2.5 * starts.REPEAT_S * 1_000)
        self.assertLessEqual(starts.CURRENT_MS, 20_000)

    def test_a_process_that_is_ready_ends_it(self):
        self.reporter.failed(0, 1, "exited with code 7")
        self.reporter.failed(1, 1, "exited with code 7")

        self.reporter.started(0)

        wait_until(lambda: self.deaths() == {1: 1}, "the row to go")

    def test_a_supervisor_that_ends_takes_its_rows_along(self):
        self.reporter.failed(0, 5, "exited with code 7")

        self.reporter.close()

        self.assertEqual(self.deaths(), {})

    def test_where_processes_start_there_is_no_thread(self):
        before = threading.active_count()

        self.reporter.started(0)
        self.reporter.close()

        self.assertEqual(threading.active_count(), before)

    def test_a_database_that_is_away_is_a_warning_and_the_next_death_is_told(self):
        with (
            self.assertLogs("django_actors.MainProcess", "WARNING") as log,
            mock.patch.object(starts, "note", side_effect=OperationalError("away")),
        ):
            self.reporter.failed(0, 1, "exited with code 7")
            wait_until(lambda: log.output, "the warning")

        self.reporter.failed(0, 2, "exited with code 7")

        wait_until(lambda: self.deaths() == {0: 2}, "the row")
