"""
Do one operation to many rows: in batches, with a report, from page to page.

A request works for some seconds at most. What is left is carried to the next one in
the hidden fields of a page that shows how far it has come; so a web server's timeout
ends nothing halfway, and the operator can stop it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from django.contrib.admin.models import LogEntry
from django.core.exceptions import BadRequest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_actors.claims import is_locked_out
from django_actors.control.messages import BATCH_BYTES, BATCH_ROWS, may_run, next_batch
from django_actors.registry import registry
from django_actors.waiting_room import WaitingRoom

from .operations import Operation
from .texts import shorten

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Web servers commonly end a request after 30 seconds.
WORK_S = 8.0

LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.05

MAX_ACTORS_SHOWN = 20


@dataclass
class Share:
    """How many of the selected rows one actor has, and how many of those hold no message."""

    actor_name: str
    count: int
    undecodable: int

    @property
    def visible_name(self) -> str:
        """The actor's name, for a page."""
        return shorten(self.actor_name)

    @property
    def is_known(self) -> bool:
        """Whether this process has the actor."""
        return self.actor_name in registry.actors()


@dataclass
class Summary:
    """The selected rows, by actor; the largest share first."""

    shares: Sequence[Share]
    newest: datetime | None

    @property
    def count(self) -> int:
        """All rows."""
        return sum(share.count for share in self.shares)

    @property
    def undecodable(self) -> int:
        """Rows that hold no message."""
        return sum(share.undecodable for share in self.shares)

    @property
    def shown(self) -> Sequence[Share]:
        """The shares that have room on a page."""
        return self.shares[:MAX_ACTORS_SHOWN]

    @property
    def rest(self) -> int:
        """Rows of the other actors."""
        return sum(share.count for share in self.shares[MAX_ACTORS_SHOWN:])


def summarize(rows: QuerySet[Any]) -> Summary:
    """Count rows by actor, with one query."""
    groups = list(
        rows.order_by()
        .values("actor_name")
        .annotate(
            count=Count("pk"),
            undecodable=Count("pk", filter=Q(message_id=None)),
            newest=Max("stored_at"),
        )
        .order_by("-count", "actor_name")
    )
    shares = [Share(each["actor_name"], each["count"], each["undecodable"]) for each in groups]
    return Summary(shares, max((each["newest"] for each in groups), default=None))


@dataclass
class Progress:
    """
    How far it has come; travels in hidden fields of the same names.

    Attributes:
        shown: Rows the operator was asked about.

        newest: The time of the latest one of those: what came later was not meant.

        cursor: Key of the last row that was looked at.

        done: Rows it was done to.

        undecodable: Rows that were left alone because they hold no message.

        changed: Rows that somebody else has changed or taken away.
    """

    shown: int
    newest: str = ""
    cursor: int = 0
    done: int = 0
    undecodable: int = 0
    changed: int = 0

    @classmethod
    def read(cls, data: QueryDict, *, shown: int) -> Progress:
        """Return what a page has sent; *shown* counts where no page has asked before."""
        progress = cls(shown, data.get("newest", ""))
        try:
            for name in ("shown", "cursor", "done", "undecodable", "changed"):
                setattr(progress, name, int(data.get(name, getattr(progress, name))))
            progress.limit()
        except ValueError as error:
            raise BadRequest(f"This page sends its own hidden fields only: {error}") from error
        return progress

    def hidden_fields(self) -> Iterator[tuple[str, str]]:
        """Return names and values for the next page."""
        return ((field.name, str(getattr(self, field.name))) for field in fields(self))

    def limit(self) -> Q:
        """Return what the rows are that the operator was asked about."""
        return Q(stored_at__lte=datetime.fromisoformat(self.newest)) if self.newest else Q()

    @property
    def handled(self) -> int:
        """Rows that were looked at."""
        return self.done + self.undecodable + self.changed


class Job:
    """
    One operation, done to the rows of a queryset by a user.

    Attributes:
        finished: Whether every row was looked at.

        failed: Whether the database ended it; what was reported as done is done.
    """

    def __init__(
        self,
        operation: Operation,
        rows: QuerySet[Any],
        *,
        form: Any,
        progress: Progress,
        user: Any,
    ) -> None:
        self._operation = operation
        self._rows = rows
        self._form = form
        self._user = user
        self._room = WaitingRoom()
        self.progress = progress
        self.finished = False
        self.failed = False

    def run(self) -> bool:
        """Work for some seconds, and return whether it is over."""
        deadline = time.monotonic() + WORK_S
        try:
            while batch := self._next_batch():
                # One at least: what is slow to find comes to its end, too.
                self._do(batch)
                if time.monotonic() >= deadline:
                    return False
            self.finished = True
        except DatabaseError:
            logger.exception("%s stopped after %d rows", self._operation.name, self.progress.done)
            self.failed = True
        return True

    def _next_batch(self) -> list[Any]:
        progress = self.progress
        return next_batch(
            self._rows.filter(progress.limit()),
            after=progress.cursor,
            most_rows=BATCH_ROWS,
            most_bytes=BATCH_BYTES,
        )

    def _do(self, batch: list[Any]) -> None:
        done = self._again_when_locked(lambda: self._do_together(batch))
        left = [row for row in batch if row.pk not in done]
        undecodable = sum(self._operation.needs_message and not may_run(row) for row in left)
        self.progress.done += len(batch) - len(left)
        self.progress.undecodable += undecodable
        self.progress.changed += len(left) - undecodable
        self.progress.cursor = batch[-1].pk

    def _do_together(self, batch: list[Any]) -> set[int]:
        # No change without its entry in the log.
        with transaction.atomic(using=self._room.alias):
            by = self._user.get_username()
            done = set(self._operation.run(self._room, batch, self._form, by=by))
            LogEntry.objects.log_actions(
                self._user.pk,
                [row for row in batch if row.pk in done],
                self._operation.flag,
                change_message=self._operation.log_text(self._form),
            )
        return done

    def _again_when_locked(self, work: Callable[[], T]) -> T:
        connection = connections[self._room.alias]
        for attempt in range(1, LOCK_ATTEMPTS):
            try:
                return work()
            except OperationalError as error:
                if connection.in_atomic_block or not is_locked_out(error):
                    raise
            time.sleep(LOCK_PAUSE_S * 2**attempt)
        return work()


def report(
    operation: Operation, progress: Progress, *, finished: bool
) -> Iterator[tuple[bool, str]]:
    """Return what the operator is told: whether it is good news, and a sentence."""
    if progress.done:
        yield True, operation.report(progress.done)
    if progress.undecodable:
        text = ngettext(
            "%(count)d was skipped: it holds no message that could run.",
            "%(count)d were skipped: they hold no message that could run.",
            progress.undecodable,
        )
        yield False, text % {"count": progress.undecodable}
    changed = progress.changed + (max(0, progress.shown - progress.handled) if finished else 0)
    if changed:
        text = ngettext(
            "%(count)d was skipped: it has moved or changed in the meantime.",
            "%(count)d were skipped: they have moved or changed in the meantime.",
            changed,
        )
        yield False, text % {"count": changed}
    if not progress.handled and not changed:
        yield False, _("There was nothing left to do.")
