"""
dramatiq with its own defaults; on RabbitMQ with confirmed sends, as ours are, and with either
type of queue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.speed.bodies import run as body

from . import _servers
from ._django import set_up

set_up()


class TypedRabbitmqBroker(RabbitmqBroker):
    """It has no setting for the type of its queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments = super()._build_queue_arguments(queue_name)
        return {**arguments, "x-queue-type": os.environ["BENCHMARK_QUEUE_TYPE"]}


if _servers.URL.startswith("redis"):
    broker: Any = RedisBroker(url=os.environ["BENCHMARK_URL"])
else:
    broker = TypedRabbitmqBroker(url=os.environ["BENCHMARK_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)

task = dramatiq.actor(actor_name="run", queue_name="benchmark")(body)


def prepare() -> None:
    if _servers.URL.startswith("redis"):
        _servers.empty_redis()
    else:
        _servers.delete_queues()


def send(kind: str, number: int) -> None:
    task.send(kind, number)


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    for kind, number, when in calls:
        delay_ms = max(0, round(1_000 * (when - time.time())))
        task.send_with_options(args=(kind, number), delay=delay_ms)
