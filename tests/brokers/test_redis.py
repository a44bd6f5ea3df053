"""The Redis broker: the contract, on a real server."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import unittest
import uuid
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import urlsplit

import redis
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from django_actors.brokers import (
    build_broker,
    redis_connection,
    redis_consumer,
    redis_publication,
)
from django_actors.brokers import redis as adapter
from django_actors.brokers import redis_scripts as scripts
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.brokers.redis import RedisBroker
from django_actors.brokers.redis_connection import check_version, is_passing
from django_actors.brokers.redis_consumer import RedisConsumer
from django_actors.brokers.redis_place import Place, place_from_url
from django_actors.checks import check_deploy, check_settings
from django_actors.errors import BrokerUnavailable, ServerTooOld, TimeLimitExceeded
from django_actors.message import Envelope, generate_message_id
from tests.engine import EngineCase, begin, silence, wait_until
from tests.proxy import Proxy
from tests.redis_server import OldServer

from .contract import PASSWORD, BrokerContract, ServerContract, bodies_of
from .moving import MovingContract

URL = os.environ.get("TEST_REDIS_URL", "")

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))
RECONNECTS = 50 * SCALE

if TYPE_CHECKING:
    Base = EngineCase
else:
    Base = object

needs_redis = unittest.skipUnless(URL, "needs Redis")


class RedisMixin(Base):
    """A namespace of its own on the server, which is empty again after the test."""

    url = URL

    def setUp(self) -> None:
        self.namespace = f"test_{uuid.uuid4().hex[:8]}"
        self.redis: Any = self.make_client()
        self.addCleanup(self.close_client)
        self.addCleanup(self.erase_keys)
        super().setUp()

    def make_client(self) -> Any:
        return redis.Redis.from_url(self.url)

    def close_client(self) -> None:
        self.redis.close()

    def erase_keys(self) -> None:
        for key in self.keys():
            self.redis.delete(key)

    def keys(self) -> list[bytes]:
        return list(self.redis.scan_iter(f"*{self.namespace}:*", count=1_000))

    def make_broker(self, **options: Any) -> RedisBroker:
        broker = RedisBroker(self.url, namespace=self.namespace, **options)
        self.addCleanup(broker.close)
        return broker

    def kill(self, consumer: Consumer) -> None:
        assert isinstance(consumer, RedisConsumer)
        consumer._disconnect()
        consumer._held.clear()

    def expire(self, owner: str) -> None:
        """Let 31 seconds pass for the claims of one owner."""
        for lane in (key for key in self.keys() if b":lane:" in key):
            for entry in self.redis.xpending_range(lane, "workers", "-", "+", 2_000, owner):
                self.redis.xclaim(
                    lane, "workers", owner, 0, [entry["message_id"]], idle=31_000, justid=True
                )


@needs_redis
class RedisBrokerTests(RedisMixin, MovingContract, ServerContract, EngineCase):
    tells_age = True

    """All of the contract holds on Redis."""

    unreachable_place = "127.0.0.1:1"

    def call_unreachable(self, function: Callable[[Broker], Any]) -> Any:
        url = f"redis://:{PASSWORD}@127.0.0.1:1/0"
        broker = RedisBroker(url, namespace=self.namespace)
        broker.declare_queue(self.queue)
        with mock.patch.object(redis_publication, "LAST_ATTEMPT_S", 0.1):
            return function(broker)


class RedisCase(RedisMixin, EngineCase):
    """What the tests below share with the contract: a broker, a queue, and how to use them."""

    declare_queue: Any = BrokerContract.declare_queue
    publish: Any = BrokerContract.publish
    consume: Any = BrokerContract.consume
    take: Any = BrokerContract.take
    take_one: Any = BrokerContract.take_one
    assert_has_nothing: Any = BrokerContract.assert_has_nothing
    assert_size: Any = BrokerContract.assert_size

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(self.make_broker())
        self.queue = self.declare_queue("q")

    def proxied(self) -> tuple[Proxy, RedisBroker]:
        """Return a proxy, and a broker that reaches the server through it."""
        parts = urlsplit(self.url)
        proxy = Proxy(parts.hostname or "", parts.port or 6379)
        self.addCleanup(proxy.close)
        url = parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
        broker = RedisBroker(url, namespace=self.namespace)
        self.addCleanup(broker.close)
        broker.declare_queue(self.queue)
        return proxy, broker

    def drain(self, count: int) -> list[bytes]:
        return sorted(bodies_of(self.take(self.consume(), count)))


def has_blocked_client(client: Any) -> bool:
    clients = client.client_list()
    return any(each["cmd"] == "xreadgroup" and each["flags"] == "b" for each in clients)


class ArgumentTests(SimpleTestCase):
    def test_a_url_beside_what_says_the_same_is_an_error_that_names_it(self):
        for name in ("host", "port", "db", "password"):
            options: dict[str, Any] = {name: "1"}
            with self.subTest(name), self.assertRaisesRegex(ValueError, name):
                RedisBroker("redis://localhost", **options)
        with self.assertRaisesRegex(ValueError, "client"):
            RedisBroker("redis://localhost", client=redis.Redis())

    def test_a_client_beside_other_arguments_is_an_error_that_names_them(self):
        with self.assertRaisesRegex(ValueError, "socket_timeout"):
            RedisBroker(client=redis.Redis(), socket_timeout=1)

    def test_an_option_redis_does_not_know_is_an_error(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "colour"):
            build_broker("redis://localhost?colour=red")

    def test_a_wrong_url_is_an_error_without_its_password(self):
        for url in (
            f"redis://:{PASSWORD}@localhost:port",
            f"redis://:{PASSWORD}@localhost?socket_timeout=soon",
            f"redis+sentinel://:{PASSWORD}@localhost",
        ):
            with self.assertRaises(ValueError) as caught:
                RedisBroker(url)
            self.assertNotIn(PASSWORD, str(caught.exception))

    def test_a_url_says_where_and_how(self):
        place = place_from_url(f"rediss://u:{PASSWORD}@h:1/3?socket_timeout=9&namespace=n", {})

        self.assertEqual(place.nodes, (("h", 1),))
        self.assertEqual(place.namespace, "n")
        self.assertTrue(place.is_encrypted)
        self.assertEqual(
            dict(place.options),
            {"username": "u", "password": PASSWORD, "db": 3, "socket_timeout": 9.0},
        )
        self.assertEqual(str(place), "h:1/3")

    def test_sentinels_are_named_in_the_url(self):
        place = place_from_url(
            f"redis+sentinel://:{PASSWORD}@a:1,b,[::1]:3/main/2?sentinel_password=x", {}
        )

        self.assertEqual(place.kind, "sentinel")
        self.assertEqual(place.nodes, (("a", 1), ("b", 26379), ("::1", 3)))
        self.assertEqual(place.service, "main")
        self.assertEqual(dict(place.options), {"password": PASSWORD, "db": 2})
        self.assertEqual(dict(place.sentinel_options), {"password": "x"})
        self.assertEqual(str(place), "main of a:1,b:26379,::1:3/2")

    def test_a_broker_is_built_by_hand_as_the_guide_does(self):
        broker = RedisBroker(host="h", port=7, middleware=[])

        self.assertEqual(str(broker._server.place), "h:7/0")
        self.assertEqual(broker.middleware, [])

    def test_a_client_lends_where_it_connects_to(self):
        client = redis.Redis(host="h", port=7, db=2, password=PASSWORD, decode_responses=True)

        place = RedisBroker(client=client)._server.place

        self.assertEqual((str(place), place.options["password"]), ("h:7/2", PASSWORD))
        client.close()

    def test_some_errors_are_over_some_time_later(self):
        for error in (
            redis.ConnectionError("Cut."),
            redis.TimeoutError("Slow."),
            redis.ReadOnlyError("You can't write against a read only replica."),
            redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            redis.exceptions.MasterDownError("Link with MASTER is down"),
            redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
            redis.exceptions.ClusterDownError("The cluster is down"),
            redis.exceptions.MovedError("1 127.0.0.1:1"),
            redis.BusyLoadingError("Redis is loading the dataset in memory"),
            redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but"),
            redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        ):
            self.assertTrue(is_passing(error), error)
        for lasting in (
            redis.AuthenticationError("WRONGPASS"),
            redis.ResponseError("WRONGTYPE Operation against a key"),
            BrokerUnavailable("Too old."),
        ):
            self.assertFalse(is_passing(lasting), lasting)

    def test_a_server_that_is_too_old_is_refused(self):
        place = Place((("h", 1),))
        check_version({"redis_version": "6.2.0"}, place)
        check_version({"redis_version": "10.0.0"}, place)
        check_version({}, place)

        with self.assertRaisesRegex(ServerTooOld, "6.0.16.*6.2"):
            check_version({"redis_version": "6.0.16"}, place)


class ConcernTests(SimpleTestCase):
    def concerns(self, url: str, **facts: Any) -> dict[str, str]:
        broker = RedisBroker(url)
        link = mock.Mock(
            call=mock.Mock(return_value=[facts.pop("time", b"%d" % time.time()), b"0"])
        )
        with (
            mock.patch.object(broker._server, "borrowed", return_value=nullcontext(link)),
            mock.patch.object(broker._server, "info", return_value=facts),
        ):
            return {concern.id: concern.text for concern in broker.concerns()}

    def test_a_server_that_is_set_up_well_is_no_concern(self):
        self.assertEqual(self.concerns("rediss://far", maxmemory_policy="noeviction"), {})
        self.assertEqual(self.concerns("redis://127.0.0.1", maxmemory_policy="noeviction"), {})

    def test_plain_text_to_another_host_is_a_concern(self):
        concerns = self.concerns(f"redis://:{PASSWORD}@far")

        self.assertEqual(list(concerns), ["W101"])
        self.assertNotIn(PASSWORD, concerns["W101"])

    def test_a_server_that_may_throw_messages_away_is_a_concern(self):
        concerns = self.concerns("redis://localhost", maxmemory_policy="allkeys-lru")

        self.assertEqual(list(concerns), ["W102"])
        self.assertIn("allkeys-lru", concerns["W102"])

    def test_a_clock_that_differs_is_a_concern(self):
        concerns = self.concerns("redis://localhost", time=b"%d" % (time.time() - 60))

        self.assertEqual(list(concerns), ["W103"])

    def test_a_server_that_is_too_old_says_so_and_not_that_it_is_away(self):
        with OldServer() as url:
            broker = RedisBroker(url)
            self.addCleanup(broker.close)
            concerns = {each.id: each.text for each in broker.concerns()}

            with self.assertRaisesRegex(ServerTooOld, "5.0.6.*6.2"):
                broker.publish([Envelope(generate_message_id(), "q", 0, b"x")])
            with self.assertRaisesRegex(ServerTooOld, "5.0.6.*6.2"):
                broker.ping()

        self.assertEqual(list(concerns), ["W104"])
        self.assertIn("has version 5.0.6", concerns["W104"])

    def test_a_server_that_is_away_is_mentioned(self):
        concerns = {each.id: each.text for each in RedisBroker("redis://127.0.0.1:1").concerns()}

        self.assertEqual(list(concerns), ["I101"])

    def test_the_checks_of_a_deploy_tell_of_concerns(self):
        with override_settings(DJANGO_ACTORS={"BROKER": f"redis://:{PASSWORD}@127.0.0.1:1"}):
            found = check_deploy()

        self.assertEqual(
            [each.id for each in found if "101" in str(each.id)], ["django_actors.I101"]
        )
        self.assertNotIn(PASSWORD, str(found))

    def test_the_checks_refuse_a_broker_that_cannot_be_built(self):
        with override_settings(DJANGO_ACTORS={"BROKER": "redis://localhost?colour=red"}):
            found = check_settings()

        self.assertIn("django_actors.E101", [each.id for each in found])


@needs_redis
class PublishingTests(RedisCase):
    def test_a_message_whose_answer_was_lost_is_not_doubled(self):
        proxy, broker = self.proxied()
        self.publish(b"before", broker=broker)

        proxy.lose_next_reply()
        self.publish(b"once", broker=broker)

        self.assertEqual(self.drain(2), [b"before", b"once"])
        self.assert_has_nothing(self.consume())

    def test_a_batch_whose_answers_were_lost_is_not_doubled(self):
        proxy, broker = self.proxied()
        self.publish(b"before", broker=broker)
        bodies = [b"%04d" % number for number in range(1_200)]

        proxy.lose_next_reply()
        self.publish(*bodies, broker=broker)

        self.assertEqual(self.drain(1_201), [*bodies, b"before"])
        self.assert_has_nothing(self.consume())

    def test_a_second_message_with_the_same_bytes_and_id_is_a_second_message(self):
        proxy, broker = self.proxied()
        envelope = Envelope(generate_message_id(), self.queue, 0, b"x")
        broker.publish([envelope])

        proxy.lose_next_reply()
        broker.publish([envelope])

        self.assertEqual(self.drain(2), [b"x", b"x"])

    def test_a_connection_that_died_while_it_was_idle_is_replaced(self):
        proxy, broker = self.proxied()
        self.publish(b"1", broker=broker)

        proxy.cut()

        self.publish(b"2", broker=broker)
        self.assertEqual(self.drain(2), [b"1", b"2"])

    def test_a_send_over_a_connection_without_life_ends_with_an_error_in_time(self):
        proxy, broker = self.proxied()
        self.publish(b"before", broker=broker)
        began = time.monotonic()

        proxy.stall()
        with self.assertRaises(BrokerUnavailable):
            self.publish(b"x", broker=broker)

        self.assertLess(time.monotonic() - began, redis_publication.PATIENCE_S + 0.5)

    def test_a_send_outlasts_a_short_outage(self):
        proxy, broker = self.proxied()
        self.publish(b"1", broker=broker)

        proxy.refuse()
        sending = begin(lambda: self.publish(b"2", broker=broker))
        time.sleep(0.3)
        proxy.accept()

        sending.result()
        self.assertEqual(self.drain(2), [b"1", b"2"])

    def test_a_child_process_has_connections_of_its_own(self):
        self.publish(b"parent")

        child = os.fork()
        if child == 0:
            try:
                self.publish(b"child")
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

        self.publish(b"parent again")
        self.assertEqual(self.drain(3), [b"child", b"parent", b"parent again"])

    def test_a_send_that_is_interrupted_leaves_no_answer_for_the_next_one(self):
        self.publish(b"before")
        interrupted = mock.patch.object(
            redis_connection.Link, "receive", side_effect=TimeLimitExceeded
        )

        with interrupted, self.assertRaises(TimeLimitExceeded):
            self.publish(b"interrupted")

        self.publish(*[b"%d" % number for number in range(20)])
        numbers = {b"%d" % number for number in range(20)}
        self.assertEqual(set(self.drain(22)), {b"before", b"interrupted", *numbers})

    def test_many_threads_publish_with_one_broker(self):
        def publish(name: int) -> None:
            for number in range(50):
                self.publish(b"%d-%d" % (name, number), priority=number % 3)

        for task in [begin(publish, name) for name in range(8)]:
            task.result()

        self.assertEqual(len(set(self.drain(400))), 400)


@needs_redis
class LaneTests(RedisCase):
    def test_a_lane_of_a_former_priority_is_drained_and_leaves_nothing_behind(self):
        self.publish(b"old", priority=70)
        self.publish(b"new", priority=7)
        consumer = self.consume()
        consumer.ack(self.take(consumer, 2))

        with mock.patch.object(adapter, "TIDY_S", -10):
            self.broker.maintain()
            self.make_broker().maintain()

        self.assertEqual(self.keys(), [])

    def test_a_lane_is_kept_while_it_was_used_a_moment_ago(self):
        self.publish(b"x")
        consumer = self.consume()
        consumer.ack(self.take(consumer, 1))

        self.broker.maintain()

        self.assertEqual(len([key for key in self.keys() if b":lane:" in key]), 1)

    def test_a_lane_with_a_claimed_message_is_kept(self):
        self.publish(b"x")
        consumer = self.consume()
        delivery = self.take_one(consumer)

        with mock.patch.object(adapter, "TIDY_S", -10):
            self.broker.maintain()

        self.assert_size(0, 1)
        consumer.ack([delivery])

    def test_nothing_is_lost_while_lanes_are_deleted_and_made_again(self):
        done = threading.Event()
        seen: list[bytes] = []

        def tidy() -> None:
            broker = self.make_broker()
            broker.declare_queue(self.queue)
            while not done.is_set():
                broker.maintain()

        def work() -> None:
            consumer = self.consume()
            while not done.is_set():
                deliveries = consumer.fetch(10, timeout=0.1)
                seen.extend(bodies_of(deliveries))
                consumer.ack(deliveries)
            consumer.close()

        with mock.patch.object(adapter, "TIDY_S", -10):
            tasks = [begin(tidy), begin(work)]
            for number in range(400):
                self.publish(b"%d" % number, priority=number % 2)
            wait_until(lambda: len(seen) >= 400, "all messages")
            done.set()
            for task in tasks:
                task.result()

        self.assertEqual(sorted(map(int, seen)), list(range(400)))

    def test_who_waits_sees_a_message_in_a_lane_that_is_new(self):
        consumer = self.consume()
        self.publish(b"1", priority=1)
        consumer.ack(self.take(consumer, 1))
        waiting = begin(lambda: consumer.fetch(1, timeout=20))
        wait_until(lambda: has_blocked_client(self.redis), "the consumer to wait")
        began = time.monotonic()

        with mock.patch.object(redis_consumer, "LONGEST_READ_S", 20):
            self.publish(b"2", priority=2)

        self.assertEqual(bodies_of(waiting.result()), [b"2"])
        self.assertLess(time.monotonic() - began, 0.5)

    def test_consumers_that_are_gone_are_deleted(self):
        self.publish(b"1", b"2")
        gone = self.consume(owner="gone")
        gone.ack([self.take_one(gone)])
        holder = self.consume(owner="holder")
        self.take_one(holder)
        lane = next(key for key in self.keys() if b":lane:" in key)

        with mock.patch.object(adapter, "TIDY_S", -10):
            self.broker.maintain()

        names = [each["name"] for each in self.redis.xinfo_consumers(lane, "workers")]
        self.assertEqual(names, [b"holder"])

    def test_several_lanes_that_answer_at_once_exceed_no_limit(self):
        priorities = [3, 1, 2]
        for priority in priorities:
            self.publish(b"x", priority=priority)
        consumer = self.consume()
        consumer.ack(self.take(consumer, 3))
        lanes = [self.broker._names.lane(self.queue, priority) for priority in priorities]
        self.broker.publish(
            [Envelope("", self.queue, priority, b"%d" % priority) for priority in priorities]
        )

        found, _ = consumer._wait(1, lanes, 1.0)

        self.assertEqual(bodies_of(found), [b"1"])
        self.assert_size(2, 1)


@needs_redis
class ClaimTests(RedisCase):
    def test_a_claim_that_is_renewed_is_nobody_else_s(self):
        self.publish(b"long")
        consumer = self.consume()
        with (
            mock.patch.object(adapter, "LEASE_S", 0.3),
            mock.patch.object(redis_consumer, "RENEW_S", 0.05),
        ):
            self.take_one(consumer)
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                consumer.fetch(0, timeout=0.02)
                self.broker.maintain()

        self.assert_size(0, 1)

    def test_a_renewed_claim_does_not_count_as_a_redelivery(self):
        self.publish(b"x")
        consumer = self.consume()
        delivery = self.take_one(consumer)
        consumer._renew_at = 0
        consumer.fetch(0, timeout=0)

        consumer.put_back([delivery])

        self.assertFalse(self.take_one(consumer).redelivered)

    def test_what_went_to_a_connection_that_is_no_more_comes_again(self):
        self.publish(b"x")
        consumer = self.consume(owner="me")
        consumer.fetch(0, timeout=0)
        lane = next(key for key in self.keys() if b":lane:" in key)
        self.redis.xreadgroup("workers", "me", {lane: ">"})
        self.assert_has_nothing(consumer)

        consumer._disconnect()

        self.assertEqual(self.take_one(consumer).body, b"x")

    def test_what_was_claimed_by_a_fetch_that_failed_comes_again(self):
        self.publish(b"first")
        consumer = self.consume()
        consumer.ack(self.take(consumer, 1))
        waiting = begin(lambda: consumer.fetch(1, timeout=20))
        wait_until(lambda: has_blocked_client(self.redis), "the consumer to wait")

        with mock.patch.object(consumer, "_hear", side_effect=redis.ConnectionError("Cut.")):
            self.publish(b"x")
            self.assertRaises(BrokerUnavailable, waiting.result)

        self.assertEqual(self.take_one(consumer).body, b"x")

    def test_the_claims_of_many_dead_workers_are_swept_at_once(self):
        self.publish(*[b"x"] * 700)
        self.take(self.consume(owner="a"), 300)
        self.take(self.consume(owner="b"), 400)

        with mock.patch.object(adapter, "LEASE_S", 0), silence():
            self.broker.maintain()

        self.assert_size(700, 0)

    def test_a_large_claim_is_released_completely(self):
        self.publish(*[b"x"] * 2_300)
        deliveries = self.take(self.consume(owner="victim"), 2_300)
        done = [self.broker.receipt_text(each) or "" for each in deliveries[:1_100]]

        self.broker.release("victim", done=done)

        self.assert_size(1_200, 0)

    def test_an_entry_that_is_no_message_of_ours_is_delivered_as_it_is(self):
        self.publish(b"first")
        lane = next(key for key in self.keys() if b":lane:" in key)
        self.redis.xadd(lane, {"something": "else"})
        consumer = self.consume()

        self.assertEqual(bodies_of(self.take(consumer, 2)), [b"first", b"else"])

    def test_an_entry_that_was_deleted_under_its_owner_stops_nobody(self):
        self.publish(b"deleted", b"kept")
        self.take(self.consume(owner="victim"), 2)
        lane = next(key for key in self.keys() if b":lane:" in key)
        entry_id, _ = self.redis.xrange(lane, count=1)[0]
        self.redis.xdel(lane, entry_id)
        self.broker.release("victim", done=())

        consumer = self.consume()

        self.assertEqual(bodies_of(self.take(consumer, 1)), [b"kept"])
        self.assert_has_nothing(consumer)
        self.assert_size(0, 1)


@needs_redis
class OutageTests(RedisCase):
    def fetch_through_errors(self, consumer: Consumer) -> list[bytes]:
        """Fetch as a worker does, which tries again after an error."""
        found: list[bytes] = []

        def fetch() -> bool:
            try:
                found.extend(bodies_of(consumer.fetch(10, timeout=0.2)))
            except BrokerUnavailable:
                return False
            return bool(found)

        wait_until(fetch, "a message")
        return found

    def test_a_consumer_comes_back_by_itself(self):
        proxy, broker = self.proxied()
        consumer = self.consume(broker=broker)
        self.assert_has_nothing(consumer)

        proxy.refuse()
        self.assertRaises(BrokerUnavailable, consumer.fetch, 1, timeout=1)
        self.publish(b"x")
        proxy.accept()

        self.assertEqual(self.fetch_through_errors(consumer), [b"x"])

    def test_a_consumer_notices_a_connection_without_life(self):
        proxy, broker = self.proxied()
        consumer = self.consume(broker=broker)
        self.assert_has_nothing(consumer)
        began = time.monotonic()

        proxy.stall()
        with self.assertRaises(BrokerUnavailable):
            while True:
                consumer.fetch(1, timeout=1.0)

        self.assertLess(time.monotonic() - began, 2 * redis_consumer.RENEW_S)
        self.publish(b"x")
        proxy.cut()
        proxy.resume()
        self.assertEqual(self.fetch_through_errors(consumer), [b"x"])

    def test_an_acknowledgement_can_be_repeated_after_an_outage(self):
        proxy, broker = self.proxied()
        self.publish(b"x")
        consumer = self.consume(broker=broker)
        deliveries = self.take(consumer, 1)

        proxy.refuse()
        self.assertRaises(BrokerUnavailable, consumer.ack, deliveries)
        proxy.accept()
        consumer.ack(deliveries)

        self.assert_size(0, 0)

    def test_an_outage_in_the_middle_of_the_maintenance_is_an_error(self):
        proxy, broker = self.proxied()
        self.publish(b"x")
        broker.maintain()

        for script in (scripts.SWEEP, scripts.TIDY, scripts.RELEASE, scripts.FLUSH):
            broken = mock.patch.object(script, "run", side_effect=redis.ConnectionError("Cut."))
            with broken, self.assertRaises(BrokerUnavailable):
                broker.maintain()
                broker.release("o", done=())
                broker.flush(self.queue)

    def test_a_consumer_survives_that_all_keys_are_deleted(self):
        self.publish(b"x", b"y")
        consumer = self.consume()
        delivery = self.take_one(consumer)

        self.erase_keys()

        consumer.ack([delivery])
        self.assert_has_nothing(consumer)
        self.publish(b"z")
        self.assertEqual(self.take_one(consumer).body, b"z")

    def test_who_waits_survives_that_all_keys_are_deleted(self):
        self.publish(b"x")
        consumer = self.consume()
        consumer.ack(self.take(consumer, 1))
        waiting = begin(lambda: self.fetch_through_errors(consumer))

        for _ in range(20):
            self.erase_keys()
            time.sleep(0.01)
        self.publish(b"y")

        self.assertEqual(waiting.result(), [b"y"])

    def test_a_slow_server_is_only_slow(self):
        proxy, broker = self.proxied()
        proxy.slow(0.1)

        self.publish(*[b"%d" % number for number in range(100)], broker=broker)
        consumer = self.consume(broker=broker)
        deliveries = self.take(consumer, 100)
        consumer.ack(deliveries)

        self.assert_size(0, 0)

    def test_reconnecting_leaves_no_thread_and_no_socket_behind(self):
        proxy, broker = self.proxied()
        consumer = self.consume(broker=broker)

        def reconnect(times: int) -> None:
            for _ in range(times):
                proxy.cut()
                with silence():
                    self.publish(b"x", broker=broker)
                    consumer.ack(self.take_through_errors(consumer, 1))

        def wait_in_vain() -> bool:
            # For that it has all of its connections; to find something it needs fewer.
            with suppress(BrokerUnavailable):
                return not consumer.fetch(1, timeout=0.01)
            return False

        reconnect(5)
        wait_until(wait_in_vain)
        gc.collect()
        before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
        reconnect(RECONNECTS)
        wait_until(wait_in_vain)
        gc.collect()

        wait_until(
            lambda: (
                threading.active_count() < before[0] + RECONNECTS / 2
                and len(os.listdir("/proc/self/fd")) < before[1] + RECONNECTS / 2
            ),
            "the threads and sockets to be as many as before",
        )

    def take_through_errors(self, consumer: Consumer, count: int, **options: Any) -> Any:
        found: list[Any] = []

        def fetch() -> bool:
            try:
                found.extend(consumer.fetch(count, timeout=0.2))
            except BrokerUnavailable:
                return False
            return bool(found)

        wait_until(fetch, "a message")
        return found
