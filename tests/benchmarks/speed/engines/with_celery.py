"""celery without results; acknowledged when the task is done, as ours are, and confirmed sends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from celery import Celery

from tests.benchmarks.speed.bodies import run as body

from . import _servers
from ._django import set_up

set_up()

app = Celery("benchmark", broker=_servers.URL)
app.conf.update(
    task_acks_late=True,
    task_default_queue="benchmark",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)
if _servers.URL.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": True}
    app.conf.task_default_queue_type = os.environ["BENCHMARK_QUEUE_TYPE"]

task = app.task(name="run")(body)


def prepare() -> None:
    if _servers.URL.startswith("redis"):
        _servers.empty_redis()
    else:
        _servers.delete_queues()


def send(kind: str, number: int) -> None:
    task.delay(kind, number)


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    for kind, number, when in calls:
        task.apply_async((kind, number), eta=datetime.fromtimestamp(when, UTC))
