"""Edit the arguments of a dead letter, and requeue it."""

from __future__ import annotations

import json
from unittest import mock

from django_actors import Message
from django_actors.models import DeadLetter, Kind, WaitingMessage
from django_actors.waiting_room import WaitingRoom

from .cases import AdminCase, Page, bury, bury_bytes, charge, greet


class EditCase(AdminCase):
    def edit(self, row, args=None, kwargs=None, **more):
        """Open the page, write other arguments, and press the button."""
        url = self.row_url(row, "edit_and_requeue")
        page = self.client.get(url)
        form = page.context["form"]
        data = {
            "args": form.initial["args"] if args is None else args,
            "kwargs": form.initial["kwargs"] if kwargs is None else kwargs,
            **Page(page).answer(**more),
        }
        return self.client.post(url, data, follow=True)

    def message_of(self, row):
        return WaitingMessage.objects.get(pk=row.pk).message

    def assert_refused(self, response, text):
        self.assertContains(response, "errornote")
        self.assertIn(text, Page(response).text)
        self.assertFalse(WaitingMessage.objects.filter(kind=Kind.SCHEDULED))
        self.assertEqual(self.logged(), [])


class EditTests(EditCase):
    def test_the_message_runs_with_the_new_arguments(self):
        row = bury(greet.message("Ada").copy(options={"retries": 7}))

        response = self.edit(row, '["Eve"]', '{"times": 2}')

        message = self.message_of(row)
        self.assertEqual(self.told(response), ["1 message was requeued."])
        self.assertEqual((message.args, message.kwargs), (("Eve",), {"times": 2}))
        self.assertEqual(message.message_id, row.message_id)
        self.assertEqual(list(message.options), ["requeue_timestamp"])
        waiting = WaitingMessage.objects.get(pk=row.pk)
        self.assertEqual(waiting.call, "admin_tests.greet('Eve', times=2)")

    def test_the_log_says_what_it_runs_with(self):
        row = bury(greet.message("Ada"))

        self.edit(row, '["Eve"]')

        text = "Requeued with other arguments: admin_tests.greet('Eve')"
        self.assertEqual(self.logged(), [(str(row.pk), text)])

    def test_arguments_must_fit_the_signature(self):
        row = bury(greet.message("Ada"))

        for args, kwargs in (("[]", None), ("[1, 2]", None), (None, '{"volume": 11}')):
            with self.subTest(args=args, kwargs=kwargs):
                self.assert_refused(self.edit(row, args, kwargs), "was sent wrongly")

    def test_arguments_must_be_json_of_the_right_shape(self):
        row = bury(greet.message("Ada"))

        for args in ("{}", "1", "[", "[NaN]", "[" * 100_000, "", "'x'"):
            with self.subTest(args=args[:10]):
                self.assert_refused(self.edit(row, args), "")
        for kwargs in ("[]", "null", '{"x": }'):
            with self.subTest(kwargs=kwargs):
                self.assert_refused(self.edit(row, None, kwargs), "This must be a JSON object.")

    def test_arguments_that_cannot_travel_are_refused(self):
        row = bury(greet.message("Ada"))

        self.assert_refused(self.edit(row, '["\\ud800"]'), "surrogate")
        self.assert_refused(self.edit(row, json.dumps(["x" * 1_100_000])), "1,048,576")

    def test_the_name_of_the_actor_cannot_be_changed(self):
        row = bury(greet.message("Ada"))

        self.edit(row, actor_name="admin_tests.charge", queue_name="other")

        message = self.message_of(row)
        self.assertEqual((message.actor_name, message.queue_name), ("admin_tests.greet", "mail"))

    def test_nothing_is_lost_by_showing_arguments_as_json(self):
        nasty = [
            "\x00\x7f\u202e</textarea><script>",
            "🎉 👩‍👩‍👧",
            {"é": [1.5, None, True, -(10**30)]},
        ]
        row = bury(greet.message(nasty))

        self.edit(row)

        self.assertEqual(self.message_of(row).args, (nasty,))

    def test_a_large_argument_can_be_edited(self):
        row = bury(greet.message("é" * 500_000))

        self.edit(row)

        self.assertEqual(self.message_of(row).args, ("é" * 500_000,))

    def test_a_row_that_died_anew_meanwhile_is_not_touched(self):
        row = bury(greet.message("Ada"))
        url = self.row_url(row, "edit_and_requeue")
        answer = Page(self.client.get(url)).answer(args='["Eve"]', kwargs="{}")
        bury(row.message, TypeError("another"))

        response = self.client.post(url, answer, follow=True)

        self.assertIn("moved or changed", self.told(response)[0])
        self.assertEqual(DeadLetter.objects.get().error_class, "TypeError")

    def test_a_row_that_is_moved_at_the_last_moment_is_told_of(self):
        row = bury(greet.message("Ada"))

        with mock.patch.object(WaitingRoom, "requeue", return_value=[]):
            response = self.edit(row)

        self.assertIn("moved or changed", self.told(response)[0])
        self.assertEqual(self.logged(), [])

    def test_what_is_no_message_of_a_known_actor_cannot_be_edited(self):
        for row in (bury_bytes(b"junk"), bury(Message("default", "gone.away", (), {}, {}))):
            with self.subTest(row=str(row)):
                response = self.client.get(self.row_url(row, "edit_and_requeue"), follow=True)

                self.assertIn("can be edited", self.told(response)[0])
                shown = Page(self.client.get(self.row_url(row)))
                self.assertNotIn(self.row_url(row, "edit_and_requeue"), shown.links)

    def test_the_action_of_the_list_opens_the_page_of_a_single_row(self):
        rows = [bury(greet.message("Ada")), bury(greet.message("Bob"))]

        one = self.ask(rows[:1], "edit_and_requeue")
        two = self.client.get(self.ask(rows, "edit_and_requeue").url)

        self.assertEqual(one.url, self.row_url(rows[0], "edit_and_requeue"))
        self.assertIn("choose a single one", self.told(two)[0])


class SensitiveTests(EditCase):
    def setUp(self):
        super().setUp()
        self.row = bury(charge.message(5, "41x11-2222", "pin-a", "pin-b"))

    def test_sensitive_arguments_are_shown_nowhere(self):
        pages = [
            self.client.get(self.list_url(DeadLetter)),
            self.ask([self.row], "requeue"),
            *(
                self.client.get(self.row_url(self.row, name))
                for name in ("change", "requeue", "edit_and_requeue", "discard")
            ),
        ]

        for page in pages:
            for secret in ("41x11", "pin-a", "pin-b"):
                self.assertNotContains(page, secret)
        self.assertContains(pages[2], "admin_tests.charge(5, ***, ***, ***)")

    def test_what_is_left_as_it_is_stays_what_it_was(self):
        self.edit(self.row)

        self.assertEqual(self.message_of(self.row).args, (5, "41x11-2222", "pin-a", "pin-b"))

    def test_a_sensitive_argument_can_be_replaced_and_moved(self):
        self.edit(self.row, '[6, "4999", "***2"]', "{}")

        self.assertEqual(self.message_of(self.row).args, (6, "4999", "pin-b"))
        self.assertNotIn("4999", self.logged()[0][1])

    def test_stars_without_a_value_behind_them_are_refused(self):
        row = bury(charge.message(5, "41x11"))

        self.assert_refused(self.edit(row, '[5, "41x11", "***"]'), "no value behind the stars")

    def test_arguments_of_an_unknown_actor_are_not_shown(self):
        row = bury(Message("default", "gone.away", ("41x11 1111",), {}, {}))
        DeadLetter.objects.filter(pk=row.pk).update(call="gone.away(***)")

        self.assertNotContains(self.client.get(self.row_url(row)), "41x11 1111")
