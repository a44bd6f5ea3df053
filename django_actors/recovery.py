"""
What the replacement of a dead worker process owes to what that one left behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from django.db import transaction

from . import clock, crashes, failures, roster
from .board import Board, Running
from .brokers.base import Broker

logger = logging.getLogger(__name__)


def recover(broker: Broker, board: Board, detail: str) -> None:
    """
    Blame the messages that were running, and give back everything the process had claimed.

    May be called again if it raises.

    Args:
        board: The board of the dead process.

        detail: How it died, such as ``was killed by signal 9 (SIGKILL)``.
    """
    running = board.running()
    overdue = any(entry.overdue for entry in running)
    room = broker.waiting_room
    if board.owner:
        # Counted before it can be delivered again.
        blamed = [entry for entry in running if not overdue or entry.overdue]
        _blame(board.owner, blamed, detail, room.alias)
        broker.release(board.owner, done=board.receipts())
        room.release(board.owner)
    logger.warning(
        "Recovered from a worker process that %s while it ran %d messages", detail, len(running)
    )


def _blame(owner: str, running: Collection[Running], detail: str, alias: str) -> None:
    overdue = {entry.message_id for entry in running if entry.overdue}
    # What was overdue is settled as a failure when it comes again, and has its line then.
    crashed = {entry.message_id: _began_ms(entry) for entry in running if not entry.overdue}
    with transaction.atomic(using=alias):
        # The row goes with the count: who tries again, perhaps because the first to try has
        # died as well, finds it gone and does not count the death a second time.
        if roster.leave(owner, alias):
            ids = [entry.message_id for entry in running]
            crashes.count(ids, overdue=overdue, detail=detail, alias=alias)
            failures.write_attempts(failures.build_crashes(crashed, detail), alias)


def _began_ms(entry: Running) -> int:
    return clock.now_ms() - round((time.monotonic() - entry.began_at) * clock.MS_PER_S)
