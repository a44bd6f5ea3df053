"""What a RabbitMQ server does to workers: it restarts, is full, is impatient, dies in a cluster."""

from __future__ import annotations

import time
import unittest

from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.errors import BrokerUnavailable
from django_actors.models import WaitingMessage
from tests.ledger import tasks
from tests.rabbitmq_server import PROGRAM, RabbitmqCluster, RabbitmqServer

from .base import ProcessCase

needs_program = unittest.skipUnless(PROGRAM, "needs the program rabbitmq-server")


@needs_program
class RabbitmqServerTests(ProcessCase):
    server: RabbitmqServer

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = RabbitmqServer()
        cls.addClassCleanup(cls.server.close)
        cls.server.start()
        # A short limit, with a look at the clock every second.
        for name, milliseconds in (("consumer_timeout", 10_000), ("channel_tick_interval", 1_000)):
            cls.server.control("eval", f"application:set_env(rabbit, {name}, {milliseconds}).")

    def setUp(self):
        self.broker_url = self.server.url
        self.addCleanup(self.delete_queues)
        super().setUp()

    def delete_queues(self):
        broker = RabbitmqBroker(self.server.url)
        broker.delete_queues()
        broker.close()

    def expire_claims(self):
        """Do nothing: the claims ended with the connection."""

    def test_workers_go_on_soon_after_a_restart_and_nothing_is_lost(self):
        self.start(processes=2, threads=4)
        # More than the workers can do until the command has stopped the broker.
        tasks.work.send_many([(key, 0.02) for key in range(2_000)])
        tasks.work.send("long", 6)
        self.wait_for_keys(100)

        self.server.control("stop_app")
        time.sleep(2)
        self.server.control("start_app")
        back_at = time.time()

        self.wait_until(
            lambda: any(entry.at > back_at for entry in self.ledger("began")), "a worker to go on"
        )
        first = min(entry.at for entry in self.ledger("began") if entry.at > back_at)
        self.assertLess(first - back_at, 2)
        self.wait_for_keys(2_001)
        self.wait_until_settled()

    def test_a_memory_alarm_refuses_sends_and_lets_workers_finish(self):
        self.check_alarm("set_vm_memory_high_watermark", "0.0001", "0.4")

    def test_a_full_disk_refuses_sends_and_lets_workers_finish(self):
        self.check_alarm("set_disk_free_limit", "1000000GB", "50MB")

    def check_alarm(self, setting, alarming, harmless):
        self.start(processes=1, threads=4)
        tasks.work.send_many([(key, 0.5) for key in range(16)])
        self.wait_for_keys(4)

        self.addCleanup(self.server.control, setting, harmless)
        self.server.control(setting, alarming)
        began = time.monotonic()
        with self.assertRaisesMessage(BrokerUnavailable, "low on memory or disk"):
            for _ in range(100):
                tasks.record.send("refused")
        self.assertLess(time.monotonic() - began, 8)
        self.wait_for_keys(16)
        self.server.control(setting, harmless)

        tasks.record.send("over")
        self.wait_until(lambda: self.times()["over"], "a message after the alarm")
        self.wait_until_settled()

    def test_an_actor_may_run_longer_than_the_server_allows(self):
        self.broker_url = f"{self.server.url}?consumer_timeout=10000"
        self.start(processes=2, threads=2)

        tasks.work.send("long", 25)
        self.wait_until(WaitingMessage.objects.exists, "its row")

        self.wait_for_keys(1, timeout=60)
        self.wait_until_settled()
        self.assertEqual(self.times("began")["long"], 1)
        self.assertFalse(WaitingMessage.objects.exists())
        self.assertNotIn("Lost queue", self.log())


@needs_program
class RabbitmqClusterTests(ProcessCase):
    def setUp(self):
        self.cluster = RabbitmqCluster()
        self.addCleanup(self.cluster.close)
        self.broker_url = self.cluster.url
        super().setUp()

    def expire_claims(self):
        """Do nothing: the claims ended with the connection."""

    def test_a_node_of_three_may_die_and_no_message_is_lost(self):
        self.start(processes=2, threads=4)
        self.wait_for_one_message()
        first, *_ = self.cluster.servers

        refused = []
        for key in range(600):
            if key == 200:
                # All connections are to the first one: it stands in the URL first.
                first.kill()
            try:
                tasks.work.send(key, 0.005)
            except BrokerUnavailable:
                refused.append(key)

        taken = {str(key) for key in range(600)} - set(map(str, refused))
        self.wait_until(lambda: self.times().keys() >= taken, "all that was taken to run")
        self.wait_until_settled()
        # The majority that is left elects another leader well within a send's patience.
        self.assertEqual(refused, [])

    def wait_for_one_message(self):
        tasks.record.send("first")
        self.wait_until(lambda: self.times()["first"], "the first message")
