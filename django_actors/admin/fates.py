"""
What became of a message: a page of its own, also when it is in the waiting room no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from django_actors.models import DeadLetter, Kind, ScheduledMessage, WaitingMessage

from .operations import Requeue
from .pages import LIVE_MEDIA, operate
from .story import find_fate, read_attempts, story_table, tell_story
from .texts import shorten

REQUEUE_AND_SEE = "requeue_and_see"

_REQUEUE = Requeue()

# How often the page of a message looks again.
RENEW_S = 2

if TYPE_CHECKING:
    from .base import WaitingMessageAdmin as _Admin
else:
    _Admin = object


class FatePages(_Admin):
    """Requeue a message, and look what becomes of it."""

    def message_urls(self) -> list[URLPattern]:
        """Return the address of the page of a message."""
        return [
            path(
                "message/<path:message_id>/",
                self.admin_site.admin_view(self.show_message),
                name="django_actors_deadletter_message",
            )
        ]

    def requeue_and_see(self, request: HttpRequest, row: WaitingMessage) -> HttpResponse:
        """Ask, requeue, and go on to the page that tells what became of it."""
        rows = self.get_queryset(request).filter(pk=row.pk)
        asked = operate(self, request, rows, _REQUEUE, row=row)
        if asked is not None or not row.message_id:
            return asked or self.back_to_list(request)
        url = reverse(
            "admin:django_actors_deadletter_message",
            args=(row.message_id,),
            current_app=self.admin_site.name,
        )
        return HttpResponseRedirect(f"{url}?group={row.fingerprint}")

    def show_message(self, request: HttpRequest, message_id: str) -> HttpResponse:
        """Tell what is known of a message."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        # No database has a NUL in a text.
        attempts = [] if "\0" in message_id else read_attempts(message_id)
        fate = find_fate(message_id.replace("\0", ""), attempts)
        news: dict[str, Any] = {
            "fate": fate,
            "story": story_table(list(tell_story(attempts, None))),
            "row_url": fate.row and self._url_of_row(request, fate.row),
            "rest_url": fate.succeeded and self._url_of_rest(request),
        }
        if "live" in request.GET:
            return TemplateResponse(request, "admin/django_actors/message_live.html", news)
        return self.page(
            request,
            "message",
            title=_("Message %(id)s") % {"id": shorten(message_id)},
            live_url=f"?{urlencode({'live': '1', 'group': request.GET.get('group', '')})}",
            renew_s=RENEW_S,
            media=self.media + LIVE_MEDIA,
            **news,
        )

    def _url_of_row(self, request: HttpRequest, row: WaitingMessage) -> str:
        """Return the address of the page of a row, if the user may see it."""
        model = DeadLetter if row.kind == Kind.DEAD else ScheduledMessage
        admin: Any = self.admin_site.get_model_admin(model)
        return admin.url(request, "change", row) if admin.has_view_permission(request) else ""

    def _url_of_rest(self, request: HttpRequest) -> str:
        """Return where the rest of the error group is requeued, if the user may do that."""
        group = request.GET.get("group", "")
        rows = self.get_queryset(request).filter(fingerprint=group)
        if not group or "\0" in group or not self.is_allowed(request, _REQUEUE.permission):
            return ""
        if not rows.exists():
            return ""
        return reverse(
            "admin:django_actors_errorgroup_requeue",
            args=(quote(group),),
            current_app=self.admin_site.name,
        )
