"""The process tests on RabbitMQ, and what only its connections can do to workers."""

from __future__ import annotations

import os
import signal
import statistics
import time
import unittest
import uuid
from urllib.parse import urlsplit

import pika

from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.errors import BrokerUnavailable
from tests.ledger import tasks
from tests.proxy import Proxy

from . import test_kills, test_limits, test_operations, test_signals, test_work
from .base import ProcessCase
from .test_outage import cpu_seconds

URL = os.environ.get("TEST_RABBITMQ_URL", "")

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@unittest.skipUnless(URL, "needs RabbitMQ")
class RabbitmqProcesses(ProcessCase):
    """Each test has a namespace of its own, whose queues are deleted afterwards."""

    def setUp(self):
        self.namespace = f"test_{uuid.uuid4().hex[:8]}"
        self.direct_url = with_option(URL, f"namespace={self.namespace}")
        self.broker_url = self.url_of_test()
        self.addCleanup(self.delete_queues)
        super().setUp()

    def url_of_test(self):
        return self.direct_url

    def delete_queues(self):
        broker = RabbitmqBroker(self.direct_url)
        broker.delete_queues()
        broker.close()

    def expire_claims(self):
        """Do nothing: the claims ended with the connection."""


class RabbitmqWorkTests(RabbitmqProcesses, test_work.WorkTests):
    pass


class RabbitmqKilledWorkerTests(RabbitmqProcesses, test_kills.KilledWorkerTests):
    def test_no_message_is_lost_and_only_running_ones_run_twice(self):
        count, threads, kills = 1_000, 8, 3
        self.start(processes=2, threads=threads)
        tasks.work.send_many([(key, 0.02) for key in range(count)])

        for kill in range(kills):
            self.wait_for_keys(150 * (kill + 1))
            os.kill(self.worker_pids()[0], signal.SIGKILL)

        self.wait_for_keys(count)
        self.wait_until_settled()
        twice = [key for key, times in self.times("began").items() if times > 1]
        self.assertEqual(len(self.times()), count)
        # What was done, but not acknowledged, runs again as well: only the connection could
        # have acknowledged it.
        self.assertLessEqual(len(twice), kills * threads * 2)


class RabbitmqKilledSupervisorTests(RabbitmqProcesses, test_kills.KilledSupervisorTests):
    pass


class RabbitmqPoisonTests(RabbitmqProcesses, test_kills.PoisonTests):
    pass


class RabbitmqTimeLimitTests(RabbitmqProcesses, test_limits.TimeLimitTests):
    pass


class RabbitmqStopTests(RabbitmqProcesses, test_signals.StopTests):
    pass


class RabbitmqPauseTests(RabbitmqProcesses, test_operations.PauseTests):
    pass


class RabbitmqReloadTests(RabbitmqProcesses, test_signals.ReloadTests):
    pass


class RabbitmqLoadTests(RabbitmqProcesses):
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

    def test_a_lane_of_an_earlier_deploy_is_drained(self):
        messages = [
            tasks.record.message_with_options(args=(key,), priority=key) for key in range(-3, 4)
        ]
        tasks.record.send_many(messages)

        self.start(processes=1, threads=1)

        self.wait_for_keys(7)
        ran = [int(entry.key) for entry in self.ledger("ran")]
        self.assertEqual(ran, sorted(ran))

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


class RabbitmqOutageTests(RabbitmqProcesses):
    """Workers and senders reach the server through a proxy that fails."""

    def url_of_test(self):
        parts = urlsplit(self.direct_url)
        self.proxy = Proxy(str(parts.hostname), parts.port or 5672)
        self.addCleanup(self.proxy.close)
        login, at, _ = parts.netloc.rpartition("@")
        url = parts._replace(netloc=f"{login}{at}127.0.0.1:{self.proxy.port}").geturl()
        return with_option(url, "heartbeat=4")

    def test_connections_that_are_cut_cost_no_message(self):
        count, cuts = 1_000 * SCALE, 20
        self.start(processes=2)

        refused = self.send_and_cut(count, cuts)

        # What was refused may have arrived: its confirmation was lost.
        self.wait_until(
            lambda: self.times().keys() >= set(map(str, range(count))) - set(map(str, refused)),
            "all that was sent to run",
            step=0.05,
        )
        self.wait_until_settled()

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

    def test_a_running_message_is_not_run_again_because_its_connection_was_cut(self):
        self.start(processes=1, threads=4)
        tasks.work.send_many([(key, 2) for key in range(4)])
        self.wait_for_keys(4, "began")

        self.proxy.cut()

        self.wait_for_keys(4)
        self.wait_until_settled()
        self.assertEqual(set(self.times("began").values()), {1})

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
        # Not a wait for a state: the outage has to have some length.
        time.sleep(4)
        used = sum(map(cpu_seconds, self.worker_pids())) - before
        self.proxy.accept()
        back_at = time.time()
        tasks.record.send("after")
        self.wait_for_keys(2)

        self.assertLess(used, 1.0)
        self.assertLess(self.ledger("ran")[-1].at - back_at, 2.5)

    def test_a_queue_that_is_deleted_is_there_again(self):
        self.start(processes=2)
        tasks.record.send("before")
        self.wait_for_keys(1)
        self.wait_until_settled()

        with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
            connection.channel().queue_delete(f"{self.namespace}.default.0")
        deleted_at = time.time()
        tasks.record.send("after")

        self.wait_for_keys(2)
        self.assertLess(self.ledger("ran")[-1].at - deleted_at, 2)
