"""What an operator sees of scheduled messages, and does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.test import override_settings
from django.utils import timezone

from django_actors import clock
from django_actors.brokers.database import DatabaseBroker
from django_actors.delivery import Reason
from django_actors.dispatcher import Dispatcher
from django_actors.models import Kind, QueuedMessage, ScheduledMessage, WaitingMessage
from django_actors.waiting_room import WaitingRoom

from .cases import HOUR_MS, AdminCase, Page, bury, greet, retry, wait


def in_hours(hours):
    now = timezone.now()
    due = (timezone.localtime(now) if settings.USE_TZ else now) + timedelta(hours=hours)
    return due.strftime("%Y-%m-%dT%H:%M:%S")


class ListTests(AdminCase):
    def test_a_row_says_when_and_why(self):
        wait(greet.message("Ada"), delay=3 * HOUR_MS + 60_000)
        retry(greet.message("Bob"), 4)
        wait(greet.message("Eve"), kind=Kind.OUTBOX, reason=Reason.OUTBOX, delay=-1)
        wait(greet.message("Sam"), delay=30_500)

        page = Page(self.client.get(self.list_url(ScheduledMessage)))

        for text in (
            "(in 3 hours)",
            "delay",
            "retry 4 of 7 after KeyError",
            "outbox",
            "(due)",
            "(in 30 seconds)",
        ):
            with self.subTest(text=text):
                self.assertIn(text, page.text)

    def test_a_retry_says_how_many_retries_its_own_message_has(self):
        retry(greet.message("Ada").copy(options={"max_retries": 3}), 2)
        retry(greet.message("Bob").copy(options={"max_retries": None}), 5)

        page = Page(self.client.get(self.list_url(ScheduledMessage)))

        self.assertIn("retry 2 of 3 after KeyError", page.text)
        self.assertIn("retry 5 after KeyError", page.text)

    def test_dead_letters_are_not_in_it(self):
        bury(greet.message("Ada"))

        response = self.client.get(self.list_url(ScheduledMessage))

        self.assertEqual(response.context["cl"].result_count, 0)

    def test_times_are_those_of_the_reader(self):
        row = wait(greet.message("Ada"))
        noon = timezone.now().replace(year=2031, month=5, day=4, hour=12, minute=0)
        ScheduledMessage.objects.update(due_ms=clock.datetime_to_ms(noon))

        with timezone.override(ZoneInfo("Asia/Tokyo")):
            listed = Page(self.client.get(self.list_url(ScheduledMessage)))
            shown = Page(self.client.get(self.row_url(row)))

        self.assertIn("May 4, 2031, 9 p.m.", listed.text)
        self.assertIn("May 4, 2031, 9 p.m.", shown.text)

    def test_a_time_that_no_calendar_has_breaks_no_page(self):
        row = wait(greet.message("Ada"), delay=10**15)

        for url in (
            self.list_url(ScheduledMessage),
            self.row_url(row),
            self.row_url(row, "reschedule"),
        ):
            with self.subTest(url=url):
                self.assertEqual(self.client.get(url).status_code, 200)

    def test_the_page_of_a_retry_shows_its_last_error(self):
        page = Page(self.client.get(self.row_url(retry(greet.message("Ada"), 4))))

        self.assertIn("Last error", page.text)
        self.assertIn("KeyError: 'x'", page.text)


class RunNowTests(AdminCase):
    def test_a_retry_runs_at_once_as_the_retry_it_is(self):
        row = retry(greet.message("Ada"), 4)

        response = self.act([row], "run_now")
        Dispatcher(DatabaseBroker()).run_once()

        sent = QueuedMessage.objects.get()
        self.assertEqual(self.told(response), ["1 message runs now."])
        self.assertIn(b'"retries":4', bytes(sent.body))
        self.assertEqual(self.logged(), [(str(row.pk), "Run now.")])

    def test_one_row_runs_from_its_page(self):
        row, other = wait(greet.message("Ada")), wait(greet.message("Bob"))

        self.act_on_row(row, "run_now")
        Dispatcher(DatabaseBroker()).run_once()

        self.assertEqual(ScheduledMessage.objects.get().pk, other.pk)


class RescheduleTests(AdminCase):
    def test_rows_run_at_the_new_time_with_their_attempts(self):
        row = retry(greet.message("Ada"), 4)

        response = self.act([row], "reschedule", due=in_hours(5))

        row.refresh_from_db()
        self.assertEqual(self.told(response), ["1 message was rescheduled."])
        self.assertAlmostEqual(row.due_ms, clock.now_ms() + 5 * HOUR_MS, delta=60_000)
        self.assertEqual((row.attempts, row.reason), (4, Reason.RETRY))
        self.assertIn("Rescheduled for", self.logged()[0][1])

    @override_settings(TIME_ZONE="Asia/Tokyo")
    def test_the_new_time_is_the_readers(self):
        row = wait(greet.message("Ada"))

        self.act([row], "reschedule", due=in_hours(5))

        row.refresh_from_db()
        self.assertAlmostEqual(row.due_ms, clock.now_ms() + 5 * HOUR_MS, delta=60_000)

    @override_settings(USE_TZ=False, TIME_ZONE="UTC")
    def test_a_site_without_time_zones_works_too(self):
        row = wait(greet.message("Ada"))

        self.client.get(self.row_url(row))
        self.act([row], "reschedule", due=in_hours(5))

        row.refresh_from_db()
        self.assertAlmostEqual(row.due_ms, clock.now_ms() + 5 * HOUR_MS, delta=60_000)

    def test_a_time_that_has_passed_is_asked_again(self):
        row = wait(greet.message("Ada"))
        url = self.row_url(row, "reschedule")
        answer = Page(self.client.get(url)).answer()

        for due in (in_hours(-1), "", "tomorrow"):
            with self.subTest(due=due):
                self.assertContains(self.client.post(url, {**answer, "due": due}), "errornote")
        self.assertEqual(ScheduledMessage.objects.get().due_ms, row.due_ms)


class CancelTests(AdminCase):
    def test_cancelled_rows_are_gone_and_logged(self):
        row = wait(greet.message("Ada"))

        response = self.act([row], "cancel")

        self.assertEqual(self.told(response), ["1 message was cancelled."])
        self.assertEqual(WaitingMessage.objects.count(), 0)
        self.assertEqual(self.logged(), [(str(row.pk), "Cancelled.")])


class FightTests(AdminCase):
    """Rows that a dispatcher, or the process that wrote them, is just publishing."""

    ACTIONS: ClassVar[tuple[tuple[str, dict[str, Any]], ...]] = (
        ("run_now", {}),
        ("reschedule", {"due": in_hours(5)}),
        ("cancel", {}),
    )

    def assert_left_alone(self, row):
        before = WaitingMessage.objects.filter(pk=row.pk).values().get()
        for action, answer in self.ACTIONS:
            with self.subTest(action=action):
                response = self.act([row], action, **answer)
                self.assertEqual(
                    self.told(response), ["1 was skipped: it has moved or changed in the meantime."]
                )
                after = WaitingMessage.objects.filter(pk=row.pk).values().get()
                self.assertEqual(after, before)
        self.assertEqual(self.logged(), [])

    def test_a_row_that_a_dispatcher_has_claimed_is_left_alone(self):
        row = wait(greet.message("Ada"), delay=-1)
        WaitingRoom().claim_due("dispatcher", limit=1)

        self.assert_left_alone(row)
        page = Page(self.client.get(self.list_url(ScheduledMessage)))
        self.assertIn("is being handed to the broker", page.text)

    def test_a_row_on_its_way_from_the_outbox_is_left_alone(self):
        row = wait(greet.message("Ada"), kind=Kind.OUTBOX, reason=Reason.OUTBOX, delay=HOUR_MS)

        self.assert_left_alone(row)

    def test_a_row_that_was_left_in_the_outbox_can_be_rescheduled(self):
        row = wait(greet.message("Ada"), kind=Kind.OUTBOX, reason=Reason.OUTBOX, delay=-1)

        self.act([row], "reschedule", due=in_hours(5))
        WaitingRoom().forget_outbox([row.message_id])

        self.assertEqual(ScheduledMessage.objects.get().kind, Kind.SCHEDULED)
