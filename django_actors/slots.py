"""
A place for one run: a worker thread's, with its entry on the board, open to interrupts.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .delivery import Delivery, Fate
from .errors import Interrupt
from .executor import Abandoned

if TYPE_CHECKING:
    from .board import Board


def raise_in_thread(thread_id: int, error: type[BaseException] | None) -> None:
    """
    Have *error* raised in a thread at its next bytecode; ``None`` takes back what is pending.

    Source: ``PyThreadState_SetAsyncExc`` in the C API.
    """
    pointer = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), pointer)


class WorkerSlot:
    """
    Where one thread runs one message after the other.

    Attributes:
        delivery: What is run now; ``None`` between runs.

        tell_deadline: Called with the deadline of what begins, if it has one.
    """

    def __init__(self, index: int, board: Board | None) -> None:
        self.index = index
        self.delivery: Delivery | None = None
        self.tell_deadline: Callable[[float], object] = _ignore
        self._board = board
        self._lock = threading.Lock()
        self._thread_id = 0
        self._interrupted = False

    def begin(self, delivery: Delivery) -> None:
        """Note that the actor's own code begins in the calling thread."""
        message = delivery.message
        assert message is not None
        if self._board is not None:
            self._board.begin(self.index, message.message_id, delivery.deadline)
        self._thread_id = threading.get_ident()
        self._interrupted = False
        self.delivery = delivery
        if delivery.deadline is not None:
            # Last: who is told looks here.
            self.tell_deadline(delivery.deadline)

    def end(self, delivery: Delivery) -> None:
        """
        Note that the actor's own code has ended.

        Raises:
            Abandoned: the delivery was taken from this slot.
        """
        mine: bool | None = None
        while True:
            try:
                with self._lock:
                    if mine is None:
                        mine = self.delivery is delivery
                    self.delivery = None
                    if self._interrupted:
                        raise_in_thread(self._thread_id, None)
                break
            except Interrupt:
                # It comes too late: the actor has returned. What was seen before is true.
                continue
        if not mine:
            raise Abandoned

    def settle(self, delivery: Delivery, receipt: str | None) -> None:
        """Clear the board, and note there what is done but not acknowledged yet."""
        if self._board is None:
            return
        finished = delivery.fate in (Fate.DONE, Fate.SKIPPED) and not delivery.successors
        self._board.end(self.index, receipt if finished else None)

    def interrupt(self, delivery: Delivery, error: type[Interrupt]) -> bool:
        """Raise *error* in the actor that runs *delivery*, if it still does; once only."""
        with self._lock:
            if self.delivery is not delivery or self._interrupted:
                return False
            self._interrupted = True
            raise_in_thread(self._thread_id, error)
            return True

    def abandon(self, delivery: Delivery) -> bool:
        """Take *delivery* from a thread that does not come back; return whether it had it."""
        with self._lock:
            if self.delivery is not delivery:
                return False
            self.delivery = None
        if self._board is not None:
            self._board.end(self.index)
        return True

    def is_overdue(self, *, grace: float = 0.0) -> Delivery | None:
        """Return the delivery whose deadline is over by *grace* seconds, if there is one."""
        delivery = self.delivery
        if delivery is None or delivery.deadline is None:
            return None
        return delivery if time.monotonic() >= delivery.deadline + grace else None


def _ignore(deadline: float) -> None:
    """Be nobody who listens."""
