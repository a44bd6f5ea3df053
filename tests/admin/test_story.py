"""The timeline of a message, and what became of it."""

from __future__ import annotations

import json
import re

from django.test import SimpleTestCase
from django.urls import reverse

from django_actors import clock, failures
from django_actors.admin.tracebacks import own_frames
from django_actors.models import Attempt, Outcome, WaitingMessage, WorkerRecord
from django_actors.waiting_room import WaitingRoom

from .cases import HOUR_MS, AdminCase, Page, bury, greet, retry, wait
from .test_safety import NASTY

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 12, in charge
    gateway.pay(card)
    ~~~~~~~~~~~^^^^^^
  File "/srv/venv/lib/python3.12/site-packages/gateway/api.py", line 80, in pay
    raise Refused("no")
gateway.Refused: no
"""


class StoryCase(AdminCase):
    def note(self, row, number, outcome, **fields):
        now = clock.now_ms()
        values = {"began_ms": now - 1_500, "ended_ms": now, "host": "web1", "pid": 77, **fields}
        return Attempt.objects.create(
            message_id=row.message_id, number=number, outcome=outcome, **values
        )

    def fate_of(self, message_id):
        url = reverse("admin:django_actors_deadletter_message", args=[message_id])
        return self.client.get(url)


class TimelineTests(StoryCase):
    def test_it_tells_what_happened_when_where_and_why(self):
        row = bury(greet.message("Ada"), KeyError("x"))
        self.note(
            row,
            1,
            Outcome.RETRIED,
            error_class="KeyError",
            error="'x'",
            frame="shop.tasks.greet:7",
            retry_ms=clock.now_ms(),
        )
        self.note(row, 2, Outcome.DEAD, error_class="KeyError", error="'x'")

        text = Page(self.client.get(self.row_url(row))).text

        self.assertRegex(text, r", \d\d:\d\d:\d\d attempt 1")
        for part in (
            "attempt 1: retried web1:77 1.50 s · KeyError: 'x' · in shop.tasks.greet:7 · retry at",
            "attempt 2: dead letter",
        ):
            with self.subTest(part=part):
                self.assertIn(part, text)
        self.assertLess(text.index("attempt 1"), text.index("attempt 2"))

    def test_a_message_that_never_ran_was_sent(self):
        text = Page(self.client.get(self.row_url(wait(greet.message("Ada"))))).text

        self.assertIn("sent", text)

    def test_who_requeued_it_is_part_of_it(self):
        row = bury(greet.message("Ada"))

        self.act([row], "requeue")

        row = WaitingMessage.objects.get()
        url = reverse("admin:django_actors_scheduledmessage_change", args=[row.pk])
        self.assertIn("requeued ada", Page(self.client.get(url)).text)

    def test_that_its_worker_died_is_part_of_it(self):
        row = bury(greet.message("Ada"))
        detail = "was killed by signal 9 (SIGKILL)"
        died = failures.build_crashes({row.message_id: clock.now_ms() - 2_000}, detail)
        failures.write_attempts(died, "default")

        text = Page(self.client.get(self.row_url(row))).text

        self.assertRegex(text, rf"its worker died {died[0].host} 2.\d\d s · {re.escape(detail)}")

    def test_what_operators_do_to_a_scheduled_message_is_part_of_it(self):
        row = wait(greet.message("Ada"))

        self.act([row], "reschedule", due="2031-05-04T12:00:00")
        self.act([row], "run_now")

        text = Page(self.client.get(self.row_url(row))).text
        self.assertRegex(text, "rescheduled ada runs at May 4, 2031, noon .* run now ada -")

    def test_a_requeue_with_a_delay_says_when_it_runs(self):
        row = bury(greet.message("Ada"))

        self.act([row], "requeue_with_delay", amount="2", unit="3600000")

        self.assertIn("requeued ada runs at", Page(self.fate_of(row.message_id)).text)

    def test_a_long_story_is_bounded(self):
        row = bury(greet.message("Ada"))
        Attempt.objects.bulk_create(
            Attempt(message_id=row.message_id, number=n, outcome="retried", ended_ms=n, began_ms=n)
            for n in range(1, 500)
        )

        page = Page(self.client.get(self.row_url(row)))

        self.assertIn("attempt 499:", page.text)
        self.assertNotIn("attempt 200:", page.text)

    def test_nothing_of_an_attempt_becomes_markup(self):
        row = bury(greet.message("Ada"))
        for number, text in enumerate(NASTY):
            text = text.replace("\0", "")[:200]
            self.note(
                row,
                number,
                "retried",
                error_class=text,
                error=text,
                frame=text,
                host=text,
                by=text,
            )
            self.note(row, number + 100, Outcome.REQUEUED, by=text)
        self.note(row, 300, "<script>alert(1)")

        for page in (self.client.get(self.row_url(row)), self.fate_of(row.message_id)):
            self.assertEqual(Page(page).refused, [])
            self.assertNotContains(page, "<script>alert")
            self.assertNotContains(page, "\u202e")


class FateTests(StoryCase):
    def assert_fate(self, row, text, *, final):
        page = self.fate_of(row.message_id)
        self.assertIn(text, Page(page).text)
        self.assertEqual("data-final" in page.content.decode(), final)
        news = self.client.get(page.request["PATH_INFO"] + page.context["live_url"])
        self.assertIn(text, Page(news).text)
        self.assertNotContains(news, "<html")

    def test_a_dead_letter(self):
        row = bury(greet.message("Ada"))

        self.assert_fate(row, "It is a dead letter: retries exhausted.", final=True)
        self.assertIn(self.row_url(row), Page(self.fate_of(row.message_id)).links)

    def test_one_that_waits(self):
        self.assert_fate(retry(greet.message("Ada"), 3), "It waits (retry 3 of 7", final=False)

    def test_one_that_is_due(self):
        row = wait(greet.message("Ada"), delay=-5)

        self.assert_fate(row, "It is due", final=False)

    def test_one_that_runs(self):
        row = bury(greet.message("Ada"))
        row.delete()
        running = [{"message_id": row.message_id, "actor_name": "x"}]
        WorkerRecord.objects.create(
            owner="x",
            host="web1",
            pid=77,
            queues="[]",
            threads=8,
            running=json.dumps(running),
            started_ms=clock.now_ms(),
            seen_ms=clock.now_ms(),
        )

        self.assert_fate(row, "It runs at web1:77.", final=False)

        WorkerRecord.objects.update(seen_ms=clock.now_ms() - HOUR_MS)
        self.assert_fate(row, "Nothing is remembered", final=True)

    def test_one_that_is_with_the_broker(self):
        row = bury(greet.message("Ada"))
        WaitingRoom().requeue([row], by="ada")
        WaitingMessage.objects.all().delete()

        self.assert_fate(row, "It is with the broker", final=False)

    def test_one_that_was_discarded_and_one_that_was_cancelled(self):
        for row, action in (
            (bury(greet.message("Ada")), "discard"),
            (wait(greet.message("Bob")), "cancel"),
        ):
            with self.subTest(action=action):
                self.act([row], action)

                self.assert_fate(row, f"It was {action.rstrip('l')}", final=True)
                page = Page(self.fate_of(row.message_id))
                self.assertRegex(page.text, f"{action}l?ed ada")

    def test_one_that_was_deleted_with_age(self):
        row = bury(greet.message("Ada"))
        self.note(row, 3, Outcome.DEAD)
        row.delete()

        self.assert_fate(row, "It was a dead letter, and was deleted when it was old.", final=True)

    def test_one_that_was_run_now_and_left_no_other_line(self):
        row = wait(greet.message("Ada"))
        self.act([row], "run_now")
        WaitingMessage.objects.all().delete()

        self.assert_fate(row, "It went to the broker: it has run, or runs", final=False)

    def test_one_whose_worker_died(self):
        row = bury(greet.message("Ada"))
        row.delete()
        self.note(row, 0, Outcome.CRASHED)

        self.assert_fate(row, "It is with the broker", final=False)

    def test_one_that_nobody_knows(self):
        for message_id in ("nobody", "a/b", "%00", "🎉"):
            with self.subTest(message_id=message_id):
                self.assertEqual(self.fate_of(message_id).status_code, 200)


class TracebackTests(SimpleTestCase):
    def test_the_frames_of_the_project_stand_alone(self):
        own = own_frames(TRACEBACK)

        self.assertIn("gateway.pay(card)", own)
        self.assertIn("gateway.Refused: no", own)
        self.assertNotIn("site-packages", own)

    def test_where_all_frames_are_alike_nothing_stands_alone(self):
        self.assertEqual(own_frames("KeyError: 'x'"), "")
        self.assertEqual(
            own_frames(TRACEBACK.replace("/srv/venv/lib/python3.12/site-packages/", "/srv/")), ""
        )
        self.assertEqual(own_frames(TRACEBACK.replace("/srv/venv/lib", "/usr/lib")[:120]), "")


class TracebackPageTests(AdminCase):
    def test_the_page_shows_the_project_s_frames_first(self):
        row = bury(greet.message("Ada"), KeyError("x"))
        WaitingMessage.objects.update(traceback=TRACEBACK)

        content = self.client.get(self.row_url(row)).content.decode()

        self.assertIn("<summary>All frames</summary>", content)
        self.assertLess(content.index("gateway.pay"), content.index("<details>"))
        self.assertGreater(content.index("site-packages"), content.index("<details>"))


class SearchTests(AdminCase):
    def test_an_id_is_looked_up_by_its_index(self):
        row = bury(greet.message("Ada"))
        bury(greet.message("Eve"))

        for term in (row.message_id, f" {row.message_id.upper()} "):
            response = self.client.get(self.list_url(type(row)), {"q": term})
            self.assertEqual([each.pk for each in response.context["cl"].result_list], [row.pk])

    def test_failures_without_a_group_have_no_link(self):
        row = wait(greet.message("Ada"))

        self.assertEqual(row.fingerprint, "")
        self.assertNotContains(self.client.get(self.row_url(row)), "Failures like this one")
        self.assertEqual(failures.count_dead([""], "default", limit=5), {"": 0})
