"""The raw clients: a queue on each server with nothing around it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import pika
import psycopg
import redis

from . import _servers

Fetched = list[tuple[Any, bytes]]


class Floor(Protocol):
    def prepare(self) -> None:
        """Leave an empty queue."""

    def send(self, bodies: Sequence[bytes]) -> None:
        """Have them stored when it returns."""

    def fetch(self, limit: int) -> Fetched:
        """Claim some; return at once if there are none."""

    def settle(self, receipts: Sequence[Any]) -> None:
        """Remove what is done."""


class RedisFloor:
    KEY = GROUP = "floor"

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.owner = str(os.getpid())

    def prepare(self) -> None:
        _servers.empty_redis()
        self.client.xgroup_create(self.KEY, self.GROUP, id="0", mkstream=True)

    def send(self, bodies: Sequence[bytes]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd(self.KEY, {"body": body})
        pipeline.execute()

    def fetch(self, limit: int) -> Fetched:
        streams: Any = self.client.xreadgroup(self.GROUP, self.owner, {self.KEY: ">"}, count=limit)
        entries = streams.values() if isinstance(streams, dict) else [s[1] for s in streams or []]
        found: Fetched = []
        for each in entries:
            # RESP3 wraps the entries of a stream once more.
            rows = each[0] if each and isinstance(each[0], list) else each
            found += [(key, fields[b"body"]) for key, fields in rows]
        return found

    def settle(self, receipts: Sequence[Any]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        pipeline.xack(self.KEY, self.GROUP, *receipts)
        pipeline.xdel(self.KEY, *receipts)
        pipeline.execute()


class RabbitmqFloor:
    QUEUE = "benchmark.floor"
    AHEAD = 200

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.arrived: Fetched = []
        self.consuming = False
        self.sent = 0
        self.unconfirmed: set[int] = set()
        self.settled: set[int] = set()
        self.lowest = 1

    def prepare(self) -> None:
        _servers.delete_queues()
        self._declare()

    def _declare(self) -> None:
        arguments = {"x-queue-type": "quorum"}
        self.channel.queue_declare(self.QUEUE, durable=True, arguments=arguments)

    def send(self, bodies: Sequence[bytes]) -> None:
        channel = self.batches if len(bodies) > 1 else self.singles
        properties = pika.BasicProperties(delivery_mode=2)
        if len(bodies) > 1:
            # Noted first: confirmations come while the rest is being published.
            self.unconfirmed = set(range(self.sent + 1, self.sent + len(bodies) + 1))
            self.sent += len(bodies)
        for body in bodies:
            # One alone waits here for its confirmation; those of a batch are awaited together.
            channel.basic_publish("", self.QUEUE, body, properties, mandatory=True)
        while self.unconfirmed:
            # Without a limit it would wait for more than what the callback is told.
            self.connection.process_data_events(time_limit=0.001)

    @cached_property
    def singles(self) -> Any:
        channel = self.connection.channel()
        channel.confirm_delivery()
        return channel

    @cached_property
    def batches(self) -> Any:
        channel = self.connection.channel()
        # What BlockingChannel does not offer: to publish on while confirmations are under way.
        channel._impl.confirm_delivery(self._note_confirmed)
        return channel

    def _note_confirmed(self, frame: Any) -> None:
        if not isinstance(frame.method, pika.spec.Basic.Ack):
            raise RuntimeError("RabbitMQ refused a message")
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            self.unconfirmed = {each for each in self.unconfirmed if each > tag}
        else:
            self.unconfirmed.discard(tag)

    def fetch(self, limit: int) -> Fetched:
        if not self.consuming:
            self._declare()
            self.channel.basic_qos(prefetch_count=self.AHEAD)
            self.channel.basic_consume(self.QUEUE, self._take)
            self.consuming = True
        self.connection.process_data_events(time_limit=0.001)
        arrived, self.arrived = self.arrived, []
        return arrived

    def _take(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self.arrived.append((method.delivery_tag, body))

    def settle(self, receipts: Sequence[Any]) -> None:
        self.settled.update(receipts)
        first = self.lowest
        while self.lowest in self.settled:
            self.settled.remove(self.lowest)
            self.lowest += 1
        if self.lowest > first:
            self.channel.basic_ack(self.lowest - 1, multiple=True)


class PostgresqlFloor:
    CLAIM = """
        UPDATE floor SET claimed_by = %s WHERE id IN (
            SELECT id FROM floor WHERE claimed_by = '' ORDER BY id LIMIT %s
            FOR UPDATE SKIP LOCKED)
        RETURNING id, body
    """

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.owner = str(os.getpid())

    def prepare(self) -> None:
        self.connection.execute("DROP TABLE IF EXISTS floor")
        self.connection.execute(
            "CREATE TABLE floor (id bigserial PRIMARY KEY, claimed_by text NOT NULL, body bytea)"
        )
        self.connection.execute("CREATE INDEX ON floor (id) WHERE claimed_by = ''")

    def send(self, bodies: Sequence[bytes]) -> None:
        statement = "INSERT INTO floor (claimed_by, body) SELECT '', unnest(%s::bytea[])"
        self.connection.execute(statement, [list(bodies)])

    def fetch(self, limit: int) -> Fetched:
        rows = self.connection.execute(self.CLAIM, [self.owner, limit], prepare=True)
        return [(key, bytes(body)) for key, body in rows]

    def settle(self, receipts: Sequence[Any]) -> None:
        statement = "DELETE FROM floor WHERE id = ANY(%s)"
        self.connection.execute(statement, [list(receipts)], prepare=True)


class SqliteFloor:
    CLAIM = """
        UPDATE floor SET claimed_by = ? WHERE id IN (
            SELECT id FROM floor WHERE claimed_by = '' ORDER BY id LIMIT ?)
        RETURNING id, body
    """

    def __init__(self, url: str) -> None:
        file = url.removeprefix("sqlite:///")
        self.connection = sqlite3.connect(file, timeout=20, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.owner = str(os.getpid())

    def prepare(self) -> None:
        self.connection.execute("DROP TABLE IF EXISTS floor")
        self.connection.execute(
            "CREATE TABLE floor (id INTEGER PRIMARY KEY, claimed_by text NOT NULL, body blob)"
        )
        self.connection.execute("CREATE INDEX ready ON floor (id) WHERE claimed_by = ''")

    def send(self, bodies: Sequence[bytes]) -> None:
        rows = ", ".join(["('', ?)"] * len(bodies))
        self.connection.execute(f"INSERT INTO floor (claimed_by, body) VALUES {rows}", bodies)

    def fetch(self, limit: int) -> Fetched:
        return self.connection.execute(self.CLAIM, [self.owner, limit]).fetchall()

    def settle(self, receipts: Sequence[Any]) -> None:
        marks = ", ".join("?" * len(receipts))
        self.connection.execute(f"DELETE FROM floor WHERE id IN ({marks})", receipts)


FLOORS: dict[str, Callable[[str], Floor]] = {
    "redis": RedisFloor,
    "amqp": RabbitmqFloor,
    "postgres": PostgresqlFloor,
    "sqlite": SqliteFloor,
}
