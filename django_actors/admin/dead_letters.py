"""
Dead letters: find out why, put it right, run again or throw away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors.models import DeadLetter, WaitingMessage
from django_actors.redaction import redact
from django_actors.waiting_room import WaitingRoom

from .base import WaitingMessageAdmin
from .changelist import AgeFilter, GroupFilter, ReasonFilter, SampledFilter
from .code import MAX_ROWS, write_code
from .fates import REQUEUE_AND_SEE, FatePages
from .forms import ArgumentsForm
from .operations import Discard, Requeue, RequeueWithDelay
from .pages import operate, tell_if_broker_is_away
from .texts import Shown, signature_of

REQUEUE = Requeue()
REQUEUE_WITH_DELAY = RequeueWithDelay()
DISCARD = Discard()

EDIT = "edit_and_requeue"
EDIT_TITLE = gettext_lazy("Edit arguments and requeue")

COPY = "copy_as_code"
COPY_TITLE = gettext_lazy("Copy as code")


@admin.register(DeadLetter)
class DeadLetterAdmin(FatePages, WaitingMessageAdmin):
    """The dead letters of all queues, the latest first."""

    operations = (REQUEUE, REQUEUE_WITH_DELAY, DISCARD)
    actions = ("requeue", "requeue_with_delay", "edit_and_requeue", "discard", "copy_as_code")

    list_display = (
        "shown_call",
        "shown_stored",
        "shown_cause",
        "shown_queue",
        "attempts",
    )
    list_filter = (
        ("queue_name", SampledFilter),
        ("actor_name", SampledFilter),
        ("reason", ReasonFilter),
        ("error_class", SampledFilter),
        AgeFilter,
        GroupFilter,
    )
    date_hierarchy = "stored_at"
    ordering = ("-stored_at", "-pk")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        where = ("shown_actor", "shown_queue", "message_id", "sent_at", "stored_at", "attempts")
        error = (
            "shown_reason",
            "whole_exception",
            "shown_error",
            "shown_frame",
            "shown_group",
            "shown_traceback",
        )
        if obj is not None and Shown.of(obj).message is None:
            return [
                (None, {"fields": ("shown_queue", "stored_at")}),
                (_("Error"), {"fields": error}),
                (_("Body"), {"fields": ("shown_bytes",)}),
            ]
        return [
            (None, {"fields": (*self.call_fields(obj), *where)}),
            (_("Error"), {"fields": error}),
            (_("Timeline"), {"fields": ("shown_story",)}),
            (_("Arguments"), {"fields": ("shown_args", "shown_kwargs")}),
            (_("Options"), {"fields": ("shown_options",)}),
        ]

    # ---- permissions -----------------------------------------------------------

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "requeue")

    def has_edit_permission(self, request: HttpRequest) -> bool:
        # What is edited is requeued.
        return self.may(request, "edit") and self.may(request, "requeue")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "discard")

    # ---- actions of the list ---------------------------------------------------

    @admin.action(description=gettext_lazy("Requeue"), permissions=["requeue"])
    def requeue(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, REQUEUE)

    @admin.action(description=gettext_lazy("Requeue with a delay"), permissions=["requeue"])
    def requeue_with_delay(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, REQUEUE_WITH_DELAY)

    @admin.action(description=EDIT_TITLE, permissions=["edit"])
    def edit_and_requeue(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        chosen = list(rows[:2])
        if len(chosen) == 1:
            return HttpResponseRedirect(self.url(request, EDIT, chosen[0]))
        text = _("Arguments are edited one message at a time: choose a single one.")
        self.message_user(request, text, messages.WARNING)
        return None

    @admin.action(description=gettext_lazy("Discard"), permissions=["discard"])
    def discard(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return operate(self, request, rows, DISCARD)

    @admin.action(description=COPY_TITLE, permissions=["arguments"])
    def copy_as_code(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return self.show_code(request, rows[: MAX_ROWS + 1])

    def show_code(
        self,
        request: HttpRequest,
        rows: Iterable[WaitingMessage],
        row: WaitingMessage | None = None,
    ) -> HttpResponse:
        """Show the code that sends messages again, and note in the log who has seen it."""
        chosen = list(rows)
        code = write_code(chosen)
        user: Any = request.user
        text = _("Copied as code.")
        LogEntry.objects.log_actions(user.pk, chosen[:MAX_ROWS], CHANGE, change_message=text)
        return self.page(request, "code", title=str(COPY_TITLE), row=row, code=code)

    def copy_row(self, request: HttpRequest, row: WaitingMessage) -> HttpResponse:
        """Show the code that sends the message of a row again."""
        return self.show_code(request, [row], row)

    # ---- edit arguments and requeue --------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        return [
            self.row_path(EDIT, "edit", self.edit_row),
            self.row_path(COPY, "arguments", self.copy_row),
            self.row_path(REQUEUE_AND_SEE, REQUEUE.permission, self.requeue_and_see),
            *self.message_urls(),
            *super().get_urls(),
        ]

    def get_links(self, request: HttpRequest, row: WaitingMessage) -> list[tuple[str, str]]:
        links = super().get_links(request, row)
        shown = Shown.of(row)
        if self.is_allowed(request, "edit") and shown.message and shown.actor:
            links.insert(-1, (str(EDIT_TITLE), self.url(request, EDIT, row)))
        if self.is_allowed(request, "arguments") and shown.message:
            links.append((str(COPY_TITLE), self.url(request, COPY, row)))
        return links

    def edit_row(self, request: HttpRequest, row: WaitingMessage) -> HttpResponse:
        """Ask for other arguments, and requeue with them."""
        shown = Shown.of(row)
        if shown.message is None or shown.actor is None:
            text = _("Only a message for an actor that this process knows can be edited.")
            self.message_user(request, text, messages.WARNING)
            return self.back_to_list(request)
        data = request.POST if request.method == "POST" else None
        form = ArgumentsForm(data, message=shown.message, actor=shown.actor)
        if not form.is_valid():
            return self.page(
                request,
                "edit",
                title=str(EDIT_TITLE),
                row=row,
                form=form,
                errors=form.errors,
                signature=signature_of(shown.actor),
                newest=row.stored_at.isoformat(),
            )
        if request.POST.get("newest") != row.stored_at.isoformat():
            return self.say_gone(request)
        return self._requeue_edited(request, row, form)

    def _requeue_edited(
        self, request: HttpRequest, row: WaitingMessage, form: ArgumentsForm
    ) -> HttpResponse:
        room = WaitingRoom()
        with transaction.atomic(using=room.alias):
            user: Any = request.user
            messages_ = room.requeue([row], edit=form.edit, by=user.get_username())
            for message in messages_:
                call = redact(message).call
                text = _("Requeued with other arguments: %(call)s") % {"call": call[:1_000]}
                LogEntry.objects.log_actions(user.pk, [row], CHANGE, change_message=text)
        if not messages_:
            return self.say_gone(request)
        self.message_user(request, REQUEUE.report(1), messages.SUCCESS)
        tell_if_broker_is_away(self, request)
        return self.back_to_list(request)
