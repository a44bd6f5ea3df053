"""Faults that no other test brings about: clocks that jump, slow servers, passwords."""

from __future__ import annotations

import os
import time
import traceback
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.db import connection
from django.test import tag

from django_actors import clock
from django_actors.brokers.database import DatabaseBroker
from django_actors.dispatcher import Dispatcher
from django_actors.errors import BrokerUnavailable
from django_actors.models import WaitingMessage
from tests.engine import EngineCase, make_message
from tests.ledger import tasks
from tests.processes import test_rabbitmq, test_redis
from tests.processes.base import ProcessCase
from tests.redis_server import PROGRAM as REDIS_SERVER
from tests.redis_server import RedisServer

from .report import SlowFigures

HOUR_MS = 3_600_000


def jumped(by_ms: int) -> Callable[[], int]:
    """Return the wall clock as it is after a jump."""
    return lambda: time.time_ns() // 1_000_000 + by_ms


class ClockTests(EngineCase):
    """The clock of one machine is an hour wrong, forwards or backwards."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())
        self.addCleanup(clock.set_source, None)

    def test_a_jump_takes_nothing_from_the_living(self):
        self.broker.enqueue(make_message())
        consumer = self.broker.consume(["default"], owner="living")
        self.addCleanup(consumer.close)
        [delivery] = consumer.fetch(1, timeout=1)

        for by_ms in (HOUR_MS, -HOUR_MS):
            with self.subTest(by_ms=by_ms):
                clock.set_source(jumped(by_ms))
                DatabaseBroker().maintain()

                self.assertEqual(tuple(self.broker.queue_size("default")), (0, 1))
        consumer.ack([delivery])
        self.assertEqual(tuple(self.broker.queue_size("default")), (0, 0))

    def test_a_jump_makes_nothing_due_and_holds_nothing_up(self):
        self.broker.enqueue(make_message(), delay=HOUR_MS // 2)
        for by_ms in (HOUR_MS, -HOUR_MS):
            with self.subTest(by_ms=by_ms):
                clock.set_source(jumped(by_ms))
                self.assertEqual(Dispatcher(self.broker).run_once(), 0)

        WaitingMessage.objects.update(due_ms=1)
        clock.set_source(jumped(-HOUR_MS))
        self.assertEqual(Dispatcher(self.broker).run_once(), 1)


ROUND_TRIP_S = 0.1


class SlowServer(ProcessCase):
    """100 ms from the workers to the server and back."""

    server: str
    proxy: Any

    def check(self) -> None:
        count = 300
        self.proxy.slow(ROUND_TRIP_S / 2)
        self.start(processes=1, threads=8)

        tasks.record.send_many([(key,) for key in range(count)])
        self.wait_for_keys(count)

        self.wait_until_settled()
        self.assertEqual(set(self.times().values()), {1})
        self.check_round_trips(count)

    def check_round_trips(self, count: int) -> None:
        """A worker that claims only what it can begin gets few messages for each round trip."""
        moments = [entry.at for entry in self.ledger()]
        seconds = max(moments) - min(moments)
        SlowFigures(self.server, ROUND_TRIP_S * 1_000, count, seconds).write()
        self.assertLess(seconds, count * ROUND_TRIP_S / 4)


@tag("processes")
class RedisSlowServerTests(test_redis.RedisProcesses, SlowServer):
    server = "redis"
    url_of_test = test_redis.RedisOutageTests.url_of_test

    def test_a_slow_server_is_only_slow(self):
        self.check()


@tag("processes")
class RabbitmqSlowServerTests(test_rabbitmq.RabbitmqProcesses, SlowServer):
    server = "rabbitmq"
    url_of_test = test_rabbitmq.RabbitmqOutageTests.url_of_test

    def test_a_slow_server_is_only_slow(self):
        self.check()


CANARY = "canary-6f1d"


class PasswordCase(ProcessCase):
    """A password that workers know appears nowhere, also when they lose their server."""

    password = CANARY

    def check(self, break_connections: Callable[[], object]) -> None:
        supervisor = self.start(processes=2)
        tasks.record.send("one")
        self.wait_for_keys(1)

        for pid in (supervisor.pid, *self.worker_pids()):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            self.assertNotIn(self.password.encode(), line)
        break_connections()
        self.wait_until(lambda: " waits" in self.log(), "a worker to notice")
        self.stop(supervisor)
        self.assertNotIn(self.password, self.log())


@tag("processes")
@unittest.skipUnless(REDIS_SERVER, "needs the program redis-server")
class RedisPasswordTests(PasswordCase):
    def setUp(self) -> None:
        self.server = RedisServer(password=CANARY)
        self.addCleanup(self.server.close)
        self.broker_url = self.server.url
        super().setUp()

    def test_a_password_stands_in_no_command_line_and_no_log(self):
        self.assertIn(CANARY, self.broker_url)
        self.check(self.server.kill)

    def test_a_sender_is_not_told_the_password(self):
        self.server.kill()

        with self.assertRaises(BrokerUnavailable) as caught:
            tasks.record.send("refused")

        self.assertNotIn(CANARY, "".join(traceback.format_exception(caught.exception)))


@tag("processes")
class RabbitmqPasswordTests(test_rabbitmq.RabbitmqProcesses, PasswordCase):
    url_of_test = test_rabbitmq.RabbitmqOutageTests.url_of_test
    password = "guest:guest"
    proxy: Any

    def test_a_password_stands_in_no_command_line_and_no_log(self):
        self.assertIn(self.password, self.broker_url)
        self.check(self.proxy.refuse)


# How a user of the database comes, and how it goes while it is connected.
USERS = {
    "postgresql": (
        ["CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'"],
        [
            "ALTER ROLE {user} NOLOGIN",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'",
        ],
        ["DROP ROLE {user}"],
    ),
    "mysql": (
        ["CREATE USER {user} IDENTIFIED BY '{password}'", "GRANT ALL ON *.* TO {user}"],
        ["ALTER USER {user} ACCOUNT LOCK", "KILL USER {user}"],
        ["DROP USER {user}"],
    ),
}


@tag("processes", *USERS)  # A file has no password.
class DatabasePasswordTests(PasswordCase):
    """The workers have a user of the database of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.user = f"actors_canary_{os.getpid()}"
        come, self.going, gone = USERS[connection.vendor]
        self.command(come)
        self.addCleanup(self.command, gone)
        parts = urlsplit(self.database_url)
        place = f"{self.user}:{CANARY}@{parts.hostname}:{parts.port}"
        self.database_url = parts._replace(netloc=place).geturl()

    def command(self, statements: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement.format(user=self.user, password=CANARY))

    def test_a_password_stands_in_no_command_line_and_no_log(self):
        self.check(lambda: self.command(self.going))
