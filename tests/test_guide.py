"""
The examples of the user guide, from "Actors" to "Prioritizing Messages", as a user would run them.

What takes processes is tested elsewhere. The web is a dict here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
import uuid
from datetime import timedelta
from typing import Any

from django_actors import Message, actor
from django_actors.conf import settings
from django_actors.delivery import Fate
from django_actors.errors import UnencodableArgument
from django_actors.logs import FORMAT
from django_actors.middleware import Retries, TimeLimit, TimeLimitExceeded
from django_actors.models import Kind
from django_actors.registry import registry

from .support import START_MS, StubCase

WEB = {
    "http://example.com": "These are five words here",
    "https://xkcd.com": "two words",
    "https://rabbitmq.com": "one",
}

DAY_MS = 86_400_000


class MissingSchema(ValueError):
    """As in requests: the URL has no ``http://``."""


def get(url: str) -> str:
    if "://" not in url:
        raise MissingSchema(
            f"Invalid URL {url!r}: No schema supplied. Perhaps you meant http://{url}?"
        )
    return WEB[url]


def count_words(url):
    count = len(get(url).split(" "))
    print(f"There are {count} words at {url!r}.")


def careful_count_words(url):
    try:
        count_words(url)
    except MissingSchema:
        print(f"Message dropped due to invalid url: {url!r}")


class GuideCase(StubCase):
    """Has the actor of the guide, and keeps what is printed."""

    def setUp(self) -> None:
        super().setUp()
        self.output = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.output))
        self.count_words = self.count_words_with()

    def count_words_with(self, function: Any = count_words, **options: Any) -> Any:
        """Declare the actor of the guide, with options."""
        return self.replace(function, "count_words", **options)

    def printed(self) -> list[str]:
        return self.output.getvalue().splitlines()


class ActorsTests(GuideCase):
    def test_the_function_is_decorated_and_called_as_before(self):
        @actor
        def shout(word):
            print(word.upper())

        self.addCleanup(registry.remove, "shout")
        shout("hello")

        self.assertEqual(self.printed(), ["HELLO"])

    def test_calling_it_runs_it_here_and_now(self):
        self.count_words("http://example.com")

        self.assertEqual(self.printed(), ["There are 5 words at 'http://example.com'."])
        self.assertEqual(self.sent(), [])

    def test_sending_returns_the_message_and_does_not_run_the_function(self):
        message = self.count_words.send("http://example.com")

        self.assertEqual(self.printed(), [])
        self.assertEqual(
            message,
            Message(
                queue_name="default",
                actor_name="count_words",
                args=("http://example.com",),
                kwargs={},
                options={},
                message_id=message.message_id,
                message_timestamp=START_MS,
            ),
        )
        self.assertEqual(str(uuid.UUID(message.message_id)), message.message_id)

    def test_the_interpreter_shows_the_message_as_in_the_guide(self):
        message = self.count_words.send("http://example.com")

        self.assertEqual(
            repr(message),
            "Message(queue_name='default', actor_name='count_words', "
            "args=('http://example.com',), kwargs={}, options={}, "
            f"message_id='{message.message_id}', message_timestamp={START_MS})",
        )

    def test_arguments_must_be_encodable_as_json(self):
        with self.assertRaises(UnencodableArgument):
            self.count_words.send(object())


class WorkersTests(GuideCase):
    def test_what_is_sent_is_run(self):
        messages = [self.count_words.send(url) for url in WEB]

        self.run_ready()

        self.assertEqual(len({message.message_id for message in messages}), 3)
        self.assertEqual(
            self.printed(),
            [
                "There are 5 words at 'http://example.com'.",
                "There are 2 words at 'https://xkcd.com'.",
                "There are 1 words at 'https://rabbitmq.com'.",
            ],
        )

    def test_a_worker_in_threads_does_the_same(self):
        for url in WEB:
            self.count_words.send(url)

        worker = self.start_worker(self.broker)
        self.broker.join(self.count_words.queue_name, timeout=10_000)
        worker.join()

        self.assertEqual(len(self.printed()), 3)


class ErrorHandlingTests(GuideCase):
    def lines(self) -> list[str]:
        formatter = logging.Formatter(FORMAT)
        return [formatter.format(record) for record in self.log.records]

    def test_a_failure_is_logged_and_retried(self):
        message = self.count_words.send("foo")

        (delivery,) = self.run_ready()

        failed, retrying = self.lines()
        prefix = r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] \[PID \d+\] \[\w+\]"
        self.assertRegex(
            failed,
            prefix + r" \[django_actors\.worker\.WorkerThread\] \[WARNING\] Failed to process "
            r"message count_words\('foo'\) with unhandled exception\.\n"
            r"Traceback \(most recent call last\):\n",
        )
        self.assertTrue(
            failed.endswith(
                "MissingSchema: Invalid URL 'foo': No schema supplied. "
                "Perhaps you meant http://foo?"
            )
        )
        found = re.search(
            prefix + r" \[django_actors\.middleware\.retries\.Retries\] \[INFO\] Retrying "
            rf"message '{message.message_id}' in (\d+) milliseconds\.$",
            retrying,
        )
        assert found, retrying
        self.assertEqual(int(found[1]), delivery.due_ms - START_MS)
        self.assertTrue(15_000 <= int(found[1]) <= 30_000)

    def test_it_is_retried_with_longer_and_longer_delays_for_about_30_days(self):
        self.count_words.send("foo")

        runs = self.run_all()

        self.assertEqual(len(runs), 21)
        days = (self.clock.now_ms - START_MS) / DAY_MS
        self.assertTrue(20 < days < 50, days)

    def test_the_code_can_be_repaired_meanwhile(self):
        message = self.count_words.send("foo")
        self.run_ready()

        self.count_words_with(careful_count_words)
        self.clock.advance(seconds=30)
        (delivery,) = self.run_due()

        self.assertEqual(self.printed(), ["Message dropped due to invalid url: 'foo'"])
        self.assertEqual((delivery, delivery.fate), (delivery.message, Fate.DONE))
        self.assertEqual(delivery.message_id, message.message_id)


class MessageRetriesTests(GuideCase):
    def test_an_actor_can_limit_its_retries(self):
        limited = self.count_words_with(max_retries=3)
        limited.send("foo")

        self.assertEqual(len(self.run_all()), 4)

    def test_the_defaults_are_those_of_the_table(self):
        retries = Retries()

        self.assertEqual(retries.max_retries, 20)
        self.assertEqual(retries.min_backoff, 15_000)
        self.assertEqual(retries.max_backoff, 7 * DAY_MS)

    def test_each_option_of_the_table_can_be_given_to_an_actor(self):
        limited = self.count_words_with(max_retries=2, min_backoff=1_000, max_backoff=1_500)
        limited.send("foo")

        self.run_all()

        self.assertTrue(2 * 750 <= self.clock.now_ms - START_MS <= 2 * 1_500)

    def test_none_retries_without_end(self):
        endless = self.count_words_with(max_retries=None, min_backoff=100, max_backoff=100)
        endless.send("foo")

        with self.assertRaisesRegex(AssertionError, "More than 50 messages"):
            self.run_all(limit=50)

    def test_the_largest_backoff_is_seven_days(self):
        with self.assertRaisesRegex(ValueError, "max_backoff must be 7 days at most"):
            self.count_words_with(max_backoff=7 * DAY_MS + 1)


class AgeLimitsTests(GuideCase):
    def test_an_old_message_becomes_a_dead_letter(self):
        limited = self.count_words_with(max_age=3_600_000)
        young = limited.send("http://example.com")
        self.clock.advance(minutes=59)
        self.assertEqual([each.fate for each in self.run_ready()], [Fate.DONE])

        old = limited.send("http://example.com")
        self.clock.advance(hours=1)
        (delivery,) = self.run_ready()

        self.assertEqual((delivery.fate, delivery), (Fate.DEAD, old))
        self.assertNotEqual(old, young)
        self.assertEqual(len(self.printed()), 1)


class DeadLettersTests(GuideCase):
    def bury(self) -> Any:
        """Have a message exceed its limit, and return its dead letter."""
        self.count_words_with(max_retries=0).send("foo")
        self.run_ready()
        (row,) = self.rows(Kind.DEAD)
        return row

    def test_what_exceeded_its_limits_is_kept_with_what_went_wrong(self):
        row = self.bury()

        self.assertEqual(row.call, "count_words('foo')")
        self.assertEqual(row.reason, "retries exhausted")
        self.assertEqual(row.error_class.rpartition(".")[2], "MissingSchema")
        self.assertIn("Perhaps you meant http://foo?", row.error)
        self.assertIn("Traceback", row.traceback)
        self.assertEqual(self.broker.dead_letters[0].message_id, row.message_id)

    def test_it_is_kept_for_seven_days(self):
        self.assertEqual(settings.DEAD_LETTER_TTL, 7 * DAY_MS)

    def test_it_can_be_put_back_on_its_queue(self):
        row = self.bury()
        self.count_words_with(careful_count_words)

        self.broker.waiting_room.requeue([row])
        (delivery,) = self.run_due()

        self.assertEqual((delivery.fate, delivery.message_id), (Fate.DONE, row.message_id))
        self.assertEqual(self.printed(), ["Message dropped due to invalid url: 'foo'"])


class TimeLimitsTests(GuideCase):
    def test_the_default_is_ten_minutes(self):
        self.assertEqual(TimeLimit().time_limit, 600_000)

    def test_an_actor_has_a_limit_of_its_own(self):
        self.assertEqual(self.count_words_with(time_limit=60_000).options["time_limit"], 60_000)

    def test_an_actor_can_handle_its_time_limit(self):
        missiles: list[str] = []
        late = threading.Event()

        def long_running():
            try:
                missiles.append("set up")
                while not late.wait(0.001):
                    pass
                missiles.append("launched")
            except TimeLimitExceeded:
                missiles.append("torn down")

        self.addCleanup(late.set)
        self.declare(long_running, time_limit=50).send()
        worker = self.start_worker(self.broker)

        self.broker.join("default", timeout=10_000)
        worker.join()

        self.assertEqual(missiles, ["set up", "torn down"])
        self.assertEqual(self.broker.dead_letters, [])

    def test_one_that_does_not_handle_it_is_retried(self):
        def endless():
            raise TimeLimitExceeded

        self.declare(endless, max_retries=1).send()

        self.assertEqual([each.fate for each in self.run_all()], [Fate.RETRY, Fate.DEAD])


class SchedulingTests(GuideCase):
    def schedule(self, **options: Any) -> Message:
        message: Message = self.count_words.send_with_options(
            args=("http://example.com",), **options
        )
        return message

    def test_the_message_carries_when_it_will_run(self):
        message = self.schedule(delay=10_000)

        self.assertEqual(message.options, {"eta": message.message_timestamp + 10_000})
        self.assertEqual((message.queue_name, message.args), ("default", ("http://example.com",)))

    def test_it_never_runs_early_and_then_at_once(self):
        self.schedule(delay=10_000)

        self.clock.advance(9_999)
        self.assertEqual(self.run_due(), [])
        self.clock.advance(1)
        self.assertEqual([each.fate for each in self.run_due()], [Fate.DONE])

    def test_seven_days_are_no_problem(self):
        for delay in (7 * DAY_MS, timedelta(days=7)):
            with self.subTest(delay=delay):
                began = self.clock.now_ms
                self.schedule(delay=delay)

                self.assertEqual(len(self.run_all()), 1)
                self.assertEqual(self.clock.now_ms - began, 7 * DAY_MS)

    def test_two_run_in_the_order_of_their_times(self):
        late, early = self.schedule(delay=2_000), self.schedule(delay=1_000)

        self.clock.advance(5_000)

        self.assertEqual(self.run_due(), [early, late])

    def test_it_waits_where_an_operator_sees_it(self):
        message = self.schedule(delay=10_000)

        (row,) = self.rows(Kind.SCHEDULED)

        self.assertEqual((row.message_id, row.reason), (message.message_id, "delay"))
        self.assertEqual(row.call, "count_words('http://example.com')")


class PrioritiesTests(GuideCase):
    PRIO_LO = 100
    PRIO_MED = 50
    PRIO_HI = 0

    def test_the_actor_with_the_lower_number_runs_first(self):
        ran: list[Any] = []
        report = self.declare(lambda user_id: ran.append("report"), actor_name="generate_report")
        sync = self.declare(
            lambda order_id: ran.append("sync"), actor_name="sync_to_warehouse", priority=10
        )
        sync.send(1)
        report.send(1)

        self.run_ready()

        self.assertEqual(report.priority, 0)
        self.assertEqual(ran, ["report", "sync"])

    def test_it_holds_over_the_whole_backlog_and_over_all_queues(self):
        ran: list[int] = []
        levels = (self.PRIO_LO, self.PRIO_MED, self.PRIO_HI)
        for number in range(60):
            priority = levels[number % 3]
            name, queue = f"work{priority}", f"queue{number % 2}"
            self.replace(
                lambda priority: ran.append(priority), name, priority=priority, queue_name=queue
            ).send(priority)

        self.run_ready()

        self.assertEqual(ran, sorted(ran))
        self.assertEqual(len(ran), 60)

    def test_what_is_scheduled_for_one_time_runs_in_the_order_of_priorities(self):
        ran: list[str] = []
        low = self.declare(lambda: ran.append("low"), actor_name="low", priority=self.PRIO_LO)
        high = self.declare(lambda: ran.append("high"), actor_name="high", priority=self.PRIO_HI)
        low.send_with_options(delay=1_000)
        high.send_with_options(delay=1_000)

        self.clock.advance(1_000)
        self.run_due()

        self.assertEqual(ran, ["high", "low"])
