"""
Recovery of dead workers, in a thread beside the living one.

The supervisor says which boards were left behind; ``recovery.recover()`` does the
work. What fails (the broker may be down) is tried again every second.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Collection

from django.db import connections

from .board import Board, BoardError

logger = logging.getLogger("django_actors.recovery")

RETRY_S = 1.0

Dead = tuple[str, str]


class Recoverer:
    """
    Recovers one board after the other, in a thread that starts with the first.

    Args:
        recovered: Called with the path of a board that was dealt with.
    """

    def __init__(self, recovered: Callable[[str], object]) -> None:
        self._recovered = recovered
        self._inbox: queue.SimpleQueue[Dead] = queue.SimpleQueue()
        self._waiting: list[Dead] = []
        self._tried: set[str] = set()
        self._attempted = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, path: str, detail: str) -> None:
        """Recover the board at *path*, whose process died as *detail* says."""
        self._inbox.put((path, detail))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="Recoverer", daemon=True)
            self._thread.start()

    def wait_for(self, paths: Collection[str], *, timeout: float) -> None:
        """Wait until these boards were tried once; *timeout* seconds at most."""
        with self._attempted:
            self._attempted.wait_for(lambda: self._tried.issuperset(paths), timeout)

    def _run(self) -> None:
        while True:
            self._take_one()
            self._waiting = [dead for dead in self._waiting if not self._try(*dead)]
            # The connections of this thread would only be idle from now on.
            connections.close_all()

    def _take_one(self) -> None:
        try:
            dead = self._inbox.get(timeout=RETRY_S if self._waiting else None)
        except queue.Empty:
            return
        self._waiting.append(dead)

    def _try(self, path: str, detail: str) -> bool:
        try:
            return self._deal_with(path, detail)
        finally:
            with self._attempted:
                self._tried.add(path)
                self._attempted.notify_all()

    def _deal_with(self, path: str, detail: str) -> bool:
        try:
            board = Board.open(path)
        except FileNotFoundError:
            # Somebody else has recovered it.
            return True
        except (BoardError, OSError) as error:
            logger.error("What a dead worker left at %r cannot be read: %s", path, error)
            return True
        with contextlib.closing(board):
            if not self._recover(board, detail):
                return False
            board.unlink()
        self._recovered(path)
        return True

    def _recover(self, board: Board, detail: str) -> bool:
        from .brokers import get_broker
        from .recovery import recover

        try:
            recover(get_broker(), board, detail)
        except Exception:
            first = board.path not in self._tried
            logger.log(
                logging.ERROR if first else logging.DEBUG,
                "The work of a dead worker (%s) could not be recovered; trying again.",
                detail,
                exc_info=True,
            )
            return False
        return True
