"""
The RabbitMQ broker: durable quorum queues, one for each queue and priority in use.

Every message is persistent, confirmed and mandatory: when ``publish()`` returns, RabbitMQ has
it. What was claimed and not acknowledged RabbitMQ delivers again by itself, as soon as the
connection of a worker is gone. Publishing and consuming use separate connections.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from django_actors.delivery import Delivery, Reason
from django_actors.errors import BrokerError, BrokerUnavailable, DecodeError, UntrustedMessage
from django_actors.message import Envelope
from django_actors.redaction import redact
from django_actors.rows import build_delivery_row
from django_actors.signing import unseal

from .base import Broker, QueueSize
from .concerns import Concern
from .rabbitmq_concerns import concerns_of_place, concerns_of_server
from .rabbitmq_consumer import RabbitmqConsumer
from .rabbitmq_desk import DIRECT_REPLY, Desk, Found, Visit
from .rabbitmq_options import Target, build_target
from .rabbitmq_parking import parking_owner
from .rabbitmq_publisher import Publisher
from .rabbitmq_topology import LaneBook, LaneKey, Topology

logger = logging.getLogger(__name__)

# How long the workers may take to say what they hold.
CENSUS_S = 1.0

# How many of RabbitMQ's own dead letters are swept at once.
SWEEP = 100

_living: weakref.WeakSet[RabbitmqConsumer] = weakref.WeakSet()
_living_lock = threading.Lock()
_brokers: weakref.WeakSet[RabbitmqBroker] = weakref.WeakSet()


class RabbitmqBroker(Broker):
    """
    A broker that keeps its queues on RabbitMQ.

    Args:
        url: ``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS; several, separated by
            ``;`` or in a list, are the servers of one cluster.

        queue_type: ``quorum`` or ``classic``.

        namespace: The prefix of all names on the server, if it is not the setting ``NAMESPACE``.

        send_timeout: Milliseconds without a confirmation after which a send fails.

        consumer_timeout: The ``consumer_timeout`` of the server in milliseconds, if it is not the
            default of 30 minutes.

        middleware: See ``Broker``.

        options: ``host``, ``port``, ``virtual_host``, ``credentials`` or ``parameters`` (one or
            several of pika's) in the place of a URL; and pika's other connection parameters, such
            as ``heartbeat``, ``connection_attempts``, ``blocked_connection_timeout`` and
            ``ssl_options``. All but the first four may stand in the URL's query.
    """

    tells_origin = True

    def __init__(
        self,
        url: str | Iterable[str] | None = None,
        *,
        middleware: Iterable[Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(middleware=middleware)
        self.target: Target = build_target(url, **options)
        self.topology = Topology(self.target.queue_type, self.target.namespace)
        self.lanes = LaneBook(self.waiting_room, self.topology)
        self._open_doors()
        _brokers.add(self)
        _hush_pika()

    def _open_doors(self) -> None:
        """Set up what belongs to this process; a forked child must not use its parent's."""
        self.publisher = Publisher(self.target, self.topology)
        self.desk = Desk(self.target)

    @property
    def process(self) -> str:
        """What this process is called among those that share the queues."""
        return process_name()

    # ---- publishing ------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        publisher = self.publisher
        for key in self.lanes.add({_key(each) for each in envelopes}):
            publisher.announce(json.dumps({"lane": key}).encode())
        name = self.topology.lane_name
        publisher.send([(name(_key(each)), each) for each in envelopes])

    # ---- consuming -------------------------------------------------------------

    def consume(self, queue_names: Collection[str], *, owner: str) -> RabbitmqConsumer:
        consumer = RabbitmqConsumer(self, queue_names, owner)
        with _living_lock:
            _living.add(consumer)
        return consumer

    def forget_consumer(self, consumer: RabbitmqConsumer) -> None:
        """Count a consumer no longer that was closed."""
        with _living_lock:
            _living.discard(consumer)

    def release(self, owner: str, *, done: Collection[str]) -> None:
        """
        Give back what a dead *owner* had parked; the rest RabbitMQ has given back already.

        What is *done* cannot be acknowledged: the connection that could is gone. It runs again.
        """
        self.ping()
        self.waiting_room.release(parking_owner(owner))

    # ---- questions -------------------------------------------------------------

    def queue_size(self, queue_name: str) -> QueueSize:
        """
        Return how many messages of a queue are ready, and how many are claimed.

        RabbitMQ tells only the first number; the workers are asked for the second. One that does
        not answer counts as one claimed message.
        """
        keys = self.lanes.find([queue_name])
        if not keys:
            return QueueSize(0, 0)
        with self.desk.visit() as visit:
            here, there = self._sizes_here(queue_name), self._sizes_there(visit, queue_name)
            # Asked last: what is put back meanwhile is seen twice, not never.
            ready = sum(self._count(visit, key) for key in keys)
        return QueueSize(ready + here.ready + there.ready, here.claimed + there.claimed)

    def count_ready(self, queue_name: str) -> int:
        # Asks no other worker: one that asks cannot answer, so two would wait for each other.
        with self.desk.visit() as visit:
            there = sum(self._count(visit, key) for key in self.lanes.find([queue_name]))
        return there + self._sizes_here(queue_name).ready

    def _count(self, visit: Visit, key: LaneKey) -> int:
        answer = visit.call("queue_declare", queue=self.topology.lane_name(key), passive=True)
        return answer.message_count if answer else 0

    def _neighbors(self) -> list[RabbitmqConsumer]:
        with _living_lock:
            return [each for each in _living if each.is_connected and each.place == self.place]

    @property
    def place(self) -> tuple[str, str]:
        """What brokers have in common that share their queues."""
        return self.target.place, self.topology.namespace

    def _sizes_here(self, queue_name: str) -> QueueSize:
        sizes = [each.sizes().get(queue_name, QueueSize(0, 0)) for each in self._neighbors()]
        return _sum(sizes)

    def _sizes_there(self, visit: Visit, queue_name: str) -> QueueSize:
        """Ask the consumers of all other processes."""
        topology = self.topology
        roll = visit.call("queue_declare", queue=topology.roll_name, passive=True)
        expected = (roll.consumer_count if roll else 0) - len(self._neighbors())
        if expected <= 0:
            return QueueSize(0, 0)
        sizes: list[QueueSize] = []

        def hear(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            sizes.append(QueueSize(*json.loads(body)["sizes"].get(queue_name, (0, 0))))

        visit.call("basic_consume", queue=DIRECT_REPLY, on_message_callback=hear, auto_ack=True)
        visit.ask_all(topology.control_name, json.dumps({"census": self.process}).encode())
        visit.wait(lambda: len(sizes) >= expected, CENSUS_S)
        silent = max(0, expected - len(sizes))
        return _sum([*sizes, QueueSize(0, silent)])

    def flush(self, queue_name: str) -> None:
        with self.desk.visit() as visit:
            for key in self.lanes.find([queue_name]):
                visit.call("queue_purge", queue=self.topology.lane_name(key))

    def ping(self) -> None:
        with self.desk.visit() as visit:
            visit.call("basic_qos", prefetch_count=1)

    def concerns(self) -> Iterator[Concern]:
        yield from concerns_of_place(self.target)
        try:
            keys = self.lanes.find_all()
        except BrokerUnavailable:
            # Before the first migrate there is no table, and no queue.
            keys = set()
        yield from concerns_of_server(self.desk, self.topology, keys)

    # ---- what RabbitMQ gave up -------------------------------------------------

    def maintain(self) -> None:
        """Move what RabbitMQ itself has dead-lettered to the waiting room."""
        with self.desk.visit() as visit:
            name = self.topology.dead_name
            answer = visit.call("queue_declare", queue=name, passive=True)
            for _ in range(min(SWEEP, answer.message_count if answer else 0)):
                found = visit.get(name)
                if found is None:
                    return
                self._bury(found)
                visit.channel.basic_ack(found.tag)
            visit.flush()

    def _bury(self, found: Found) -> None:
        why, key = self._death(found)
        delivery = Delivery(found.body, queue_name=key.queue_name, priority=key.priority)
        delivery.fail(Reason.GIVEN_UP)
        delivery.exception = BrokerError(f"RabbitMQ gave the message up: {why}.")
        try:
            delivery.message = unseal(found.body)
        except (DecodeError, UntrustedMessage) as error:
            delivery.exception = error
        if delivery.message and self.waiting_room.find_settled([delivery.message_id]):
            return
        logger.error("Buried message %s: %s", redact(delivery.message), delivery.exception)
        self.waiting_room.put([build_delivery_row(delivery)])

    def _death(self, found: Found) -> tuple[str, LaneKey]:
        """Return why a message was given up, and where it was."""
        headers = found.properties.headers or {}
        deaths = headers.get("x-death") or [{}]
        queue = str(deaths[0].get("queue", ""))
        why = f"{deaths[0].get('reason', 'for no reason it tells')} in queue {queue!r}"
        return why, self.topology.key_of(queue) or LaneKey(0, queue)

    # ---- the end ---------------------------------------------------------------

    def delete_queues(self) -> None:
        """Delete everything of this namespace on the server; for tests, and for moving away."""
        names = [self.topology.lane_name(key) for key in self.lanes.find_all()]
        with self.desk.visit() as visit:
            for name in (*names, self.topology.dead_name, self.topology.roll_name):
                visit.call("queue_delete", queue=name)
            visit.call("exchange_delete", exchange=self.topology.control_name)
        self.lanes.forget_all()

    def close(self) -> None:
        self.publisher.close()
        self.desk.close()


def _part_from_parent() -> None:
    # At once, and not by the first thread that sends: others may send at the same time.
    for broker in tuple(_brokers):
        broker._open_doors()


os.register_at_fork(after_in_child=_part_from_parent)

_names: dict[int, str] = {}


def process_name() -> str:
    """Return a name of this process that no other has."""
    # By process id: a forked child has its parent's memory.
    return _names.setdefault(os.getpid(), f"{os.getpid()}.{os.urandom(6).hex()}")


def _key(envelope: Envelope) -> LaneKey:
    return LaneKey(envelope.priority, envelope.queue_name)


def _sum(sizes: Iterable[QueueSize]) -> QueueSize:
    ready, claimed = 0, 0
    for size in sizes:
        ready += size.ready
        claimed += size.claimed
    return QueueSize(ready, claimed)


def _hush_pika() -> None:
    """Keep pika from logging several errors for each attempt; the engine logs one for all."""
    pika_logger = logging.getLogger("pika")
    if pika_logger.level == logging.NOTSET:
        pika_logger.setLevel(logging.CRITICAL)
