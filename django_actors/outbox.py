"""
The outbox: messages sent inside a transaction to a broker outside of it.

Their rows commit or vanish with the transaction. After the commit they go to the
broker in one batch; if the process dies first, or the broker is down, the
dispatcher finds the rows and sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import connections, transaction

from . import clock
from .delivery import Reason
from .errors import BrokerUnavailable
from .message import Envelope, Message, Origin
from .models import Kind
from .rows import build_row

if TYPE_CHECKING:
    from .brokers.base import Broker

logger = logging.getLogger(__name__)

# From the commit until the dispatcher takes a row for left behind. Sending the rows of
# a very large transaction may take seconds; sending one twice is a duplicate run.
HAND_OVER_MS = 10_000


class HandOver:
    """
    The messages that one (nested) transaction has left in the outbox.

    An instance is the commit hook itself: one that a savepoint's rollback drops takes
    exactly the messages with it whose rows are rolled back.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._envelopes: list[Envelope] = []
        self._began_ms = clock.now_ms()

    def add(self, envelopes: Sequence[Envelope]) -> None:
        """Take in messages whose rows were just written."""
        self._envelopes += envelopes

    def __call__(self) -> None:
        """Publish, then delete; whatever fails is left to the dispatcher."""
        # After a long transaction the dispatcher sees the rows as due, and sends them.
        if clock.now_ms() - self._began_ms > HAND_OVER_MS // 2:
            return
        try:
            envelopes = [each._replace(origin=Origin.ROW) for each in self._envelopes]
            self._broker.publish(envelopes)
            ids = [envelope.message_id for envelope in self._envelopes]
            self._broker.waiting_room.forget_outbox(ids)
        except (BrokerUnavailable, DatabaseError) as error:
            self._leave(error)
        except Exception as error:
            # Not to the caller: that would keep its other commit hooks from running.
            logger.debug("The hand-over failed", exc_info=True)
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        logger.warning(
            "%d messages stay in the outbox; the dispatcher will send them. %s",
            len(self._envelopes),
            error,
        )

    def belongs_to(self, broker: Broker) -> bool:
        """Whether its messages go to *broker*."""
        return self._broker is broker


def hold(broker: Broker, batch: Sequence[tuple[Message, Envelope]]) -> None:
    """Write rows for messages in the caller's transaction, to be handed over after it."""
    due_ms = clock.now_ms() + HAND_OVER_MS
    rows = [
        build_row(
            message,
            envelope.body,
            kind=Kind.OUTBOX,
            reason=Reason.OUTBOX,
            priority=envelope.priority,
            due_ms=due_ms,
        )
        for message, envelope in batch
    ]
    broker.waiting_room.put(rows)
    _hand_over(broker).add([envelope for _, envelope in batch])


def _hand_over(broker: Broker) -> HandOver:
    connection = connections[broker.waiting_room.alias]
    hooks = connection.run_on_commit
    if hooks:
        savepoints, last, *_ = hooks[-1]
        # One batch a savepoint, so that a rollback drops neither too much nor too little.
        same = savepoints == set(connection.savepoint_ids)
        if same and isinstance(last, HandOver) and last.belongs_to(broker):
            return last
    hand_over = HandOver(broker)
    transaction.on_commit(hand_over, using=connection.alias)
    return hand_over


def publish_after_commit(broker: Broker, envelopes: Sequence[Envelope]) -> None:
    """Publish after the commit without a row; what dies in between is lost, as the setting says."""
    transaction.on_commit(lambda: broker.publish(envelopes), using=broker.waiting_room.alias)
