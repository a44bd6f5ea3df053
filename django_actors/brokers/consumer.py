"""
The consumer: how a worker reads queues and settles what it has read.

Every adapter brings its own; ``tests/brokers/contract.py`` says what it has to do.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence

from django_actors.delivery import Delivery


class Consumer(abc.ABC):
    """
    A worker's reader of some queues. Used by one thread, but for ``wake()``.

    ``fetch()`` also keeps the claims of this consumer alive; a worker calls it at
    least once a second.

    Attributes:
        round_trip_s: How long the broker takes to answer at present, seconds; 0 where it is
            too near to be measured. A worker claims the further ahead the longer that is.
    """

    round_trip_s = 0.0

    def note_round_trip(self, seconds: float) -> None:
        """Note how long an answer took that the broker could give at once."""
        # Smoothed: one answer that was held up says nothing about the next.
        self.round_trip_s += (seconds - self.round_trip_s) / 4

    @abc.abstractmethod
    def fetch(
        self, limit: int, *, timeout: float, below_priority: int | None = None
    ) -> list[Delivery]:
        """
        Claim ready messages, the lowest priority number in the whole backlog first.

        Args:
            limit: How many at most; 0 claims nothing and only waits.

            timeout: Seconds to wait if there is nothing; ``wake()`` ends the wait.

            below_priority: Claim only messages with a lower number than this.

        Returns:
            What was claimed; may be empty.

        Raises:
            BrokerUnavailable: the broker does not answer; call again later.
        """

    @abc.abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Erase messages that were settled; those this consumer holds no longer are ignored."""

    @abc.abstractmethod
    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Give messages back that were not run; somebody may have them at once."""

    @abc.abstractmethod
    def wake(self) -> None:
        """End a waiting ``fetch()``; from any thread."""

    @abc.abstractmethod
    def set_queues(self, queue_names: Collection[str]) -> None:
        """Read these queues from now on."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what is still claimed, and let go of the connection."""
