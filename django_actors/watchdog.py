"""
The thread that ends what runs for too long; it sleeps until the next deadline.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from . import clock
from .conf import settings
from .delivery import Delivery
from .errors import TimeLimitExceeded
from .slots import WorkerSlot

logger = logging.getLogger(__name__)

# How often it looks at one that is over its limit and does not end.
TICK_S = 0.2

# A slot rings for a deadline that comes sooner; this is for what nobody has thought of.
LONGEST_S = 5.0


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
        self._next_look = -math.inf
        self._bell = threading.Event()
        self._stopping = False
        for slot in slots:
            slot.tell_deadline = self.expect

    def expect(self, deadline: float) -> None:
        """Look again by *deadline*, of ``time.monotonic()``; any thread may call it."""
        if deadline < self._next_look:
            self._bell.set()

    def run(self) -> None:
        while not self._stopping:
            try:
                self.look()
            except Exception:
                logger.exception("The watchdog stumbled")
            self._sleep()

    def _sleep(self) -> None:
        self._bell.clear()
        # First: what begins while the slots are looked at rings, whatever its deadline.
        self._next_look = math.inf
        now = time.monotonic()
        self._next_look = now + min([LONGEST_S, *(_patience_s(each, now) for each in self._slots)])
        if not self._stopping:
            self._bell.wait(self._next_look - now)

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
        self._stopping = True
        self._bell.set()


def _patience_s(slot: WorkerSlot, now: float) -> float:
    """Return for how long nothing has to be done about a slot."""
    delivery = slot.delivery
    if delivery is None or delivery.deadline is None:
        return math.inf
    left_s = delivery.deadline - now
    return left_s if left_s > 0 else TICK_S
