"""
Every page of the admin answers, and does its work; run with the settings of a theme.

The name keeps it out of the suite: test_themes.py runs it in a process of its own.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.contrib.admin.utils import quote
from django.urls import reverse

from django_actors import failures
from django_actors.admin import bulk
from django_actors.models import DeadLetter, ErrorGroup, ScheduledMessage

from .cases import AdminCase, Page, bury, charge, greet, retry, wait


class ThemedTests(AdminCase):
    def get(self, name: str, *args: Any) -> Any:
        response = self.client.get(reverse(f"admin:django_actors_{name}", args=args))
        self.assertEqual(response.status_code, 200, name)
        # The theme, and not the admin's own look.
        self.assertContains(response, "unfold/css/styles.css")
        return response

    def test_every_page_answers(self):
        dead = bury(charge.message(1, "41x11"), KeyError("x"))
        failures.count_failures([dead], "default")
        waiting = retry(greet.message("Ada"), 3)
        group = quote(ErrorGroup.objects.get().pk)

        for model in ("deadletter", "scheduledmessage", "errorgroup", "overview", "actorsummary"):
            self.get(f"{model}_changelist")
        for name in ("change", "requeue", "requeue_with_delay", "edit_and_requeue", "discard"):
            self.get(f"deadletter_{name}", dead.pk)
        for name in ("arguments", "copy_as_code", "requeue_and_see", "history"):
            self.get(f"deadletter_{name}", dead.pk)
        for name in ("change", "run_now", "reschedule", "cancel", "history"):
            self.get(f"scheduledmessage_{name}", waiting.pk)
        for name in ("change", "requeue", "discard"):
            self.get(f"errorgroup_{name}", group)
        self.get("deadletter_message", dead.message_id)
        for name in ("actor", "send"):
            self.get(f"actorsummary_{name}", quote("admin_tests.greet"))

    def test_the_page_of_a_row_offers_what_can_be_done(self):
        row = bury(greet.message("Ada"))

        links = Page(self.get("deadletter_change", row.pk)).links

        for name in ("requeue", "requeue_with_delay", "edit_and_requeue", "discard"):
            with self.subTest(name=name):
                self.assertIn(self.row_url(row, name), links)

    def test_the_script_of_the_theme_hears_which_action_is_chosen(self):
        bury(greet.message("Ada"))

        self.assertContains(self.get("deadletter_changelist"), 'x-model="action"')

    def test_a_selection_is_requeued_page_by_page(self):
        rows = [bury(greet.message(number)) for number in range(4)]

        with mock.patch.multiple(bulk, BATCH_ROWS=2, WORK_S=0.0):
            page = self.act(rows, "requeue")
            self.assertIn("2 of 4 messages so far", Page(page).text)
            url = self.list_url(DeadLetter)
            page = self.client.post(url, Page(page).answer(), follow=True)
            page = self.client.post(url, Page(page).answer(), follow=True)

        self.assertEqual(DeadLetter.objects.count(), 0)
        self.assertEqual(ScheduledMessage.objects.count(), 4)

    def test_a_wrong_answer_is_refused_with_its_reason(self):
        page = self.act_on_row(wait(greet.message("Ada")), "reschedule", due="never")

        self.assertContains(page, "Enter a valid date/time.")
