"""
What an operator can do to rows: one class each, with its question and its report.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib.admin.models import CHANGE, DELETION
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_actors import clock
from django_actors.models import WaitingMessage
from django_actors.waiting_room import WaitingRoom

from .forms import DelayForm, DueForm
from .texts import format_time, local_time

Rows = Sequence[WaitingMessage]


class Operation(abc.ABC):
    """
    Something that is done to many rows in the same way.

    Attributes:
        name: Of the admin action, and the last part of the address for one row.

        permission: Asked for as ``has_<permission>_permission()``.

        title: Of the page that asks, of its button, and of the link on a row's page.

        explanation: What will happen, in a sentence or two.

        form_class: What is asked besides.

        flag: What kind of change the admin's log calls it.

        needs_message: Whether rows without a message are left out.

        needs_broker: Whether the messages go to the broker at once.

        destroys: Whether it cannot be undone.
    """

    name: ClassVar[str]
    permission: ClassVar[str]
    title: ClassVar[str | Promise]
    explanation: ClassVar[str | Promise]
    form_class: ClassVar[type[forms.Form]] = forms.Form
    flag: ClassVar[int] = CHANGE
    needs_message: ClassVar[bool] = False
    needs_broker: ClassVar[bool] = False
    destroys: ClassVar[bool] = False

    def initial(self, row: WaitingMessage) -> dict[str, Any]:
        """Return answers to begin with, where one row was chosen by itself."""
        return {}

    @abc.abstractmethod
    def run(self, room: WaitingRoom, rows: Rows, form: Any, *, by: str) -> Collection[int]:
        """
        Do it, and return the keys of the rows it was done to.

        Args:
            by: The name of the operator.
        """

    @abc.abstractmethod
    def log_text(self, form: Any) -> str:
        """Return what the admin's log says of a row."""

    @abc.abstractmethod
    def report(self, count: int) -> str:
        """Return what the operator is told at the end."""


class Requeue(Operation):
    name = "requeue"
    permission = "requeue"
    title = gettext_lazy("Requeue")
    explanation = gettext_lazy("Runs again from the first attempt, as soon as a worker has time.")
    needs_message = True
    needs_broker = True

    def run(self, room: WaitingRoom, rows: Rows, form: Any, *, by: str) -> Collection[int]:
        messages = room.requeue(rows, delay=self.delay_ms(form), by=by)
        done = {message.message_id for message in messages}
        return {row.pk for row in rows if row.message_id in done}

    def delay_ms(self, form: Any) -> int:
        return 0

    def log_text(self, form: Any) -> str:
        return _("Requeued.")

    def report(self, count: int) -> str:
        text = ngettext(
            "%(count)d message was requeued.", "%(count)d messages were requeued.", count
        )
        return text % {"count": count}


class RequeueWithDelay(Requeue):
    name = "requeue_with_delay"
    title = gettext_lazy("Requeue with a delay")
    explanation = gettext_lazy(
        "Runs again from the first attempt when the delay has passed. "
        "Until then it is a scheduled message."
    )
    form_class = DelayForm
    needs_broker = False

    def delay_ms(self, form: Any) -> int:
        return int(form.delay_ms())

    def log_text(self, form: Any) -> str:
        return _("Requeued with a delay of %(delay)s.") % {"delay": form.delay_text()}


class Discard(Operation):
    name = "discard"
    permission = "discard"
    title = gettext_lazy("Discard")
    explanation = gettext_lazy("Deletes for good. This cannot be undone.")
    flag = DELETION
    destroys = True

    def run(self, room: WaitingRoom, rows: Rows, form: Any, *, by: str) -> Collection[int]:
        return room.discard(rows, by=by)

    def log_text(self, form: Any) -> str:
        return _("Discarded.")

    def report(self, count: int) -> str:
        text = ngettext(
            "%(count)d message was discarded.", "%(count)d messages were discarded.", count
        )
        return text % {"count": count}


class RunNow(Operation):
    name = "run_now"
    permission = "run"
    title = gettext_lazy("Run now")
    explanation = gettext_lazy("Runs as soon as a worker has time. A retry stays the retry it is.")
    needs_broker = True

    def run(self, room: WaitingRoom, rows: Rows, form: Any, *, by: str) -> Collection[int]:
        return room.reschedule(rows, due_ms=clock.now_ms(), by=by)

    def log_text(self, form: Any) -> str:
        return _("Run now.")

    def report(self, count: int) -> str:
        text = ngettext("%(count)d message runs now.", "%(count)d messages run now.", count)
        return text % {"count": count}


class Reschedule(Operation):
    name = "reschedule"
    permission = "run"
    title = gettext_lazy("Reschedule")
    explanation = gettext_lazy("Runs at the new time. A retry stays the retry it is.")
    form_class = DueForm

    def initial(self, row: WaitingMessage) -> dict[str, Any]:
        return {"due": local_time(row.due_ms)}

    def run(self, room: WaitingRoom, rows: Rows, form: Any, *, by: str) -> Collection[int]:
        return room.reschedule(rows, due_ms=form.due_ms(), by=by)

    def log_text(self, form: Any) -> str:
        return _("Rescheduled for %(time)s.") % {"time": format_time(form.due_ms())}

    def report(self, count: int) -> str:
        text = ngettext(
            "%(count)d message was rescheduled.", "%(count)d messages were rescheduled.", count
        )
        return text % {"count": count}


class Cancel(Discard):
    name = "cancel"
    permission = "cancel"
    title = gettext_lazy("Cancel")
    explanation = gettext_lazy("Deletes for good, without a run. This cannot be undone.")

    def log_text(self, form: Any) -> str:
        return _("Cancelled.")

    def report(self, count: int) -> str:
        text = ngettext(
            "%(count)d message was cancelled.", "%(count)d messages were cancelled.", count
        )
        return text % {"count": count}
