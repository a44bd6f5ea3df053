"""django_actors, as it comes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.benchmarks.speed.bodies import run as body

from . import _servers
from ._django import prepare_database, set_up

set_up()

from django_actors import actor  # noqa: E402

task = actor(actor_name="run")(body)


def prepare() -> None:
    prepare_database()
    if os.environ["BENCHMARK_BROKER"].startswith("redis"):
        _servers.empty_redis()
    elif os.environ["BENCHMARK_BROKER"].startswith("amqp"):
        _servers.delete_queues()


def send(kind: str, number: int) -> None:
    task.send(kind, number)


def send_batch(calls: Sequence[tuple[str, int]]) -> None:
    task.send_many(calls)


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    task.send_many(
        [
            task.message_with_options(args=(kind, number), eta=round(1_000 * when))
            for kind, number, when in calls
        ]
    )
