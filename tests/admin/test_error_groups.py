"""An operator finds what fails in the same way, requeues one, and then the rest."""

from __future__ import annotations

from unittest import mock

from django.contrib.contenttypes.models import ContentType
from django.urls import reverse

from django_actors import clock, failures
from django_actors.admin import bulk, error_groups
from django_actors.brokers.stub import StubBroker
from django_actors.errors import BrokerUnavailable
from django_actors.models import (
    Attempt,
    DeadLetter,
    ErrorCount,
    ErrorGroup,
    Kind,
    Outcome,
    WaitingMessage,
)

from .cases import HOUR_MS, AdminCase, Page, bury, greet
from .test_safety import NASTY

LIST = "/admin/django_actors/errorgroup/"


def fail(count=1, error=None):
    """Bury messages that failed in the same way; return their rows and the group."""
    rows = [bury(greet.message(number), error or KeyError("x")) for number in range(count)]
    failures.count_failures(rows, "default")
    return rows, ErrorGroup.objects.get(pk=rows[0].fingerprint)


class GroupCase(AdminCase):
    def group_url(self, group, name="change"):
        return reverse(f"admin:django_actors_errorgroup_{name}", args=[group.pk])

    def message_url(self, row):
        return reverse("admin:django_actors_deadletter_message", args=[row.message_id])

    def results(self, query=""):
        return list(self.client.get(LIST + query).context["cl"].result_list)


class ListTests(GroupCase):
    def test_a_group_says_what_where_how_often_and_how_many_are_dead(self):
        fail(3)

        page = Page(self.client.get(LIST))

        for text in ("KeyError: 'x'", "admin_tests.greet", "3 failures: Last day"):
            with self.subTest(text=text):
                self.assertIn(text, page.text)
        (group,) = self.results()
        self.assertEqual((group.count, group.dead, sum(group.bars)), (3, 3, 3))

    def test_the_period_filters_and_counts(self):
        _, old = fail(2, KeyError("x"))
        _, new = fail(1, ValueError("x"))
        before = clock.now_ms() - 3 * HOUR_MS
        ErrorGroup.objects.filter(pk=old.pk).update(last_ms=before)
        ErrorCount.objects.filter(fingerprint=old.pk).update(
            start_ms=before - before % failures.STRETCH_MS
        )

        self.assertEqual([group.pk for group in self.results("?period=hour")], [new.pk])
        found = {group.pk: sum(group.bars) for group in self.results("?period=day")}
        self.assertEqual(found, {new.pk: 1, old.pk: 2})
        self.assertEqual(len(self.results("?period=nonsense")), 2)

    def test_dead_letters_are_counted_to_a_limit(self):
        fail(3)

        with mock.patch.object(error_groups, "MAX_DEAD", 2):
            page = Page(self.client.get(LIST))

        self.assertIn("2 or more", page.text)

    def test_search_and_order(self):
        fail(1, KeyError("needle"))
        fail(2, ValueError("other"))

        self.assertEqual(len(self.results("?q=needle")), 1)
        self.assertEqual(len(self.results("?q=ValueError")), 1)
        for column in range(1, 7):
            self.assertEqual(len(self.results(f"?o={column}")), 2)

    def test_a_period_is_cut_into_bars_that_end_now(self):
        _, group = fail(4)

        for period in error_groups.PERIODS.values():
            bars = error_groups.count_by_bar([group], period)[group.pk]
            self.assertEqual(len(bars), period.bars)
            self.assertEqual((bars[-1], sum(bars)), (4, 4))

    def test_the_number_of_queries_does_not_grow(self):
        ContentType.objects.get_for_models(DeadLetter, ErrorGroup, for_concrete_models=False)
        for number in range(8):
            fail(2, type(f"Error{number}", (Exception,), {})("x"))

        with self.assertNumQueries(6):
            self.client.get(LIST)


class GroupPageTests(GroupCase):
    def test_it_shows_a_sample_and_leads_to_the_dead_letters(self):
        try:
            raise KeyError("why")
        except KeyError as error:
            rows, group = fail(2, error)

        page = Page(self.client.get(self.group_url(group)))

        self.assertIn('raise KeyError("why")', page.text)
        (link,) = [link for link in page.links if "?fingerprint=" in link]
        listed = self.client.get(link)
        self.assertEqual(len(listed.context["cl"].result_list), 2)
        self.assertIn("error group", Page(listed).text)
        self.assertIn(self.row_url(rows[-1], "requeue_and_see"), page.links)

    def test_the_number_of_queries(self):
        ContentType.objects.get_for_models(DeadLetter, ErrorGroup, for_concrete_models=False)
        _, group = fail(3)

        with self.assertNumQueries(7):
            self.client.get(self.group_url(group))

    def test_one_is_requeued_and_its_fate_is_told(self):
        rows, group = fail(3)

        told = self.act_on_row(rows[-1], "requeue_and_see")

        self.assertRedirects(told, f"{self.message_url(rows[-1])}?group={group.pk}")
        self.assertIn("It is due", Page(told).text)
        self.assertIn("requeued ada", Page(told).text)
        self.assertNotContains(told, "data-final")
        self.assertEqual(DeadLetter.objects.count(), 2)
        self.assertEqual(self.logged(), [(str(rows[-1].pk), "Requeued.")])

    def test_after_its_success_the_rest_is_offered(self):
        rows, group = fail(2)
        message_id = rows[0].message_id
        WaitingMessage.objects.filter(pk=rows[0].pk).delete()
        Attempt.objects.create(
            message_id=message_id,
            number=1,
            outcome=Outcome.SUCCEEDED,
            ended_ms=clock.now_ms(),
            began_ms=clock.now_ms() - 1_000,
            host="web1",
            pid=7,
        )

        page = self.client.get(f"{self.message_url(rows[0])}?group={group.pk}")

        self.assertIn("It succeeded at web1:7", Page(page).text)
        self.assertContains(page, "data-final")
        self.assertIn(self.group_url(group, "requeue"), Page(page).links)

    def test_the_rest_is_requeued_in_batches_that_show_how_far_it_is(self):
        rows, group = fail(5)
        fail(1, ValueError("another group"))
        url = self.group_url(group, "requeue")

        asked = self.client.get(url)
        self.assertIn("5 messages", Page(asked).text)
        with mock.patch.multiple(bulk, BATCH_ROWS=2, WORK_S=0.0):
            shown = self.client.post(url, Page(asked).answer())
        self.assertIn("2 of 5 messages so far", Page(shown).text)
        done = self.client.post(url, Page(shown).answer(), follow=True)

        self.assertRedirects(done, self.group_url(group))
        self.assertEqual(self.told(done), ["5 messages were requeued."])
        self.assertEqual(DeadLetter.objects.count(), 1)
        self.assertEqual(len(self.logged()), 5)
        self.assertEqual(Attempt.objects.filter(outcome=Outcome.REQUEUED, by="ada").count(), 5)

    def test_it_can_be_stopped(self):
        _, group = fail(5)
        url = self.group_url(group, "requeue")
        asked = self.client.get(url)
        with mock.patch.multiple(bulk, BATCH_ROWS=2, WORK_S=0.0):
            shown = self.client.post(url, Page(asked).answer())

        self.client.post(url, Page(shown).answer(stop="Stop"))

        self.assertEqual(DeadLetter.objects.count(), 3)

    def test_all_are_discarded(self):
        _, group = fail(3)
        url = self.group_url(group, "discard")

        done = self.client.post(url, Page(self.client.get(url)).answer(), follow=True)

        self.assertEqual(self.told(done), ["3 messages were discarded."])
        self.assertEqual(DeadLetter.objects.count(), 0)
        self.assertNotIn(url, Page(done).links)

    def test_a_group_that_is_gone_is_not_found(self):
        _, group = fail(1)
        url = self.group_url(group, "requeue")
        group.delete()

        self.assertEqual(self.client.get(url).status_code, 404)

    def test_a_broker_that_is_away_is_told_and_the_rows_are_kept(self):
        rows, _ = fail(1)

        with mock.patch.object(StubBroker, "ping", side_effect=BrokerUnavailable("It is off.")):
            done = self.act_on_row(rows[0], "requeue")

        self.assertIn("The broker does not answer: It is off.", " ".join(self.told(done)))
        self.assertEqual(WaitingMessage.objects.get().kind, Kind.SCHEDULED)

    def test_nothing_of_an_error_becomes_markup(self):
        for text in NASTY:
            _, group = fail(1, ValueError(text))
            for url in (LIST, self.group_url(group)):
                with self.subTest(text=text[:20], url=url):
                    page = self.client.get(url)
                    self.assertEqual(Page(page).refused, [])
                    self.assertNotContains(page, "<script>alert")
                    for character in "\0\x1b\u202e":
                        self.assertNotContains(page, character)


class PermissionTests(GroupCase):
    def test_who_may_only_look_has_neither_links_nor_addresses(self):
        rows, group = fail(2)
        self.log_in_with("view_errorgroup", "view_deadletter")

        page = Page(self.client.get(self.group_url(group)))

        for url in (
            self.group_url(group, "requeue"),
            self.group_url(group, "discard"),
            self.row_url(rows[-1], "requeue_and_see"),
        ):
            with self.subTest(url=url):
                self.assertNotIn(url, page.links)
                self.assertEqual(self.client.get(url).status_code, 403)
                self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 403)
        self.assertEqual(DeadLetter.objects.count(), 2)

    def test_each_deed_needs_its_permission(self):
        _, group = fail(2)
        self.log_in_with("view_errorgroup", "view_deadletter", "discard_deadletter")

        self.assertEqual(self.client.get(self.group_url(group, "discard")).status_code, 200)
        self.assertEqual(self.client.get(self.group_url(group, "requeue")).status_code, 403)

    def test_without_a_permission_nothing_is_shown(self):
        rows, group = fail(1)
        self.log_in_with()

        for url in (LIST, self.group_url(group), self.message_url(rows[0])):
            with self.subTest(url=url):
                self.assertEqual(self.client.get(url).status_code, 403)

    def test_groups_are_neither_added_nor_changed_nor_deleted(self):
        _, group = fail(1)

        for url in (f"{LIST}add/", self.group_url(group, "delete"), self.group_url(group)):
            with self.subTest(url=url):
                self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 403)
