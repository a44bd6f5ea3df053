"""
A worker's reader of some queues on Redis.

It claims with a script that knows all lanes, and where that finds nothing it waits in a
blocking read, which it can call off at any moment. A bell (a channel) tells it of what a
blocking read does not see: new lanes, and messages that were given back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from django_actors.delivery import Delivery
from django_actors.message import Origin
from django_actors.wakeup import Alarm

from .consumer import Consumer
from .redis_connection import Link, Server, as_broker_errors
from .redis_scripts import ACK, CLAIM, GROUP, PEEK, PUT_BACK, RENEW, Lane, Names, Script

RENEW_S = 5.0

# The longest a server goes on with a read whose reader may be gone.
LONGEST_READ_S = 1.0

# A script takes no more arguments than this.
CHUNK = 1_000

_EVERYTHING = b"+inf"

_ORIGINS = tuple(Origin)


class Read:
    """A blocking read that is under way on a connection of its own."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._client_id: int | None = None

    def start(self, owner: str, lanes: Sequence[Lane], *, count: int, seconds: float) -> None:
        """Claim *count* messages of each lane at most, as soon as there is one."""
        if not self.link.is_open or self._client_id is None:
            self.link.close()
            self._client_id = self.link.call("CLIENT", "ID")
        keys = [lane.key for lane in lanes]
        milliseconds = max(1, int(seconds * 1_000))
        self.link.send(
            *("XREADGROUP", "GROUP", GROUP, owner, "COUNT", count, "BLOCK", milliseconds),
            *("STREAMS", *keys, *[b">"] * len(keys)),
        )

    def finish(self, commands: Link) -> list[Any]:
        """Call the read off if nothing has come, and return what it brought."""
        if not self.link.has_news():
            commands.call("CLIENT", "UNBLOCK", self._client_id)
        try:
            return self.link.receive() or []
        except ResponseError as error:
            # A lane that was deleted: the next look makes up a new list.
            if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                return []
            raise


class RedisConsumer(Consumer):
    """A reader of some queues of a ``RedisBroker``; its claims are its owner's."""

    def __init__(
        self, server: Server, names: Names, queue_names: Collection[str], owner: str
    ) -> None:
        self._server = server
        self._names = names
        self._owner = owner
        self._queues = sorted(queue_names)
        self._alarm = Alarm()
        self._woken = False
        self._links: dict[Any, Link] = {}
        self._reads: dict[tuple[str, ...], Read] = {}
        self._bell: Link | None = None
        self._held: defaultdict[Lane, set[bytes]] = defaultdict(set)
        self._fresh: list[Delivery] = []
        self._renew_at = 0.0
        self._is_closed = False

    def set_queues(self, queue_names: Collection[str]) -> None:
        self._queues = sorted(queue_names)
        self._disconnect()

    def wake(self) -> None:
        # Set first: whoever is woken by the alarm must find it.
        self._woken = True
        self._alarm.ring()

    def fetch(
        self, limit: int, *, timeout: float, below_priority: int | None = None
    ) -> list[Delivery]:
        self._fresh = []
        try:
            with as_broker_errors(self._server):
                self._renew_claims()
                if limit <= 0 or not self._queues:
                    self._alarm.sleep(timeout)
                    self._woken = False
                    return []
                below = _EVERYTHING if below_priority is None else b"(%d" % below_priority
                return self._fetch(limit, timeout, below)
        except BaseException:
            # Nobody will ever run what was claimed just before: it must not be renewed.
            for delivery in self._fresh:
                lane, entry_id = delivery.receipt
                self._held[lane].discard(entry_id)
            self._disconnect()
            raise

    def _fetch(self, limit: int, timeout: float, below: bytes) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        while True:
            found, lanes = self._look(limit, below)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            found, is_over = self._wait(limit, lanes, left)
            if found or is_over:
                return found

    # ---- looking ---------------------------------------------------------------

    def _groups(self) -> list[list[str]]:
        """Return the queues that one command can name: all, or in a Cluster each by itself."""
        # Of equally urgent messages, those of another queue come first the next time.
        queues = self._queues = [*self._queues[1:], self._queues[0]]
        return [[queue] for queue in queues] if self._server.is_cluster else [queues]

    def _look(self, limit: int, below: bytes) -> tuple[list[Delivery], list[Lane]]:
        groups = self._groups()
        if len(groups) == 1:
            return self._claim(groups[0], limit, below)
        return self._claim_across(groups, limit, below)

    def _claim(
        self, queues: Sequence[str], limit: int, below: bytes
    ) -> tuple[list[Delivery], list[Lane]]:
        began = time.monotonic()
        claimed, waits = self._run(CLAIM, queues, self._owner, limit, below)
        self.note_round_trip(time.monotonic() - began)
        found: list[Delivery] = []
        for position, priority, entries in claimed:
            lane = self._names.lane(queues[position - 1], int(priority))
            found += self._deliveries(lane, entries)
        lanes = [
            self._names.lane(queues[position - 1], int(priority))
            for position, priority in zip(waits[::2], waits[1::2], strict=True)
        ]
        return found, lanes

    def _claim_across(
        self, groups: Sequence[list[str]], limit: int, below: bytes
    ) -> tuple[list[Delivery], list[Lane]]:
        """Claim where no command sees all queues: from the most urgent one, as far as it is."""
        heads = self._heads(groups, below)
        found: list[Delivery] = []
        lanes: list[Lane] = []
        while heads and len(found) < limit:
            best = min(heads, key=lambda index: heads[index])
            others = [head for index, head in heads.items() if index != best]
            bound = b"(%d" % (min(others) + 1) if others else below
            taken, _ = self._claim(groups[best], limit - len(found), bound)
            found += taken
            del heads[best]
            if taken and others:
                heads.update(self._heads(groups, below, [best]))
        if not found:
            for group in groups:
                taken, waits = self._claim(group, limit - len(found), below)
                found += taken
                lanes += waits
                if len(found) >= limit:
                    break
        return found, lanes

    def _heads(
        self, groups: Sequence[list[str]], below: bytes, which: Iterable[int] | None = None
    ) -> dict[int, int]:
        """Return the best priority that is ready in each group that has anything."""
        heads = {}
        for index in range(len(groups)) if which is None else which:
            priority = self._run(PEEK, groups[index], below)
            if priority is not None:
                heads[index] = int(priority)
        return heads

    def _deliveries(self, lane: Lane, entries: Sequence[Any]) -> list[Delivery]:
        self._held[lane].update(entries[::3])
        deliveries = [
            Delivery(
                body,
                queue_name=lane.queue_name,
                priority=lane.priority,
                receipt=(lane, entry_id),
                redelivered=bool(flags & 1),
                origin=_ORIGINS[flags >> 1],
            )
            for entry_id, flags, body in zip(
                entries[::3], entries[1::3], entries[2::3], strict=True
            )
        ]
        self._fresh += deliveries
        return deliveries

    # ---- waiting ---------------------------------------------------------------

    def _wait(
        self, limit: int, lanes: Sequence[Lane], seconds: float
    ) -> tuple[list[Delivery], bool]:
        """
        Wait for a message, the bell, the alarm or the end of the time.

        Returns:
            What came, and whether the wait is over; if it is not, another look is due.
        """
        bell = self._open_bell()
        if self._woken:
            self._alarm.sleep(0)
            self._woken = False
            return [], True
        seconds = min(seconds, LONGEST_READ_S)
        reads = self._start_reads(limit, lanes, seconds)
        sockets = [bell.fileno(), *(read.link.fileno() for read in reads)]
        self._alarm.sleep(seconds, *sockets)
        found = self._finish_reads(reads)
        self._hear(bell)
        is_over, self._woken = self._woken, False
        if len(found) > limit:
            # Several lanes answered at once. The least urgent go back to where they were.
            found.sort(key=lambda delivery: delivery.priority)
            self._put_back(found[limit:])
        return found[:limit], is_over

    def _start_reads(self, limit: int, lanes: Sequence[Lane], seconds: float) -> list[Read]:
        reads = []
        for group in self._groups() if lanes else []:
            chosen = [lane for lane in lanes if lane.queue_name in group]
            if chosen:
                read = self._read_of(tuple(sorted(group)))
                # Each lane may answer: together they must not exceed the limit by much.
                count = max(1, limit // len(lanes))
                read.start(self._owner, chosen, count=count, seconds=seconds)
                reads.append(read)
        return reads

    def _read_of(self, group: tuple[str, ...]) -> Read:
        read = self._reads.get(group)
        if read is None:
            link = self._server.link(self._names.register(group[0]))
            read = self._reads[group] = Read(link)
        return read

    def _finish_reads(self, reads: Sequence[Read]) -> list[Delivery]:
        found: list[Delivery] = []
        for read in reads:
            commands = self._link_of(read.link.node)
            for key, entries in read.finish(commands):
                lane = self._lane_of(key)
                for entry_id, fields in entries:
                    body = fields[1] if fields else b""
                    origin = int(fields[5]) if fields and len(fields) > 5 else 0
                    found += self._deliveries(lane, (entry_id, 2 * origin, body))
        return found

    def _lane_of(self, key: bytes) -> Lane:
        # "{namespace:queue}:lane:priority"; a queue's name has no colon.
        tag, _, priority = key.rpartition(b":")
        queue = tag.partition(b"}")[0].rpartition(b":")[2]
        return self._names.lane(queue.decode(), int(priority))

    # ---- the bell --------------------------------------------------------------

    def _open_bell(self) -> Link:
        if self._bell is None:
            bell = self._server.link(self._names.register(self._queues[0]))
            bell.call("SUBSCRIBE", self._names.bell)
            self._bell = bell
        return self._bell

    def _hear(self, bell: Link) -> None:
        while bell.has_news():
            bell.receive()

    def _test_bell(self) -> None:
        """Ask the bell's connection for an answer, which the next wait hears."""
        if self._bell is not None:
            self._hear(self._bell)
            self._bell.send("PING")

    # ---- claims ----------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._forget(ACK, deliveries)

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        try:
            self._put_back(deliveries)
        except BaseException:
            self._disconnect()
            raise

    def _put_back(self, deliveries: Sequence[Delivery]) -> None:
        for counter in (0, 1):
            chosen = [each for each in deliveries if each.redelivered == bool(counter)]
            self._forget(PUT_BACK, chosen, self._names.bell, counter)

    def _forget(self, script: Script, deliveries: Sequence[Delivery], *arguments: Any) -> None:
        """Let go of claims by *script*, lane by lane; those held no longer are passed over."""
        by_lane: defaultdict[Lane, list[bytes]] = defaultdict(list)
        for delivery in deliveries:
            lane, entry_id = delivery.receipt
            by_lane[lane].append(entry_id)
        try:
            with as_broker_errors(self._server):
                for lane, ids in by_lane.items():
                    self._run_on_lane(script, lane, ids, *arguments)
        except BaseException:
            self._disconnect()
            raise

    def _run_on_lane(
        self, script: Script, lane: Lane, ids: Sequence[bytes], *arguments: Any
    ) -> None:
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            link = self._link(lane.register)
            script.run(link, (lane.key,), self._owner, *arguments, *chunk)
            self._held[lane].difference_update(chunk)

    def _renew_claims(self) -> None:
        """
        Keep what is held from being taken for a dead worker's.

        No read is under way here, so what the server has for this owner and the owner does not
        know of was sent to a connection that is no more. It is given back.
        """
        now = time.monotonic()
        if now < self._renew_at:
            return
        for lane in self._lanes_to_renew():
            known = self._held[lane]
            link = self._link(lane.register)
            RENEW.run(link, (lane.key,), self._owner, self._names.bell, *known)
            if not known:
                del self._held[lane]
        self._test_bell()
        self._renew_at = now + RENEW_S

    def _lanes_to_renew(self) -> list[Lane]:
        lanes = dict.fromkeys(self._held)
        for queue in self._queues:
            register = self._names.register(queue)
            for priority in self._link(register).call("ZRANGE", register, 0, 1_000):
                lanes[self._names.lane(queue, int(priority))] = None
        return list(lanes)

    # ---- connections -----------------------------------------------------------

    def _run(self, script: Script, queues: Sequence[str], *arguments: Any) -> Any:
        registers = tuple(map(self._names.register, queues))
        return script.run(self._link(registers[0]), registers, *arguments)

    def _link(self, key: bytes) -> Link:
        if not self._links or self._server.is_cluster:
            return self._link_of(self._server.node_of(key), key)
        return next(iter(self._links.values()))

    def _link_of(self, node: Any, key: bytes = b"") -> Link:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = self._server.link(key)
        return link

    def _disconnect(self) -> None:
        """Drop all connections; the next fetch opens new ones, and looks for what they lost."""
        reads, self._reads = self._reads, {}
        links, self._links = self._links, {}
        bell, self._bell = self._bell, None
        for link in (*(read.link for read in reads.values()), *links.values(), bell):
            if link is not None:
                link.close()
        self._renew_at = 0.0

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._give_everything_back()
        finally:
            self._disconnect()
            self._alarm.close()

    def _give_everything_back(self) -> None:
        try:
            for lane, ids in list(self._held.items()):
                with as_broker_errors(self._server):
                    self._run_on_lane(PUT_BACK, lane, list(ids), self._names.bell, 1)
        except (RedisError, OSError):
            # Its lease runs out.
            return
