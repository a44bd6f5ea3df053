"""What the tests of the operator's API share: queues, workers and counts to look at."""

from __future__ import annotations

from typing import Any

from django.test import TestCase

from django_actors import clock, counts, roster
from django_actors.brokers.database import DatabaseBroker
from django_actors.counts import MINUTE_MS, Source
from tests.admin.cases import greet
from tests.engine import ActorsMixin, envelop, make_message

ALIAS = "default"


class ControlCase(ActorsMixin, TestCase):
    """The broker is the database; the actor ``admin_tests.greet`` has the queue ``mail``."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.publish(greet.message("Ada"))

    def publish(self, message: Any) -> None:
        self.broker.publish([envelop(message)])

    def have_worker(self, *queues: str, owner: str = "me", running: Any = ()) -> None:
        roster.report(
            owner,
            host="mars",
            pid=7,
            queues=queues,
            threads=8,
            running=running,
            memory_bytes=50_000_000,
            started_ms=clock.now_ms() - 60_000,
            alias=ALIAS,
        )

    def count(
        self,
        *,
        succeeded: int = 0,
        failed: int = 0,
        minutes_ago: int = 1,
        actor: str = "admin_tests.greet",
        queue: str = "mail",
    ) -> None:
        minute = clock.now_ms() // MINUTE_MS * MINUTE_MS - minutes_ago * MINUTE_MS
        numbers = [succeeded, failed, failed, 0, 10 * (succeeded + failed)]
        counts.add({Source(minute, queue, actor): numbers}, ALIAS)


__all__ = ["ALIAS", "ControlCase", "greet", "make_message"]
