"""Whatever happens, in whatever order: each message is in one place, on every broker."""

from __future__ import annotations

from typing import Any

from django.test import TestCase, tag

from django_actors.brokers.base import Broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.stub import StubBroker
from django_actors.models import Lease
from tests.brokers.test_rabbitmq import URL as RABBITMQ_URL
from tests.brokers.test_rabbitmq import RabbitmqCase, needs_rabbitmq
from tests.brokers.test_redis import RedisMixin, needs_redis
from tests.engine import ActorsMixin, EngineCase

from .machine import World


class DatabaseMachineTests(World, EngineCase):
    settles_at_once = True

    def make_broker(self) -> Broker:
        return DatabaseBroker()

    def kill(self, consumer: Any) -> None:
        """Do nothing: it holds no connection of its own."""

    def expire(self, owner: str) -> None:
        Lease.objects.filter(owner=owner).update(expires_ms=1)

    def test_every_message_is_in_one_place_whatever_happens(self):
        self.check_machine()


# With the tests of processes, which run once and beside the others: it mostly waits.
@tag("processes")
@needs_redis
class RedisMachineTests(RedisMixin, World, EngineCase):
    def test_every_message_is_in_one_place_whatever_happens(self):
        self.check_machine()


@tag("processes")
@needs_rabbitmq
class RabbitmqMachineTests(World, RabbitmqCase):
    # What is published into a new lane, another connection has to be told of.
    knows_at_once = False

    def make_broker(self) -> Broker:
        return RabbitmqBroker(RABBITMQ_URL)

    def kill(self, consumer: Any) -> None:
        consumer.drop()

    def expire(self, owner: str) -> None:
        """Do nothing: the claims ended with the connection."""

    def clean(self, broker: Any, queue_name: str) -> None:
        # Not at the end: each lane is a queue, and a server has files for a few hundred.
        broker.delete_queues()

    def test_every_message_is_in_one_place_whatever_happens(self):
        self.check_machine()


class StubMachineTests(World, ActorsMixin, TestCase):
    counts_crashes = False

    def setUp(self) -> None:
        super().setUp()
        self.stub = StubBroker()

    def make_broker(self) -> Broker:
        return self.stub

    def kill(self, consumer: Any) -> None:
        """Do nothing: there is no connection."""

    def expire(self, owner: str) -> None:
        self.stub.release(owner, done=())

    def rows(self, broker: Any) -> Any:
        return list(broker.room.rows.values())

    def clear_rows(self, broker: Any) -> None:
        broker.room.clear()

    def test_every_message_is_in_one_place_whatever_happens(self):
        self.check_machine()
