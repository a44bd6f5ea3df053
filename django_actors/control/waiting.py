"""
How many scheduled messages and dead letters each queue has.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from django.db.models import Count

from django_actors.models import Kind, WaitingMessage


class Waiting(NamedTuple):
    """
    How many rows of the waiting room each queue has.

    Attributes:
        is_capped: Whether there may be more than were counted.
    """

    dead: dict[str, int]
    scheduled: dict[str, int]
    is_capped: bool

    @property
    def queue_names(self) -> set[str]:
        """The queues that have any."""
        return {*self.dead, *self.scheduled}


def count_waiting(alias: str, *, at_most: int | None) -> Waiting:
    """
    Count rows by queue.

    Args:
        at_most: Of dead letters, and of scheduled messages, to look at; a million of them would
            take as long as somebody waits for a page. All where it is ``None``.
    """
    rows = WaitingMessage.objects.using(alias)
    dead = _count(rows.filter(kind=Kind.DEAD), "-stored_at", at_most)
    scheduled = _count(rows.filter(due_ms__isnull=False), "due_ms", at_most)
    is_capped = at_most in (sum(dead.values()), sum(scheduled.values()))
    return Waiting(dead, scheduled, is_capped)


def _count(rows: Any, order: str, at_most: int | None) -> dict[str, int]:
    if at_most is None:
        return dict(rows.order_by().values_list("queue_name").annotate(count=Count("pk")))
    # In the order of an index, so that it can stop early.
    return dict(Counter(rows.order_by(order).values_list("queue_name", flat=True)[:at_most]))
