"""
The I/O thread of a worker: claims messages in batches, and settles them in batches.

The only thread that talks to the consumer. Worker threads hand it what they have
finished; whatever cannot be written now is kept and tried again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
)

from .brokers.consumer import Consumer
from .claims import is_locked_out
from .delivery import Delivery, Fate, Reason
from .errors import BrokerError
from .pace import Pace
from .redaction import format_traceback, redact

if TYPE_CHECKING:
    from .worker import Worker

logger = logging.getLogger("django_actors.worker.ConsumerThread")

# What says "not now". Whatever else a settlement raises lies in one of its messages.
OUTAGES = (BrokerError, OperationalError, InterfaceError, InternalError, ProgrammingError)

# Ahead of its threads a process claims this many messages for each of them at most.
MOST_AHEAD = 32

# What no thread has taken for so long is given back, for others to run.
RETURN_AFTER_S = 1.0

# Messages that end within such a time of one another are settled together, if the threads have
# enough to do: to be woken for each one costs as much as to run it.
GATHER_S = 0.001

# A consumer keeps its claims alive in fetch(), and wants to be called that often.
LONGEST_WAIT_S = 1.0

SHORTEST_PAUSE_S = 0.1
# Whoever waits for a broker works again within 2 s of its return.
LONGEST_PAUSE_S = 1.5

# How long a stopping worker tries to write what it has finished.
FINISH_S = 10.0

# How often an idle worker in burst mode asks whether anything is left.
BURST_S = 0.1


class Intake(threading.Thread):
    """
    Keep the heap of a worker filled, and its finished messages settled.

    Args:
        timeout_s: How long an idle thread waits for the broker before it looks around.
    """

    def __init__(self, worker: Worker, *, timeout_s: float) -> None:
        super().__init__(name="Consumer", daemon=True)
        self._worker = worker
        self._broker = worker.broker
        self._heap = worker.heap
        self._timeout_s = min(timeout_s, BURST_S if worker.burst else LONGEST_WAIT_S)
        self._threads = len(worker.slots)
        self._pace = Pace(MOST_AHEAD * self._threads)
        self._taken_at = self._settled_at = 0.0
        self._finished: deque[Delivery] = deque()
        self._unsettled: list[Delivery] = []
        self._consumer: Consumer | None = None
        self._read_queues: set[str] = set()
        self._paused: frozenset[str] | None = None
        self._draining = False
        self._finish_by: float | None = None
        self._failures = 0
        self._warned = False
        self._settled = 0
        self.claimed = 0

    # ---- for other threads -----------------------------------------------------

    def finished(self, delivery: Delivery) -> None:
        """Take over a delivery whose fate is decided."""
        self._finished.append(delivery)
        self._wake()

    def drain(self) -> None:
        """Claim nothing more."""
        self._draining = True
        self._wake()

    def finish(self) -> None:
        """Settle what is left, let go of the consumer, and end the thread."""
        self._draining = True
        self._finish_by = time.monotonic() + FINISH_S
        self._wake()
        self.join(FINISH_S + 1.0)

    def set_paused(self, queue_names: frozenset[str]) -> None:
        """Begin no message of these queues; before this is called, of none."""
        if queue_names != self._paused:
            self._paused = queue_names
            self._wake()

    def queue_names(self) -> set[str]:
        """Return the queues this worker is there for, the paused ones included."""
        declared = self._broker.get_declared_queues()
        return declared if self._worker.queues is None else set(self._worker.queues)

    def _wake(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            consumer.wake()

    # ---- the thread ------------------------------------------------------------

    def run(self) -> None:
        self._broker.emit_before("consumer_thread_boot", self)
        self._broker.emit_after("consumer_thread_boot", self)
        try:
            while not self._is_over():
                self._step()
        finally:
            self._close()
            self._broker.emit_before("consumer_thread_shutdown", self)
            self._broker.emit_after("consumer_thread_shutdown", self)

    def _is_over(self) -> bool:
        if self._finish_by is None:
            return False
        nothing_left = not self._finished and not self._unsettled
        return nothing_left or time.monotonic() >= self._finish_by

    def _step(self) -> None:
        try:
            consumer = self._open()
            self._gather()
            self._settle(consumer)
            self._fill(consumer)
        except (BrokerError, DatabaseError) as error:
            self._pause(error)
        except Exception:
            logger.exception("The consumer stumbled")
            time.sleep(SHORTEST_PAUSE_S)
        else:
            self._note_success()

    def _open(self) -> Consumer:
        queue_names = self._open_queue_names()
        if self._consumer is None:
            self._consumer = self._broker.consume(queue_names, owner=self._worker.owner)
        elif self._read_queues != queue_names:
            self._consumer.set_queues(queue_names)
            self._give_back(self._heap.take_out(self._read_queues - queue_names))
        self._read_queues = queue_names
        return self._consumer

    def _open_queue_names(self) -> set[str]:
        # Until it is known what is paused, everything is: an operator may have forbidden it.
        return set() if self._paused is None else self.queue_names() - self._paused

    # ---- settling --------------------------------------------------------------

    def _gather(self) -> None:
        """Let more messages end before they are settled, if no thread runs out of work."""
        waiting = len(self._heap)
        has_enough = waiting >= self._threads and 2 * waiting >= self._pace.ahead
        if self._finished and has_enough and not self._draining:
            time.sleep(GATHER_S)

    def _settle(self, consumer: Consumer) -> None:
        while self._finished:
            self._unsettled.append(self._finished.popleft())
        if not self._unsettled:
            return
        try:
            self._broker.settle(consumer, self._unsettled)
        except OUTAGES:
            raise
        except Exception:
            # What it was shows again with the message it lies in, whose secrets are known.
            logger.error("Could not settle %d messages together", len(self._unsettled))
            self._settle_singly(consumer)
        else:
            self._count_settled(len(self._unsettled))

    def _settle_singly(self, consumer: Consumer) -> None:
        """Find the message that spoils a batch, so that the others get through."""
        while self._unsettled:
            self._settle_or_bury(consumer, self._unsettled[0])
            self._count_settled(1)

    def _settle_or_bury(self, consumer: Consumer, delivery: Delivery) -> None:
        try:
            self._broker.settle(consumer, [delivery])
        except OUTAGES:
            raise
        except Exception as error:
            _log_failure("settle", delivery, error)
            self._bury(consumer, delivery, error)

    def _bury(self, consumer: Consumer, delivery: Delivery, error: Exception) -> None:
        """Keep a message whose outcome cannot be written, for people to look at."""
        delivery.fail(Reason.REJECTED)
        delivery.exception, delivery.successors = error, ()
        try:
            self._broker.settle(consumer, [delivery])
        except OUTAGES:
            raise
        except Exception as trouble:
            # It stays claimed, and comes again when this worker has gone.
            _log_failure("bury", delivery, trouble)

    def _count_settled(self, count: int) -> None:
        self._worker.tally.note(self._unsettled[:count])
        del self._unsettled[:count]
        self.claimed -= count
        self._settled += count
        self._pace.note(count)
        self._settled_at = time.monotonic()
        limit = self._worker.max_messages
        if limit is not None and self._settled >= limit:
            self._worker.ask_to_end("max_messages")

    # ---- claiming --------------------------------------------------------------

    def _fill(self, consumer: Consumer) -> None:
        waiting = len(self._heap)
        if self._draining:
            consumer.fetch(0, timeout=self._patience())
            return
        if waiting and self._is_stuck():
            self._give_back(self._heap.clear())
            return
        self._claim(consumer, waiting)
        if self._worker.burst and self.claimed == 0:
            self._end_if_nothing_is_left()

    def _claim(self, consumer: Consumer, waiting: int) -> None:
        self._pace.round_trip_s = consumer.round_trip_s
        ahead = self._pace.ahead
        wanted = self._idle_threads() + ahead - waiting
        if waiting and 2 * wanted < ahead:
            # Not one by one: a claim costs the same for many.
            wanted = 0
        # Beside what waits in the heap already, only something more urgent is of use.
        below = None if wanted > 0 else self._heap.worst_priority()
        if below is not None:
            wanted = min(self._threads, 2 * ahead + self._threads - waiting)
        self._take(consumer.fetch(max(0, wanted), timeout=self._patience(), below_priority=below))

    def _idle_threads(self) -> int:
        in_hand = len(self._heap) + len(self._finished) + len(self._unsettled)
        return max(0, self._threads - max(0, self.claimed - in_hand))

    def _is_stuck(self) -> bool:
        """Whether all threads are busy with messages that take longer than was foreseen."""
        return time.monotonic() - max(self._taken_at, self._settled_at) > RETURN_AFTER_S

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.fate = Fate.PUT_BACK
        self._finished.extend(deliveries)

    def _patience(self) -> float:
        return 0.0 if self._finished else self._timeout_s

    def _take(self, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        self.claimed += len(deliveries)
        self._taken_at = time.monotonic()
        self._broker.note_received(deliveries)
        self._worker.executor.look_up(deliveries)
        self._give_back(deliveries if self._draining else self._heap.push(deliveries))

    def _end_if_nothing_is_left(self) -> None:
        # What other workers have claimed is their business: they are here as long as it is.
        if self._paused is None:
            return
        room = self._broker.waiting_room
        if room.wait_ms() == 0 or room.has_claimed(self._worker.owner):
            return
        if not any(self._broker.count_ready(name) for name in self._open_queue_names()):
            self._worker.ask_to_end("burst")

    # ---- trouble ---------------------------------------------------------------

    def _pause(self, error: Exception) -> None:
        self._failures += 1
        if is_locked_out(error) and self._failures < 10:
            time.sleep(random.uniform(0.0, 0.05))
            return
        if not self._warned:
            self._warned = True
            logger.warning("The worker waits for its broker: %s", error)
        # One of them may be dead; it would fail for ever.
        connections.close_all()
        pause = min(SHORTEST_PAUSE_S * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
        time.sleep(pause * random.uniform(0.5, 1.0))

    def _note_success(self) -> None:
        if self._warned:
            logger.info("The worker goes on after %d failed attempts", self._failures)
        self._failures = 0
        self._warned = False

    def _close(self) -> None:
        if self._unsettled or self._finished:
            logger.error(
                "%d messages were run but could not be settled; they will run again",
                len(self._unsettled) + len(self._finished),
            )
        try:
            if self._consumer is not None:
                self._consumer.close()
        except (BrokerError, DatabaseError) as error:
            logger.warning("The consumer was not closed in order: %s", error)


def _log_failure(what: str, delivery: Delivery, error: Exception) -> None:
    shown = redact(delivery.message)
    text = format_traceback(error, shown).rstrip()
    logger.error("Could not %s message %s\n%s", what, shown, text)
