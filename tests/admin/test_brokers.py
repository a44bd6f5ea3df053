"""What an operator requeues runs once, whatever carries it; that a broker is away is told."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.urls import reverse

from django_actors import failures, set_broker
from django_actors.admin import bulk
from django_actors.brokers.base import Broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.redis import RedisBroker
from django_actors.delivery import Reason
from django_actors.models import Attempt, DeadLetter, Kind, Outcome, WaitingMessage
from django_actors.rows import build_delivery_row
from django_actors.waiting_room import WaitingRoom
from tests.brokers.test_rabbitmq import URL as RABBITMQ_URL
from tests.brokers.test_rabbitmq import RabbitmqCase, needs_rabbitmq
from tests.brokers.test_redis import RedisMixin, needs_redis
from tests.engine import EngineCase, deliver, wait_until

from .cases import AdminCase, OperatorMixin, Page, bury, greet

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
MANY = 200 * int(os.environ.get("ACTORS_TEST_SCALE", "1"))

if TYPE_CHECKING:
    Base = EngineCase
else:
    Base = object


def make_dead_letter(message: Any) -> WaitingMessage:
    """Return an unsaved row as a worker makes it."""
    delivery = deliver(message, exception=ConnectionError("no"))
    delivery.fail(Reason.RETRIES_EXHAUSTED)
    return build_delivery_row(delivery)


class RequeueContract(Base):
    """All dead letters of an error group, requeued in batches while a worker runs them."""

    def make_broker(self) -> Broker:
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        user = get_user_model().objects.create_superuser("ada", password="x")
        self.client.force_login(user)

    def test_none_is_lost_and_none_runs_twice(self) -> None:
        ran: Counter[int] = Counter()
        ship = self.declare(lambda order: ran.update([order]), actor_name="requeue.ship")
        rows = [make_dead_letter(ship.message(number)) for number in range(MANY)]
        WaitingRoom().put(rows)
        failures.count_failures(rows, "default")
        broker = self.use(self.make_broker())
        self.start_worker(broker, worker_threads=4)
        url = reverse("admin:django_actors_errorgroup_requeue", args=[rows[0].fingerprint])

        page = self.client.get(url)
        pages = 0
        with mock.patch.multiple(bulk, BATCH_ROWS=min(500, MANY // 4), WORK_S=0.0):
            while page.status_code == 200:
                page = self.client.post(url, Page(page).answer())
                pages += 1

        self.assertEqual(page.status_code, 302)
        self.assertGreater(pages, 1)
        wait_until(lambda: len(ran) == MANY, "all to run")
        wait_until(lambda: not WaitingMessage.objects.exists(), "an empty waiting room")
        succeeded = Attempt.objects.filter(outcome=Outcome.SUCCEEDED)
        wait_until(lambda: succeeded.count() == MANY, "all to be settled")
        self.assertEqual(set(ran.values()), {1})
        self.assertEqual(LogEntry.objects.filter(change_message="Requeued.").count(), MANY)


class DatabaseTests(RequeueContract, OperatorMixin, EngineCase):
    def make_broker(self) -> Broker:
        return DatabaseBroker()


@needs_redis
class RedisTests(RequeueContract, OperatorMixin, RedisMixin, EngineCase):
    def make_broker(self, **options: Any) -> RedisBroker:
        return RedisMixin.make_broker(self, **options)


@needs_rabbitmq
class RabbitmqTests(RequeueContract, OperatorMixin, RabbitmqCase):
    def make_broker(self) -> Broker:
        broker = RabbitmqBroker(RABBITMQ_URL)
        self.addCleanup(broker.close)
        return broker


class BrokerAwayTests(AdminCase):
    """Nothing listens where the settings point."""

    def test_pages_are_shown_rows_are_kept_and_the_operator_is_told(self):
        self.addCleanup(set_broker, None)
        for make in (
            lambda: RedisBroker("redis://127.0.0.1:1/0"),
            lambda: RabbitmqBroker("amqp://127.0.0.1:1"),
        ):
            broker = make()
            self.addCleanup(broker.close)
            set_broker(broker)
            row = bury(greet.message("Ada"))
            with self.subTest(broker=type(broker).__name__):
                self.assertEqual(self.client.get(self.list_url(DeadLetter)).status_code, 200)
                self.assertEqual(self.client.get(self.row_url(row)).status_code, 200)

                done = self.act_on_row(row, "requeue")

                self.assertIn("The broker does not answer", " ".join(self.told(done)))
                kept = WaitingMessage.objects.get(message_id=row.message_id)
                self.assertEqual(kept.kind, Kind.SCHEDULED)
