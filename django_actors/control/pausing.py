"""
Pause queues, and resume them: all workers obey within two seconds, on every broker.
"""

from __future__ import annotations

from django_actors import pauses
from django_actors.brokers import get_broker
from django_actors.conf import settings
from django_actors.errors import QueueNotFound
from django_actors.registry import nearest


class UnknownQueue(QueueNotFound):
    """No actor names such a queue."""


def pause(queue_name: str, *, by: str = "") -> bool:
    """
    Have all workers begin no message of a queue until it is resumed.

    What runs is finished; what was claimed and not begun goes back. Messages that are sent or
    become due wait in the broker.

    Args:
        by: Who paused it, for other operators to see.

    Returns:
        Whether it was not paused yet.

    Raises:
        UnknownQueue: no actor of this project names the queue.
    """
    known = get_broker().get_declared_queues()
    if queue_name not in known:
        raise UnknownQueue(
            f"No actor of this project names a queue {queue_name!r}.{nearest(queue_name, known)}"
        )
    return pauses.pause(queue_name, by=by, alias=settings.DATABASE)


def resume(queue_name: str) -> bool:
    """
    Have workers read a queue again.

    Returns:
        Whether it was paused.

    Raises:
        UnknownQueue: it is neither paused nor named by an actor.
    """
    if pauses.resume(queue_name, alias=settings.DATABASE):
        return True
    known = get_broker().get_declared_queues()
    if queue_name not in known:
        raise UnknownQueue(
            f"There is no queue {queue_name!r} to resume.{nearest(queue_name, known)}"
        )
    return False
