"""
What the tests of the engine share: waiting for states, threads that clean up, actors that
are forgotten afterwards, and a broker outside of the database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from django.apps import apps
from django.db import connection, connections
from django.test import SimpleTestCase, TransactionTestCase, tag

from django_actors import actor, roster, set_broker
from django_actors.actor import Actor
from django_actors.brokers.base import Broker
from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.message import Envelope, Message
from django_actors.registry import registry
from django_actors.waiting_room import WaitingRoom
from django_actors.worker import Worker

TIMEOUT_S = 20.0

# For tests in which a server loses its connections.
needs_server = tag("postgresql", "mysql")

BrokerType = TypeVar("BrokerType", bound=Broker)


def wait_until(
    condition: Callable[[], Any], what: str = "it", *, timeout_s: float = TIMEOUT_S
) -> Any:
    """Wait until *condition* is true, and return what it returned."""
    until = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"Waited in vain for {what}.")
        time.sleep(0.002)
    return found


def report(owner: str = "me", **values: Any) -> None:
    """Write that a worker process lives, as each does every few seconds."""
    told: dict[str, Any] = {
        "host": "mars",
        "pid": 7,
        "queues": {"mail", "default"},
        "threads": 8,
        "running": (),
        "memory_bytes": 1_000,
        "started_ms": 5,
    }
    roster.report(owner, alias="default", **{**told, **values})


@contextmanager
def silence() -> Iterator[None]:
    """Keep out of the output what the engine says about trouble that a test makes."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class Task(threading.Thread):
    """Runs a function in a thread that leaves no database connection behind."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(name="Task", daemon=True)
        self._function = function
        self._args = args
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            connections.close_all()

    def result(self) -> Any:
        """Wait for the end, and return what the function returned, or raise what it raised."""
        self.join(TIMEOUT_S)
        if self.is_alive():
            raise AssertionError(f"{self._function} does not come to its end.")
        if self._error is not None:
            raise self._error
        return self._result


def begin(function: Callable[..., Any], *args: Any) -> Task:
    """Call a function in a thread of its own."""
    task = Task(function, *args)
    task.start()
    return task


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread of its own, and return its result."""
    return begin(function, *args).result()


def make_message(
    name: str = "greet", *args: Any, queue: str = "default", **options: Any
) -> Message:
    return Message(queue, name, args, {}, options)


def envelop(message: Message, priority: int = 0) -> Envelope:
    return Envelope(message.message_id, message.queue_name, priority, message.encode())


def deliver(message: Message, **options: Any) -> Delivery:
    """Return a delivery of *message*, decoded already."""
    delivery = Delivery(message.encode(), queue_name=message.queue_name, message=message)
    for name, value in options.items():
        setattr(delivery, name, value)
    return delivery


class RemoteBroker(StubBroker):
    """
    A broker outside of the database, as Redis is: its waiting room is the real one.

    Attributes:
        refuses: Whether it is out of reach for publishers.

        published: The envelopes it has taken, in order.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.waiting_room = WaitingRoom()
        self.refuses = False
        self.published: list[Envelope] = []

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        if self.refuses:
            raise BrokerUnavailable("The remote broker is out of reach.")
        self.published += envelopes
        super().publish(envelopes)

    @property
    def published_ids(self) -> list[str]:
        return [envelope.message_id for envelope in self.published]


class ActorsMixin(SimpleTestCase):
    """Declares actors and starts workers; both are gone after the test."""

    def declare(self, function: Callable[..., Any], **options: Any) -> Actor[..., Any]:
        declared = actor(function, **options)
        self.addCleanup(registry.remove, declared.actor_name)
        return declared

    def use(self, broker: BrokerType) -> BrokerType:
        """Make *broker* the one that actors send to."""
        set_broker(broker)
        self.addCleanup(set_broker, None)
        return broker

    def start_worker(self, broker: Broker, **options: Any) -> Worker:
        worker = Worker(broker, **{"worker_timeout": 100, "worker_threads": 2, **options})
        worker.start()
        self.addCleanup(worker.stop, timeout=1_000)
        return worker


class EngineCase(ActorsMixin, TransactionTestCase):
    """A test with a real database that other threads see, too."""

    # Only its tables are emptied after each test.
    available_apps = ["django_actors"]

    def _fixture_teardown(self) -> None:
        # Django's own way is to truncate, which takes ten times as long.
        for alias in self._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
            for model in apps.get_models():
                if not model._meta.proxy:
                    rows: Any = model._base_manager.using(alias).all()
                    rows._raw_delete(alias)

    def cut_connections(self) -> None:
        """Have the database server close all connections of this test run, as in a restart."""
        in_thread(_cut_other_connections)


def _cut_other_connections() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        cursor.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        for (key,) in cursor.fetchall():
            cursor.execute(f"KILL {key}")
