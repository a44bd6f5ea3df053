"""
Scheduled messages: what will run when, and why; sooner, later or never.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors.models import ScheduledMessage

from .base import WaitingMessageAdmin
from .changelist import ReasonFilter, SampledFilter
from .operations import Cancel, Reschedule, RunNow
from .pages import operate

RUN_NOW = RunNow()
RESCHEDULE = Reschedule()
CANCEL = Cancel()


@admin.register(ScheduledMessage)
class ScheduledMessageAdmin(WaitingMessageAdmin):
    """The messages that wait for their time, the next one first."""

    operations = (RUN_NOW, RESCHEDULE, CANCEL)
    actions = ("run_now", "reschedule", "cancel")

    list_display = ("shown_call", "shown_due", "shown_why", "shown_queue")
    list_filter = (
        ("queue_name", SampledFilter),
        ("actor_name", SampledFilter),
        ("reason", ReasonFilter),
        ("error_class", SampledFilter),
    )
    ordering = ("due_ms", "pk")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        when = ("shown_due", "shown_why", "message_id", "sent_at", "stored_at", "attempts")
        error = ("whole_exception", "shown_error", "shown_frame", "shown_group", "shown_traceback")
        failed = [(_("Last error"), {"fields": error})] if obj and obj.error_class else []
        return [
            (None, {"fields": (*self.call_fields(obj), "shown_actor", "shown_queue", *when)}),
            *failed,
            (_("Timeline"), {"fields": ("shown_story",)}),
            (_("Arguments"), {"fields": ("shown_args", "shown_kwargs")}),
            (_("Options"), {"fields": ("shown_options",)}),
        ]

    # ---- permissions -----------------------------------------------------------

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "run")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "cancel")

    # ---- actions of the list ---------------------------------------------------

    @admin.action(description=gettext_lazy("Run now"), permissions=["run"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, RUN_NOW)

    @admin.action(description=gettext_lazy("Reschedule"), permissions=["run"])
    def reschedule(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, RESCHEDULE)

    @admin.action(description=gettext_lazy("Cancel"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, CANCEL)
