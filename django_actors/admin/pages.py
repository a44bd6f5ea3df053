"""
The way of an operation through the pages: ask, do, show how far it has come, tell.

The same for a selection of the list and for a single row; each step is a POST to the
address of the step before it, as Django's own confirmation pages do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from django_actors.brokers import get_broker
from django_actors.errors import BrokerError
from django_actors.models import WaitingMessage

from .bulk import Job, Progress, report, summarize
from .operations import Operation
from .texts import make_visible

if TYPE_CHECKING:
    from .base import WaitingMessageAdmin

LIVE_MEDIA = forms.Media(js=[Script("django_actors/live.js", type="module")])  # type: ignore[list-item]
PROGRESS_MEDIA = forms.Media(js=[Script("django_actors/progress.js", type="module")])  # type: ignore[list-item]

# What a page passes on to the next one as it came.
_SELECTION = ("action", "select_across", helpers.ACTION_CHECKBOX_NAME)


def operate(
    model_admin: WaitingMessageAdmin,
    request: HttpRequest,
    rows: QuerySet[Any],
    operation: Operation,
    *,
    row: WaitingMessage | None = None,
    back_url: str = "",
) -> HttpResponse | None:
    """
    Ask whether *operation* shall be done to *rows*; do it if that was answered.

    Args:
        row: The only one, where it was chosen by itself.

        back_url: Where "no" leads; to the row or the list if it is empty.

    Returns:
        A page, or ``None`` when everything is done and told.
    """
    confirmed = request.method == "POST" and "post" in request.POST
    initial = operation.initial(row) if row else None
    form = operation.form_class(request.POST if confirmed else None, initial=initial)
    if not confirmed or not form.is_valid():
        return ask(model_admin, request, rows, operation, form, row=row, back_url=back_url)
    progress = Progress.read(request.POST, shown=_count_selected(request))
    job = Job(operation, rows, form=form, progress=progress, user=request.user)
    if "stop" not in request.POST and not job.run():
        return show_progress(model_admin, request, operation, progress, row=row)
    tell(model_admin, request, operation, job)
    return None


def ask(
    model_admin: WaitingMessageAdmin,
    request: HttpRequest,
    rows: QuerySet[Any],
    operation: Operation,
    form: forms.Form,
    *,
    row: WaitingMessage | None,
    back_url: str = "",
) -> HttpResponse:
    """Return the page that asks, and counts by actor."""
    summary = summarize(rows)
    progress = Progress(summary.count, summary.newest.isoformat() if summary.newest else "")
    return model_admin.page(
        request,
        "confirm",
        title=str(operation.title),
        row=row,
        operation=operation,
        summary=summary,
        form=form,
        errors=form.errors,
        hidden=[*_selection(request), *progress.hidden_fields()],
        **({"back_url": back_url} if back_url else {}),
    )


def show_progress(
    model_admin: WaitingMessageAdmin,
    request: HttpRequest,
    operation: Operation,
    progress: Progress,
    *,
    row: WaitingMessage | None,
) -> HttpResponse:
    """Return the page from which the next request goes on."""
    answers = [(name, request.POST[name]) for name in operation.form_class.base_fields]
    return model_admin.page(
        request,
        "progress",
        title=str(operation.title),
        row=row,
        operation=operation,
        progress=progress,
        hidden=[*_selection(request), *answers, *progress.hidden_fields()],
        media=model_admin.media + PROGRESS_MEDIA,
    )


def tell(
    model_admin: WaitingMessageAdmin, request: HttpRequest, operation: Operation, job: Job
) -> None:
    """Tell what was done, and what was skipped and why."""
    for good, text in report(operation, job.progress, finished=job.finished):
        level = messages.SUCCESS if good else messages.WARNING
        model_admin.message_user(request, text, level)
    if job.failed:
        text = _("The database ended it early; the server's log says why. The rest is unchanged.")
        model_admin.message_user(request, text, messages.ERROR)
    if job.progress.done and operation.needs_broker:
        tell_if_broker_is_away(model_admin, request)


def tell_if_broker_is_away(model_admin: WaitingMessageAdmin, request: HttpRequest) -> None:
    """Tell that what is to run now will wait, if the broker does not answer."""
    try:
        get_broker().ping()
    except BrokerError as error:
        text = _(
            "The broker does not answer: %(error)s The messages are kept as scheduled messages, "
            "and run when it is back."
        )
        shown = {"error": make_visible(str(error))}
        model_admin.message_user(request, text % shown, messages.WARNING)


def _count_selected(request: HttpRequest) -> int:
    """Return how many rows were chosen one by one."""
    if request.POST.get("select_across") == "1":
        return 0
    return len(request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))


def _selection(request: HttpRequest) -> Iterator[tuple[str, str]]:
    for name in _SELECTION:
        for value in request.POST.getlist(name):
            yield name, value
