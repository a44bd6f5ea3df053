"""An operator's day: what failed, why, once more, and who may do that."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.contrib.admin.models import LogEntry

from django_actors import failures
from django_actors.admin import bulk
from django_actors.brokers.base import Broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.delivery import Reason
from django_actors.models import Attempt, DeadLetter, ErrorGroup, Kind, Outcome, WaitingMessage
from django_actors.rows import build_delivery_row
from django_actors.waiting_room import WaitingRoom
from tests.admin.cases import bury, charge, greet
from tests.brokers.test_rabbitmq import URL as RABBITMQ_URL
from tests.brokers.test_rabbitmq import RabbitmqCase, needs_rabbitmq
from tests.brokers.test_redis import RedisMixin, needs_redis
from tests.browser.base import BrowserCase
from tests.engine import TIMEOUT_S, deliver, silence, wait_until

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter: with
# 100 there are 10,000 failures, and one that is tried before.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))
MANY = 100 * SCALE + 1
PATIENCE_S = TIMEOUT_S + SCALE

# Failures that a worker has really met; the others are written as it writes them.
REAL = 5

# Keeps what the bars of progress have shown, beyond the page that has shown it.
WATCH_PROGRESS = """
addEventListener("DOMContentLoaded", () => {
    const bar = document.querySelector("progress");
    const seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
    if (bar) sessionStorage.setItem("seen", JSON.stringify([...seen, bar.value]));
});
"""

if TYPE_CHECKING:
    Story = BrowserCase
else:
    Story = object


class StoryContract(Story):
    """A service is away, comes back, and what has failed runs again; with any broker."""

    def make_broker(self) -> Broker:
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.ran: Counter[int] = Counter()
        self.is_mended = threading.Event()
        self.broker = self.use(self.make_broker())
        self.ship = self.declare(self.run_ship, actor_name="browser.ship", max_retries=0)

    def run_ship(self, order: int) -> None:
        if not self.is_mended.is_set():
            raise ConnectionError("The carrier does not answer.")
        self.ran[order] += 1

    def test_the_failures_of_the_last_hour_run_again_one_first_and_then_the_rest(self) -> None:
        self.fail_many()
        page = self.open(f"{self.list_path('errorgroup')}?period=hour")
        page.context.add_init_script(WATCH_PROGRESS)
        row = page.locator("#result_list tbody tr")
        self.assertEqual(row.count(), 1)
        self.assertIn("ConnectionError: The carrier does not answer.", row.inner_text())
        self.assertIn(str(min(MANY, 1_000)), row.locator(".field-shown_dead").inner_text())

        self.is_mended.set()
        look_often = mock.patch("django_actors.admin.fates.RENEW_S", 0.2)
        with self.no_complaints("requeue one and see"), look_often:
            row.locator("a").first.click()
            page.get_by_text("Requeue one and see").click()
            page.locator("input[type=submit].default").click()
            # Nobody reloads: the page looks again by itself.
            page.get_by_text("It succeeded at").wait_for()
        self.assertEqual(sum(self.ran.values()), 1)

        with self.no_complaints("requeue the rest"), in_steps():
            page.get_by_text("Requeue the rest").click()
            self.assertIn(str(MANY - 1), page.locator(".actors-table caption").text_content())
            page.locator("input[type=submit].default").click()
            page.locator(".messagelist").wait_for(timeout=PATIENCE_S * 1_000)
        self.assertIn(f"{MANY - 1} messages were requeued.", page.content())
        seen = page.evaluate("JSON.parse(sessionStorage.getItem('seen'))")
        self.assertEqual(seen, sorted(set(seen)))
        self.assertGreater(len(seen), 2)

        wait_until(lambda: len(self.ran) == MANY, "all messages to run", timeout_s=PATIENCE_S)
        wait_until(lambda: not WaitingMessage.objects.exists(), "an empty waiting room")
        wait_until(lambda: self.count(Outcome.SUCCEEDED) == MANY, "all to be settled")
        self.assertEqual(set(self.ran.values()), {1})
        log = LogEntry.objects.filter(user=self.user, change_message="Requeued.")
        self.assertEqual(len(set(log.values_list("object_id", flat=True))), MANY)
        self.assertEqual(log.count(), MANY)
        self.assertEqual(self.count(Outcome.REQUEUED, by="ada"), MANY)

    def fail_many(self) -> None:
        """Have some messages fail in a worker, and write of the others what it would write."""
        with silence():
            self.start_worker(self.broker, worker_threads=4)
            self.ship.send_many([(number,) for number in range(REAL)])
            wait_until(lambda: DeadLetter.objects.count() == REAL, "the dead letters")
            wait_until(lambda: self.seen() == REAL, "the group to be counted")
        rows = [self.make_row(number) for number in range(REAL, MANY)]
        WaitingRoom().put(rows)
        failures.count_failures(rows, "default")

    def make_row(self, number: int) -> WaitingMessage:
        try:
            self.run_ship(number)
        except ConnectionError as error:
            delivery = deliver(self.ship.message(number), exception=error)
        delivery.fail(Reason.RETRIES_EXHAUSTED)
        return build_delivery_row(delivery)

    def seen(self) -> int:
        return sum(ErrorGroup.objects.values_list("count", flat=True))

    def count(self, outcome: Outcome, **more: Any) -> int:
        return Attempt.objects.filter(outcome=outcome, **more).count()


def in_steps() -> Any:
    """Have each request do one batch only, and show how far it has come."""
    return mock.patch.multiple(bulk, BATCH_ROWS=min(500, MANY // 3), WORK_S=0.0)


class DatabaseStoryTests(StoryContract, BrowserCase):
    def make_broker(self) -> Broker:
        return DatabaseBroker()


@needs_redis
class RedisStoryTests(StoryContract, RedisMixin, BrowserCase):
    def make_broker(self, **options: Any) -> Any:
        return RedisMixin.make_broker(self, **options)


@needs_rabbitmq
class RabbitmqStoryTests(StoryContract, BrowserCase, RabbitmqCase):
    def make_broker(self) -> Broker:
        broker = RabbitmqBroker(RABBITMQ_URL)
        self.addCleanup(broker.close)
        return broker


class DoingTests(BrowserCase):
    def press(self, page: Any, *keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    def tab_to(self, page: Any, selector: str) -> None:
        """Press Tab until the focus is where the operator wants it."""
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"The keyboard does not reach {selector}.")

    def test_the_keyboard_alone_requeues_a_dead_letter(self):
        bury(greet.message("Ada"), KeyError("x"))
        page = self.open(self.list_path("deadletter"))

        self.tab_to(page, "#result_list tbody tr:first-child th a")
        page.keyboard.press("Enter")
        page.wait_for_url("**/change/**")
        self.tab_to(page, "a[href*='/requeue/']")
        page.keyboard.press("Enter")
        page.wait_for_url("**/requeue/**")
        self.tab_to(page, "input[type=submit]")
        page.keyboard.press("Enter")
        page.get_by_text("1 message was requeued.").wait_for()

        self.assertEqual(WaitingMessage.objects.get().kind, Kind.SCHEDULED)

    def test_a_selection_is_stopped_in_the_middle(self):
        for number in range(30):
            bury(greet.message(number), KeyError("x"))
        page = self.open(self.list_path("deadletter"))
        page.locator("#action-toggle").check()
        page.locator("[name=action]").select_option("discard")
        page.locator("#changelist-form button[type=submit]").first.click()

        with mock.patch.multiple(bulk, BATCH_ROWS=1, WORK_S=0.0):
            page.locator("input[type=submit].default").click()
            page.get_by_role("button", name="Stop").click()
            page.locator(".messagelist").wait_for()

        left = DeadLetter.objects.count()
        self.assertGreater(left, 0)
        self.assertEqual(LogEntry.objects.count(), 30 - left)

    def test_arguments_that_do_not_fit_are_refused_and_others_run(self):
        row = bury(greet.message("Ada"), KeyError("x"))
        page = self.open(self.row_path(row, "edit_and_requeue"))

        for args, complaint in (
            ('["Eve", "Bob"]', "too many positional arguments"),
            ('["Eve"', "JSON"),
            ('{"name": "Eve"}', "This must be a JSON list."),
        ):
            with self.subTest(args=args):
                page.locator("[name=args]").fill(args)
                page.locator("input[type=submit].default").click()
                self.assertIn(complaint, page.locator(".errorlist").inner_text())
        page.locator("[name=args]").fill('["Eve"]')
        page.locator("input[type=submit].default").click()
        page.get_by_text("1 message was requeued.").wait_for()

        message = WaitingMessage.objects.get().message
        assert message is not None
        self.assertEqual(message.args, ("Eve",))

    def test_who_may_only_look_has_neither_button_nor_address(self):
        row = bury(charge.message(1, "41x11"), KeyError("x"))
        bob = self.make_user("view_deadletter", "view_errorgroup")
        page = self.open(self.row_path(row), user=bob)

        self.assertEqual(page.locator(".object-tools a").all_inner_texts(), ["HISTORY"])
        self.assertNotIn("41x11", page.content())
        self.go(page, self.list_path("deadletter"))
        self.assertEqual(page.locator("[name=action]").count(), 0)
        for name in ("requeue", "discard", "edit_and_requeue", "arguments", "copy_as_code"):
            response = page.goto(self.live_server_url + self.row_path(row, name))
            self.assertEqual(response.status, 403, name)
