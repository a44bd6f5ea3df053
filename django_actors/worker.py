"""
The worker: one process's consumer, its threads, and how they start and stop.

An I/O thread (intake.py) claims messages and settles them in batches, a heap hands
them to N threads, a watchdog enforces limits, and a dispatcher moves due messages.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING

from . import clock
from .brokers.base import Broker
from .counts import Tally
from .delivery import Delivery, Fate
from .dispatcher import DispatcherThread
from .errors import Interrupt, Shutdown, TimeLimitExceeded
from .executor import Abandoned, Executor
from .gate import Gate, GateClosed
from .intake import Intake
from .interrupts import expect_interrupts
from .reporter import Reporter
from .slots import WorkerSlot
from .watchdog import Watchdog
from .work_heap import WorkHeap

if TYPE_CHECKING:
    from .board import Board

logger = logging.getLogger(__name__)

DEFAULT_STOP_MS = 600_000

# For actors that are told of the shutdown only when its time is over.
LAST_CALL_S = 2.0

_JOIN_STEP_S = 0.01


class Worker:
    """
    Run messages in threads of this process.

    Args:
        broker: Where messages come from.

        queues: Names of the queues to read; all declared ones, also later ones,
            where it is ``None``.

        worker_timeout: Milliseconds an idle I/O thread waits before it looks around.

        worker_threads: How many messages run at the same time.

        board: Where to note what runs, for the supervisor.

        max_messages: Ask to be replaced after so many messages.

        burst: Ask to end when nothing is left to run.

    Attributes:
        done: Set when the worker wants its process to end; ``done_reason`` says why:
            ``burst``, ``max_messages`` or ``stuck``.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        queues: Collection[str] | None = None,
        worker_timeout: int = 1_000,
        worker_threads: int = 8,
        board: Board | None = None,
        max_messages: int | None = None,
        burst: bool = False,
    ) -> None:
        self.broker = broker
        self.queues = None if queues is None else frozenset(queues)
        self.owner = uuid.uuid4().hex
        self.board = board
        self.max_messages = max_messages
        self.burst = burst
        self.done = threading.Event()
        self.done_reason = ""
        self.executor = Executor(broker)
        self.heap = WorkHeap()
        self.gate = Gate()
        self.slots = [WorkerSlot(index, board) for index in range(worker_threads)]
        self.threads = [WorkerThread(self, slot) for slot in self.slots]
        self.tally = Tally()
        self.intake = Intake(self, timeout_s=worker_timeout / clock.MS_PER_S)
        self.watchdog = Watchdog(self.slots, self._give_up)
        self.reporter = None if broker.waiting_room.in_memory else Reporter(self)
        self.dispatcher = DispatcherThread(broker, owner=self.owner, reporter=self.reporter)
        self._stop_lock = threading.Lock()
        self._stopped = False

    # ---- life ------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; they work when this returns."""
        self.broker.declare_actors()
        self.broker.emit_before("worker_boot", self)
        if self.board is not None:
            # Named before the first claim, so that no claim is ever nobody's.
            self.board.owner = self.owner
        self._introduce()
        for thread in (*self.threads, self.intake, self.dispatcher, self.watchdog):
            thread.start()
        self.broker.emit_after("worker_boot", self)

    def _introduce(self) -> None:
        # Before the first claim: what is paused stays so when workers are restarted, and
        # nobody waits until the death of an unknown is counted.
        if self.reporter is None:
            self.intake.set_paused(frozenset())
        else:
            self.reporter.introduce()

    def stop(self, timeout: int = DEFAULT_STOP_MS) -> None:
        """
        Stop gracefully; calling it again does nothing.

        No more messages are claimed, what was not begun goes back at once, what runs is
        waited for. When the time is over ``Shutdown`` is raised in the actors that are left,
        and their messages go back.

        Args:
            timeout: Milliseconds to wait for running actors.
        """
        with self._stop_lock:
            if self._stopped or not self.intake.ident:
                return
            self._stopped = True
            self.broker.emit_before("worker_shutdown", self)
            deadline = time.monotonic() + timeout / clock.MS_PER_S
            self._close_doors()
            self._notify_shutdown()
            self._await_threads(deadline)
            self._close_down()
            self.broker.emit_after("worker_shutdown", self)

    def _close_doors(self) -> None:
        self.intake.drain()
        self.dispatcher.drain()
        self.gate.close()
        for delivery in self.heap.close():
            delivery.fate = Fate.PUT_BACK
            self.intake.finished(delivery)

    def _notify_shutdown(self) -> None:
        for slot in self.slots:
            delivery = slot.delivery
            if delivery is not None and delivery.notify_shutdown:
                slot.interrupt(delivery, Shutdown)

    def _await_threads(self, deadline: float) -> None:
        self._join_threads(deadline)
        for slot in self.slots:
            delivery = slot.delivery
            if delivery is not None:
                slot.interrupt(delivery, Shutdown)
        self._join_threads(time.monotonic() + LAST_CALL_S)
        for slot in self.slots:
            self._put_back_running(slot)

    def _join_threads(self, deadline: float) -> None:
        for thread in self.threads:
            if not thread.abandoned:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _put_back_running(self, slot: WorkerSlot) -> None:
        delivery = slot.delivery
        if delivery is not None and slot.abandon(delivery):
            self.gate.leave()
            logger.warning("Gave message %s back while it still ran", delivery.message_id)
            delivery.fate = Fate.PUT_BACK
            self.intake.finished(delivery)

    def _close_down(self) -> None:
        self.intake.finish()
        # After the last settlement, so that it tells of all.
        self.dispatcher.stop()
        self.watchdog.stop()
        for thread in (self.dispatcher, self.watchdog):
            thread.join(LAST_CALL_S)

    def join(self) -> None:
        """Wait until nothing is claimed, running or to be settled in this process."""
        while self.is_busy:
            time.sleep(_JOIN_STEP_S)

    @property
    def is_busy(self) -> bool:
        """Whether anything is claimed, running or to be settled in this process."""
        return self.intake.claimed > 0

    def pause(self) -> None:
        """Start nothing more; returns when nothing runs."""
        self.gate.pause()

    def resume(self) -> None:
        """Start messages again after ``pause()``."""
        self.gate.resume()

    # ---- what its parts tell it ------------------------------------------------

    def ask_to_end(self, reason: str) -> None:
        """Tell whoever owns this process that it should end, once."""
        if not self.done.is_set():
            self.done_reason = reason
            self.done.set()

    def _give_up(self, slot: WorkerSlot, delivery: Delivery) -> None:
        """Settle what a stuck thread runs as failed, and ask for another process."""
        if not slot.abandon(delivery):
            return
        logger.error(
            "Message %s did not react to TimeLimitExceeded. It is settled as failed, and this "
            "process will be replaced.",
            delivery.message_id,
        )
        self.threads[slot.index].abandoned = True
        self.gate.leave()
        self.executor.fail(
            delivery, TimeLimitExceeded("The actor did not react to TimeLimitExceeded.")
        )
        self.intake.drain()
        self._return_unbegun()
        self.intake.finished(delivery)
        self.ask_to_end("stuck")

    def _return_unbegun(self) -> None:
        for delivery in self.heap.clear():
            delivery.fate = Fate.PUT_BACK
            self.intake.finished(delivery)


class WorkerThread(threading.Thread):
    """Takes one delivery after the other from the heap and runs it."""

    def __init__(self, worker: Worker, slot: WorkerSlot) -> None:
        super().__init__(name=f"WorkerThread-{slot.index}", daemon=True)
        self.worker = worker
        self.slot = slot
        self.abandoned = False

    def run(self) -> None:
        expect_interrupts()
        broker = self.worker.broker
        broker.emit_before("worker_thread_boot", self)
        broker.emit_after("worker_thread_boot", self)
        try:
            self._work()
        finally:
            broker.emit_before("worker_thread_shutdown", self)
            broker.emit_after("worker_thread_shutdown", self)

    def _work(self) -> None:
        heap = self.worker.heap
        while (delivery := heap.pop()) is not None:
            try:
                self._process(delivery)
            except Abandoned:
                # Somebody else has settled it, and this process is about to end.
                return
            except Interrupt:
                # It was meant for an actor that had just returned.
                continue

    def _process(self, delivery: Delivery) -> None:
        worker = self.worker
        if worker.executor.prepare(delivery):
            self._run(delivery)
        self.slot.settle(delivery, worker.broker.receipt_text(delivery))
        worker.intake.finished(delivery)

    def _run(self, delivery: Delivery) -> None:
        gate = self.worker.gate
        try:
            gate.enter(alone=delivery.alone)
        except GateClosed:
            delivery.fate = Fate.PUT_BACK
            return
        taken_away = False
        try:
            self.worker.executor.run(delivery, self.slot)
        except Abandoned:
            taken_away = True
            raise
        finally:
            # Who took the delivery from this thread has left the gate in its place.
            if not taken_away:
                gate.leave()
