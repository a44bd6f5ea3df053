"""
The actors of the project: what they are, how their day was, and a form that sends to them.

An actor is code and no row, so the admin of the model shows pages of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors import control
from django_actors.brokers import get_broker
from django_actors.conf import settings
from django_actors.errors import BrokerUnavailable
from django_actors.message import Message
from django_actors.models import ActorSummary
from django_actors.redaction import redact
from django_actors.registry import RegisteredActor, registry

from .read_only import ReadOnlyAdmin
from .sending import SendForm
from .texts import block, make_visible, shorten

SEND_TITLE = gettext_lazy("Send a message")


@admin.register(ActorSummary)
class ActorSummaryAdmin(ReadOnlyAdmin):
    """A page of all actors, a page of each, and a form."""

    # ---- who may do what -------------------------------------------------------

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may send messages."""
        may = request.user.has_perm("django_actors.send_actorsummary")
        return bool(may and self.has_view_permission(request))

    # ---- addresses -------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        views: tuple[tuple[str, str, Callable[..., HttpResponse]], ...] = (
            ("", "changelist", self.changelist_view),
            ("<path:actor_name>/send/", "send", self.send_view),
            ("<path:actor_name>/", "actor", self.actor_view),
        )
        return [
            path(route, self.admin_site.admin_view(view), name=f"django_actors_actorsummary_{name}")
            for route, name, view in views
        ]

    def url(self, name: str, actor_name: str = "") -> str:
        """Return the address of a page, about an actor or about all."""
        return reverse(
            f"admin:django_actors_actorsummary_{name}",
            args=(quote(actor_name),) if actor_name else (),
            current_app=self.admin_site.name,
        )

    # ---- pages -----------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return the page of all actors."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        lines = [
            {
                "actor": each,
                "visible_name": shorten(each.name),
                "summary": shorten(each.description.partition("\n")[0]),
                "url": self.url("actor", each.name),
                "figures": _figures(each.last_day),
            }
            for each in control.actors()
        ]
        return self.page(request, "actors", title=_("Actors"), lines=lines)

    def actor_view(self, request: HttpRequest, actor_name: str) -> HttpResponse:
        """Return the page of one actor."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        actor = _find(actor_name)
        info = control.describe(actor, control.last_day(actor.actor_name))
        options = [
            (shorten(name), shorten(value if isinstance(value, str) else repr(value), 1_000))
            for name, value in sorted(info.options.items())
        ]
        return self.page(
            request,
            "actor",
            title=shorten(info.name),
            info=info,
            figures=_figures(info.last_day),
            signature=block(f"{info.name}{info.signature}"),
            description=block(info.description),
            place=shorten(info.place, 500),
            options=options,
            send_url=self.url("send", info.name) if self.has_send_permission(request) else "",
            back_url=self.url("changelist"),
        )

    def send_view(self, request: HttpRequest, actor_name: str) -> HttpResponse:
        """Ask for arguments, and send."""
        if not self.has_send_permission(request):
            raise PermissionDenied
        actor = _find(actor_name)
        form = SendForm(request.POST if request.method == "POST" else None, actor=actor)
        if form.is_valid() and self._send(request, form):
            return HttpResponseRedirect(self.url("actor", actor.actor_name))
        return self.page(
            request,
            "send",
            title=str(SEND_TITLE),
            subtitle=shorten(actor.actor_name),
            form=form,
            errors=form.errors,
            signature=block(f"{actor.actor_name}{control.signature_of(actor)}"),
            back_url=self.url("actor", actor.actor_name),
        )

    def page(
        self, request: HttpRequest, template: str, *, title: str, **context: Any
    ) -> HttpResponse:
        """Return a page of this model."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/django_actors/{template}.html",
            {
                **self.admin_site.each_context(request),
                "title": title,
                "opts": self.opts,
                "media": self.media,
                "list_url": self.url("changelist"),
                **context,
            },
        )

    # ---- sending ---------------------------------------------------------------

    def _send(self, request: HttpRequest, form: SendForm) -> bool:
        """Send and log; return whether the message was sent."""
        message = form.message()
        try:
            # Not without its entry in the log, and the other way round.
            with transaction.atomic(using=settings.DATABASE):
                sent = get_broker().enqueue(message, delay=form.delay_ms())
                self._log(request, sent)
        except BrokerUnavailable as error:
            text = _("The message was not sent: %(error)s") % {"error": error}
            self.message_user(request, text, messages.ERROR)
            return False
        self.message_user(request, self._tell_sent(request, sent), messages.SUCCESS)
        return True

    def _log(self, request: HttpRequest, message: Message) -> None:
        user: Any = request.user
        rows: Any = [ActorSummary(pk=None, actor_name=message.actor_name)]
        text = _("Sent %(id)s: %(call)s") % {
            "id": message.message_id,
            "call": make_visible(redact(message).call)[:1_000],
        }
        LogEntry.objects.log_actions(user.pk, rows, ADDITION, change_message=text)

    def _tell_sent(self, request: HttpRequest, message: Message) -> str:
        text = _("Message %(id)s was sent.") % {"id": message.message_id}
        if not request.user.has_perm("django_actors.view_deadletter"):
            return text
        url = reverse(
            "admin:django_actors_deadletter_message",
            args=(message.message_id,),
            current_app=self.admin_site.name,
        )
        return format_html('{} <a href="{}">{}</a>', text, url, _("What became of it"))


def _find(actor_name: str) -> RegisteredActor:
    actor = registry.actors().get(unquote(actor_name))
    if actor is None:
        raise Http404(f"This process has no actor {unquote(actor_name)!r}.")
    return actor


def _figures(figures: control.Figures) -> dict[str, Any]:
    rate, mean = figures.failure_rate, figures.mean_ms
    return {
        "succeeded": figures.succeeded,
        "failed": figures.failed,
        "retried": figures.retried,
        "dead": figures.dead,
        "failure_percent": None if rate is None else round(100 * rate, 1),
        "mean_ms": None if mean is None else round(mean),
    }
