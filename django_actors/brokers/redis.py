"""
The Redis broker: ready messages are entries of streams, one for each queue and priority.

Claims are the pending entries of a consumer group, acknowledged and deleted in batches. What a
worker holds it renews; what nobody has renewed for ``LEASE_S`` is given back.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from django_actors.conf import settings
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.message import Envelope

from .base import Broker, QueueSize
from .concerns import Concern, unchecked
from .redis_connection import Link, Server, as_broker_errors, check_version
from .redis_consumer import RedisConsumer
from .redis_place import (
    PLACE_ARGUMENTS,
    Place,
    place_from_arguments,
    place_from_url,
    place_of_client,
)
from .redis_publication import Entry, Publication
from .redis_scripts import (
    FLUSH,
    OLDEST,
    RELEASE,
    SIZE,
    SWEEP,
    TIDY,
    Lane,
    Names,
)

logger = logging.getLogger(__name__)

LEASE_S = 30.0

# An empty lane, and a consumer nobody heard of, are kept for so long.
TIDY_S = 60.0

# How many seconds two clocks may differ before it is worth a warning.
TOLERATED_SKEW_S = 5

# So many claims a script deals with at once.
_PAGE = 1_000


class RedisBroker(Broker):
    """
    A broker on Redis 6.2 or newer, or Valkey: one server, a Cluster, or watched by Sentinels.

    Args:
        url: ``redis://``, ``rediss://`` or ``redis+sentinel://``, with options of redis-py's
            connections as its query, and ``cluster=true``.

        client: A client of redis-py to connect as; itself it is not used.

        namespace: Prefix of all keys; the setting ``NAMESPACE`` where it is ``None``.

        middleware: See ``Broker``.

        options: Arguments of redis-py's connections, such as ``host`` and ``port``.

    Raises:
        ValueError: a URL is given together with what says the same, or redis-py does not take
            the value of an option.

        TypeError: redis-py does not know an option.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        namespace: str | None = None,
        middleware: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(middleware=middleware)
        place = _place(url, client, options)
        namespace = namespace or place.namespace or settings.NAMESPACE
        try:
            self._server = Server(place)
        except RedisError as error:
            raise ValueError(f"redis-py does not take an option: {error}") from error
        self._names = Names(namespace)

    tells_origin = True

    # ---- publishing ------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        if envelopes:
            token = os.urandom(9)
            entries = [
                Entry(
                    self._names.lane(each.queue_name, each.priority),
                    each.body,
                    token + b"%d" % number,
                    each.origin,
                )
                for number, each in enumerate(envelopes)
            ]
            Publication(self._server, self._names, entries).run()

    # ---- claims ----------------------------------------------------------------

    def consume(self, queue_names: Collection[str], *, owner: str) -> RedisConsumer:
        return RedisConsumer(self._server, self._names, queue_names, owner)

    def receipt_text(self, delivery: Delivery) -> str | None:
        lane, entry_id = delivery.receipt
        return f"{entry_id.decode()}@{lane.digest}"

    def release(self, owner: str, *, done: Collection[str]) -> None:
        receipts: defaultdict[str, list[str]] = defaultdict(list)
        for text in done:
            entry_id, _, digest = text.partition("@")
            receipts[digest].append(entry_id)
        with as_broker_errors(self._server):
            for link, lane in self._each_lane():
                ids = receipts.get(lane.digest, ())
                while RELEASE.run(link, (lane.key,), owner, self._names.bell, *ids) == _PAGE:
                    continue

    def maintain(self) -> None:
        """Give back what nobody has renewed for long, and delete what nobody uses."""
        given_back = 0
        with as_broker_errors(self._server):
            for link, lane in self._each_lane():
                given_back += self._sweep(link, lane)
                patience_ms = int(TIDY_S * 1_000)
                TIDY.run(link, (lane.register, lane.key), lane.priority, patience_ms)
            self._forget_queues()
        if given_back:
            logger.warning("Gave back %d messages of workers that are gone", given_back)

    def _forget_queues(self) -> None:
        """Forget the names of queues that have no lane and that this process does not know."""
        for queue_name in self._used_queues() - self.get_declared_queues():
            register = self._names.register(queue_name)
            with self._server.borrowed(register) as link:
                if link.call("EXISTS", register):
                    continue
            with self._server.borrowed(self._names.queues) as link:
                link.call("SREM", self._names.queues, queue_name)

    def _sweep(self, link: Link, lane: Lane) -> int:
        given_back, start = 0, b"-"
        while start:
            idle_ms = int(LEASE_S * 1_000)
            count, start = SWEEP.run(link, (lane.key,), self._names.bell, idle_ms, start)
            given_back += count
        return given_back

    def _each_lane(self) -> Iterator[tuple[Link, Lane]]:
        """Yield the lanes of all queues, each with a connection to its server."""
        for queue_name in sorted(self.get_declared_queues() | self._used_queues()):
            yield from self._lanes_of(queue_name)

    def _used_queues(self) -> set[str]:
        # Other code may have other queues; what its dead workers left is everybody's to find.
        key = self._names.queues
        with self._server.borrowed(key) as link:
            return {name.decode() for name in link.call("SMEMBERS", key)}

    def _lanes_of(self, queue_name: str) -> Iterator[tuple[Link, Lane]]:
        register = self._names.register(queue_name)
        with self._server.borrowed(register) as link:
            for priority in link.call("ZRANGE", register, 0, -1):
                yield link, self._names.lane(queue_name, int(priority))

    # ---- queues ----------------------------------------------------------------

    def queue_size(self, queue_name: str) -> QueueSize:
        register = self._names.register(queue_name)
        with as_broker_errors(self._server), self._server.borrowed(register) as link:
            return QueueSize(*SIZE.run(link, (register,)))

    def oldest_ready(self, queue_names: Collection[str]) -> dict[str, int]:
        oldest: dict[str, int] = {}
        with as_broker_errors(self._server):
            for name in queue_names:
                register = self._names.register(name)
                with self._server.borrowed(register) as link:
                    found = OLDEST.run(link, (register,))
                if found is not None:
                    oldest[name] = int(found)
        return oldest

    def flush(self, queue_name: str) -> None:
        with as_broker_errors(self._server):
            self._flush(queue_name)

    def _flush(self, queue_name: str) -> None:
        for link, lane in self._lanes_of(queue_name):
            while FLUSH.run(link, (lane.register, lane.key), lane.priority):
                continue

    # ---- the server ------------------------------------------------------------

    def ping(self) -> None:
        with as_broker_errors(self._server), self._server.borrowed(b"") as link:
            link.call("PING")
            check_version(self._server.info("server", link.node), self._server.place)

    def close(self) -> None:
        self._server.close()

    def concerns(self) -> Iterator[Concern]:
        place = self._server.place
        if not place.is_encrypted and not place.is_local:
            yield Concern(
                "W101",
                f"Messages travel to Redis at {place} as plain text.",
                "Use rediss:// in the URL, or be sure that nobody can listen in between.",
            )
        try:
            with as_broker_errors(self._server):
                yield from self._concerns_of_server()
        except BrokerUnavailable as error:
            yield unchecked(error, id_too_old="W104")

    def _concerns_of_server(self) -> Iterator[Concern]:
        with self._server.borrowed(b"") as link:
            policy = self._server.info("memory", link.node).get("maxmemory_policy", "noeviction")
            seconds, _ = link.call("TIME")
        if policy != "noeviction":
            yield Concern(
                "W102",
                f"Redis at {self._server.place} has the maxmemory-policy {policy!r}: when its "
                "memory is full, it may throw messages away.",
                "Set maxmemory-policy to noeviction, or use another server for messages.",
            )
        skew_s = abs(time.time() - int(seconds))
        if skew_s > TOLERATED_SKEW_S:
            yield Concern(
                "W103",
                f"The clock of Redis at {self._server.place} differs by {skew_s:.0f} seconds.",
                "Have both follow a time server: ages and due times are told by several clocks.",
            )


def _place(url: str | None, client: Any, options: Mapping[str, Any]) -> Place:
    given = [name for name in PLACE_ARGUMENTS if name in options]
    if client is not None:
        given.append("client")
    if url and given:
        raise ValueError(
            f"RedisBroker was given a url, and {', '.join(given)} beside it. Put it all into the "
            "url, or leave that out."
        )
    if client is not None and options:
        raise ValueError(
            f"RedisBroker was given a client, and {', '.join(options)} beside it, which the "
            "client says already."
        )
    if url:
        return place_from_url(url, options)
    return place_of_client(client) if client is not None else place_from_arguments(options)
