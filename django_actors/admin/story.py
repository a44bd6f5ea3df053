"""
The story of a message: when it was sent, how its attempts ended, what became of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_actors import clock
from django_actors.conf import settings
from django_actors.models import Attempt, Kind, Outcome, WaitingMessage, WorkerRecord

from .texts import (
    class_name,
    format_moment,
    format_time,
    reason_text,
    shorten,
    time_from_now,
    why_it_waits,
)

MAX_LINES = 200

# What an operator does.
ACTS = (Outcome.REQUEUED, Outcome.RESCHEDULED, Outcome.DISCARDED, Outcome.CANCELLED)

# A worker that was not seen for so long does not run anything any more.
ABSENT_MS = 60_000


@dataclass
class Line:
    """
    One event of a story.

    Attributes:
        ms: When, milliseconds since 1970.

        where: Host and process, or who did it.
    """

    ms: int
    what: str
    where: str = ""
    details: str = ""


@dataclass
class Fate:
    """
    What became of a message, as far as the database knows.

    Attributes:
        is_final: Whether nothing will change by itself.

        row: Its row in the waiting room, if it has one.
    """

    text: str
    is_final: bool = False
    succeeded: bool = False
    row: WaitingMessage | None = None


def read_attempts(message_id: str) -> list[Attempt]:
    """Return what is remembered of a message, the latest last."""
    rows = Attempt.objects.using(settings.DATABASE).filter(message_id=message_id)
    return list(rows.order_by("-ended_ms", "-pk")[:MAX_LINES])[::-1]


def tell_story(attempts: Sequence[Attempt], sent_ms: int | None) -> Iterator[Line]:
    """
    Return the events in the order in which they happened.

    Args:
        sent_ms: When the message was made, if that is known; a requeue makes it anew.
    """
    began = [each.began_ms or each.ended_ms for each in attempts]
    if sent_ms is not None and sent_ms <= min(began, default=sent_ms):
        yield Line(sent_ms, _("sent"))
    for attempt, ms in zip(attempts, began, strict=True):
        yield _tell(attempt, ms)


def _tell(attempt: Attempt, began_ms: int) -> Line:
    if attempt.outcome in ACTS:
        return Line(began_ms, _act(attempt), shorten(attempt.by), _when_it_runs(attempt))
    return Line(began_ms, _end(attempt), _place(attempt), " · ".join(_details(attempt)))


def _act(attempt: Attempt) -> str:
    if attempt.outcome == Outcome.RESCHEDULED and not _is_put_off(attempt):
        return _("run now")
    return str(Outcome(attempt.outcome).label)


def _when_it_runs(attempt: Attempt) -> str:
    if not _is_put_off(attempt):
        return ""
    return _("runs at %(time)s") % {"time": format_time(attempt.retry_ms)}


def _is_put_off(attempt: Attempt) -> bool:
    return attempt.retry_ms is not None and attempt.retry_ms > attempt.ended_ms


def _end(attempt: Attempt) -> str:
    outcome = Outcome(attempt.outcome).label if attempt.outcome in Outcome else attempt.outcome
    if not attempt.number:
        return str(outcome)
    words = {"number": attempt.number, "outcome": outcome}
    return _("attempt %(number)d: %(outcome)s") % words


def _place(attempt: Attempt) -> str:
    """Return the host and the process; the host alone of a process that nobody knows."""
    host = shorten(attempt.host)
    return f"{host}:{attempt.pid}" if attempt.pid else host


def _details(attempt: Attempt) -> Iterator[str]:
    if attempt.began_ms is not None:
        seconds = max(0, attempt.ended_ms - attempt.began_ms) / clock.MS_PER_S
        yield _("%(seconds).2f s") % {"seconds": seconds}
    if attempt.error_class:
        name = class_name(reason_text(attempt.error_class))
        yield f"{name}: {shorten(attempt.error, 300)}" if attempt.error else name
    elif attempt.error:
        yield shorten(attempt.error, 300)
    if attempt.frame:
        yield _("in %(function)s") % {"function": shorten(attempt.frame)}
    if attempt.outcome == Outcome.RETRIED and attempt.retry_ms is not None:
        yield _("retry at %(time)s") % {"time": format_moment(attempt.retry_ms)}


def story_table(lines: Sequence[Line]) -> SafeString | str:
    """Return a story as a table."""
    if not lines:
        return "-"
    return format_html(
        '<div class="actors-scroll" tabindex="0"><table class="actors-table actors-story">'
        '<caption class="visually-hidden">{}</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>",
        _("What happened to the message"),
        format_html_join(
            "",
            '<th scope="col">{}</th>',
            ((text,) for text in (_("When"), _("What"), _("Where, or who"), _("Details"))),
        ),
        format_html_join(
            "",
            '<tr><td>{}</td><th scope="row">{}</th><td>{}</td><td>{}</td></tr>',
            (
                (format_moment(line.ms), line.what, line.where or "-", line.details or "-")
                for line in lines
            ),
        ),
    )


def find_fate(message_id: str, attempts: Sequence[Attempt]) -> Fate:
    """Find out what became of a message; asks the database only."""
    rows = WaitingMessage.objects.using(settings.DATABASE).defer("body", "traceback")
    row = rows.filter(message_id=message_id).first()
    if row is not None:
        return _fate_of_row(row)
    runs_at = _find_worker(message_id)
    if runs_at:
        return Fate(_("It runs at %(worker)s.") % {"worker": runs_at})
    last = attempts[-1] if attempts else None
    if last is None:
        return Fate(
            _("Nothing is remembered of it: it did not fail so far, or that was long ago."), True
        )
    return _fate_of_last(last)


def _fate_of_last(last: Attempt) -> Fate:
    """Return what became of a message that waits nowhere, from the last line of its story."""
    time = format_time(last.ended_ms)
    if last.outcome == Outcome.SUCCEEDED:
        worker = {"worker": _place(last), "time": time}
        return Fate(_("It succeeded at %(worker)s, %(time)s.") % worker, True, succeeded=True)
    if last.outcome in (Outcome.DISCARDED, Outcome.CANCELLED):
        words = {"outcome": Outcome(last.outcome).label, "time": time}
        return Fate(_("It was %(outcome)s, %(time)s.") % words, True)
    if last.outcome == Outcome.DEAD:
        return Fate(_("It was a dead letter, and was deleted when it was old."), True)
    if last.outcome == Outcome.RESCHEDULED:
        # A message that did not fail so far leaves no line when it succeeds.
        return Fate(_("It went to the broker: it has run, or runs as soon as a worker has time."))
    return Fate(_("It is with the broker, and runs as soon as a worker has time."))


def _fate_of_row(row: WaitingMessage) -> Fate:
    if row.kind == Kind.DEAD:
        return Fate(
            _("It is a dead letter: %(reason)s.") % {"reason": reason_text(row.reason)},
            True,
            row=row,
        )
    if row.due_ms is not None and row.due_ms <= clock.now_ms():
        return Fate(_("It is due, and goes to the broker as soon as a worker runs."), row=row)
    waits = {
        "why": why_it_waits(row),
        "time": format_time(row.due_ms),
        "when": time_from_now(row.due_ms or 0),
    }
    return Fate(_("It waits (%(why)s) until %(time)s, %(when)s.") % waits, row=row)


def _find_worker(message_id: str) -> str:
    """Return the worker process that says it runs a message."""
    alive = WorkerRecord.objects.using(settings.DATABASE).filter(
        seen_ms__gte=clock.now_ms() - ABSENT_MS, running__contains=message_id
    )
    for record in alive:
        if message_id in {each.get("message_id") for each in json.loads(record.running)}:
            return shorten(f"{record.host}:{record.pid}")
    return ""
