"""
How the queues of the benchmark are emptied, whoever has filled them.

The clients are imported where they are used: a worker shall not have one that it does not need.
"""

from __future__ import annotations

import os

URL = os.environ.get("BENCHMARK_URL", "")

# What the contenders call their queues on RabbitMQ.
QUEUES = ["benchmark", "benchmark.DQ", "benchmark.XQ", "benchmark.floor"]
QUEUES += ["benchmark.default.0", "benchmark:dead", "benchmark:consumers"]
EXCHANGES = ["benchmark:control"]


def empty_redis(url: str = URL) -> None:
    """Empty the database of the benchmark; the harness has seen that it was empty before."""
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushdb()


def delete_queues(url: str = URL) -> None:
    import pika

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for name in QUEUES:
            connection.channel().queue_delete(name)
        for name in EXCHANGES:
            connection.channel().exchange_delete(name)
