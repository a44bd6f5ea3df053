"""The process tests on Redis, and what only a server of its own can do to workers."""

from __future__ import annotations

import os
import resource
import statistics
import time
import unittest
import uuid
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import redis

from django_actors.errors import BrokerUnavailable
from tests.ledger import tasks
from tests.proxy import Proxy
from tests.redis_server import PROGRAM, RedisServer

from . import test_kills, test_limits, test_operations, test_signals, test_work
from .base import ProcessCase
from .test_outage import cpu_seconds

URL = os.environ.get("TEST_REDIS_URL", "")

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))


@unittest.skipUnless(URL, "needs Redis")
class RedisProcesses(ProcessCase):
    """Each test has a namespace of its own, which is empty again afterwards."""

    def setUp(self):
        self.namespace = f"test_{uuid.uuid4().hex[:8]}"
        self.redis: Any = redis.Redis.from_url(URL)
        self.addCleanup(self.redis.close)
        self.addCleanup(self.erase_keys)
        self.broker_url = self.url_of_test()
        super().setUp()

    def url_of_test(self):
        return f"{URL}?namespace={self.namespace}"

    def keys(self):
        return list(self.redis.scan_iter(f"*{self.namespace}:*", count=1_000))

    def erase_keys(self):
        for key in self.keys():
            self.redis.delete(key)

    def expire_claims(self):
        """Let 31 seconds pass for all claims."""
        for lane in (key for key in self.keys() if b":lane:" in key):
            for entry in self.redis.xpending_range(lane, "workers", "-", "+", 1_000):
                ids = [entry["message_id"]]
                self.redis.xclaim(
                    lane, "workers", entry["consumer"], 0, ids, idle=31_000, justid=True
                )


class RedisWorkTests(RedisProcesses, test_work.WorkTests):
    pass


class RedisKilledWorkerTests(RedisProcesses, test_kills.KilledWorkerTests):
    pass


class RedisKilledSupervisorTests(RedisProcesses, test_kills.KilledSupervisorTests):
    pass


class RedisPoisonTests(RedisProcesses, test_kills.PoisonTests):
    pass


class RedisTimeLimitTests(RedisProcesses, test_limits.TimeLimitTests):
    pass


class RedisStopTests(RedisProcesses, test_signals.StopTests):
    pass


class RedisPauseTests(RedisProcesses, test_operations.PauseTests):
    pass


class RedisReloadTests(RedisProcesses, test_signals.ReloadTests):
    pass


class RedisLoadTests(RedisProcesses):
    def test_every_message_runs_exactly_once_without_faults(self):
        count = 2_000 * SCALE
        self.start(processes=2)

        for first in range(0, count, 250):
            tasks.record.send_many([(key,) for key in range(first, first + 250)])

        self.wait_for_keys(count)
        self.wait_until_settled()
        self.assertEqual(set(self.times().values()), {1})

    def test_an_urgent_message_overtakes_a_very_long_backlog(self):
        count = 4_000 * SCALE
        for first in range(0, count, 500):
            tasks.low.send_many([(key, 0.05) for key in range(first, first + 500)])
        self.start(processes=2, threads=4)
        self.wait_for_keys(20, "began")

        sent_at = time.time()
        tasks.high.send("urgent")
        self.wait_until(lambda: self.times("began")["urgent"], "the urgent message to begin")

        urgent = next(entry for entry in self.ledger("began") if entry.key == "urgent")
        self.assertLess(urgent.at - sent_at, 0.3)

    def test_an_idle_worker_starts_a_message_at_once_and_costs_next_to_nothing(self):
        self.start(processes=2)
        tasks.record.send_many([(key,) for key in range(10)])
        self.wait_for_keys(10)

        delays = []
        for key in range(100, 140):
            sent_at = time.time()
            tasks.record.send(key)
            self.wait_for_keys(key - 89)
            delays.append(self.ledger("ran")[-1].at - sent_at)
        self.assertLess(statistics.median(delays), 0.02)

        before = sum(map(cpu_seconds, self.worker_pids()))
        # Not a wait for a state: being idle has to have some length.
        time.sleep(5 * SCALE)
        used = sum(map(cpu_seconds, self.worker_pids())) - before
        self.assertLess(used, 5 * SCALE * 0.02)


class RedisOutageTests(RedisProcesses):
    """Workers and senders reach the server through a proxy that fails."""

    def url_of_test(self):
        parts = urlsplit(URL)
        self.proxy = Proxy(parts.hostname or "", parts.port or 6379)
        self.addCleanup(self.proxy.close)
        url = parts._replace(netloc=f"127.0.0.1:{self.proxy.port}").geturl()
        return f"{url}?namespace={self.namespace}"

    def test_connections_that_are_cut_cost_no_message(self):
        count, cuts = 1_000 * SCALE, 20
        self.start(processes=2)

        refused = self.send_and_cut(count, cuts)

        self.assertEqual(refused, set())
        self.wait_for_keys(count)
        self.wait_until_settled()
        self.assertEqual(len(self.times()), count)

    def send_and_cut(self, count, cuts):
        """Send messages, cutting all connections now and then; return what could not be sent."""
        refused = set()
        for key in range(count):
            if key % (count // cuts) == count // cuts // 2:
                self.proxy.cut()
            try:
                tasks.work.send(key, 0.002)
            except BrokerUnavailable:
                refused.add(key)
        return refused

    def test_connections_without_life_are_noticed_and_replaced(self):
        self.start(processes=2)
        tasks.work.send_many([(key, 0.05) for key in range(200)])
        self.wait_for_keys(50)

        self.proxy.stall()
        self.wait_until(lambda: self.log().count("waits for its broker") >= 2, "them to notice", 15)
        self.proxy.cut()
        self.proxy.resume()

        self.wait_for_keys(200)
        self.wait_until_settled()

    def test_workers_wait_for_a_server_that_is_away_without_a_busy_loop(self):
        self.start(processes=2)
        tasks.record.send("before")
        self.wait_for_keys(1)

        self.proxy.refuse()
        before = sum(map(cpu_seconds, self.worker_pids()))
        time.sleep(4)
        used = sum(map(cpu_seconds, self.worker_pids())) - before
        self.proxy.accept()
        back_at = time.time()
        tasks.record.send("after")
        self.wait_for_keys(2)

        self.assertLess(used, 1.0)
        self.assertLess(self.ledger("ran")[-1].at - back_at, 2.5)


@unittest.skipUnless(PROGRAM, "needs the program redis-server")
class RedisRestartTests(RedisProcesses):
    def url_of_test(self):
        self.server = RedisServer(("appendonly", "yes"), ("appendfsync", "always"))
        self.addCleanup(self.server.close)
        return self.server.url

    def test_workers_go_on_soon_after_a_restart_and_nothing_is_lost(self):
        self.start(processes=2, threads=4)
        tasks.work.send_many([(key, 0.02) for key in range(600)])
        tasks.work.send("long", 4)
        self.wait_for_keys(100)

        self.server.kill()
        time.sleep(2)
        self.server.start()
        back_at = time.time()

        self.wait_until(
            lambda: any(entry.at > back_at for entry in self.ledger("began")), "a worker to go on"
        )
        first = min(entry.at for entry in self.ledger("began") if entry.at > back_at)
        self.assertLess(first - back_at, 2)
        self.wait_for_keys(601)
        self.wait_until_settled()
        # Claimed by a connection that died, so it may have come again; not for being long.
        self.assertEqual(self.times()["long"], 1)


@unittest.skipUnless(PROGRAM, "needs the program redis-server")
@unittest.skipUnless(hasattr(resource, "prlimit"), "needs Linux")
class RedisFullDiskTests(RedisProcesses):
    def url_of_test(self):
        self.server = RedisServer(("appendonly", "yes"), ("appendfsync", "everysec"))
        self.addCleanup(self.server.close)
        return self.server.url

    def test_a_full_disk_refuses_sends_and_lets_workers_finish(self):
        self.start(processes=1, threads=4)
        tasks.work.send_many([(key, 0.5) for key in range(16)])
        self.wait_for_keys(8, "began")

        self.server.fill_disk()
        taken = self.send_until_refused()
        self.wait_for_keys(8)
        self.server.free_disk()

        expected = {*map(str, range(16)), *taken}
        self.wait_until(lambda: self.times().keys() >= expected, "all that was taken to run")
        tasks.record.send("over")
        self.wait_until(lambda: self.times()["over"], "a message after that")
        self.wait_until_settled()
        self.assertEqual(self.times(), Counter([*expected, "over"]))

    def send_until_refused(self):
        """Send until the server takes no more; return the keys that it took before."""
        taken: list[str] = []
        while True:
            began = time.monotonic()
            try:
                tasks.record.send(f"sent-{len(taken)}")
            except BrokerUnavailable as error:
                self.assertIn("MISCONF", str(error))
                self.assertLess(time.monotonic() - began, 8)
                return taken
            taken.append(f"sent-{len(taken)}")
