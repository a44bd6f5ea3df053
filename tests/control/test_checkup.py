"""Whether somebody should get up."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

from django.db import OperationalError

from django_actors import control, pauses, starts
from django_actors.control import checkup
from django_actors.errors import BrokerUnavailable
from django_actors.models import QueuedMessage
from tests.admin.cases import bury, wait

from .cases import ALIAS, ControlCase, greet


class HealthTests(ControlCase):
    def codes(self, **limits: object) -> list[str]:
        return [each.code for each in control.health(**limits)]  # type: ignore[arg-type]

    def test_all_is_well_while_a_worker_reads_what_is_sent(self):
        self.have_worker("mail")
        self.send()
        bury(greet.message("dead"))

        self.assertEqual(control.health(), [])

    def test_it_is_told_that_messages_wait_and_no_worker_runs(self):
        self.send(2)
        wait(greet.message("later"))

        [problem] = control.health()

        self.assertEqual(problem.code, "no-worker")
        self.assertIn("3 messages wait and no worker runs.", problem.text)

    def test_missing_workers_are_no_problem_where_none_is_needed_and_nothing_waits(self):
        self.assertEqual(self.codes(), ["no-worker"])
        self.assertEqual(self.codes(need_worker=False), [])
        self.send()
        self.assertEqual(self.codes(need_worker=False), ["no-worker"])

    def test_worker_processes_that_die_at_every_start_are_told_of(self):
        self.have_worker("mail")
        self.have_failed_start(deaths=2)
        self.assertEqual(self.codes(), [])

        self.have_failed_start(deaths=3)

        [problem] = control.health()
        self.assertEqual(problem.code, "crash-loop")
        self.assertIn("Worker process 1 of runactors (PID 9) on mars died 3 times", problem.text)
        self.assertIn("the last one exited with code 7.", problem.text)

    def have_failed_start(self, *, deaths: int) -> None:
        told = {"host": "mars", "pid": 9, "number": 1, "detail": "exited with code 7"}
        starts.note("boss.1", deaths=deaths, alias=ALIAS, **told)  # type: ignore[arg-type]

    def test_a_broker_that_is_down_is_told_of(self):
        self.have_worker("mail")
        with mock.patch.object(self.broker, "ping", side_effect=BrokerUnavailable("away")):
            [problem] = control.health()

        self.assertEqual(problem.code, "broker-down")
        self.assertIn("away", problem.text)

    def test_a_database_that_is_down_is_told_of(self):
        with mock.patch.object(checkup, "workers", side_effect=OperationalError("away")):
            self.assertEqual(self.codes(), ["database-down"])

    def test_a_message_that_waits_for_too_long_is_told_of(self):
        self.have_worker("mail")
        self.send()
        QueuedMessage.objects.update(enqueued_ms=1_000)

        [problem] = control.health()

        self.assertEqual((problem.code, problem.queue), ("backlog-old", "mail"))
        self.assertIn("1 message waits in queue 'mail', the oldest for ", problem.text)
        self.assertEqual(self.codes(backlog_age=10**13), [])

    def test_a_message_in_a_paused_queue_is_told_of(self):
        self.have_worker("mail")
        self.send()
        pauses.pause("mail", by="ada", alias=ALIAS)

        [problem] = control.health()

        self.assertEqual((problem.code, problem.queue), ("queue-paused", "mail"))
        self.assertIn("paused by ada", problem.text)

    def test_a_paused_queue_that_is_empty_is_no_problem(self):
        self.have_worker("mail")
        pauses.pause("mail", by="ada", alias=ALIAS)

        self.assertEqual(self.codes(), [])

    def test_a_message_that_no_worker_reads_is_told_of(self):
        self.have_worker("default")
        self.send()

        self.assertEqual(self.codes(), ["queue-unread"])

    def test_too_many_dead_letters_are_told_of(self):
        self.have_worker("mail")
        for _ in range(2):
            bury(greet.message("dead"))

        self.assertEqual(self.codes(dead_letters=2), [])
        self.assertEqual(self.codes(dead_letters=1), ["dead-letters"])

    def test_every_code_is_told_of_where_it_is_described(self):
        made = set(re.findall(r'Problem\("([a-z-]+)"', Path(checkup.__file__).read_text()))

        self.assertEqual(
            set(re.findall(r"``([a-z]+-[a-z]+)``", checkup.Problem.__doc__ or "")), made
        )
