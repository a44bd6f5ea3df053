"""How a thread sleeps until there is news: nobody oversleeps, nobody is woken for nothing."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from django.db import OperationalError, connection, connections, transaction
from django.test import SimpleTestCase, tag

from django_actors import wakeup
from django_actors.brokers.database import DatabaseBroker
from django_actors.models import Lease, QueuedMessage
from django_actors.wakeup import (
    READY_CHANNEL,
    Alarm,
    AlarmWatch,
    NewsWatch,
    notify_sql,
)
from tests.engine import EngineCase, Task, begin, in_thread, wait_until

ROOT = Path(__file__).resolve().parent.parent

LONG_S = 20.0
PROMPT_S = 5.0

SENDER = """
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = {name!r}
from django_actors.brokers.database import DatabaseBroker
from django_actors.message import Envelope
DatabaseBroker().publish([Envelope("id", "default", 0, b"from afar")])
"""


def timed(function: Callable[[], Any]) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began


class AlarmTests(SimpleTestCase):
    def setUp(self) -> None:
        self.alarm = Alarm()
        self.addCleanup(self.alarm.close)

    def test_a_sleep_ends_with_its_time(self):
        self.assertFalse(self.alarm.sleep(0.01))
        self.assertFalse(self.alarm.sleep(-1))

    def test_a_ring_ends_the_sleep_of_another_thread(self):
        sleeper = begin(timed, lambda: self.alarm.sleep(LONG_S))

        self.alarm.ring()

        self.assertLess(sleeper.result(), PROMPT_S)

    def test_a_ring_before_the_sleep_is_not_lost(self):
        self.alarm.ring()

        self.assertTrue(self.alarm.sleep(LONG_S))

    def test_many_rings_end_one_sleep(self):
        for _ in range(100_000):
            self.alarm.ring()

        self.assertTrue(self.alarm.sleep(LONG_S))
        self.assertFalse(self.alarm.sleep(0.01))

    def test_it_rings_again_after_every_sleep(self):
        for _ in range(3):
            self.alarm.ring()
            self.assertTrue(self.alarm.sleep(LONG_S))

    def test_a_process_with_thousands_of_files_sleeps_and_is_woken_too(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        inside, outside = os.pipe()
        high = fcntl.fcntl(inside, fcntl.F_DUPFD, 2_000)
        for descriptor in (inside, outside, high):
            self.addCleanup(os.close, descriptor)
        self.assertFalse(self.alarm.sleep(0.01, high))

        os.write(outside, b"!")

        self.assertTrue(self.alarm.sleep(LONG_S, high))

    def test_no_ring_of_many_threads_is_lost(self):
        said = [0, 0, 0]
        heard = [0, 0, 0]

        def ring_and_be_heard(number: int) -> None:
            for count in range(1, 301):
                said[number] = count
                self.alarm.ring()
                wait_until(lambda: heard[number] == said[number])

        ringers = [begin(ring_and_be_heard, number) for number in range(3)]
        while min(heard) < 300:
            self.assertTrue(self.alarm.sleep(LONG_S))
            heard[:] = said

        for ringer in ringers:
            ringer.result()

    def test_a_socket_ends_the_sleep_as_well(self):
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.write(write, b"!")

        self.assertTrue(self.alarm.sleep(LONG_S, read))

    def test_a_closed_alarm_writes_into_no_file_of_somebody_else(self):
        self.alarm.close()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.set_blocking(read, False)

        self.alarm.ring()
        self.alarm.close()

        self.assertRaises(BlockingIOError, os.read, read, 1)

    def test_without_a_database_only_the_alarm_is_news(self):
        watch = AlarmWatch(self.alarm)
        watch.note_activity()

        self.assertFalse(watch.wait(0.01))
        self.alarm.ring()
        self.assertTrue(watch.wait(LONG_S))


class NewsCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.alarm = Alarm()
        self.addCleanup(self.alarm.close)
        # Where the database tells, nobody looks by himself in these tests.
        self.enterContext(mock.patch.object(wakeup, "LISTEN_S", 60.0))

    def make_watch(self) -> NewsWatch:
        """Return a watch for the calling thread that has had the news of today."""
        watch = NewsWatch(connections["default"], self.alarm, READY_CHANNEL, quiet_poll_s=0.05)
        self.addCleanup(watch.close)
        watch.wait(0.01)
        watch.wait(0.01)
        return watch

    def write(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            QueuedMessage.objects.create(queue_name="q", message_id="id", body=b"", enqueued_ms=0)
            if statement := notify_sql(connection, READY_CHANNEL):
                cursor.execute(statement)


class NewsTests(NewsCase):
    def wait_for_news(self, ready: list[bool]) -> float:
        watch = self.make_watch()
        ready.append(True)
        return timed(lambda: wait_until(lambda: watch.wait(LONG_S)))

    def sleeper(self) -> Task:
        ready: list[bool] = []
        task = begin(self.wait_for_news, ready)
        wait_until(lambda: ready)
        return task

    def test_a_commit_of_another_connection_is_news(self):
        sleeper = self.sleeper()

        self.write()

        self.assertLess(sleeper.result(), PROMPT_S)

    def test_the_alarm_ends_the_wait_and_is_no_news_of_the_database(self):
        watch = self.make_watch()
        self.alarm.ring()

        self.assertLess(timed(lambda: watch.wait(LONG_S)), PROMPT_S)

    def test_a_wait_without_news_ends_with_its_time(self):
        watch = self.make_watch()

        self.assertLess(timed(lambda: watch.wait(0.05)), PROMPT_S)

    def test_what_came_before_the_wait_is_news(self):
        watch = self.make_watch()

        in_thread(self.write)

        self.assertTrue(wait_until(lambda: watch.wait(LONG_S)))

    def test_after_a_new_connection_there_may_be_news(self):
        watch = self.make_watch()

        connection.close()

        self.assertTrue(watch.wait(LONG_S))

    @tag("postgresql")  # The only one that is listened to.
    def test_a_dead_connection_is_an_error_of_django(self):
        watch = self.make_watch()
        self.cut_connections()

        for _ in range(2):
            # Each time, not once: who catches it closes the connection, and waits again.
            with self.assertRaises(OperationalError):
                wait_until(lambda: watch.wait(0.01))
        connection.close()
        self.assertTrue(watch.wait(LONG_S))

    @tag("postgresql")  # The only one with two drivers.
    def test_a_driver_that_cannot_listen_is_polled(self):
        watch = self.make_watch()
        with mock.patch("django_actors.wakeup._is_psycopg_3", return_value=False):
            self.assertTrue(watch.wait(LONG_S))

    def test_only_postgresql_is_told_to_tell(self):
        tells = notify_sql(connection, READY_CHANNEL) is not None

        self.assertEqual(tells, connection.vendor == "postgresql")

    def test_a_message_of_another_process_is_seen_at_once(self):
        broker = DatabaseBroker()
        waiting = begin(self.fetch_one, broker)
        wait_until(Lease.objects.exists)

        sender = SENDER.format(name=connection.settings_dict["NAME"])
        subprocess.run([sys.executable, "-c", sender], cwd=ROOT, check=True, env=self.environment())
        sent_at = time.monotonic()

        body, came_at = waiting.result()
        self.assertEqual(body, b"from afar")
        self.assertLess(came_at - sent_at, PROMPT_S)

    def environment(self) -> dict[str, str]:
        # The database has another name than the one of the environment; all else is the same.
        return {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}

    def fetch_one(self, broker: DatabaseBroker) -> tuple[bytes, float]:
        consumer = broker.consume(["default"], owner="waiting")
        try:
            [delivery] = wait_until(lambda: consumer.fetch(1, timeout=LONG_S))
            return delivery.body, time.monotonic()
        finally:
            consumer.close()


@tag("sqlite")  # The only one whose files are there to be watched.
class FileTests(NewsCase):
    """Nobody looks by himself who is told when it is worthwhile."""

    def make_watch(self) -> NewsWatch:
        """Return a watch that has been told once, and relies on it."""
        watch = super().make_watch()
        in_thread(self.write)
        wait_until(lambda: watch.wait(LONG_S))
        watch.note_activity()
        return watch

    def test_who_is_told_looks_no_more(self):
        watch = self.make_watch()

        with mock.patch.object(watch, "_may_have_news", wraps=watch._may_have_news) as looks:
            self.assertFalse(watch.wait(0.3))

        # The look before it sleeps, those for a write that has just been, and the last one.
        self.assertLess(looks.call_count, 10)

    def test_who_was_told_nothing_of_news_looks_as_often_as_ever(self):
        watch = self.make_watch()
        with mock.patch.object(watch._events, "take", return_value=False):
            # At the first the deaf one relies on being told.
            with mock.patch.object(wakeup, "LISTEN_S", 0.05):
                in_thread(self.write)
                wait_until(lambda: watch.wait(LONG_S))
            watch.note_activity()

            in_thread(self.write)

            self.assertLess(timed(lambda: wait_until(lambda: watch.wait(LONG_S))), PROMPT_S)

    def test_news_that_were_of_no_use_are_told_at_a_bearable_pace(self):
        watch = self.make_watch()
        in_thread(self.write)
        wait_until(lambda: watch.wait(LONG_S))

        with mock.patch.object(wakeup, "POLL_S", 0.2):
            in_thread(self.write)
            lasted = timed(lambda: wait_until(lambda: watch.wait(LONG_S)))

        self.assertGreater(lasted, 0.1)

    def test_a_watch_that_is_closed_leaves_no_descriptor_behind(self):
        watch = self.make_watch()
        [descriptor] = watch._events.descriptors

        watch.close()

        self.assertRaises(OSError, os.fstat, descriptor)
