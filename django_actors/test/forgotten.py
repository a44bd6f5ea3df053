"""
Messages that a test has sent and then forgotten, as an error for projects that want it.
"""

from __future__ import annotations

from collections.abc import Iterator

from django_actors import clock
from django_actors.brokers import get_broker
from django_actors.brokers.stub import StubBroker
from django_actors.conf import settings
from django_actors.journal import Record

from .assertions import listing


def refuse_forgotten() -> None:
    """
    Look at what a test has left, if the setting ``TEST_FORGOTTEN`` is ``"error"``.

    What waits for its time is not forgotten, and what ``sent()`` or an assertion has shown.

    Raises:
        AssertionError: messages were sent that the test neither ran nor looked at.
    """
    if settings.TEST_FORGOTTEN != "error":
        return
    broker = get_broker()
    forgotten = list(_find_forgotten(broker)) if isinstance(broker, StubBroker) else []
    for record in forgotten:
        record.seen = True
    if forgotten:
        raise AssertionError(
            "The test has sent what it neither ran nor looked at:\n"
            f"{listing([record.message for record in forgotten], 'assert_sent')}\n"
            "Call run_actors() to run it, or one of these to look at it. (DJANGO_ACTORS has "
            "TEST_FORGOTTEN='error'.)"
        )


def _find_forgotten(broker: StubBroker) -> Iterator[Record]:
    now = clock.now_ms()
    rows = tuple(broker.room.rows.values())
    pending = {row.message_id for row in rows if row.due_ms is not None and row.due_ms <= now}
    pending |= {envelope.message_id for envelope in broker.ready_envelopes()}
    for record in broker.journal.records():
        if not record.seen and record.message.message_id in pending:
            yield record
