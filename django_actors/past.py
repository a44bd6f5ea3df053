"""
The past of messages that come again: settled already, or run by a process that has died.

It is asked for many at once as they come in: a broker that has lost a worker, or got back what
one had too much of, delivers hundreds of them together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .chunks import chunks
from .delivery import Delivery, Past

if TYPE_CHECKING:
    from .brokers.base import Broker

# For so long it is good: a process that has lost a message, and does not know it yet, may be
# about to settle it.
GOOD_FOR_S = 0.1

# SQLite takes no more than 999 parameters in old versions.
MOST_KEYS = 400


def past_of(delivery: Delivery, broker: Broker) -> Past:
    """
    Return what is known of a message that came again; ask for it if that is not fresh.

    Raises:
        django.db.Error: it cannot be found out now.
    """
    past = delivery.past
    if past is None or time.monotonic() - past.seen_at > GOOD_FOR_S:
        (past,) = _find([delivery], broker)
    return past


def note_pasts(deliveries: Sequence[Delivery], broker: Broker) -> None:
    """
    Find out what is known of decoded messages that came again, and write it on them.

    Raises:
        django.db.Error: it cannot be found out now.
    """
    for some in chunks(deliveries, MOST_KEYS):
        for delivery, past in zip(some, _find(some, broker), strict=True):
            delivery.past = past


def _find(deliveries: Sequence[Delivery], broker: Broker) -> Iterator[Past]:
    # Before the questions: it is known of that moment, not of a later one.
    seen_at = time.monotonic()
    message_ids = [each.message_id for each in deliveries]
    settled = broker.waiting_room.find_settled(message_ids)
    crashes = broker.find_crashes(message_ids)
    return (Past(each in settled, crashes.get(each), seen_at) for each in message_ids)
