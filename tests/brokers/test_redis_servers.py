"""The Redis broker on servers of its own: encrypted, full, restarted, a Cluster, with Sentinels."""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import redis
import trustme
from django.test import tag

from django_actors.brokers import redis_publication
from django_actors.brokers.consumer import Consumer
from django_actors.brokers.redis import RedisBroker
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.message import Envelope
from tests.engine import EngineCase, begin, silence, wait_until
from tests.redis_server import PROGRAM, RedisCluster, RedisServer, WatchedRedis, free_port

from .contract import BrokerContract, bodies_of
from .test_redis import RedisMixin

needs_program = unittest.skipUnless(PROGRAM, "needs the program redis-server")


class OwnServerCase(EngineCase):
    publish: Any = BrokerContract.publish
    consume: Any = BrokerContract.consume
    take: Any = BrokerContract.take
    take_one: Any = BrokerContract.take_one
    assert_size: Any = BrokerContract.assert_size

    queue = "q"

    def use_broker(self, url: str) -> None:
        self.broker: Any = self.use(RedisBroker(url))
        self.broker.declare_queue(self.queue)
        self.addCleanup(self.broker.close)

    def run_server(self, *options: tuple[str, str]) -> RedisServer:
        server = RedisServer(*options)
        self.addCleanup(server.close)
        self.use_broker(server.url)
        return server

    def fetch_through_errors(self, consumer: Consumer, count: int = 1) -> list[Delivery]:
        """Fetch as a worker does, which tries again after an error."""
        found: list[Delivery] = []

        def is_enough() -> bool:
            try:
                found.extend(consumer.fetch(100, timeout=0.2))
            except BrokerUnavailable:
                time.sleep(0.05)
            return len(found) >= count

        wait_until(is_enough, f"{count} messages")
        return found


@tag("processes")
@needs_program
class EncryptedTests(OwnServerCase):
    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        self.ca, pem = directory / "ca.pem", directory / "server.pem"
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
        self.port = free_port()
        server = RedisServer(
            ("tls-port", str(self.port)),
            ("tls-cert-file", str(pem)),
            ("tls-key-file", str(pem)),
            ("tls-auth-clients", "no"),
        )
        self.addCleanup(server.close)

    def test_messages_travel_encrypted_to_a_server_that_is_trusted(self):
        self.use_broker(f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca}")

        self.publish(b"x")

        self.assertEqual(self.take_one(self.consume()).body, b"x")

    def test_a_server_nobody_vouches_for_is_an_error_that_says_so(self):
        self.use_broker(f"rediss://localhost:{self.port}/0")

        with self.assertRaisesRegex(BrokerUnavailable, "certificate"):
            self.broker.ping()


@tag("processes")
@needs_program
class FullServerTests(OwnServerCase):
    def test_a_full_server_refuses_messages_and_serves_workers_until_it_has_room_again(self):
        self.run_server(("maxmemory", "8mb"), ("maxmemory-policy", "noeviction"))
        consumer = self.consume()
        consumer.fetch(0, timeout=0)
        sent = self.fill()
        began = time.monotonic()

        # Buffers that shrink meanwhile may make room for another one.
        with self.assertRaisesRegex(BrokerUnavailable, "(?i)memory|OOM"):
            while True:
                began = time.monotonic()
                self.publish(b"x" * 20_000)
                sent += 1
        self.assertLess(time.monotonic() - began, redis_publication.PATIENCE_S + 0.5)
        self.broker.maintain()
        consumer._renew_at = 0
        deliveries = self.take(consumer, sent)
        consumer.put_back(deliveries[:10])
        consumer.ack(deliveries[10:])

        self.publish(b"fits again")
        self.assert_size(11, 0)

    def fill(self) -> int:
        """Publish until the server is full, and return how many messages it took."""
        sent = 0
        with mock.patch.object(redis_publication, "LAST_ATTEMPT_S", 0):
            while True:
                try:
                    self.publish(b"x" * 20_000)
                except BrokerUnavailable:
                    return sent
                sent += 1


@tag("processes")
@needs_program
class RestartTests(OwnServerCase):
    def test_what_was_published_and_claimed_outlives_a_restart(self):
        server = self.run_server(("appendonly", "yes"), ("appendfsync", "always"))
        self.publish(b"1", b"2", b"3")
        consumer = self.consume()
        done, claimed = self.take(consumer, 2)
        consumer.ack([done])

        server.kill()
        with silence(), self.assertRaises(BrokerUnavailable):
            consumer.fetch(1, timeout=0.1)
        server.start()

        [third] = self.fetch_through_errors(consumer)
        self.assertEqual((claimed.body, third.body), (b"2", b"3"))
        consumer.ack([claimed, third])
        self.assert_size(0, 0)

    def test_a_server_that_lost_everything_is_as_good_as_a_new_one(self):
        server = self.run_server()
        self.publish(b"lost")
        consumer = self.consume()
        consumer.fetch(0, timeout=0)

        server.kill()
        server.start()

        self.publish(b"new")
        self.assertEqual(bodies_of(self.fetch_through_errors(consumer)), [b"new"])


@tag("processes")
@needs_program
class RedisClusterTests(RedisMixin, BrokerContract, EngineCase):
    tells_age = True

    """All of the contract holds on a Cluster of three."""

    broker: Any
    cluster: ClassVar[RedisCluster]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.cluster = RedisCluster()
        cls.addClassCleanup(cls.cluster.close)
        cls.url = cls.cluster.url

    def make_client(self) -> Any:
        return redis.RedisCluster.from_url(self.url)

    def close_client(self) -> None:
        # What it has open to its nodes it closes some time later, or never.
        for node in self.redis.get_nodes():
            self.redis.get_redis_connection(node).connection_pool.disconnect()
        super().close_client()

    def test_its_queues_stand_on_several_servers(self):
        queues = [f"q{number}" for number in range(30)]
        for queue in queues:
            self.broker.declare_queue(queue)
            self.publish(queue.encode(), queue=queue)

        nodes = {self.broker._server.node_of(self.broker._names.register(q)) for q in queues}

        self.assertEqual(len(nodes), 3)
        taken = self.take(self.consume(*queues), 30)
        self.assertEqual(sorted(bodies_of(taken)), sorted(map(str.encode, queues)))
        self.broker.maintain()

    def test_one_batch_reaches_all_servers(self):
        queues = [self.declare_queue("q") for _ in range(12)]
        self.broker.publish(
            [Envelope("", queue, 0, b"%d" % number) for number in range(600) for queue in queues]
        )

        self.assertEqual(len(self.take(self.consume(*queues), 7_200)), 7_200)

    def test_it_can_be_said_or_lent_that_it_is_a_cluster(self):
        for broker in (
            RedisBroker(f"{self.url}?cluster=true", namespace=self.namespace),
            RedisBroker(client=self.redis, namespace=self.namespace),
        ):
            self.addCleanup(broker.close)
            self.assertTrue(broker._server.is_cluster)
            self.publish(b"x", broker=broker)

        self.assertEqual(len(self.take(self.consume(), 2)), 2)

    def test_a_slot_that_moved_is_found(self):
        self.publish(b"1")
        consumer = self.consume()
        consumer.ack(self.take(consumer, 1))
        register = self.broker._names.register(self.queue)
        self.move_slot(register)

        self.publish(b"2")

        wait_until(lambda: self.fetch_or_nothing(consumer) == [b"2"], "the message")

    def fetch_or_nothing(self, consumer: Consumer) -> list[bytes]:
        try:
            return bodies_of(consumer.fetch(1, timeout=0.2))
        except BrokerUnavailable:
            return []

    def move_slot(self, key: bytes) -> None:
        """Have another server own the slot of *key*; its keys are gone."""
        for found in self.keys():
            self.redis.delete(found)
        slot = self.redis.keyslot(key)
        target = self.cluster.servers[0].call("CLUSTER", "MYID")
        node = self.broker._server.node_of(key)
        if node[1] == self.cluster.servers[0].port:
            target = self.cluster.servers[1].call("CLUSTER", "MYID")
        for server in self.cluster.servers:
            server.call("CLUSTER", "SETSLOT", slot, "NODE", target)
        self.redis.nodes_manager.initialize()


@tag("processes")
@needs_program
class SentinelTests(OwnServerCase):
    def test_a_failover_is_followed_and_what_it_loses_is_counted(self):
        watched = WatchedRedis()
        self.addCleanup(watched.close)
        self.use_broker(watched.url)
        consumer = self.consume()
        self.publish(b"before")
        consumer.ack(self.take(consumer, 1))
        sent: list[bytes] = []
        received: set[bytes] = set()

        sender = begin(self.send_for, sent, 6.0)
        wait_until(lambda: len(sent) > 200, "the first messages")
        watched.master.kill()
        killed_at = time.monotonic()
        wait_until(lambda: self.receive(consumer, received, after=killed_at), "the new master")
        sender.result()
        wait_until(
            lambda: self.receive(consumer, received) and not self.broker.queue_size("q").ready
        )

        lost = set(sent) - received
        # Replication is asynchronous: what the master had not passed on when it died is lost.
        self.assertLess(len(lost), len(sent) * 0.01)
        self.assertIn(sent[-1], received)

    def send_for(self, sent: list[bytes], seconds: float) -> None:
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            number += 1
            body = b"%d" % number
            try:
                self.publish(body)
            except BrokerUnavailable:
                continue
            sent.append(body)

    def receive(self, consumer: Consumer, received: set[bytes], after: float = 0) -> bool:
        try:
            deliveries = consumer.fetch(50, timeout=0.2)
            consumer.ack(deliveries)
        except BrokerUnavailable:
            return False
        received.update(bodies_of(deliveries))
        return time.monotonic() > after + 1.0
