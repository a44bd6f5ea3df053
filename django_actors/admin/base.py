"""
What the admins of dead letters and of scheduled messages have in common.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors.conf import settings
from django_actors.models import WaitingMessage

from .changelist import CappedPaginator, WaitingChangeList
from .columns import Columns
from .operations import Operation
from .pages import operate
from .read_only import ReadOnlyAdmin
from .texts import Shown, as_json, make_visible

ARGUMENTS = "arguments"

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

RowView = Callable[[HttpRequest, WaitingMessage], HttpResponse]


class ActionForm(helpers.ActionForm):
    """The choice of an action; the script of django-unfold shows no button without being told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"


class WaitingMessageAdmin(Columns, ReadOnlyAdmin):
    """
    Rows of the waiting room: to look at, and to do operations to.

    Rows are neither added nor changed nor deleted as other models are: that would pass the
    waiting room by, and its race with the dispatcher.

    Attributes:
        operations: Each has a link and an address on the page of a row; a subclass has an
            action of the same name for the list.
    """

    operations: ClassVar[Sequence[Operation]] = ()

    action_form = ActionForm
    paginator = CappedPaginator
    show_full_result_count = False
    search_fields = ("message_id", "actor_name", "call", "error")
    search_help_text = gettext_lazy("Message id, actor, arguments or error text")

    # ---- who may do what -------------------------------------------------------

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Return whether the user has a permission of this model."""
        name = f"{self.opts.app_label}.{permission}_{self.opts.model_name}"
        return bool(request.user.has_perm(name))

    def has_arguments_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may see sensitive arguments."""
        return self.may(request, "arguments")

    def is_allowed(self, request: HttpRequest, permission: str) -> bool:
        """Return whether the user may do what asks for *permission*, on the page of a row."""
        allowed = getattr(self, f"has_{permission}_permission")(request)
        return bool(allowed and self.has_view_permission(request))

    # ---- rows ------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(settings.DATABASE)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if _ID.fullmatch(search_term.strip()):
            # By the index, not by a look at the texts of all rows.
            return queryset.filter(message_id=search_term.strip().lower()), False
        return super().get_search_results(request, queryset, search_term)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[WaitingChangeList]:
        return WaitingChangeList

    # ---- addresses -------------------------------------------------------------

    def url(self, request: HttpRequest, name: str, row: WaitingMessage | None = None) -> str:
        """Return the address of a page of this model; the filters of the list come along."""
        url = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}",
            args=() if row is None else (quote(row.pk),),
            current_app=self.admin_site.name,
        )
        filters = self.get_preserved_filters(request)
        return str(add_preserved_filters({"preserved_filters": filters, "opts": self.opts}, url))

    def get_urls(self) -> list[URLPattern]:
        own = [
            self.row_path(each.name, each.permission, partial(self.operate_on_row, each))
            for each in self.operations
        ]
        return [
            *own,
            self.row_path(ARGUMENTS, "arguments", self.show_arguments),
            *super().get_urls(),
        ]

    def row_path(self, name: str, permission: str, view: RowView) -> URLPattern:
        """Return the address of a page about one row."""
        return path(
            f"<path:object_id>/{name}/",
            self.admin_site.admin_view(partial(self._row_view, permission, view)),
            name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
        )

    def _row_view(
        self, permission: str, view: RowView, request: HttpRequest, object_id: str
    ) -> HttpResponse:
        if not self.is_allowed(request, permission):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        return self.say_gone(request) if row is None else view(request, row)

    def operate_on_row(
        self, operation: Operation, request: HttpRequest, row: WaitingMessage
    ) -> HttpResponse:
        """Ask about one row, and do it."""
        rows = self.get_queryset(request).filter(pk=row.pk)
        return operate(self, request, rows, operation, row=row) or self.back_to_list(request)

    def say_gone(self, request: HttpRequest) -> HttpResponse:
        """Tell that a row is no longer what it was, and return to the list."""
        text = _("The message has moved or changed in the meantime.")
        self.message_user(request, text, messages.WARNING)
        return self.back_to_list(request)

    def back_to_list(self, request: HttpRequest) -> HttpResponse:
        """Return to the list as it was filtered."""
        return HttpResponseRedirect(self.url(request, "changelist"))

    # ---- pages -----------------------------------------------------------------

    def page(
        self,
        request: HttpRequest,
        template: str,
        *,
        title: str,
        row: WaitingMessage | None = None,
        **context: Any,
    ) -> HttpResponse:
        """Return a page of this model, about a row or about many."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/django_actors/{template}.html",
            {
                **self.admin_site.each_context(request),
                "title": title,
                "subtitle": row and make_visible(str(row)),
                "original": row or title,
                "opts": self.opts,
                "media": self.media,
                "has_view_permission": True,
                "back_url": self.url(request, "change" if row else "changelist", row),
                **context,
            },
        )

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        row = kwargs.get("obj")
        if row is not None:
            context["subtitle"] = make_visible(str(row))
            context["operation_links"] = self.get_links(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def call_fields(self, row: WaitingMessage | None) -> tuple[str, ...]:
        """Return the field of the call, where the heading has no room for all of it."""
        return () if row is None or row.call == str(row) else ("whole_call",)

    def get_links(self, request: HttpRequest, row: WaitingMessage) -> list[tuple[str, str]]:
        """Return titles and addresses of what the user may do to a row."""
        has_message = row.runnable is not None
        links = [
            (str(each.title), self.url(request, each.name, row))
            for each in self.operations
            if self.is_allowed(request, each.permission) and (has_message or not each.needs_message)
        ]
        if Shown.of(row).has_secrets and self.is_allowed(request, "arguments"):
            links.append((_("Show sensitive arguments"), self.url(request, ARGUMENTS, row)))
        return links

    def show_arguments(self, request: HttpRequest, row: WaitingMessage) -> HttpResponse:
        """Show all arguments as they are, and note in the log who has looked."""
        message = Shown.of(row).message
        if message is None:
            return self.say_gone(request)
        user: Any = request.user
        text = _("Looked at sensitive arguments.")
        LogEntry.objects.log_actions(user.pk, [row], CHANGE, change_message=text)
        return self.page(
            request,
            "arguments",
            title=_("Arguments"),
            row=row,
            positional=as_json(message.args),
            by_name=as_json(message.kwargs),
        )
