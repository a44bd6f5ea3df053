"""rq, whose workers fork for each job; results and finished jobs are not kept."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from rq import Queue

from tests.benchmarks.speed.bodies import run as body

from . import _servers

queue = Queue("benchmark", connection=redis.Redis.from_url(_servers.URL))


def prepare() -> None:
    _servers.empty_redis()


def send(kind: str, number: int) -> None:
    queue.enqueue(body, kind, number, result_ttl=0)


def send_batch(calls: Sequence[tuple[str, int]]) -> None:
    queue.enqueue_many([Queue.prepare_data(body, call, result_ttl=0) for call in calls])
