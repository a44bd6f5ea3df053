"""
Worker processes that die before they are ready, again and again: a row for each place.

A supervisor writes them (see start_reporter.py); operators hear of them.
"""

from __future__ import annotations

from .claims import now_ms_expression
from .models import SHORT_ERROR, FailedStart

# Deaths in a row from which on it is no accident of a deploy.
MANY_DEATHS = 3

# A supervisor repeats what it told so often; what is older than the second was told by one that
# is gone.
REPEAT_S = 5.0
CURRENT_MS = 15_000


def note(
    key: str, *, host: str, pid: int, number: int, deaths: int, detail: str, alias: str
) -> None:
    """
    Write that a worker process died before it was ready; repeated until the next one lives.

    Args:
        key: Of the supervisor and the place.

        pid: Of the supervisor.

        number: Of the place, from 0.

        deaths: How many died there in a row.

        detail: How the last one died, for people.
    """
    values = {
        "host": host[:255],
        "pid": pid,
        "number": number,
        "deaths": deaths,
        "detail": detail[:SHORT_ERROR],
        "seen_ms": now_ms_expression(alias),
    }
    FailedStart.objects.using(alias).update_or_create(key=key, defaults=values)


def forget(keys: list[str], alias: str) -> None:
    """Delete the rows of places that have a process again, or need none."""
    FailedStart.objects.using(alias).filter(pk__in=keys).delete()


def prune(alias: str) -> None:
    """Delete the rows of supervisors that were killed."""
    FailedStart.objects.using(alias).filter(
        seen_ms__lt=now_ms_expression(alias) - CURRENT_MS
    ).delete()


def find_loops(alias: str) -> list[FailedStart]:
    """Return the places where process after process dies, by host."""
    rows = FailedStart.objects.using(alias).filter(
        deaths__gte=MANY_DEATHS, seen_ms__gte=now_ms_expression(alias) - CURRENT_MS
    )
    return list(rows.order_by("host", "pid", "number"))
