"""The overview and the actors, as an operator meets them in a browser."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from django.contrib.admin.utils import quote
from django.urls import reverse

from django_actors import clock, counts, pauses, roster
from django_actors.counts import MINUTE_MS, Source
from django_actors.models import PausedQueue
from tests.admin.cases import bury, greet, wait
from tests.browser.base import PHONE, BrowserCase
from tests.browser.test_pages import CONTRAST

ALIAS = "default"

GREET = quote("admin_tests.greet")

# Where to keep a picture of each page, for whoever wants to look.
PICTURES = os.environ.get("ACTORS_TEST_PICTURES", "")


def have_worker(host: str = "mars") -> None:
    run = {
        "message_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "actor_name": "admin_tests.greet",
        "queue_name": "mail",
        "since_ms": clock.now_ms() - 5_000,
    }
    roster.report(
        host,
        host=host,
        pid=7,
        queues=["default", "mail"],
        threads=8,
        running=[run],
        memory_bytes=50_000_000,
        started_ms=clock.now_ms() - 600_000,
        alias=ALIAS,
    )


def have_history() -> None:
    minute = clock.now_ms() // MINUTE_MS * MINUTE_MS
    for ago in range(0, 1_200, 7):
        numbers = [ago % 90, ago % 11, ago % 11, 0, 1_000]
        source = Source(minute - ago * MINUTE_MS, "mail", "admin_tests.greet")
        counts.add({source: numbers}, ALIAS)


class OperationsCase(BrowserCase):
    def setUp(self) -> None:
        super().setUp()
        have_worker()
        have_history()
        bury(greet.message("Ada"))
        wait(greet.message("Bob"))

    def paths(self) -> list[str]:
        return [
            self.list_path("overview"),
            self.list_path("actorsummary"),
            reverse("admin:django_actors_actorsummary_actor", args=[GREET]),
            reverse("admin:django_actors_actorsummary_send", args=[GREET]),
        ]


class LiveTests(OperationsCase):
    def open_overview(self, **options: Any) -> Any:
        with mock.patch("django_actors.admin.overview.RENEW_S", 0.1):
            return self.open(self.list_path("overview"), **options)

    def test_it_renews_itself_while_somebody_looks(self):
        page = self.open_overview()
        with self.no_complaints("the overview"):
            have_worker("venus")

            page.get_by_role("rowheader", name="venus").wait_for()

    def test_it_asks_nothing_while_nobody_looks(self):
        page = self.open_overview()
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.wait_for_load_state("networkidle")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))

        page.wait_for_timeout(600)
        self.assertEqual(asked, [])

        page.evaluate(
            "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"
        )
        have_worker("venus")
        page.get_by_role("rowheader", name="venus").wait_for()

    def test_it_says_when_it_is_old(self):
        page = self.open_overview()
        page.context.clear_cookies()

        page.get_by_text("could not renew itself").wait_for()

    def test_a_button_keeps_the_focus_when_the_page_renews_itself(self):
        page = self.open_overview()
        name = "actors-switch-1"
        page.locator(f"#{name}").focus()

        have_worker("venus")
        page.get_by_role("rowheader", name="venus").wait_for()

        self.assertEqual(page.evaluate("document.activeElement.id"), name)


class KeyboardTests(OperationsCase):
    def test_a_queue_is_paused_and_resumed_without_script_and_mouse(self):
        page = self.open(self.list_path("overview"), java_script_enabled=False)

        page.get_by_role("button", name="Pause mail").press("Enter")
        page.get_by_text("Workers obey within two seconds").wait_for()
        self.assertEqual(pauses.read_names(ALIAS), {"mail"})
        page.get_by_role("button", name="Resume mail").press("Enter")

        page.get_by_text("is read again").wait_for()
        self.assertFalse(PausedQueue.objects.exists())
        page.get_by_role("link", name="Renew").click()

    def test_a_message_is_sent(self):
        page = self.open(self.list_path("actorsummary"))

        page.get_by_role("link", name="admin_tests.greet").click()
        page.get_by_role("button", name="Send a message").click()
        page.get_by_label("name").fill("Ada")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("This is not JSON").wait_for()
        page.get_by_label("name").fill('"Ada"')
        page.get_by_role("button", name="Send").click()

        page.get_by_text("was sent.").wait_for()


class LookTests(OperationsCase):
    def test_no_page_is_wider_than_a_phone(self):
        page = self.open(viewport=PHONE)
        for path in self.paths():
            with self.subTest(path=path), self.no_complaints(path):
                self.go(page, path)
                self.keep_picture(page, f"phone{path}")
                width = page.evaluate("document.documentElement.scrollWidth")
                self.assertLessEqual(width, PHONE["width"])

    def test_everything_can_be_read_in_the_dark_and_in_the_light(self):
        for scheme in ("dark", "light"):
            page = self.open(color_scheme=scheme)
            for path in self.paths():
                with self.subTest(scheme=scheme, path=path), self.no_complaints(path):
                    self.go(page, path)
                    self.keep_picture(page, f"{scheme}{path}")
                    found = page.locator("#content :is(td, th, p, label)").evaluate_all(CONTRAST)
                    self.assertEqual([each for each in found if each[0] < 4.5], [])

    def keep_picture(self, page: Any, name: str) -> None:
        if PICTURES:
            page.screenshot(path=f"{PICTURES}/{name.replace('/', '_')}.png", full_page=True)
