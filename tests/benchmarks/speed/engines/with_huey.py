"""huey on Redis, PostgreSQL or SQLite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import huey as huey_package
from huey.storage import SqliteStorage

from tests.benchmarks.speed.bodies import run as body

from . import _servers
from ._django import set_up

set_up()


class NormalStorage(SqliteStorage):
    """As durable as the databases of the others; huey offers only more than that, or nothing."""

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


if _servers.URL.startswith("redis"):
    huey = huey_package.RedisHuey("benchmark", url=_servers.URL)
elif _servers.URL.startswith("postgres"):
    huey = huey_package.PostgresHuey("benchmark", dsn=_servers.URL)
else:
    huey = huey_package.Huey(
        "benchmark",
        storage_class=NormalStorage,
        filename=_servers.URL.removeprefix("sqlite:///"),
    )

task = huey.task(name="run")(body)


def prepare() -> None:
    huey.flush()


def send(kind: str, number: int) -> None:
    task(kind, number)


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    for kind, number, when in calls:
        task.schedule((kind, number), delay=max(0.0, when - time.time()))
