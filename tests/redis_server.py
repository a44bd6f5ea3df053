"""
Redis servers of a test's own: to be stopped, filled, joined to a Cluster, or watched.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

# Another program is tried with TEST_REDIS_SERVER: an older Redis, or Valkey.
PROGRAM = shutil.which(os.environ.get("TEST_REDIS_SERVER", "redis-server"))
TIMEOUT_S = 30.0


def free_port() -> int:
    """Return a port that no outgoing connection takes before the server does, as from 32,768 on."""
    while True:
        # Servers of a Cluster talk to each other on a second port, 10,000 higher.
        port = random.randrange(10_000, 22_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RedisServer:
    """
    A server on a free port of 127.0.0.1, with a directory of its own.

    Args:
        options: As on the command line, without the dashes: ``("appendonly", "yes")``.

        sentinel: Whether it is a Sentinel.

        password: What clients have to know, if anything.
    """

    def __init__(self, *options: Sequence[str], sentinel: bool = False, password: str = "") -> None:
        self.port = free_port()
        self._password = password
        self._directory = tempfile.TemporaryDirectory(prefix="django_actors_redis_")
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.configuration = Path(self._directory.name) / "redis.conf"
        lines = [
            ("port", str(self.port)),
            ("bind", "127.0.0.1"),
            ("dir", self._directory.name),
            ("save", '""'),
            *options,
        ]
        if password:
            lines.append(("requirepass", password))
        self.configuration.write_text("".join(" ".join(line) + "\n" for line in lines))
        self.start()

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> Any:
        password = self._password or None
        return redis.Redis(port=self.port, protocol=2, password=password, **options)

    def call(self, *command: Any) -> Any:
        """Send one command on a connection of its own; the answer is as the server sent it."""
        with self.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def start(self) -> None:
        """Start it, and wait until it has loaded its data."""
        command = [str(PROGRAM), str(self.configuration)]
        if self._sentinel:
            command.append("--sentinel")
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A file that may grow no more is an error for it, as here, and not its end.
            restore_signals=False,
        )
        self.wait_until(lambda: self.call("PING"))

    def fill_disk(self) -> None:
        """Let none of its files grow."""
        files = Path(self._directory.name).rglob("*")
        self._limit_files(min(path.stat().st_size for path in files if path.suffix == ".aof"))

    def free_disk(self) -> None:
        """Let its files grow again."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        assert self._process is not None
        _, most = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, most))

    def stop(self) -> None:
        """Shut it down in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """End it as a power failure does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_S)

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()

    def wait_until(self, condition: Any) -> None:
        until = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(redis.RedisError):
                if condition():
                    return
            if time.monotonic() > until:
                raise AssertionError(f"Redis at port {self.port} does not come to it.")
            time.sleep(0.02)


class RedisCluster:
    """Three servers that share the hash slots."""

    def __init__(self) -> None:
        options = [("cluster-enabled", "yes"), ("cluster-node-timeout", "2000")]
        self.servers = [RedisServer(*options) for _ in range(3)]
        bounds = [0, 5_461, 10_923, 16_384]
        for server, first, end in zip(self.servers, bounds, bounds[1:], strict=False):
            server.call("CLUSTER", "ADDSLOTS", *range(first, end))
            server.call("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        for server in self.servers:
            server.wait_until(lambda server=server: self._is_complete(server))

    def _is_complete(self, server: RedisServer) -> bool:
        info = server.call("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info

    @property
    def url(self) -> str:
        return self.servers[0].url

    def close(self) -> None:
        for server in self.servers:
            server.close()


class WatchedRedis:
    """A master, a replica, and three Sentinels that promote the replica after a second."""

    def __init__(self) -> None:
        self.master = RedisServer()
        self.replica = RedisServer(("replicaof", f"127.0.0.1 {self.master.port}"))
        self.replica.wait_until(
            lambda: b"master_link_status:up" in self.replica.call("INFO", "replication")
        )
        watch = f"monitor django 127.0.0.1 {self.master.port} 2"
        self.sentinels = [
            RedisServer(
                ("sentinel", watch),
                ("sentinel", "down-after-milliseconds django 1000"),
                ("sentinel", "failover-timeout django 3000"),
                sentinel=True,
            )
            for _ in range(3)
        ]
        for sentinel in self.sentinels:
            sentinel.wait_until(lambda sentinel=sentinel: self._is_ready(sentinel))

    def _is_ready(self, sentinel: RedisServer) -> bool:
        flat = sentinel.call("SENTINEL", "MASTER", "django")
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        return bool(facts[b"num-slaves"] == b"1" and facts[b"num-other-sentinels"] == b"2")

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/django/0"

    def close(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.close()


class OldServer:
    """
    Answers as Redis 5.0.6 does, as far as it is asked before its version is known.

    Entered, it is the URL where it listens.
    """

    def __enter__(self) -> str:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _OldConnection)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"redis://127.0.0.1:{self._server.server_address[1]}/0"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _OldConnection(socketserver.StreamRequestHandler):
    info = b"# Server\r\nredis_version:5.0.6\r\nredis_mode:standalone\r\n"
    answers = {b"PING": b"+PONG\r\n", b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}

    def handle(self) -> None:
        while words := self._read():
            name = words[0].upper()
            # HELLO and CLIENT SETINFO, above all.
            unknown = b"-ERR unknown command `%s`, with args beginning with: \r\n" % words[0]
            self.wfile.write(self.answers.get(name, unknown))

    def _read(self) -> list[bytes]:
        line = self.rfile.readline()
        return [self._read_text() for _ in range(int(line[1:] or 0))]

    def _read_text(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2]
