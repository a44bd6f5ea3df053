"""dramatiq with its own defaults; on RabbitMQ with confirmed sends, as ours are."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.speed.bodies import run as body

from . import _servers

if _servers.URL.startswith("redis"):
    broker = RedisBroker(url=os.environ["BENCHMARK_URL"])
else:
    broker = RabbitmqBroker(url=os.environ["BENCHMARK_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)

task = dramatiq.actor(actor_name="run", queue_name="benchmark")(body)


def prepare() -> None:
    if _servers.URL.startswith("redis"):
        _servers.empty_redis()
    else:
        _servers.delete_queues()


def send(kind: str, number: int) -> None:
    task.send(kind, number)
