"""Where the brokers are, what they are, and the databases that the benchmark makes there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pika
import redis

from .engines._servers import delete_queues, empty_redis

VARIABLES = {
    "redis": ("BENCHMARK_REDIS_URL", "redis://127.0.0.1:6379/14"),
    "rabbitmq": ("BENCHMARK_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2F"),
    "postgresql": (
        "BENCHMARK_POSTGRES_URL",
        "postgres://postgres:postgres@127.0.0.1:5432/postgres",
    ),
}


class Servers:
    """
    The servers of a run; use it as a context, which drops what was made.

    Redis must have an empty database for it: that is emptied before each contender.

    Args:
        brokers: Those that are measured; the others are not touched. All but SQLite have their
            waiting room on PostgreSQL, if that answers.
    """

    def __init__(self, brokers: Iterable[str]) -> None:
        self._brokers = set(brokers)
        if self._brokers - {"sqlite"}:
            self._brokers.add("postgresql")
        self.versions: dict[str, str] = {}
        if "sqlite" in self._brokers:
            self.versions["sqlite"] = f"SQLite {sqlite3.sqlite_version}"
        self.missing: dict[str, str] = {}
        self._made: set[str] = set()

    def __enter__(self) -> Servers:
        self._temporary = tempfile.TemporaryDirectory(prefix="django_actors_benchmark_")
        for broker, ask in _ASK.items():
            if broker not in self._brokers:
                continue
            try:
                self.versions[broker] = ask(_server_url(broker))
            except Exception as error:  # each client has its own; any of them means no
                self.missing[broker] = f"{type(error).__name__}: {error}".splitlines()[0]
        return self

    def __exit__(self, *_: object) -> None:
        if "redis" in self.versions:
            empty_redis(_server_url("redis"))
        if "rabbitmq" in self.versions:
            delete_queues(_server_url("rabbitmq"))
        for name in sorted(self._made):
            with _postgresql() as execute:
                execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._temporary.cleanup()

    def url(self, broker: str, module: str) -> str:
        """Return where the queue of a contender is."""
        if broker in ("redis", "rabbitmq"):
            return _server_url(broker)
        return self.database(broker, module)

    def database(self, broker: str, module: str) -> str:
        """Return a database for one contender alone; on SQLite only if it is asked for."""
        if broker == "sqlite" or "postgresql" in self.missing:
            return f"sqlite:///{Path(self._temporary.name, module)}.{broker}.sqlite3"
        name = f"actors_benchmark_{os.getpid()}_{module}_{broker}"
        if name not in self._made:
            with _postgresql() as execute:
                execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                execute(f'CREATE DATABASE "{name}"')
            self._made.add(name)
        return urlunsplit(urlsplit(_server_url("postgresql"))._replace(path=f"/{name}"))


def _server_url(broker: str) -> str:
    variable, default = VARIABLES[broker]
    return os.environ.get(variable, default)


@contextlib.contextmanager
def _postgresql() -> Iterator[Callable[[str], object]]:
    import psycopg

    url = _server_url("postgresql")
    with contextlib.closing(psycopg.connect(url, autocommit=True, connect_timeout=3)) as found:
        yield lambda statement: found.execute(statement.encode())


def _ask_redis(url: str) -> str:
    with redis.Redis.from_url(url, socket_connect_timeout=3) as client:
        if client.dbsize():
            raise RuntimeError("the database is not empty; name another in BENCHMARK_REDIS_URL")
        return f"Redis {client.info('server')['redis_version']}"


def _ask_rabbitmq(url: str) -> str:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = 3
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        version = connection._impl.server_properties["version"]
        return f"RabbitMQ {version.decode() if isinstance(version, bytes) else version}"


def _ask_postgresql(url: str) -> str:
    import psycopg

    with contextlib.closing(psycopg.connect(url, connect_timeout=3)) as connection:
        return f"PostgreSQL {connection.info.server_version // 10_000}"


_ASK: dict[str, Callable[[str], str]] = {
    "redis": _ask_redis,
    "rabbitmq": _ask_rabbitmq,
    "postgresql": _ask_postgresql,
}
