"""
Connections to Redis: one server, a service watched by Sentinels, or a Cluster.

redis-py's connections speak the protocol; which one is used for what, and what happens to
one that fails, is decided here. Nothing is retried below the broker: a command that is sent
again without its knowledge is a message that runs twice.
"""

from __future__ import annotations

import inspect
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from django_actors.cures import cure_of
from django_actors.errors import BrokerUnavailable, ServerTooOld
from django_actors.registry import nearest

from .redis_place import Node, Place

# redis-py types only a part of what it offers.
_client: Any = redis

OLDEST = (6, 2)

# A publisher has 5 s altogether; a reader shall not take a slow server for a dead one.
PUBLISHER_TIMEOUT_S = 2.0
CONSUMER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
HEALTH_CHECK_S = 15

# How often at most a Cluster is asked for its layout, or the Sentinels for their master.
REFRESH_S = 0.2

DEFAULTS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_keepalive": True,
    "health_check_interval": HEALTH_CHECK_S,
}

# Errors that are over some time later, by the first word of the server's answer.
_PASSING_WORDS = {
    *("LOADING", "OOM", "OUTOFMEMORY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY"),
    *("TRYAGAIN", "UNBLOCKED"),
}

# Errors that say that another server is the right one.
_MOVING_WORDS = {"MOVED", "ASK", "CLUSTERDOWN", "READONLY"}


class Link:
    """
    One connection: sends commands and reads their answers, for one thread at a time.

    It opens itself when it is used, and closes itself when anything but an error of the
    server's own comes back: then nobody knows which answer belongs to which command.
    """

    def __init__(self, connection: Any, node: Node) -> None:
        self._connection = connection
        self._poll: select.poll | None = None
        self.node = node

    def call(self, *command: Any) -> Any:
        """Send one command and return its answer; texts are bytes."""
        self.send(*command)
        return self.receive()

    def send(self, *command: Any) -> None:
        """Send one command, whose answer ``receive()`` returns."""
        try:
            self._connection.send_command(*command)
        except BaseException:
            self.close()
            raise

    def receive(self) -> Any:
        """Wait for the answer to a command."""
        try:
            return self._connection.read_response(disable_decoding=True)
        except ReadOnlyError:
            # A name may stand for another server by now.
            self.close()
            raise
        except ResponseError:
            raise
        except BaseException:
            self.close()
            raise

    def call_many(self, commands: Sequence[bytes]) -> list[Any]:
        """
        Send commands at once, each as it goes over the wire.

        Returns:
            The answers; errors of the server are returned in their places.
        """
        try:
            self._connection.send_packed_command([b"".join(commands)])
        except BaseException:
            self.close()
            raise
        return [self._receive_or_error() for _ in commands]

    def _receive_or_error(self) -> Any:
        try:
            return self.receive()
        except ResponseError as error:
            return error

    def fileno(self) -> int:
        return int(self._connection._sock.fileno())

    def has_news(self) -> bool:
        """Return whether something can be read at once."""
        try:
            return bool(self._connection.can_read(0))
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._connection._sock is not None

    def is_usable(self) -> bool:
        """Return whether nothing came in while it was idle: the end of the connection, say."""
        if not self.is_open:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fileno(), select.POLLIN)
        try:
            # Of what an encrypted connection receives, not all is for us.
            return not self._poll.poll(0) or not self.has_news()
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        self._poll = None
        self._connection.disconnect()


class Server:
    """
    Redis, wherever it is at the moment; for any thread, and for forked processes.

    Args:
        place: Where to look for it.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._pid = os.getpid()
        self._idle: dict[Node, list[Link]] = {}
        self._slots: list[Node] = []
        self._master: Node | None = None
        self._found_at = 0.0
        self._inspected = False
        self._lock = threading.Lock()
        self._check_options()

    def _check_options(self) -> None:
        """Find unknown arguments now, not by the first message."""
        try:
            self._open(self.place.nodes[0], PUBLISHER_TIMEOUT_S)
        except TypeError as error:
            for name in self.place.options:
                if f"'{name}'" in str(error):
                    known = inspect.signature(redis.connection.AbstractConnection).parameters
                    raise TypeError(
                        f"RedisBroker has no option {name!r}.{nearest(name, known)}"
                    ) from None
            raise

    # ---- links -----------------------------------------------------------------

    def link(self, key: bytes) -> Link:
        """Return a new connection of one's own to the server that has *key*."""
        if not self._inspected:
            self._inspect()
        # Whoever has it for himself notices its end, and may use it for other things than PING.
        return self._open(self.node_of(key), CONSUMER_TIMEOUT_S, health_check_interval=0)

    def borrowed(self, key: bytes) -> AbstractContextManager[Link]:
        """Lend a connection to the server that has *key*."""
        if self._pid != os.getpid():
            self._forget_parent()
        if not self._inspected:
            self._inspect()
        return self._borrowed_from(self.node_of(key))

    @contextmanager
    def _borrowed_from(self, node: Node) -> Iterator[Link]:
        link = self._borrow_from(node)
        try:
            yield link
        except ResponseError:
            self._give_back(link)
            raise
        except BaseException:
            # An actor may be interrupted at any moment: an answer that is still to come would
            # be taken for the answer to somebody else's command.
            link.close()
            raise
        self._give_back(link)

    def _borrow_from(self, node: Node) -> Link:
        idle = self._idle.get(node)
        while idle:
            try:
                link = idle.pop()
            except IndexError:
                break
            if link.is_usable():
                return link
            link.close()
        return self._open(node, PUBLISHER_TIMEOUT_S)

    def _give_back(self, link: Link) -> None:
        if link.is_open:
            self._idle.setdefault(link.node, []).append(link)

    def _open(self, node: Node, timeout_s: float, **special: Any) -> Link:
        options = {**DEFAULTS, "socket_timeout": timeout_s, **self.place.options, **special}
        if "path" not in options:
            options["host"], options["port"] = node
        connection = self.place.connection_class(
            **options,
            # The third version of the protocol answers in other shapes.
            protocol=2,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
        )
        return Link(connection, node)

    def _forget_parent(self) -> None:
        # The parent's sockets stay the parent's; a lock may be held by a thread that is not here.
        self._idle = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def close(self) -> None:
        """Close what is idle."""
        for idle in list(self._idle.values()):
            # Another thread may take or bring one meanwhile.
            while idle:
                with suppress(IndexError):
                    idle.pop().close()

    # ---- where it is -----------------------------------------------------------

    @property
    def is_cluster(self) -> bool:
        return self.place.kind == "cluster"

    def node_of(self, key: bytes) -> Node:
        """Return the server that has *key* now."""
        if self.is_cluster:
            return self._layout()[key_slot(key)]
        if self.place.kind == "sentinel":
            return self._find_master()
        return self.place.nodes[0]

    def _find_master(self) -> Node:
        if self._master is None:
            options = self.place.options
            timeout_s = options.get("socket_connect_timeout", CONNECT_TIMEOUT_S)
            sentinel = _client.sentinel.Sentinel(
                self.place.nodes,
                sentinel_kwargs={
                    "socket_timeout": timeout_s,
                    "socket_connect_timeout": timeout_s,
                    "protocol": 2,
                    "retry": Retry(NoBackoff(), 0),
                    **self.place.sentinel_options,
                },
            )
            try:
                self._master = sentinel.discover_master(self.place.service)
            finally:
                for client in sentinel.sentinels:
                    client.close()
        return cast(Node, self._master)

    def _layout(self) -> list[Node]:
        return self._slots or self._ask_for_layout()

    def _ask_for_layout(self) -> list[Node]:
        known = tuple(dict.fromkeys([*self._slots, *self._idle, *self.place.nodes]))
        errors: list[Exception] = []
        for node in known:
            try:
                with self._borrowed_from(node) as link:
                    self._slots = _read_layout(link.call("CLUSTER", "SLOTS"), node)
                return self._slots
            except (RedisError, OSError) as error:
                errors.append(error)
        raise errors[0]

    def note(self, error: BaseException) -> None:
        """Look for the server anew before the next command, if *error* may mean that it moved."""
        if isinstance(error, ResponseError) and not _words(error) & _MOVING_WORDS:
            return
        now = time.monotonic()
        if now - self._found_at < REFRESH_S:
            return
        self._found_at = now
        self._master = None
        self._slots = []
        # What else is open to a server that failed is as good as dead.
        self.close()

    # ---- what it is ------------------------------------------------------------

    def _inspect(self) -> None:
        """Find out whether it is a Cluster, and old; once."""
        with self._lock:
            # Another thread may have asked while this one waited.
            if self._inspected:
                return
            facts = self._ask_for_facts()
            # Valkey has another name for it.
            mode = facts.get("redis_mode") or facts.get("server_mode")
            if mode == "cluster" and self.place.kind == "server":
                self.place = replace(self.place, kind="cluster")
            self._inspected = True

    def _ask_for_facts(self) -> dict[str, str]:
        first = self.place.nodes[0] if self.is_cluster else self.node_of(b"")
        nodes = self.place.nodes if self.is_cluster else (first,)
        for position, node in enumerate(nodes, 1):
            try:
                facts = self.info("server", node)
                break
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                if position == len(nodes):
                    raise
        check_version(facts, self.place)
        return facts

    def info(self, section: str, node: Node | None = None) -> dict[str, str]:
        """Return a section of what the server says of itself; empty if it may not be asked."""
        try:
            with self._borrowed_from(node or self.node_of(b"")) as link:
                text = link.call("INFO", section).decode(errors="replace")
        except ResponseError:
            return {}
        lines = [line.partition(":") for line in text.splitlines()]
        return {name: value for name, _, value in lines if value}


def check_version(facts: Mapping[str, str], place: Place) -> None:
    """
    Refuse a server that lacks commands we need.

    Raises:
        ServerTooOld: it does.
    """
    version = facts.get("redis_version", "")
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return
    if numbers and numbers < OLDEST:
        raise ServerTooOld(
            f"Redis at {place} has version {version}, and the broker needs 6.2 or newer. "
            "Upgrade it to that or to Valkey, or use another broker."
        )


def _read_layout(answer: Any, asked: Node) -> list[Node]:
    slots: list[Node | None] = [None] * 16_384
    for first, last, (host, port, *_), *_replicas in answer:
        name = host.decode() if host else asked[0]
        slots[first : last + 1] = [(name, int(port))] * (last + 1 - first)
    if None in slots:
        raise ClusterDownError("CLUSTERDOWN Some hash slots have no server.")
    return cast("list[Node]", slots)


def is_passing(error: BaseException) -> bool:
    """Return whether the same command may succeed some time later."""
    if isinstance(error, (AuthenticationError, AuthorizationError, BrokerUnavailable)):
        return False
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError)):
        return True
    return bool(_words(error) & (_PASSING_WORDS | _MOVING_WORDS))


def _words(error: BaseException) -> set[str]:
    """Return the word an error of the server begins with; some versions of redis-py drop it."""
    return {str(error).partition(" ")[0], type(error).__name__.removesuffix("Error").upper()}


@contextmanager
def as_broker_errors(server: Server) -> Iterator[None]:
    """Raise ``BrokerUnavailable``, which names the server, for whatever redis-py raises."""
    try:
        yield
    except (RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        if isinstance(error, BrokerUnavailable):
            raise
        server.note(error)
        raise unavailable(server, error) from error


def unavailable(server: Server, error: BaseException) -> BrokerUnavailable:
    """Return an error that says where Redis is, and what it said; without a password."""
    if isinstance(error, BrokerUnavailable):
        return error
    reason = str(error)
    end = "" if reason.endswith((".", "?")) else "."
    return BrokerUnavailable(f"Redis at {server.place} does not work: {reason}{end}{_cure(error)}")


def _cure(error: BaseException) -> str:
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return " Correct the user name and the password in DJANGO_ACTORS['BROKER']."
    if "DB index" in str(error):
        return " Correct the number of the database in DJANGO_ACTORS['BROKER']."
    return cure_of(error)
