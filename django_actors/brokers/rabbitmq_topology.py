"""
The names and arguments of what the broker has on RabbitMQ.

A queue of ours is several of RabbitMQ's: a *lane* for each priority in use. Which lanes
there are is a table of the waiting room's database: AMQP cannot list queues, and a lane
that an older deploy has left behind must still be drained.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from django.db import Error as DatabaseError
from django.db import IntegrityError, connections, transaction

from django_actors.conf import settings
from django_actors.errors import BrokerUnavailable
from django_actors.models import RabbitmqLane
from django_actors.waiting_room import WaitingRoom

LONGEST_NAME = 255

# RabbitMQ counts what is put back, too, so this is no crash limit: it only ends a message
# that takes down whole machines, whose crashes nobody could count.
DELIVERY_LIMIT = 1_000

_MISMATCH = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?:queue|exchange) '(?P<queue>[^']+)'"
    r".*?received (?P<ours>.+?) but current is (?P<theirs>.+)"
)


class LaneKey(NamedTuple):
    """A priority of a queue."""

    priority: int
    queue_name: str


class Topology:
    """
    What is called how.

    Args:
        queue_type: ``quorum`` or ``classic``.

        namespace: The prefix of every name; the setting ``NAMESPACE`` where it is empty.
    """

    def __init__(self, queue_type: str, namespace: str = "") -> None:
        self.queue_type = queue_type
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        """The prefix of every name."""
        return self._namespace or settings.NAMESPACE

    def lane_name(self, key: LaneKey) -> str:
        """Return the physical queue of a lane."""
        name = f"{self.namespace}.{key.queue_name}.{key.priority}"
        if len(name) <= LONGEST_NAME:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        return f"{name[: LONGEST_NAME - 33]}.{digest}"

    @property
    def dead_name(self) -> str:
        """The queue where RabbitMQ puts what it gives up; swept into the waiting room."""
        return f"{self.namespace}:dead"

    @property
    def roll_name(self) -> str:
        """The queue every consumer reads and nobody sends to: it counts them."""
        return f"{self.namespace}:consumers"

    @property
    def control_name(self) -> str:
        """The exchange that reaches every consumer."""
        return f"{self.namespace}:control"

    def lane_arguments(self) -> dict[str, Any]:
        """Return the arguments of a lane."""
        arguments: dict[str, Any] = {
            "x-queue-type": self.queue_type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_name,
        }
        if self.queue_type == "quorum":
            # Said aloud: from RabbitMQ 4.0 on the default is 20.
            arguments["x-delivery-limit"] = DELIVERY_LIMIT
        return arguments

    def declaration(self, name: str) -> dict[str, Any]:
        """Return the arguments of ``queue_declare()`` for a lane or the queue of the dead."""
        if name == self.roll_name:
            # Nothing is ever in it, so it needs no copies.
            return {"queue": name, "durable": True, "arguments": {"x-queue-type": "classic"}}
        if name == self.dead_name:
            arguments: dict[str, Any] = {"x-queue-type": self.queue_type}
            if self.queue_type == "quorum":
                # A sweep that fails is repeated: from RabbitMQ 4.0 on 20 times by default.
                arguments["x-delivery-limit"] = 1_000_000
        else:
            arguments = self.lane_arguments()
        return {"queue": name, "durable": True, "arguments": arguments}

    def control_declaration(self) -> dict[str, Any]:
        """Return the arguments of ``exchange_declare()`` for the control exchange."""
        return {"exchange": self.control_name, "exchange_type": "fanout", "durable": True}

    def key_of(self, lane_name: str) -> LaneKey | None:
        """Return which lane a physical queue is; ``None`` if its name does not say."""
        prefix = f"{self.namespace}."
        queue_name, _, priority = lane_name.removeprefix(prefix).rpartition(".")
        if not lane_name.startswith(prefix) or not re.fullmatch(r"-?\d+", priority):
            return None
        return LaneKey(int(priority), queue_name)


def explain_refusal(error: Any) -> BrokerUnavailable:
    """Return what a refused declaration means, and the way out."""
    text = getattr(error, "reply_text", str(error))
    found = _MISMATCH.search(text)
    if found is None:
        return BrokerUnavailable(f"RabbitMQ refused a queue: {text}")
    return BrokerUnavailable(
        f"Queue {found['queue']!r} exists on RabbitMQ with another {found['argument']}: "
        f"it has {found['theirs']}, this project wants {found['ours']}. Let the workers empty it "
        f"and delete it (rabbitmqctl delete_queue {found['queue']}), or set the broker's "
        "queue_type, or another NAMESPACE, so that both agree."
    )


class LaneBook:
    """Which lanes there are, for all processes of the project."""

    def __init__(self, room: WaitingRoom, topology: Topology) -> None:
        self._room = room
        self._topology = topology
        self._known: set[tuple[str, LaneKey]] = set()
        self._lock = threading.Lock()

    def find(self, queue_names: Collection[str]) -> set[LaneKey]:
        """Return the lanes of some queues."""
        rows = self._rows().filter(queue_name__in=list(queue_names))
        with _as_unavailable():
            return {LaneKey(*row) for row in rows.values_list("priority", "queue_name")}

    def find_all(self) -> set[LaneKey]:
        """Return all lanes of the project."""
        with _as_unavailable():
            rows = self._rows().values_list("priority", "queue_name")
            return {LaneKey(*row) for row in rows}

    def forget_all(self) -> None:
        """Forget all lanes of the project, because they were deleted."""
        with self._lock, _as_unavailable():
            self._rows().delete()
            self._known.clear()

    def add(self, keys: Iterable[LaneKey]) -> set[LaneKey]:
        """
        Note lanes that are about to be used; return those nobody had noted.

        A lane is asked for once in a process, so that sending costs no query.
        """
        namespace = self._topology.namespace
        fresh = {key for key in keys if (namespace, key) not in self._known}
        if not fresh:
            return fresh
        with self._lock, _as_unavailable():
            there = self.find({key.queue_name for key in fresh})
            missing = fresh - there
            for key in missing:
                self._insert(namespace, key)
            # A row written in the caller's transaction may vanish with it.
            remembered = there & fresh if self._is_in_transaction() else fresh
            self._known.update((namespace, key) for key in remembered)
            return missing

    def _insert(self, namespace: str, key: LaneKey) -> None:
        try:
            with transaction.atomic(using=self._room.alias):
                self._rows().create(
                    namespace=namespace, queue_name=key.queue_name, priority=key.priority
                )
        except IntegrityError:
            # Another process was faster.
            return

    def _is_in_transaction(self) -> bool:
        return connections[self._room.alias].in_atomic_block

    def _rows(self) -> Any:
        rows = RabbitmqLane.objects.using(self._room.alias)
        return rows.filter(namespace=self._topology.namespace)


class _as_unavailable:
    """Tell callers of the broker, who know nothing of this table, in the broker's words."""

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, DatabaseError) and not isinstance(error, IntegrityError):
            raise BrokerUnavailable(
                f"The table of RabbitMQ's lanes cannot be read or written: {error}"
            ) from error
