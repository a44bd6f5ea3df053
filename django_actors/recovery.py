"""
What the replacement of a dead worker process owes to what that one left behind.
"""

from __future__ import annotations

import logging

from . import crashes, roster
from .board import Board
from .brokers.base import Broker

logger = logging.getLogger(__name__)


def recover(broker: Broker, board: Board, detail: str) -> None:
    """
    Blame the messages that were running, and give back everything the process had claimed.

    May be called again if it raises; a crash is then counted twice at worst.

    Args:
        board: The board of the dead process.

        detail: How it died, such as ``was killed by signal 9 (SIGKILL)``.
    """
    running = board.running()
    overdue = {entry.message_id for entry in running if entry.overdue}
    room = broker.waiting_room
    if running:
        # Counted before it can be delivered again.
        blamed = [entry.message_id for entry in running]
        blamed = [each for each in blamed if not overdue or each in overdue]
        crashes.count(blamed, overdue=overdue, detail=detail, alias=room.alias)
    if board.owner:
        broker.release(board.owner, done=board.receipts())
        room.release(board.owner)
        roster.leave(board.owner, room.alias)
    logger.warning(
        "Recovered from a worker process that %s while it ran %d messages", detail, len(running)
    )
