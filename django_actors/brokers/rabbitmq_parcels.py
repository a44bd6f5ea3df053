"""
What is on its way to RabbitMQ: messages, and the calls of ``publish()`` that wait for them.
"""

from __future__ import annotations

import threading
import time

from django_actors.errors import BrokerUnavailable

from .rabbitmq_frames import NO_PROPERTIES


class Parcel:
    """
    A message on its way.

    Attributes:
        batch: What its sender waits for; ``None`` if nobody does.

        lane: The exchange and the routing key; of what somebody waits for, ``""`` and the
            physical queue.

        properties: As they are written.

        number: Tells it from all others; empty where nobody waits.

        returned: Whether RabbitMQ had no such queue.
    """

    __slots__ = ("batch", "body", "lane", "number", "properties", "returned")

    def __init__(
        self,
        batch: Batch | None,
        lane: tuple[str, str],
        body: bytes,
        properties: bytes = NO_PROPERTIES,
        number: str = "",
    ) -> None:
        self.batch = batch
        self.lane = lane
        self.body = body
        self.properties = properties
        self.number = number
        self.returned = False

    @property
    def is_unwanted(self) -> bool:
        """Whether its sender has given up."""
        return self.batch is not None and self.batch.abandoned


class Batch:
    """
    The messages of one ``publish()``, and how many of them are not confirmed.

    Args:
        patience: Seconds to wait for each confirmation after the one before.
    """

    __slots__ = (
        "_ended",
        "_latch",
        "_patience",
        "_progress_at",
        "abandoned",
        "error",
        "missing",
        "size",
    )

    def __init__(self, size: int, patience: float) -> None:
        self.size = self.missing = size
        self.abandoned = False
        self.error: BrokerUnavailable | None = None
        self._patience = patience
        self._progress_at = time.monotonic()
        self._ended = False
        # Held until the end. An event would do, too, and cost several times as much.
        self._latch = threading.Lock()
        self._latch.acquire()

    @property
    def left(self) -> float:
        """For how many seconds its sender goes on waiting; 0 if there is nothing to wait for."""
        if self._ended:
            return 0.0
        return max(0.0, self._progress_at + self._patience - time.monotonic())

    def confirm(self) -> None:
        """Note that RabbitMQ has one of them."""
        self.missing -= 1
        self._progress_at = time.monotonic()
        if self.missing == 0:
            self._end()

    def fail(self, error: BrokerUnavailable) -> None:
        """Give up: trying again would not help."""
        self.error = error
        self.abandoned = True
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._latch.release()

    def wait(self) -> bool:
        """Wait for the end; return whether all were confirmed, each in time."""
        while left := self.left:
            self._latch.acquire(timeout=left)
        if not self._ended:
            self.abandoned = True
        return self.missing == 0
