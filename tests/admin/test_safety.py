"""Pages that nothing from outside breaks, and that stay quick."""

from __future__ import annotations

from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_actors import Message
from django_actors.models import DeadLetter, ScheduledMessage, WaitingMessage
from tests.admin.cases import AdminCase, Page, bury, bury_bytes, charge, greet, retry, wait

NASTY = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='",
    "{{ 7|add:7 }}{% load %}",
    "\0NUL\x1b[31m",
    "🎉 👩‍👩‍👧 日本語",
    "\u202eevil\u2066\u200b",
    "]]>&amp;</pre></textarea></script>",
    "x" * 1_000_000,
)


class EscapingTests(AdminCase):
    def pages(self):
        for text in NASTY:
            row = bury(greet.message(text), ValueError(text))
            yield text, self.client.get(self.list_url(DeadLetter))
            yield text, self.ask([row], "requeue")
            for name in ("change", "requeue", "edit_and_requeue", "discard"):
                yield text, self.client.get(self.row_url(row, name))
            waiting = retry(greet.message(text), 1)
            yield text, self.client.get(self.list_url(ScheduledMessage))
            for name in ("change", "reschedule", "cancel"):
                yield text, self.client.get(self.row_url(waiting, name))
            WaitingMessage.objects.all().delete()

    def test_no_text_of_a_message_becomes_markup(self):
        for text, page in self.pages():
            with self.subTest(text=text[:20], page=page.request["PATH_INFO"]):
                self.assertEqual(page.status_code, 200)
                self.assertEqual(Page(page).refused, [])
                self.assertNotContains(page, "<script>alert")
                self.assertNotContains(page, "<img src=x")
                for character in "\0\x1b\u202e\u2066\u200b":
                    self.assertNotContains(page, character)

    def test_a_large_message_makes_no_large_page(self):
        row = bury(greet.message("x" * 1_000_000), ValueError("y" * 1_000_000))

        self.assertLess(len(self.client.get(self.list_url(DeadLetter)).content), 50_000)
        self.assertLess(len(self.client.get(self.row_url(row)).content), 300_000)

    def test_names_are_escaped_too(self):
        for name in NASTY[:-1]:
            row = bury(
                Message("q" + name[:200].replace("\0", ""), name.replace("\0", ""), (), {}, {})
            )
            for page in (
                self.client.get(self.list_url(DeadLetter)),
                self.client.get(self.row_url(row)),
                self.ask([row], "requeue"),
            ):
                with self.subTest(name=name):
                    self.assertEqual(Page(page).refused, [])
                    self.assertNotContains(page, "\u202e")

    def test_history_and_log_are_escaped(self):
        row = bury(greet.message(NASTY[0]))

        self.act([row], "discard")

        index = self.client.get("/admin/")
        self.assertEqual(Page(index).refused, [])
        self.assertContains(index, "&lt;script&gt;alert(1)")

    def test_styles_and_scripts_are_files(self):
        row = bury(greet.message("Ada"))

        for url in (self.list_url(DeadLetter), self.row_url(row), self.row_url(row, "requeue")):
            with self.subTest(url=url):
                self.assertContains(self.client.get(url), "django_actors/admin.css")


class QueryTests(AdminCase):
    """The number of queries is the same for two rows and for forty."""

    def setUp(self):
        super().setUp()
        self.dead = [bury(greet.message(n)) for n in range(18)]
        self.dead += [bury(charge.message(1, "41x11")), bury_bytes(b"junk")]
        self.waiting = [wait(greet.message(n)) for n in range(10)]
        self.waiting += [retry(greet.message(n), 3) for n in range(10)]
        # What Django remembers from the first request on.
        ContentType.objects.get_for_models(DeadLetter, ScheduledMessage, for_concrete_models=False)

    def test_the_list_of_dead_letters(self):
        with self.assertNumQueries(6) as queries:
            self.client.get(self.list_url(DeadLetter))

        self.assert_light(queries)

    def test_the_list_of_scheduled_messages(self):
        with self.assertNumQueries(5) as queries:
            self.client.get(self.list_url(ScheduledMessage))

        self.assert_light(queries)

    def assert_light(self, queries):
        for column in ("body", "traceback"):
            self.assertFalse([q["sql"] for q in queries if column in q["sql"].split("WHERE")[0]])

    def test_the_page_of_a_row(self):
        for row in (self.dead[0], self.waiting[0], self.waiting[-1]):
            with self.assertNumQueries(4):
                self.client.get(self.row_url(row))

    def test_the_questions(self):
        with self.assertNumQueries(5):
            self.ask(self.dead, "requeue")
        with self.assertNumQueries(5):
            self.ask(self.waiting, "cancel")
        with self.assertNumQueries(4):
            self.client.get(self.row_url(self.dead[0], "requeue"))

    def test_the_other_pages(self):
        secret = self.dead[-2]
        actor = quote("admin_tests.greet")
        for number, url in (
            (3, self.row_url(secret, "edit_and_requeue")),
            # These two write who has looked.
            (4, self.row_url(secret, "arguments")),
            (4, self.row_url(secret, "copy_as_code")),
            (4, reverse("admin:django_actors_deadletter_message", args=[secret.message_id])),
            (3, reverse("admin:django_actors_actorsummary_actor", args=[actor])),
            (2, reverse("admin:django_actors_actorsummary_send", args=[actor])),
        ):
            with self.subTest(url=url), self.assertNumQueries(number):
                self.client.get(url)

    def test_the_deeds(self):
        one = self.count(self.dead[:1], "requeue")
        many = self.count(self.dead[1:], "requeue")

        self.assertEqual(one, many)

    def count(self, rows, action):
        answer = Page(self.ask(rows, action)).answer()
        with CaptureQueriesContext(connection) as queries:
            self.client.post(self.list_url(type(rows[0])), answer)
        return len(queries)
