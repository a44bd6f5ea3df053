"""
Which messages were running when a worker process died, and how often.

Written by the replacement of a dead process, read for messages that come a second
time. So a message that kills its workers is found out, and its neighbours are not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db import transaction

from . import clock
from .models import CrashRecord


def count(
    message_ids: Collection[str], *, overdue: Collection[str], detail: str, alias: str
) -> None:
    """
    Note that a process died.

    Args:
        message_ids: What was running; each has one crash more.

        overdue: What the supervisor ended the process for; no crash, but a broken time limit.

        detail: How the process died, for people.
    """
    with transaction.atomic(using=alias):
        for message_id in message_ids:
            _note(message_id, message_id in overdue, detail, alias)


def _note(message_id: str, overdue: bool, detail: str, alias: str) -> None:
    records = CrashRecord.objects.using(alias).select_for_update()
    record, _ = records.get_or_create(
        message_id=message_id, defaults={"updated_ms": clock.now_ms()}
    )
    record.crashes += not overdue
    record.overdue = overdue
    record.detail = detail[:255]
    record.updated_ms = clock.now_ms()
    record.save(using=alias)


def find(message_ids: Sequence[str], alias: str) -> dict[str, CrashRecord]:
    """Return what is known of *message_ids*."""
    return CrashRecord.objects.using(alias).in_bulk(list(message_ids))


def forget(message_ids: Sequence[str], alias: str) -> None:
    """Forget messages that came to an end."""
    CrashRecord.objects.using(alias).filter(pk__in=message_ids).delete()


def prune(*, older_than_ms: int, alias: str) -> None:
    """Forget what was not seen for *older_than_ms*."""
    before = clock.now_ms() - older_than_ms
    CrashRecord.objects.using(alias).filter(updated_ms__lt=before).delete()
