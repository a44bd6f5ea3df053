"""
What happens to messages on a bad day, on demand.

Every broker may deliver a message twice: with these a test proves that an actor can bear it.
"""

from __future__ import annotations

from django_actors.message import Message

from .stub import stub_broker


def redeliver(message: Message) -> None:
    """
    Deliver *message* once more, as if its acknowledgement had been lost.

    Args:
        message: What ``send()``, ``assert_sent()`` or ``run_actors()`` returned. One that waits
            for a retry, or is a dead letter, is skipped when it comes again, as in a worker.
    """
    stub_broker().redeliver(message)


def fail_next_send(times: int = 1) -> None:
    """Have the next sends of this test raise ``BrokerUnavailable``; nothing is sent by them."""
    stub_broker().refusals = times


def crash_before_ack(times: int = 1) -> None:
    """
    Have the next runs end as if the worker had died when the actor was done.

    What the actor wrote and sent stays, its message was not acknowledged, and comes again: the
    same ``run_actors()`` runs it a second time.
    """
    stub_broker().crashes = times
