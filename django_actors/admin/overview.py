"""
The overview: the broker, queues and workers as they are now, and two buttons for each queue.

Nothing of it is a row, so the admin of the model shows one page in the place of its list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_actors import control
from django_actors.models import DeadLetter, Overview, PausedQueue, ScheduledMessage

from .durations import duration_text
from .pages import LIVE_MEDIA
from .read_only import ReadOnlyAdmin
from .sparkline import sparkline
from .texts import make_visible, shorten

# Dead letters, and scheduled messages, that are looked at for a page.
COUNT_AT_MOST = 10_000

# Minutes of a bar in the picture of one queue, which has little room.
BAR_MINUTES = 3

RENEW_S = 5


@admin.register(Overview)
class OverviewAdmin(ReadOnlyAdmin):
    """One page, and the addresses its buttons and its script use."""

    # ---- who may do what -------------------------------------------------------

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may pause and resume queues."""
        may = request.user.has_perm("django_actors.pause_overview")
        return bool(may and self.has_view_permission(request))

    # ---- addresses -------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views: tuple[tuple[str, str, Callable[..., HttpResponse]], ...] = (
            ("", "changelist", self.changelist_view),
            ("live/", "live", self.live_view),
            ("pause/", "pause", self.pause_view),
            ("resume/", "resume", self.resume_view),
        )
        return [
            path(route, self.admin_site.admin_view(view), name=f"django_actors_overview_{name}")
            for route, name, view in views
        ]

    def url(self, name: str, model: Any = Overview, **query: str) -> str:
        """Return the address of a page."""
        url = reverse(
            f"admin:django_actors_{model._meta.model_name}_{name}",
            current_app=self.admin_site.name,
        )
        return f"{url}?{urlencode(query)}" if query else url

    # ---- pages -----------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return the page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Overview"),
            "opts": self.opts,
            "media": self.media + LIVE_MEDIA,
            "renew_s": RENEW_S,
            "live_url": self.url("live"),
            **self.get_live_context(request),
        }
        return TemplateResponse(request, "admin/django_actors/overview.html", context)

    def live_view(self, request: HttpRequest) -> HttpResponse:
        """Return the part of the page that changes."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.get_live_context(request)
        return TemplateResponse(request, "admin/django_actors/overview_live.html", context)

    def get_live_context(self, request: HttpRequest) -> dict[str, Any]:
        """Look at everything once."""
        info, living = control.broker(), control.workers()
        found = control.queues(broker_info=info, living=living, count_at_most=COUNT_AT_MOST)
        return {
            "broker": info,
            "queues": [self._queue_line(queue) for queue in found],
            "pictures": list(_pictures(found)),
            "capped_at": COUNT_AT_MOST if any(queue.is_capped for queue in found) else None,
            "crash_loops": [shorten(str(loop), 400) for loop in control.crash_loops()],
            "workers": [_worker_line(worker) for worker in living],
            "may_pause": self.has_pause_permission(request),
            "may_see_dead": request.user.has_perm("django_actors.view_deadletter"),
            "may_see_scheduled": request.user.has_perm("django_actors.view_scheduledmessage"),
            "pause_url": self.url("pause"),
            "resume_url": self.url("resume"),
        }

    def _queue_line(self, queue: control.QueueInfo) -> dict[str, Any]:
        rate = queue.last_hour.failure_rate
        return {
            "queue": queue,
            "visible_name": shorten(queue.name),
            "oldest": duration_text(queue.oldest_ms),
            "per_minute": round(queue.per_minute, 1),
            "failure_percent": None if rate is None else round(100 * rate, 1),
            "hour": _picture(_by_bar(queue.minutes), _("Attempts in the last 60 minutes")),
            "day": _picture(_attempts(queue.hours), _("Attempts in the last 24 hours")),
            "paused_by": shorten(queue.paused_by),
            "dead_url": self.url("changelist", DeadLetter, queue_name=queue.name),
            "scheduled_url": self.url("changelist", ScheduledMessage, queue_name=queue.name),
        }

    # ---- buttons ---------------------------------------------------------------

    def pause_view(self, request: HttpRequest) -> HttpResponse:
        """Pause the queue that was posted."""
        name = str(request.user.get_username())
        return self._switch(
            request,
            lambda queue: control.pause(queue, by=name),
            _("Paused."),
            _("Queue “%(queue)s” is paused. Workers obey within two seconds."),
        )

    def resume_view(self, request: HttpRequest) -> HttpResponse:
        """Resume the queue that was posted."""
        return self._switch(
            request, control.resume, _("Resumed."), _("Queue “%(queue)s” is read again.")
        )

    def _switch(
        self, request: HttpRequest, change: Callable[[str], bool], logged: str, told: str
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_pause_permission(request):
            raise PermissionDenied
        queue = request.POST.get("queue", "")
        try:
            changed = change(queue)
        except control.UnknownQueue as error:
            self.message_user(request, make_visible(str(error))[:500], messages.ERROR)
        else:
            if changed:
                user: Any = request.user
                rows: Any = [PausedQueue(queue_name=queue)]
                LogEntry.objects.log_actions(user.pk, rows, CHANGE, change_message=logged)
            self.message_user(request, told % {"queue": shorten(queue)}, messages.SUCCESS)
        return HttpResponseRedirect(self.url("changelist"))


def _attempts(figures: Sequence[control.Figures]) -> list[int]:
    return [each.attempts for each in figures]


def _by_bar(minutes: Sequence[control.Figures]) -> list[int]:
    counts = _attempts(minutes)
    return [sum(counts[at : at + BAR_MINUTES]) for at in range(0, len(counts), BAR_MINUTES)]


def _pictures(found: Sequence[control.QueueInfo]) -> Any:
    """Yield titles and pictures of all queues together."""
    minutes = [list(each) for each in zip(*(queue.minutes for queue in found), strict=True)]
    hours = [list(each) for each in zip(*(queue.hours for queue in found), strict=True)]
    for title, columns in (
        (_("last 60 minutes"), minutes),
        (_("last 24 hours"), hours),
    ):
        attempts = [sum(each.attempts for each in column) for column in columns]
        failed = [sum(each.failed for each in column) for column in columns]
        yield _("Attempts, %(time)s") % {"time": title}, _picture(attempts, title)
        yield _("Failed attempts, %(time)s") % {"time": title}, _picture(failed, title)


def _picture(counts: Sequence[int], title: str) -> SafeString:
    total = sum(counts)
    text = ngettext("%(title)s: %(count)d", "%(title)s: %(count)d", total)
    return sparkline(counts, text % {"title": title, "count": total})


def _worker_line(worker: control.WorkerInfo) -> dict[str, Any]:
    return {
        "worker": worker,
        "host": shorten(worker.host),
        "queues": [shorten(name) for name in worker.queues],
        "up": duration_text(worker.up_ms),
        "seen": duration_text(worker.seen_ms),
        "running": [
            {
                "actor_name": shorten(each.actor_name),
                "message_id": shorten(each.message_id),
                "time": duration_text(each.for_ms),
            }
            for each in worker.running
        ],
    }
