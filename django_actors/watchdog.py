"""
The thread that ends what runs for too long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from . import clock
from .conf import settings
from .delivery import Delivery
from .errors import TimeLimitExceeded
from .slots import WorkerSlot

logger = logging.getLogger(__name__)

TICK_S = 0.2


class Watchdog(threading.Thread):
    """
    Raise ``TimeLimitExceeded`` in actors that are over their limit; then give them up.

    Args:
        slots: What to watch.

        give_up: Called with a slot's delivery that did not react within the grace.
    """

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        give_up: Callable[[WorkerSlot, Delivery], None],
    ) -> None:
        super().__init__(name="Watchdog", daemon=True)
        self._slots = slots
        self._give_up = give_up
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(TICK_S):
            try:
                self.look()
            except Exception:
                logger.exception("The watchdog stumbled")

    def look(self) -> None:
        """Look at every slot once."""
        for slot in self._slots:
            overdue = slot.is_overdue()
            if overdue is not None:
                self._act(slot, overdue)

    def _act(self, slot: WorkerSlot, delivery: Delivery) -> None:
        if slot.interrupt(delivery, TimeLimitExceeded):
            logger.warning("Time limit exceeded. Interrupted message %s.", delivery.message_id)
        elif slot.is_overdue(grace=settings.TIME_LIMIT_GRACE / clock.MS_PER_S) is delivery:
            self._give_up(slot, delivery)

    def stop(self) -> None:
        """End the thread soon."""
        self._stop_event.set()
