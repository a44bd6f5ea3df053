"""
RabbitMQ servers of a test's own: to be stopped, killed, encrypted, or joined to a cluster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from .redis_server import free_port

# Behind the commands on the path, Debian has scripts that turn into another user.
_LIBRARY = "/usr/lib/rabbitmq/bin"
_PLACES = os.pathsep.join([_LIBRARY, os.environ.get("PATH", "")])
PROGRAM = shutil.which("rabbitmq-server", path=_PLACES)
CONTROL = shutil.which("rabbitmqctl", path=_PLACES)
TIMEOUT_S = 120.0


class RabbitmqServer:
    """
    A node on a free port of 127.0.0.1, with a directory of its own.

    Args:
        lines: Of its configuration file.

        home: Where the secret is that nodes of a cluster share; a directory of its own if None.
    """

    def __init__(self, *lines: str, home: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="django_actors_rabbitmq_")
        self._path = Path(self._directory.name)
        self._home = home or self._path
        self.port = free_port()
        self.name = f"actors{self.port}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._path.joinpath("plugins").write_text("[].")
        self.configure(*lines)

    def configure(self, *lines: str) -> None:
        """Write the configuration that counts from the next start."""
        listener = f"listeners.tcp.1 = 127.0.0.1:{self.port}"
        self._path.joinpath("rabbitmq.conf").write_text("\n".join([listener, *lines, ""]))

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self._home),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._path / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._path / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._path / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._path / "plugins"),
        }

    def begin(self) -> None:
        """Have it start; see ``start()``."""
        with self._path.joinpath("output").open("ab") as output:
            self._process = subprocess.Popen(
                [str(PROGRAM)],
                env=self._environment,
                cwd=self._path,  # where it leaves a dump if it crashes
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + TIMEOUT_S
        while not self._answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > until:
                output = self._path.joinpath("output").read_text()[-3_000:]
                raise AssertionError(f"RabbitMQ does not start:\n{output}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 10
        try:
            pika.BlockingConnection(parameters).close()
        except (AMQPError, OSError):
            return False
        return True

    def control(self, *command: str) -> str:
        """Run ``rabbitmqctl``, and return what it prints."""
        return subprocess.run(
            [str(CONTROL), "-q", *command],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        ).stdout

    def kill(self) -> None:
        """End it as a power failure does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()


class RabbitmqCluster:
    """Three nodes that hold the same queues."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="django_actors_rabbitmq_")
        home = Path(self._home.name)
        self.servers = [RabbitmqServer(home=home) for _ in range(3)]
        lines = ["cluster_formation.peer_discovery_backend = classic_config"]
        lines += [
            f"cluster_formation.classic_config.nodes.{number} = {server.name}"
            for number, server in enumerate(self.servers, 1)
        ]
        first, *others = self.servers
        first.configure(*lines)
        first.start()
        for server in others:
            server.configure(*lines)
            server.begin()
        for server in others:
            server.wait()
        first.control("await_online_nodes", "3")

    @property
    def url(self) -> str:
        return ";".join(server.url for server in self.servers)

    def close(self) -> None:
        close_all(self.servers)
        self._home.cleanup()


def close_all(servers: Sequence[RabbitmqServer]) -> None:
    for server in servers:
        server.close()
