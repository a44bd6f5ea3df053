"""
What the lists and pages show of a row.
"""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors.models import WaitingMessage
from django_actors.rows import MAX_CALL

from .story import read_attempts, story_table, tell_story
from .texts import (
    Shown,
    block,
    class_name,
    format_datetime,
    format_time,
    make_visible,
    reason_text,
    shorten,
    time_from_now,
    why_it_waits,
)
from .tracebacks import show_traceback


class Columns:
    """Display methods for rows of the waiting room; those of lists read no heavy field."""

    # ---- of lists --------------------------------------------------------------

    # The call begins with the actor, so the lists need no column for that.
    @admin.display(description=gettext_lazy("call"), ordering="actor_name")
    def shown_call(self, row: WaitingMessage) -> str:
        return shorten(str(row)) or "-"

    @admin.display(description=gettext_lazy("actor"), ordering="actor_name", empty_value="-")
    def shown_actor(self, row: WaitingMessage) -> str:
        return shorten(row.actor_name)

    @admin.display(description=gettext_lazy("queue"), ordering="queue_name")
    def shown_queue(self, row: WaitingMessage) -> str:
        return shorten(row.queue_name)

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def shown_reason(self, row: WaitingMessage) -> str:
        return reason_text(row.reason)

    @admin.display(description=gettext_lazy("why"), ordering="error_class")
    def shown_cause(self, row: WaitingMessage) -> str:
        reason = reason_text(row.reason)
        return f"{reason}: {class_name(row.error_class)}" if row.error_class else reason

    @admin.display(description=gettext_lazy("when"), ordering="stored_at")
    def shown_stored(self, row: WaitingMessage) -> str:
        # Not the field itself: the admin would keep its text in one line.
        return format_datetime(row.stored_at)

    @admin.display(description=gettext_lazy("when"), ordering="due_ms")
    def shown_due(self, row: WaitingMessage) -> str:
        if row.due_ms is None:
            return "-"
        return f"{format_time(row.due_ms)} ({time_from_now(row.due_ms)})"

    @admin.display(description=gettext_lazy("why"), ordering="reason")
    def shown_why(self, row: WaitingMessage) -> str:
        return why_it_waits(row)

    # ---- of the page of a row --------------------------------------------------

    @admin.display(description=gettext_lazy("call"))
    def whole_call(self, row: WaitingMessage) -> str:
        return block(row.call if len(row.call) < MAX_CALL else f"{row.call}…")

    @admin.display(description=gettext_lazy("exception"), empty_value="-")
    def whole_exception(self, row: WaitingMessage) -> str:
        return make_visible(row.error_class) or "-"

    @admin.display(description=gettext_lazy("error"))
    def shown_error(self, row: WaitingMessage) -> str:
        return block(row.error)

    @admin.display(description=gettext_lazy("traceback"))
    def shown_traceback(self, row: WaitingMessage) -> str:
        return show_traceback(row.traceback)

    @admin.display(description=gettext_lazy("raised in"), empty_value="-")
    def shown_frame(self, row: WaitingMessage) -> str:
        return make_visible(row.frame)

    @admin.display(description=gettext_lazy("error group"))
    def shown_group(self, row: WaitingMessage) -> SafeString | str:
        if not row.fingerprint:
            return "-"
        url = reverse("admin:django_actors_errorgroup_change", args=(row.fingerprint,))
        return format_html('<a href="{}">{}</a>', url, _("Failures like this one"))

    @admin.display(description=gettext_lazy("timeline"))
    def shown_story(self, row: WaitingMessage) -> str:
        message = Shown.of(row).message
        attempts = read_attempts(row.message_id) if row.message_id else []
        sent_ms = message.message_timestamp if message else None
        return story_table(list(tell_story(attempts, sent_ms)))

    @admin.display(description=gettext_lazy("sent at"))
    def sent_at(self, row: WaitingMessage) -> str:
        message = Shown.of(row).message
        return format_time(message.message_timestamp if message else None)

    @admin.display(description=gettext_lazy("positional"))
    def shown_args(self, row: WaitingMessage) -> str:
        shown = Shown.of(row)
        return shown.arguments(shown.redacted.args)

    @admin.display(description=gettext_lazy("by name"))
    def shown_kwargs(self, row: WaitingMessage) -> str:
        shown = Shown.of(row)
        return shown.arguments(shown.redacted.kwargs)

    @admin.display(description=gettext_lazy("options in force"))
    def shown_options(self, row: WaitingMessage) -> str:
        return Shown.of(row).options()

    @admin.display(description=gettext_lazy("raw bytes"))
    def shown_bytes(self, row: WaitingMessage) -> str:
        return Shown.of(row).raw_bytes()
