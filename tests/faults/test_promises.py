"""Faults that no other test brings about: clocks that jump, slow servers, long streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.test import tag

from django_actors import clock
from django_actors.brokers.database import DatabaseBroker
from django_actors.dispatcher import Dispatcher
from django_actors.models import WaitingMessage
from tests.engine import EngineCase, make_message
from tests.ledger import tasks
from tests.processes import test_rabbitmq, test_redis
from tests.processes.base import ProcessCase

from .sizes import SIZE

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


class SlowServer(ProcessCase):
    """40 ms from the workers to the server and back."""

    proxy: Any

    def check(self) -> None:
        count = 100
        self.start(processes=1)
        self.proxy.slow(0.02)

        tasks.record.send_many([(key,) for key in range(count)])
        self.wait_for_keys(count)

        self.wait_until_settled()
        self.assertEqual(set(self.times().values()), {1})


@tag("processes")
class RedisSlowServerTests(test_redis.RedisProcesses, SlowServer):
    url_of_test = test_redis.RedisOutageTests.url_of_test

    def test_a_slow_server_is_only_slow(self):
        self.check()


@tag("processes")
class RabbitmqSlowServerTests(test_rabbitmq.RabbitmqProcesses, SlowServer):
    url_of_test = test_rabbitmq.RabbitmqOutageTests.url_of_test

    def test_a_slow_server_is_only_slow(self):
        self.check()


@tag("processes")
class PasswordTests(test_rabbitmq.RabbitmqProcesses):
    def test_a_password_stands_in_no_command_line_and_no_log(self):
        self.assertIn("guest:guest@", self.broker_url)
        supervisor = self.start(processes=2)

        for pid in (supervisor.pid, *self.worker_pids()):
            self.assertNotIn(b"guest:", Path(f"/proc/{pid}/cmdline").read_bytes())
        self.stop(supervisor)
        self.assertNotIn("guest:", self.log())


# A process is warm when it has run this many messages.
WARM = 2_000


def resident_kib(pid: int) -> int:
    """Return the memory of a process; 0 where /proc is missing."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return 0
    [line] = [line for line in path.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


@tag("processes")
class StreamTests(ProcessCase):
    """Many messages through one supervisor, without a fault."""

    def send(self, first: int, last: int) -> None:
        for begin in range(first, last, 500):
            tasks.record.send_many([(key,) for key in range(begin, min(begin + 500, last))])

    def test_processes_that_are_replaced_on_the_way_run_every_message_once(self):
        part, sent, processes = SIZE.stream // 20, 0, 0
        self.start(f"--max-messages={part}", processes=1)
        deadline = time.monotonic() + 90

        # One that has asked to be replaced goes on until its successor is ready.
        while sent < SIZE.stream or (processes < 4 and time.monotonic() < deadline):
            self.send(sent, sent + part)
            sent += part
            self.wait_for_keys(sent)
            processes = len({entry.pid for entry in self.ledger("ran")})

        self.wait_until_settled()
        self.assertEqual(set(self.times().values()), {1})
        self.assertGreaterEqual(processes, 4)

    def test_the_memory_of_a_process_stays_flat(self):
        self.start(processes=1)
        [worker] = self.worker_pids()
        self.send(0, WARM)
        self.wait_for_keys(WARM)
        before = resident_kib(worker)

        self.send(WARM, WARM + SIZE.stream)
        self.wait_for_keys(WARM + SIZE.stream, timeout=600)
        grown = resident_kib(worker) - before

        # A step is no slope: an allocator takes memory by the megabyte.
        self.assertLess(grown, 2_048 + SIZE.stream // 1_000)
        self.assertEqual(set(self.times().values()), {1})
