"""
What became of messages in the last minutes and hours, read from the counts of the workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Sum

from django_actors import clock
from django_actors.counts import PERIOD_MS
from django_actors.models import ActorCount, Period


@dataclass(frozen=True)
class Figures:
    """
    What became of messages in a stretch of time.

    Attributes:
        succeeded: Messages that ran to their end.

        failed: Attempts that raised an exception.

        retried: Messages that were given another attempt.

        dead: Messages that became dead letters.

        run_ms: How long actors ran, in milliseconds, all together.
    """

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    run_ms: int = 0

    @property
    def attempts(self) -> int:
        """How often an actor was called."""
        return self.succeeded + self.failed

    @property
    def failure_rate(self) -> float | None:
        """The share of attempts that failed, 0 to 1; ``None`` where there was none."""
        return self.failed / self.attempts if self.attempts else None

    @property
    def mean_ms(self) -> float | None:
        """How long an attempt took on average; ``None`` where there was none."""
        return self.run_ms / self.attempts if self.attempts else None

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            *(mine + theirs for mine, theirs in zip(self.all(), other.all(), strict=True))
        )

    def all(self) -> tuple[int, ...]:
        """Return the numbers in the order of the attributes."""
        return tuple(getattr(self, name) for name in _NUMBERS)


_NUMBERS = ("succeeded", "failed", "retried", "dead", "run_ms")

Buckets = dict[int, Figures]


def buckets(period: Period, count: int) -> list[int]:
    """Return the beginnings of the last *count* minutes or hours, the current one last."""
    length = PERIOD_MS[period]
    last = clock.now_ms() // length * length
    return [last - length * ago for ago in range(count - 1, -1, -1)]


def by_queue(period: Period, count: int, alias: str) -> dict[str, Buckets]:
    """Return the figures of each queue in each of the last *count* minutes or hours."""
    found: dict[str, Buckets] = {}
    rows = _rows(period, count, alias).values("queue_name", "bucket_ms")
    for row in rows.annotate(**_sums()).order_by():
        found.setdefault(row["queue_name"], {})[row["bucket_ms"]] = _figures(row)
    return found


def by_actor(period: Period, count: int, alias: str) -> dict[tuple[str, str], Figures]:
    """Return the figures of each pair of actor and queue, over the last *count* periods."""
    rows = _rows(period, count, alias).values("actor_name", "queue_name")
    sums = rows.annotate(**_sums()).order_by()
    return {(row["actor_name"], row["queue_name"]): _figures(row) for row in sums}


def total(figures: Iterable[Figures]) -> Figures:
    """Return the sum of figures."""
    return sum(figures, Figures())


def _rows(period: Period, count: int, alias: str) -> Any:
    since = buckets(period, count)[0]
    return ActorCount.objects.using(alias).filter(period=period, bucket_ms__gte=since)


def _sums() -> dict[str, Sum]:
    return {f"sum_{name}": Sum(name) for name in _NUMBERS}


def _figures(row: Mapping[str, Any]) -> Figures:
    return Figures(*(int(row[f"sum_{name}"]) for name in _NUMBERS))
