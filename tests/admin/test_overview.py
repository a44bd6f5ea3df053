"""The overview: what it shows, who may use its buttons, and that it stays quick."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.contrib.admin.models import LogEntry
from django.urls import reverse

from django_actors import pauses, starts
from django_actors.errors import BrokerUnavailable
from django_actors.models import WaitingMessage
from tests.admin.cases import AdminCase, Page, bury, wait
from tests.control.cases import ALIAS, ControlCase, greet


class OverviewCase(AdminCase, ControlCase):
    def setUp(self) -> None:
        ControlCase.setUp(self)
        AdminCase.setUp(self)

    def url(self, name: str = "changelist") -> str:
        return reverse(f"admin:django_actors_overview_{name}")

    def look(self, name: str = "changelist") -> Any:
        return self.client.get(self.url(name))

    def line(self, response: Any, name: str = "mail") -> dict[str, Any]:
        return next(each for each in response.context["queues"] if each["queue"].name == name)


class PageTests(OverviewCase):
    def test_it_has_an_entry_in_the_sidebar(self):
        self.assertIn(self.url(), Page(self.client.get(reverse("admin:index"))).links)

    def test_it_shows_queues_and_workers(self):
        self.send(3)
        bury(greet.message("x"))
        wait(greet.message("x"))
        self.count(succeeded=9, failed=1)
        run = {"message_id": "the-id", "actor_name": "greet", "queue_name": "q", "since_ms": 1}
        self.have_worker("mail", running=[run])

        text = Page(self.look()).text

        self.assertIn("Broker: DatabaseBroker. It answers.", text)
        self.assertIn("mail open Pause mail 3 0 1 1 ", text)
        self.assertIn("10.0 %", text)
        self.assertIn("mars 7 mail 1 of 8 ", text)
        self.assertIn("the-id", text)

    def test_pictures_say_what_they_show(self):
        self.count(succeeded=9, failed=1)

        response = self.look()

        self.assertContains(response, 'aria-label="Attempts in the last 60 minutes: 10"')
        self.assertContains(response, 'aria-label="Attempts in the last 24 hours: 10"')
        self.assertContains(response, "<rect")

    def test_the_numbers_lead_to_the_messages(self):
        bury(greet.message("x"))
        dead_url = self.line(self.look())["dead_url"]

        self.assertContains(self.client.get(dead_url), "admin_tests.greet")

    def test_the_part_that_changes_is_a_page_of_its_own(self):
        self.assertContains(self.look(), f'data-url="{self.url("live")}"')
        self.assertContains(self.look("live"), "<caption>Queues</caption>")
        self.assertNotContains(self.look("live"), "<html")

    def test_a_strict_policy_refuses_nothing(self):
        self.have_worker("mail")
        self.count(succeeded=1)
        for name in ("changelist", "live"):
            self.assertEqual(Page(self.look(name)).refused, [])

    def test_names_are_escaped(self):
        nasty = "<script>alert(1)</script>\u202e"
        bury(greet.message("x").copy(queue_name=nasty))
        run = {"message_id": nasty, "actor_name": nasty, "queue_name": nasty, "since_ms": 1}
        self.have_worker(nasty, running=[run])
        pauses.pause(nasty, by=nasty, alias=ALIAS)

        response = self.look()

        self.assertNotContains(response, "<script>alert")

    def test_a_broker_that_is_down_is_told_of_and_the_rest_is_shown(self):
        bury(greet.message("x"))
        with mock.patch.object(self.broker, "ping", side_effect=BrokerUnavailable("away <b>")):
            response = self.look()

        self.assertContains(response, "It does not answer: away &lt;b&gt;")
        self.assertEqual(self.line(response)["queue"].dead, 1)

    def test_it_says_that_no_worker_runs(self):
        self.assertContains(self.look(), "No worker runs.")

    def test_it_says_where_worker_processes_die_at_every_start(self):
        starts.note(
            "boss.0", host="mars", pid=9, number=0, deaths=4, detail="<b>died</b>", alias="default"
        )

        response = self.look()

        self.assertContains(response, "Worker process 0 of runactors (PID 9) on mars died 4 times")
        self.assertContains(response, "&lt;b&gt;died")

    def test_it_says_where_it_stopped_counting(self):
        for _ in range(3):
            bury(greet.message("x"))
        with mock.patch("django_actors.admin.overview.COUNT_AT_MOST", 2):
            self.assertContains(self.look(), "the latest 2 were counted")

    def test_more_queues_workers_and_messages_take_no_more_queries(self):
        self.look()
        # The session and the user, and what the functions of control ask.
        with self.assertNumQueries(13):
            self.look()
        for number in range(5):
            self.broker.declare_queue(f"queue_{number}")
            self.have_worker("mail", owner=str(number))
            bury(greet.message(number))
            self.send()
        # The oldest messages are asked for once more where there are any.
        with self.assertNumQueries(14):
            self.look()


class PauseTests(OverviewCase):
    def press(self, name: str, queue: str = "mail") -> Any:
        return self.client.post(self.url(name), {"queue": queue}, follow=True)

    def test_a_button_pauses_a_queue_and_another_one_resumes_it(self):
        response = self.press("pause")

        self.assertEqual(pauses.find(ALIAS)["mail"].paused_by, "ada")
        self.assertContains(response, "paused by ada")
        self.assertIn("Workers obey within two seconds", self.told(response)[0])
        self.press("resume")
        self.assertEqual(pauses.read_names(ALIAS), frozenset())

    def test_who_did_it_is_in_the_log(self):
        self.press("pause")
        self.press("pause")
        self.press("resume")

        self.assertEqual(self.logged(), [("mail", "Paused."), ("mail", "Resumed.")])
        self.assertEqual(LogEntry.objects.latest("pk").user, self.user)

    def test_a_look_changes_nothing(self):
        self.assertEqual(self.client.get(self.url("pause")).status_code, 405)

    def test_a_queue_that_is_not_there_is_told_of(self):
        self.assertContains(self.press("pause", "mial"), "Did you mean &#x27;mail&#x27;?")
        self.assertEqual(pauses.read_names(ALIAS), frozenset())

    def test_without_the_permission_there_is_neither_button_nor_address(self):
        self.log_in_with("view_overview")

        self.assertNotContains(self.look(), '<button type="submit" class="button"')
        for name in ("pause", "resume"):
            self.assertEqual(self.press(name).status_code, 403)

    def test_the_permission_to_pause_alone_shows_nothing(self):
        self.log_in_with("pause_overview")

        for name in ("changelist", "live"):
            self.assertEqual(self.look(name).status_code, 403)
        self.assertEqual(self.press("pause").status_code, 403)

    def test_links_to_messages_need_the_permission_to_see_them(self):
        self.log_in_with("view_overview")

        self.assertNotContains(self.look(), "deadletter")

    def test_nobody_looks_without_a_login(self):
        self.client.logout()

        self.assertEqual(self.look("live").status_code, 302)
        self.assertEqual(WaitingMessage.objects.count(), 0)
