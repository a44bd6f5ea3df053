"""What an operator sees of dead letters, and does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.db import OperationalError
from django.test import RequestFactory, override_settings
from django.utils import timezone

from django_actors import Message, clock
from django_actors.admin import bulk
from django_actors.brokers.database import DatabaseBroker
from django_actors.dispatcher import Dispatcher
from django_actors.models import (
    DeadLetter,
    Kind,
    QueuedMessage,
    ScheduledMessage,
    WaitingMessage,
)
from django_actors.waiting_room import WaitingRoom

from .cases import HOUR_MS, AdminCase, Page, bury, bury_bytes, charge, greet


def decode(pk):
    return WaitingMessage.objects.get(pk=pk).message


class ListTests(AdminCase):
    def test_a_row_says_what_when_and_why(self):
        bury(greet.message("Ada"), KeyError("x"))

        page = Page(self.client.get(self.list_url(DeadLetter)))

        for text in (
            "admin_tests.greet('Ada')",
            "mail",
            "retries exhausted",
            "KeyError",
        ):
            with self.subTest(text=text):
                self.assertIn(text, page.text)

    def test_filters_search_and_dates_find_rows(self):
        found = bury(greet.message("needle"), KeyError("why"))
        bury(charge.message(1, "41x11"), ValueError("other"))
        year = found.stored_at.year

        for query in (
            "?queue_name=mail",
            "?actor_name=admin_tests.greet",
            "?error_class=KeyError",
            "?queue_name=mail&reason=retries+exhausted",
            "?q=needle",
            "?q=why",
            f"?q={found.message_id}",
            f"?queue_name=mail&stored_at__year={year}",
        ):
            with self.subTest(query=query):
                response = self.client.get(self.list_url(DeadLetter) + query)
                self.assertEqual([row.pk for row in response.context["cl"].result_list], [found.pk])

    def test_filters_offer_what_there_is(self):
        bury(greet.message("a"), KeyError("x"))
        bury(charge.message(1, "41x11"), ValueError("x"))

        page = Page(self.client.get(self.list_url(DeadLetter)))

        self.assertIn("?error_class=KeyError", page.links)
        self.assertIn("?actor_name=admin_tests.charge", page.links)
        self.assertNotIn("?reason=retries+exhausted", page.links)

    def test_filters_count_when_they_are_asked_to(self):
        bury(greet.message("a"), KeyError("x"))
        bury_bytes(b"x")

        page = Page(self.client.get(self.list_url(DeadLetter) + "?_facets=True"))

        self.assertIn("KeyError (1)", page.text)
        self.assertIn("undecodable (1)", page.text)

    def test_a_value_that_is_nowhere_finds_nothing(self):
        bury(greet.message("a"))

        for query in ("?actor_name=nobody", "?error_class=", "?q=%00", "?q=%F0%9F%8E%89"):
            with self.subTest(query=query):
                response = self.client.get(self.list_url(DeadLetter) + query)
                self.assertEqual(response.status_code, 200)

        response = self.client.get(self.list_url(DeadLetter) + "?actor_name=%00")
        self.assertRedirects(response, self.list_url(DeadLetter) + "?e=1")

    @override_settings(DJANGO_ACTORS={"DATABASE": "elsewhere"})
    def test_rows_are_read_where_the_waiting_room_is(self):
        for model in (DeadLetter, ScheduledMessage):
            rows = admin.site.get_model_admin(model).get_queryset(RequestFactory().get("/"))
            self.assertEqual(rows.db, "elsewhere")

    def test_a_long_list_is_counted_to_a_limit_only(self):
        for number in range(5):
            bury(greet.message(number))

        with mock.patch("django_actors.admin.changelist.MAX_COUNT", 3):
            response = self.client.get(self.list_url(DeadLetter))

        self.assertEqual(response.context["cl"].result_count, 3)


class PageTests(AdminCase):
    def test_the_page_of_a_row_tells_everything(self):
        message = greet.message_with_options(args=("Ada",), kwargs={"times": 2}, priority=5)
        row = bury(message, KeyError("why"))

        page = Page(self.client.get(self.row_url(row)))

        for text in (
            "admin_tests.greet('Ada', times=2)",
            message.message_id,
            "retries exhausted",
            "KeyError: 'why'",
            '"Ada"',
            '"times": 2',
            "max_retries 7 actor",
            "priority 5 message",
        ):
            with self.subTest(text=text):
                self.assertIn(text, page.text)

    @override_settings(DJANGO_ACTORS={"ACTOR_OPTIONS": {"max_retries": 3, "max_age": 60_000}})
    def test_options_of_the_project_count_where_nobody_else_has_any(self):
        page = Page(self.client.get(self.row_url(bury(greet.message("Ada")))))

        self.assertIn("max_age 60000 ms project", page.text)
        self.assertIn("max_retries 7 actor", page.text)

    def test_options_that_nobody_has_set_are_in_force_as_well(self):
        page = Page(self.client.get(self.row_url(bury(greet.message("Ada")))))

        self.assertIn("min_backoff 15000 ms default", page.text)
        self.assertIn("time_limit 600000 ms default", page.text)
        self.assertIn("priority 0 actor", page.text)

    def test_bytes_that_are_no_message_are_shown_escaped_and_bounded(self):
        row = bury_bytes(b"\x00\xff<script>alert(1)</script>" + b"x" * 100_000)

        response = self.client.get(self.row_url(row))

        self.assertContains(response, "\\u0000\\xff&lt;script&gt;alert(1)&lt;/script&gt;xxx")
        self.assertContains(response, "100027 bytes")
        self.assertLess(len(response.content), 60_000)
        self.assertNotIn(self.row_url(row, "requeue"), Page(response).links)
        self.assertIn(self.row_url(row, "discard"), Page(response).links)

    def test_the_page_offers_each_action(self):
        row = bury(greet.message("Ada"))

        links = Page(self.client.get(self.row_url(row))).links

        for name in ("requeue", "requeue_with_delay", "edit_and_requeue", "discard", "history"):
            with self.subTest(name=name):
                self.assertIn(self.row_url(row, name), links)

    def test_a_row_that_is_gone_is_told_of(self):
        row = bury(greet.message("Ada"))
        url = self.row_url(row, "requeue")
        row.delete()

        response = self.client.get(url, follow=True)

        self.assertIn("moved or changed", self.told(response)[0])


class RequeueTests(AdminCase):
    def test_it_asks_first_and_counts_by_actor(self):
        rows = [bury(greet.message(n)) for n in range(3)] + [bury(charge.message(1, "41x11"))]
        rows.append(bury_bytes(b"junk"))

        page = Page(self.ask(rows, "requeue"))

        self.assertIn("5 messages", page.text)
        self.assertIn("admin_tests.greet 3", page.text)
        self.assertIn("admin_tests.charge 1", page.text)
        self.assertIn("1 of them holds no message", page.text)
        self.assertEqual(DeadLetter.objects.count(), 5)

    def test_an_actor_this_process_lacks_is_named(self):
        row = bury(Message("default", "gone.away", (), {}, {}))

        page = Page(self.ask([row], "requeue"))

        self.assertIn("gone.away (this process does not know it)", page.text)

    def test_what_is_requeued_is_published_from_its_first_attempt(self):
        row = bury(greet.message("Ada").copy(options={"retries": 7}))
        message_id = row.message_id

        response = self.act([row], "requeue")
        Dispatcher(DatabaseBroker()).run_once()

        self.assertEqual(self.told(response), ["1 message was requeued."])
        self.assertEqual(DeadLetter.objects.count(), 0)
        sent = Message.decode(bytes(QueuedMessage.objects.get().body))
        self.assertEqual((sent.message_id, sent.args), (message_id, ("Ada",)))
        self.assertEqual(list(sent.options), ["requeue_timestamp"])

    def test_one_row_is_requeued_from_its_page(self):
        row, other = bury(greet.message("Ada")), bury(greet.message("Bob"))

        response = self.act_on_row(row, "requeue")

        self.assertEqual(self.told(response), ["1 message was requeued."])
        self.assertEqual(list(DeadLetter.objects.all()), [other])

    def test_a_requeue_writes_the_log_of_each_row(self):
        rows = [bury(greet.message(n)) for n in range(2)]

        self.act(rows, "requeue")

        self.assertCountEqual(self.logged(), [(str(row.pk), "Requeued.") for row in rows])
        history = self.client.get(self.row_url(rows[0], "history"))
        self.assertEqual(history.status_code, 302)

    def test_undecodable_rows_are_skipped_and_told_of(self):
        rows = [bury(greet.message("Ada")), bury_bytes(b"junk")]

        response = self.act(rows, "requeue")

        self.assertEqual(
            self.told(response),
            ["1 message was requeued.", "1 was skipped: it holds no message that could run."],
        )
        self.assertEqual(DeadLetter.objects.get().pk, rows[1].pk)
        self.assertEqual(len(self.logged()), 1)

    def test_a_delay_is_kept(self):
        row = bury(greet.message("Ada"))

        response = self.act([row], "requeue_with_delay", amount=2, unit=HOUR_MS)

        waiting: Any = WaitingMessage.objects.get(pk=row.pk)
        self.assertEqual(self.told(response), ["1 message was requeued."])
        self.assertEqual(waiting.kind, Kind.SCHEDULED)
        self.assertAlmostEqual(waiting.due_ms, clock.now_ms() + 2 * HOUR_MS, delta=60_000)
        self.assertEqual(self.logged()[0][1], "Requeued with a delay of 2 hours.")

    def test_a_delay_that_is_none_is_asked_again(self):
        row = bury(greet.message("Ada"))
        url = self.row_url(row, "requeue_with_delay")
        answer = Page(self.client.get(url)).answer(unit=1000)

        for amount in ("", "-1", "x", "1e9"):
            with self.subTest(amount=amount):
                response = self.client.post(url, {**answer, "amount": amount})
                self.assertContains(response, "errornote")
        self.assertEqual(DeadLetter.objects.count(), 1)

    def test_the_filters_of_the_list_stay(self):
        row = bury(greet.message("Ada"))

        listed = self.act([row], "requeue", query="?queue_name=mail")
        linked = self.client.post(
            self.row_url(bury(greet.message("Bob")), "requeue")
            + "?_changelist_filters=queue_name%3Dmail",
            {"post": "yes"},
        )

        self.assertEqual(
            listed.redirect_chain[0][0], f"{self.list_url(DeadLetter)}?queue_name=mail"
        )
        self.assertRedirects(linked, f"{self.list_url(DeadLetter)}?queue_name=mail")


class BulkTests(AdminCase):
    def bury_many(self, count):
        return [bury(greet.message(number)) for number in range(count)]

    def test_all_that_match_are_requeued_and_no_others(self):
        rows = self.bury_many(7)
        other = bury(charge.message(1, "41x11"))

        with mock.patch.object(bulk, "BATCH_ROWS", 3):
            response = self.act(rows[:1], "requeue", query="?queue_name=mail", across=True)

        self.assertEqual(self.told(response), ["7 messages were requeued."])
        self.assertEqual(DeadLetter.objects.get().pk, other.pk)
        self.assertEqual(len(self.logged()), 7)

    def test_a_batch_is_small_where_bodies_are_large(self):
        rows = [bury(greet.message("x" * 10_000)) for _ in range(5)]

        with (
            mock.patch.object(bulk, "BATCH_BYTES", 15_000),
            mock.patch.object(
                WaitingRoom, "requeue", autospec=True, side_effect=WaitingRoom.requeue
            ) as requeue,
        ):
            response = self.act(rows, "requeue")

        self.assertEqual([len(call.args[1]) for call in requeue.mock_calls], [2, 2, 1])
        self.assertEqual(self.told(response), ["5 messages were requeued."])

    def test_what_takes_long_goes_on_from_page_to_page(self):
        rows = self.bury_many(5)
        url = self.list_url(DeadLetter)
        answer = Page(self.ask(rows, "requeue_with_delay")).answer(amount=1, unit=HOUR_MS)
        handled = []

        with mock.patch.object(bulk, "BATCH_ROWS", 2), self.clock_of_a_slow_server():
            response = self.client.post(url, answer)
            while response.status_code == 200:
                handled.append(response.context["progress"].handled)
                response = self.client.post(url, Page(response).answer())

        told = self.told(self.client.get(url))
        self.assertEqual(handled, [2, 4, 5])
        self.assertEqual(told, ["5 messages were requeued."])
        self.assertEqual(len(self.logged()), 5)

    def clock_of_a_slow_server(self):
        """Let one batch take as long as a request may."""
        times = iter(range(0, 10_000, 5))
        return mock.patch(
            "django_actors.admin.bulk.time.monotonic", side_effect=lambda: next(times)
        )

    def test_it_can_be_stopped(self):
        rows = self.bury_many(5)
        url = self.list_url(DeadLetter)
        answer = Page(self.ask(rows, "discard")).answer()

        with mock.patch.object(bulk, "BATCH_ROWS", 2), self.clock_of_a_slow_server():
            response = self.client.post(url, answer)
            stopped = self.client.post(url, Page(response).answer(stop="Stop"), follow=True)

        self.assertContains(response, "2 of 5 messages so far")
        self.assertEqual(self.told(stopped), ["2 messages were discarded."])
        self.assertEqual(DeadLetter.objects.count(), 3)

    def test_what_came_after_the_question_is_not_meant(self):
        rows = self.bury_many(2)
        answer = Page(self.ask(rows, "discard", across=True)).answer()
        later = bury(greet.message("later"))
        DeadLetter.objects.filter(pk=later.pk).update(
            stored_at=timezone.now() + timedelta(seconds=1)
        )

        self.client.post(self.list_url(DeadLetter), answer)

        self.assertEqual(DeadLetter.objects.get().pk, later.pk)

    def test_hidden_fields_that_were_tampered_with_are_refused(self):
        rows = self.bury_many(1)
        answer = Page(self.ask(rows, "discard")).answer()

        for name, value in (("cursor", "x"), ("newest", "x"), ("done", "")):
            with self.subTest(name=name):
                response = self.client.post(self.list_url(DeadLetter), {**answer, name: value})
                self.assertEqual(response.status_code, 400)
        self.assertEqual(DeadLetter.objects.count(), 1)

    def test_nothing_to_do_is_told(self):
        data = {"action": "discard", "select_across": 1, "_selected_action": "0", "post": "yes"}

        response = self.client.post(self.list_url(DeadLetter), data, follow=True)

        self.assertEqual(self.told(response), ["There was nothing left to do."])

    def test_a_database_that_fails_halfway_ends_it_with_a_report(self):
        rows = self.bury_many(5)
        work = WaitingRoom.requeue
        batches: Any = iter([work, work, mock.Mock(side_effect=OperationalError("gone"))])

        with (
            mock.patch.object(bulk, "BATCH_ROWS", 2),
            mock.patch.object(
                WaitingRoom, "requeue", lambda *args, **kwargs: next(batches)(*args, **kwargs)
            ),
            self.assertLogs("django_actors.admin", "ERROR"),
        ):
            response = self.act(rows, "requeue")

        self.assertEqual(self.told(response)[0], "4 messages were requeued.")
        self.assertIn("The database ended it early", self.told(response)[1])
        self.assertEqual(len(self.logged()), 4)
        self.assertEqual(DeadLetter.objects.count(), 1)


class DiscardTests(AdminCase):
    def test_discarded_rows_are_gone_and_logged(self):
        rows = [bury(greet.message("Ada")), bury_bytes(b"junk")]

        response = self.act(rows, "discard")

        self.assertEqual(self.told(response), ["2 messages were discarded."])
        self.assertEqual(DeadLetter.objects.count(), 0)
        self.assertEqual(LogEntry.objects.filter(action_flag=DELETION).count(), 2)
        self.assertEqual({text for _, text in self.logged()}, {"Discarded."})


class MovedTests(AdminCase):
    """Rows that somebody else moves between the question and the answer."""

    def setUp(self):
        super().setUp()
        self.rows = [bury(greet.message("Ada")), bury(greet.message("Bob"))]

    def answer_after(self, change, action="requeue"):
        """Be asked, let *change* happen, and say yes."""
        answer = Page(self.ask(self.rows, action)).answer()
        change(self.rows[0])
        return self.client.post(self.list_url(DeadLetter), answer, follow=True)

    def test_a_row_that_was_discarded_is_not_brought_back(self):
        response = self.answer_after(lambda row: row.delete())

        self.assertEqual(
            self.told(response),
            [
                "1 message was requeued.",
                "1 was skipped: it has moved or changed in the meantime.",
            ],
        )
        self.assertEqual(WaitingMessage.objects.count(), 1)

    def test_a_row_that_was_requeued_and_published_does_not_run_twice(self):
        def requeue_and_publish(row):
            WaitingRoom().requeue([row])
            Dispatcher(DatabaseBroker()).run_once()

        response = self.answer_after(requeue_and_publish)
        Dispatcher(DatabaseBroker()).run_once()

        self.assertIn("1 was skipped", self.told(response)[1])
        self.assertEqual(QueuedMessage.objects.count(), 2)

    def test_a_row_that_died_anew_is_another_dead_letter(self):
        def die_again(row):
            bury(row.message, TypeError("another"))

        for action in ("requeue", "discard"):
            with self.subTest(action=action):
                response = self.answer_after(die_again, action)
                self.assertIn("1 was skipped", self.told(response)[-1])
                self.assertEqual(DeadLetter.objects.get().error_class, "TypeError")
                self.rows = [DeadLetter.objects.get()]

    def test_nothing_left_is_told_as_well(self):
        response = self.answer_after(lambda row: DeadLetter.objects.all().delete())

        self.assertEqual(
            self.told(response), ["2 were skipped: they have moved or changed in the meantime."]
        )
        self.assertEqual(self.logged(), [])
