"""Who may look, and who may do what."""

from __future__ import annotations

from django.urls import reverse

from django_actors.models import DeadLetter, ScheduledMessage

from .cases import AdminCase, Page, bury, greet, wait


class LookingTests(AdminCase):
    def test_the_model_permissions_alone_allow_looking_only(self):
        row = bury(greet.message("Ada"))
        self.log_in_with(
            "view_deadletter", "add_deadletter", "change_deadletter", "delete_deadletter"
        )

        listed = self.client.get(self.list_url(DeadLetter))
        shown = self.client.get(self.row_url(row))

        self.assertNotContains(listed, 'name="action"')
        self.assertEqual(Page(shown).links.count(self.row_url(row, "requeue")), 0)
        self.assertNotContains(shown, "_save")

    def test_without_a_permission_nothing_is_shown(self):
        row = bury(greet.message("Ada"))
        self.log_in_with()

        for url in (self.list_url(DeadLetter), self.row_url(row), self.row_url(row, "requeue")):
            with self.subTest(url=url):
                self.assertEqual(self.client.get(url).status_code, 403)

    def test_nobody_adds_or_deletes_rows_the_plain_way(self):
        for row in (bury(greet.message("Ada")), wait(greet.message("Bob"))):
            name = f"admin:django_actors_{row._meta.model_name}"
            for url in (reverse(f"{name}_add"), self.row_url(row, "delete")):
                with self.subTest(url=url):
                    self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 403)
            self.assertEqual(self.client.post(self.row_url(row), {"reason": "x"}).status_code, 403)

    def test_the_delete_action_of_django_is_not_offered(self):
        rows = [bury(greet.message("Ada"))]

        self.ask(rows, "delete_selected")

        self.assertNotContains(self.client.get(self.list_url(DeadLetter)), "delete_selected")
        self.assertEqual(DeadLetter.objects.count(), 1)


class DoingTests(AdminCase):
    ACTIONS = (
        (DeadLetter, "requeue", ("requeue_deadletter",)),
        (DeadLetter, "requeue_with_delay", ("requeue_deadletter",)),
        (DeadLetter, "discard", ("discard_deadletter",)),
        (DeadLetter, "copy_as_code", ("arguments_deadletter",)),
        (DeadLetter, "edit_and_requeue", ("edit_deadletter", "requeue_deadletter")),
        (ScheduledMessage, "run_now", ("run_scheduledmessage",)),
        (ScheduledMessage, "reschedule", ("run_scheduledmessage",)),
        (ScheduledMessage, "cancel", ("cancel_scheduledmessage",)),
    )

    def setUp(self):
        super().setUp()
        self.rows = {
            DeadLetter: bury(greet.message("Ada")),
            ScheduledMessage: wait(greet.message("Bob")),
        }

    def may(self, model, action, *codenames):
        """Return whether somebody with these permissions is asked about one row."""
        self.user.delete()
        view = f"view_{model._meta.model_name}"
        self.log_in_with(view, *codenames)
        row = self.rows[model]
        on_list = f'value="{action}"' in self.client.get(self.list_url(model)).content.decode()
        linked = self.row_url(row, action) in Page(self.client.get(self.row_url(row))).links
        status = self.client.get(self.row_url(row, action)).status_code
        self.assertIn((on_list, linked, status), [(True, True, 200), (False, False, 403)])
        return on_list

    def test_each_action_needs_its_own_permission(self):
        for model, action, needed in self.ACTIONS:
            everything = {
                name for known, _, names in self.ACTIONS if known is model for name in names
            }
            for lacking in needed:
                with self.subTest(action=action, lacking=lacking):
                    self.assertFalse(self.may(model, action, *everything - {lacking}))
                    self.forget_bob()
            with self.subTest(action=action):
                self.assertTrue(self.may(model, action, *needed))
                self.forget_bob()

    def forget_bob(self):
        type(self.user).objects.filter(username="bob").delete()
        self.user = type(self.user).objects.create_superuser("ada", password="x")

    def test_an_action_without_its_permission_does_nothing(self):
        self.log_in_with("view_deadletter", "discard_deadletter")

        self.client.post(
            self.list_url(DeadLetter),
            {"action": "requeue", "_selected_action": [self.rows[DeadLetter].pk], "post": "yes"},
        )

        self.assertEqual(DeadLetter.objects.count(), 1)
        self.assertEqual(self.logged(), [])
