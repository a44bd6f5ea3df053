"""
Publishing to Redis: one XADD a message, and no message twice because an answer was lost.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError, ResponseError

from django_actors.chunks import chunks
from django_actors.message import Origin

from .redis_connection import PUBLISHER_TIMEOUT_S, Link, Server, is_passing, unavailable
from .redis_scripts import BODY, FIND_TOKENS, OPEN_LANE, ORIGIN, TOKEN, Lane, Names

# How long publish() tries. An attempt that began has the timeout of the connection for itself.
PATIENCE_S = 5.0
LAST_ATTEMPT_S = PATIENCE_S - PUBLISHER_TIMEOUT_S
SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5

# How much is sent before its answers are read.
CHUNK_ENTRIES = 500
CHUNK_BYTES = 1_000_000

# Room for two clocks that run differently fast for a few seconds.
CLOCK_MARGIN_MS = 1_000

# A script takes no more arguments than this.
PAGE = 1_000


_TEXT = b"$%d\r\n%s\r\n"


def _text(text: bytes) -> bytes:
    return _TEXT % (len(text), text)


# XADD in the protocol of Redis, once for all: redis-py puts each command together anew, which
# takes ten times as long. Without its lane nobody would read a message: with NOMKSTREAM nothing
# is added then, and the answer is nil.
def _xadd(*more: bytes) -> bytes:
    parts = [
        *(b"*%d\r\n" % (8 + len(more)), _text(b"XADD"), _TEXT, _text(b"NOMKSTREAM"), _text(b"*")),
        *(_text(BODY), _TEXT, _text(TOKEN), _TEXT),
        *map(_text, more),
    ]
    return b"".join(parts)


_XADD = {
    Origin.SENDER: _xadd(),
    Origin.ROW: _xadd(ORIGIN, b"%d" % Origin.ROW),
    Origin.DOUBTFUL_ROW: _xadd(ORIGIN, b"%d" % Origin.DOUBTFUL_ROW),
}


class Entry:
    """A message on its way into a lane; the token tells this attempt from any other."""

    __slots__ = ("body", "is_added", "lane", "origin", "token")

    def __init__(
        self, lane: Lane, body: bytes, token: bytes, origin: Origin = Origin.SENDER
    ) -> None:
        self.lane = lane
        self.body = body
        self.token = token
        self.origin = origin
        self.is_added = False

    def command(self) -> bytes:
        """Return the command that adds it, as it goes over the wire."""
        key, body, token = self.lane.key, self.body, self.token
        return _XADD[self.origin] % (len(key), key, len(body), body, len(token), token)


class Publication:
    """
    One call of ``publish()``: goes on until the server has everything, or its time is over.

    An entry whose answer was lost may be there or not. Before it is sent again, the end of its
    lane is searched for its token; only one that was run and erased in the meantime is doubled.
    """

    def __init__(self, server: Server, names: Names, entries: list[Entry]) -> None:
        self._server = server
        self._names = names
        self._entries = entries
        self._is_doubtful = False
        self._began = time.monotonic()

    def run(self) -> None:
        """
        Add all entries.

        Raises:
            BrokerUnavailable: it is not known of all of them that they were added.
        """
        pause = SHORTEST_PAUSE_S
        while (error := self._attempt()) is not None:
            self._server.note(error)
            elapsed = time.monotonic() - self._began
            if not is_passing(error) or elapsed + pause > LAST_ATTEMPT_S:
                raise unavailable(self._server, error) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _attempt(self) -> Exception | None:
        """Add what is left, as far as it goes; return why something is left."""
        error = None
        try:
            for entries in self._by_server():
                with self._server.borrowed(entries[0].lane.register) as link:
                    error = self._add_all(link, entries) or error
        except (RedisError, OSError) as failure:
            error = failure
        self._entries = [entry for entry in self._entries if not entry.is_added]
        return error if self._entries else None

    def _by_server(self) -> list[list[Entry]]:
        if not self._server.is_cluster:
            return [self._entries]
        groups = defaultdict(list)
        for entry in self._entries:
            groups[self._server.node_of(entry.lane.register)].append(entry)
        return list(groups.values())

    def _add_all(self, link: Link, entries: list[Entry]) -> Exception | None:
        if self._is_doubtful:
            self._find(link, entries)
        error = None
        for chunk in _chunks(entries):
            error = self._add(link, chunk) or error
        return error

    def _add(self, link: Link, chunk: list[Entry]) -> Exception | None:
        missing = self._send(link, chunk)
        if missing and all(answer is None for _, answer in missing):
            for lane in {entry.lane for entry, _ in missing}:
                self._open(link, lane)
            missing = self._send(link, [entry for entry, _ in missing])
        for _, answer in missing:
            return answer or ResponseError("UNBLOCKED A lane was deleted while it was opened.")
        return None

    def _open(self, link: Link, lane: Lane) -> None:
        key = self._names.queues
        # In a Cluster the queues stand on another server than the lanes of one.
        with self._server.borrowed(key) as other:
            other.call("SADD", key, lane.queue_name)
        OPEN_LANE.run(link, (lane.register, lane.key), lane.priority, self._names.bell)

    def _send(self, link: Link, chunk: list[Entry]) -> list[tuple[Entry, Any]]:
        """Add entries; return those that were not, each with the answer."""
        self._is_doubtful = True
        answers = link.call_many([entry.command() for entry in chunk])
        self._is_doubtful = False
        missing = []
        for entry, answer in zip(chunk, answers, strict=True):
            entry.is_added = isinstance(answer, bytes)
            if not entry.is_added:
                missing.append((entry, answer))
        return missing

    def _find(self, link: Link, entries: list[Entry]) -> None:
        """Note which entries were added by an attempt whose answers were lost."""
        by_lane: defaultdict[Lane, dict[bytes, Entry]] = defaultdict(dict)
        for entry in entries:
            by_lane[entry.lane][entry.token] = entry
        elapsed_ms = int((time.monotonic() - self._began) * 1_000) + CLOCK_MARGIN_MS
        for lane, tokens in by_lane.items():
            for chunk in chunks(list(tokens), PAGE):
                for token in FIND_TOKENS.run(link, (lane.key,), elapsed_ms, *chunk):
                    tokens[token].is_added = True


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Yield what is left to add, in portions that fit into the buffers on the way."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if entry.is_added:
            continue
        if len(chunk) >= CHUNK_ENTRIES or (chunk and size + len(entry.body) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry.body)
    if chunk:
        yield chunk
