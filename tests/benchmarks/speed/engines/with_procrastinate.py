"""procrastinate in a Django project."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tests.benchmarks.speed.bodies import run as body

from ._django import prepare_database, set_up

set_up()

from procrastinate.contrib.django import app  # noqa: E402

task = app.task(name="run", queue="default")(body)


def prepare() -> None:
    prepare_database()


def send(kind: str, number: int) -> None:
    task.defer(kind=kind, number=number)


def send_batch(calls: Sequence[tuple[str, int]]) -> None:
    task.batch_defer(*({"kind": kind, "number": number} for kind, number in calls))


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    for kind, number, when in calls:
        late = task.configure(schedule_at=datetime.fromtimestamp(when, UTC))
        late.defer(kind=kind, number=number)
