"""Which worker processes live, as their rows tell."""

from __future__ import annotations

import json

from django.test import TestCase

from django_actors import roster
from django_actors.models import WorkerRecord
from tests.engine import report

ALIAS = "default"


class RosterTests(TestCase):
    def test_a_worker_that_reports_lives(self):
        report()

        [(row, age_ms)] = roster.living(ALIAS)

        self.assertEqual((str(row), row.threads, row.busy), ("mars:7", 8, 0))
        self.assertEqual(json.loads(row.queues), ["default", "mail"])
        self.assertLess(age_ms, 10_000)

    def test_a_second_report_takes_the_place_of_the_first(self):
        report()
        running = {"message_id": "1", "actor_name": "a", "queue_name": "q", "since_ms": 9}

        report(running=[running])

        row = WorkerRecord.objects.get()
        self.assertEqual((row.busy, json.loads(row.running)), (1, [running]))

    def test_what_a_row_tells_of_running_messages_is_bounded(self):
        running = {"message_id": "1", "actor_name": "a", "queue_name": "q", "since_ms": 9}

        report(running=[running] * 500)

        row = WorkerRecord.objects.get()
        self.assertEqual((row.busy, len(json.loads(row.running))), (500, roster.MOST_RUNNING))

    def test_who_has_left_is_gone(self):
        report("me")
        report("other")

        self.assertTrue(roster.leave("me", ALIAS))
        self.assertFalse(roster.leave("me", ALIAS))

        self.assertEqual([row.owner for row, _ in roster.living(ALIAS)], ["other"])

    def test_an_answer_says_that_a_worker_lives_and_makes_no_row(self):
        report("me")
        WorkerRecord.objects.update(seen_ms=7)

        roster.answer("me", ALIAS)
        roster.answer("somebody", ALIAS)

        self.assertEqual([row.owner for row, _ in roster.living(ALIAS)], ["me"])
        self.assertEqual(WorkerRecord.objects.count(), 1)

    def test_all_were_heard_of_since_the_one_that_was_silent_for_longest(self):
        for owner in ("me", "first", "second", "gone"):
            report(owner)
        now_ms = roster.now_ms(ALIAS)
        ages = {"me": 9_000, "first": 5_000, "second": 7_000, "gone": 31_000}
        for owner, age_ms in ages.items():
            WorkerRecord.objects.filter(pk=owner).update(seen_ms=now_ms - age_ms)

        heard_ms = roster.heard_of_all_since_ms(ALIAS, besides="me")

        self.assertEqual(heard_ms, now_ms - 7_000)

    def test_where_nobody_else_lives_all_were_heard_of_now(self):
        report("me")
        now_ms = roster.now_ms(ALIAS)

        self.assertGreaterEqual(roster.heard_of_all_since_ms(ALIAS, besides="me"), now_ms)

    def test_who_was_silent_for_half_a_minute_does_not_live(self):
        report()
        seen = WorkerRecord.objects.get().seen_ms
        WorkerRecord.objects.update(seen_ms=seen - roster.SILENCE_MS - 1)

        self.assertEqual(roster.living(ALIAS), [])

    def test_a_process_that_hangs_for_a_day_keeps_its_row_so_that_its_death_is_counted(self):
        report("hangs")
        WorkerRecord.objects.update(seen_ms=roster.now_ms(ALIAS) - 86_400_000)

        roster.prune(ALIAS)

        self.assertTrue(roster.leave("hangs", ALIAS))

    def test_rows_of_the_long_dead_are_pruned(self):
        report("alive")
        report("dead")
        WorkerRecord.objects.filter(pk="dead").update(seen_ms=1)

        roster.prune(ALIAS)

        self.assertEqual([row.pk for row in WorkerRecord.objects.all()], ["alive"])
