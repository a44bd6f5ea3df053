"""
The dispatcher: moves messages whose time has come from the waiting room to the broker.

The one place where both meet. Every worker process has one; they share the work
by claiming rows. It also looks after what dead processes left behind.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence

from django.db import Error as DatabaseError
from django.db import connections

from . import clock, counts, crashes, failures, roster, starts
from .brokers.base import Broker
from .claims import is_locked_out
from .conf import settings
from .errors import BrokerError
from .message import Envelope, Origin
from .reporter import Reporter
from .wakeup import POLL_S, Alarm

logger = logging.getLogger(__name__)

BATCH = 500

LONGEST_WAIT_S = 1.0

MAINTAIN_S = 5.0
PRUNE_S = 600.0

# Also how late a pause is heard of that came while the broker was away.
LONGEST_PAUSE_S = 1.5


class Dispatcher:
    """
    Move due messages to *broker*.

    Args:
        owner: Whose claims its rows are while it publishes them.
    """

    def __init__(self, broker: Broker, *, owner: str = "dispatcher") -> None:
        self._broker = broker
        self._room = broker.waiting_room
        self._owner = owner
        self._may_hold = False
        self._maintain_at = 0.0
        self._prune_at = time.monotonic() + PRUNE_S

    def run_once(self, now: int | None = None) -> int:
        """
        Publish the messages that are due, a batch at most.

        Args:
            now: Milliseconds since 1970; the database's own time where it is ``None``.

        Returns:
            How many were published.
        """
        began = time.monotonic()
        # Until it is known that none is: the answer to a claim may be lost.
        self._may_hold = True
        with self._broker.settlement():
            rows = self._room.claim_due(self._owner, limit=BATCH, now=now)
            if rows:
                self._move(rows)
        self._may_hold = False
        if rows:
            elapsed_ms = (time.monotonic() - began) * clock.MS_PER_S
            logger.debug("Moved %d due messages in %d ms", len(rows), elapsed_ms)
        return len(rows)

    def _move(self, rows: Sequence[tuple[int, Envelope]]) -> None:
        # Publish first, delete second. A crash in between sends twice; the other order would
        # lose the message.
        self._broker.publish([envelope for _, envelope in rows])
        kept = self._doubtful(rows)
        self._room.forget([key for key, _ in rows if key not in kept], self._owner)
        if kept:
            self._room.keep(sorted(kept), self._owner)

    def _doubtful(self, rows: Sequence[tuple[int, Envelope]]) -> set[int]:
        """Return the keys of rows that have to tell two copies of a message apart."""
        if not self._broker.tells_origin:
            return set()
        return {key for key, envelope in rows if envelope.origin is Origin.DOUBTFUL_ROW}

    def tend(self) -> None:
        """Do what is due every few seconds, or minutes."""
        now = time.monotonic()
        if now >= self._maintain_at:
            self._maintain_at = now + MAINTAIN_S
            self._broker.maintain()
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_S
            self._prune()

    def _prune(self) -> None:
        ttl = settings.DEAD_LETTER_TTL
        pruned = 0
        while batch := self._room.prune(older_than_ms=ttl):
            pruned += batch
        crashes.prune(older_than_ms=ttl, alias=self._room.alias)
        failures.prune(older_than_ms=settings.ATTEMPT_TTL, alias=self._room.alias)
        counts.prune(keep_ms=settings.STATISTICS_TTL, alias=self._room.alias)
        roster.prune(self._room.alias)
        starts.prune(self._room.alias)
        if pruned:
            logger.info("Pruned %d dead letters older than %d ms", pruned, ttl)

    def seconds_until_due(self) -> float | None:
        """Return how long until the next row is due, ``None`` if none waits."""
        wait = self._room.wait_ms()
        return None if wait is None else wait / clock.MS_PER_S

    def let_go(self) -> None:
        """Give back what was claimed for a broker that did not take it, if anything was."""
        if self._may_hold:
            self._room.release(self._owner)
            self._may_hold = False


class DispatcherThread(threading.Thread):
    """
    Runs a ``Dispatcher`` until it is stopped; sleeps from due time to due time.

    Args:
        reporter: What it tends besides, to its very end.

    Attributes:
        draining: Whether it moves no more messages.
    """

    def __init__(self, broker: Broker, *, owner: str, reporter: Reporter | None = None) -> None:
        super().__init__(name="Dispatcher", daemon=True)
        self._reporter = reporter
        self._broker = broker
        self._dispatcher = Dispatcher(broker, owner=owner)
        self._alarm = Alarm()
        self.draining = self._stopping = False
        self._failures = 0
        self._warned = False

    def run(self) -> None:
        room = self._broker.waiting_room
        self._news = room.watch(self._alarm)
        room.listeners.add(self._ring)
        try:
            while not self._stopping:
                if self._reporter is not None:
                    self._reporter.tend()
                self._step()
        finally:
            if self._reporter is not None:
                self._reporter.close()
            room.listeners.discard(self._ring)
            self._news.close()
            self._alarm.close()
            connections.close_all()

    def _ring(self, due_ms: int) -> None:
        self._alarm.ring()

    def _step(self) -> None:
        try:
            self._work()
        except (BrokerError, DatabaseError) as error:
            self._pause(error)
        except Exception:
            logger.exception("The dispatcher stumbled")
            self._alarm.sleep(LONGEST_PAUSE_S)
        else:
            self._failures = 0
            self._warned = False

    def _work(self) -> None:
        if self.draining:
            self._alarm.sleep(LONGEST_WAIT_S)
            return
        self._dispatcher.tend()
        wait = self._dispatcher.seconds_until_due()
        if wait == 0 and self._dispatcher.run_once():
            self._news.note_activity()
            return
        if wait == 0:
            # Another dispatcher has them in its hands, and will have moved them in a moment.
            wait = POLL_S
        self._news.wait(LONGEST_WAIT_S if wait is None else min(wait, LONGEST_WAIT_S))

    def _pause(self, error: Exception) -> None:
        self._failures += 1
        if is_locked_out(error) and self._failures < 10:
            time.sleep(random.uniform(0.0, 0.05))
            return
        if not self._warned:
            self._warned = True
            logger.warning("The dispatcher waits: %s", error)
        connections.close_all()
        self._let_go()
        self._alarm.sleep(min(0.1 * 2 ** min(self._failures, 10), LONGEST_PAUSE_S))

    def _let_go(self) -> None:
        try:
            self._dispatcher.let_go()
        except DatabaseError:
            # The claims run out by themselves.
            connections.close_all()

    def drain(self) -> None:
        """Move no more messages."""
        self.draining = True
        self._alarm.ring()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopping = True
        self._alarm.ring()
