"""
What runs for longer than RabbitMQ lets a message be unacknowledged.

RabbitMQ takes a message from a consumer that holds it for 30 minutes (``consumer_timeout``).
Long before that the message becomes a row of the waiting room that is claimed, and is
acknowledged: the new place is written before the old one is erased. The row is put off as
long as the message runs; if the worker dies it becomes due, and the message runs again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django_actors import clock
from django_actors.delivery import Delivery, Reason
from django_actors.models import OWNER_LENGTH, Kind, WaitingMessage
from django_actors.rows import build_row
from django_actors.signing import seal
from django_actors.waiting_room import WaitingRoom

# How long a row is left alone by others, and how often that is said again.
LEASE_MS = 60_000
RENEW_S = 10.0

# On the message of a parked row: if it comes to a worker, its former one has died.
OPTION = "parked"
MARK = b'"parked":true'


def parking_owner(owner: str) -> str:
    """Return the name in which the rows of *owner* are claimed."""
    # Not the owner's own: that one claims for the dispatcher, who lets go when it stumbles.
    return f"parked:{owner}"[:OWNER_LENGTH]


class Parking:
    """The parked messages of one worker process."""

    def __init__(self, room: WaitingRoom, owner: str) -> None:
        self._room = room
        self._owner = parking_owner(owner)
        self._count = 0
        self._renew_at = 0.0

    def park(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Write rows for running messages; return those that have one now."""
        parked = [each for each in deliveries if each.message is not None]
        self._room.put([self._row(each) for each in parked])
        self._count += len(parked)
        return parked

    def _row(self, delivery: Delivery) -> WaitingMessage:
        assert delivery.message is not None
        message = delivery.message.copy(options={OPTION: True})
        row = build_row(
            message,
            seal(message),
            kind=Kind.SCHEDULED,
            reason=Reason.RUNNING,
            priority=delivery.priority,
            due_ms=clock.now_ms() + LEASE_MS,
        )
        row.claimed_by = self._owner
        return row

    def renew(self) -> None:
        """Keep the rows from becoming due; called often."""
        now = time.monotonic()
        if self._count and now >= self._renew_at:
            self._rows().update(due_ms=clock.now_ms() + LEASE_MS)
            self._renew_at = now + RENEW_S

    def forget(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the rows of messages that were settled; a row written since stays."""
        self._rows(deliveries).delete()
        self._count -= len(deliveries)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Make rows due at once."""
        self._rows(deliveries).update(claimed_by="", due_ms=clock.now_ms())
        self._count -= len(deliveries)

    def close(self) -> None:
        """Make all rows due that are left."""
        if self._count:
            self._room.release(self._owner)
            self._count = 0

    def _rows(self, deliveries: Sequence[Delivery] | None = None) -> Any:
        rows = WaitingMessage.objects.using(self._room.alias).filter(claimed_by=self._owner)
        if deliveries is None:
            return rows
        return rows.filter(message_id__in=[each.message_id for each in deliveries])
