"""
Very many messages run through one supervisor, with and without processes that are replaced.

The long size, a million, is that of ``docs/explanation/reliability.md``.
"""

from __future__ import annotations

import time
import unittest
from typing import Any

from django.db import connection
from django.test import tag

from tests.ledger import tasks
from tests.processes.base import ProcessCase
from tests.processes.test_rabbitmq import RabbitmqProcesses
from tests.processes.test_redis import RedisProcesses

from .report import StreamFigures
from .sizes import IS_LONG, SIZE
from .vitals import PROC, Vitals, family, look_at

THREADS = 8

# A process is warm when it has run this many messages: what a forked one shares with its
# supervisor becomes its own little by little.
WARM = 100_000 if IS_LONG else 2_000

# A server holds no more than this at once.
MOST_AHEAD = 20_000
BATCH = 500

PATIENCE_S = 120.0

# At least so many processes are replaced between two looks.
REPLACEMENTS = 3

# A step is no slope: an allocator takes memory by the megabyte.
STEP_KIB = 2_048

# What a supervisor polls with is new for each wait.
ONE_POLL = 1


class Count:
    """How often each number was noted in a ledger that is too long to be read again and again."""

    def __init__(self, path: Any) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - read for as long as the test takes
        self._rest = b""
        self.times = bytearray()
        self.ran = 0
        self.pids: set[bytes] = set()

    def read_on(self) -> int:
        """Read what is new, and return how many different numbers there are."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            _, key, pid, _ = line.split()
            number = int(key)
            if number >= len(self.times):
                self.times.extend(bytes(max(1_000_000, number)))
            self.ran += not self.times[number]
            self.times[number] = min(self.times[number] + 1, 255)
            self.pids.add(pid)
        return self.ran

    @property
    def again(self) -> int:
        """How many runs there were beyond the first one of each number."""
        return sum(self.times) - self.ran

    def close(self) -> None:
        self._file.close()


@tag("processes")
@unittest.skipUnless(PROC.joinpath("self/smaps_rollup").exists(), "needs /proc")
class StreamTests(ProcessCase):
    """On the database of this run."""

    # Beside the database, which holds the waiting room.
    server = ""

    @property
    def broker_name(self) -> str:
        database = str(connection.vendor).replace("mysql", "mariadb")
        return f"{self.server}, {database}" if self.server else database

    def test_a_process_stays_as_it_is(self):
        supervisor = self.start(processes=1, threads=THREADS)
        self.count()
        # Each thread opens a connection when it looks up its first message that comes again.
        tasks.ask.send_many([(0.3,) for _ in range(2 * THREADS)])
        self.send_until(WARM)
        before, _ = self.settle_and_look(supervisor)

        seconds = self.send_until(WARM + SIZE.stream)

        after, _ = self.settle_and_look(supervisor)
        self.report("stays", before, after, seconds)
        self.check_nothing_is_lost_or_doubled()
        self.check_memory(before, after)
        self.assertEqual(after.threads, before.threads)
        self.assertLessEqual(after.descriptors, before.descriptors + ONE_POLL)

    def test_processes_that_are_replaced_leave_nothing_behind(self):
        part = max(SIZE.stream // 20, BATCH)
        supervisor = self.start(f"--max-messages={part}", processes=1)
        self.count()
        self.send_until(2 * part)
        _, alone_before = self.settle_and_look(supervisor)
        enough = self.count_workers() + REPLACEMENTS

        seconds = self.send_until(SIZE.stream)
        # Who has asked to be replaced goes on until its successor is ready, and may run them all.
        while self.count_workers() < enough:
            self.send_until(self.sent + part)

        _, alone = self.settle_and_look(supervisor)
        self.report(f"replaced after {part:,}", alone_before, alone, seconds)
        self.check_nothing_is_lost_or_doubled()
        # Of the supervisor alone: its worker is new, and becomes what the other test looks at.
        self.check_memory(alone_before, alone)
        self.assertEqual(alone.threads, alone_before.threads)
        self.assertLessEqual(alone.descriptors, alone_before.descriptors + ONE_POLL)

    # ---- sending ---------------------------------------------------------------

    def count(self) -> None:
        """Count from now on what was sent, and what has run."""
        self.sent = 0
        self.counted = Count(self.ledger_path)
        self.addCleanup(self.counted.close)

    def send_until(self, count: int) -> float:
        """Send until so many were sent in all, and wait for them; return the seconds it took."""
        began = time.monotonic()
        while self.sent < count:
            self.wait_for_room()
            last = min(self.sent + BATCH, count)
            tasks.record.send_many([(key,) for key in range(self.sent, last)])
            self.sent = last
        self.wait_until(lambda: self.counted.read_on() >= count, "all to run", PATIENCE_S, step=0.1)
        return time.monotonic() - began

    def count_workers(self) -> int:
        """Return how many worker processes there were so far."""
        return self.log().count("ready for action")

    def wait_for_room(self) -> None:
        if self.sent - self.counted.ran >= MOST_AHEAD:
            self.wait_until(
                lambda: self.sent - self.counted.read_on() < MOST_AHEAD // 2,
                "the worker to keep up",
                PATIENCE_S,
                step=0.1,
            )

    # ---- looking ---------------------------------------------------------------

    def settle_and_look(self, supervisor: Any) -> tuple[Vitals, Vitals]:
        """Look at the supervisor with its one worker, and alone, while nobody is replaced."""
        self.wait_until_settled()
        found = alone = Vitals()
        looks = 0

        def look() -> bool:
            nonlocal found, alone, looks
            pids = family(supervisor.pid)
            found, alone = look_at(*pids), look_at(supervisor.pid)
            # Twice: who has just ended may not have been buried.
            looks = looks + 1 if len(pids) == 2 and self.is_at_rest() else 0
            return looks == 2

        self.wait_until(look, "the old process to end", step=0.1)
        return found, alone

    def is_at_rest(self) -> bool:
        return self.log().count("Replacing worker process") + 1 == self.count_workers()

    def check_nothing_is_lost_or_doubled(self) -> None:
        self.counted.read_on()
        self.assertEqual((self.counted.ran, self.counted.again), (self.sent, 0))

    def check_memory(self, before: Vitals, after: Vitals) -> None:
        grown = after.memory_kib - before.memory_kib
        self.assertLess(grown, STEP_KIB + SIZE.stream // 1_000)

    def report(self, manner: str, before: Vitals, after: Vitals, seconds: float) -> None:
        StreamFigures(
            self.broker_name,
            manner,
            sent=self.sent,
            ran=self.counted.read_on(),
            lost=self.sent - self.counted.ran,
            again=self.counted.again,
            processes=len(self.counted.pids),
            memory_before_MiB=before.memory_kib / 1_024,
            memory_after_MiB=after.memory_kib / 1_024,
            threads=f"{before.threads}, {after.threads}",
            descriptors=f"{before.descriptors}, {after.descriptors}",
            minutes=seconds / 60,
        ).write()


class RedisStreamTests(RedisProcesses, StreamTests):
    server = "redis"


class RabbitmqStreamTests(RabbitmqProcesses, StreamTests):
    server = "rabbitmq"
