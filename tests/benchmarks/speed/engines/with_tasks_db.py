"""django-tasks-db, the reference backend of ``django.tasks``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tests.benchmarks.speed.bodies import run as body

from ._django import prepare_database, set_up

set_up()

from django.tasks import task as make_task  # noqa: E402


@make_task
def run(kind: str, number: int) -> None:
    body(kind, number)


def prepare() -> None:
    prepare_database()


def send(kind: str, number: int) -> None:
    run.enqueue(kind, number)


def send_later(calls: Sequence[tuple[str, int, float]]) -> None:
    for kind, number, when in calls:
        run.using(run_after=datetime.fromtimestamp(when, UTC)).enqueue(kind, number)
