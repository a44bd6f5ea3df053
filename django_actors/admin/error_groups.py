"""
Error groups: what fails in the same way, how often, since when; requeue one, then the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_actors import clock
from django_actors.conf import settings
from django_actors.failures import STRETCH_MS, count_dead
from django_actors.models import DeadLetter, ErrorCount, ErrorGroup

from .changelist import CappedPaginator
from .operations import Discard, Operation, Requeue
from .pages import operate
from .read_only import ReadOnlyAdmin
from .sparkline import sparkline
from .texts import block, class_name, format_time, make_visible, reason_text, shorten, time_ago
from .tracebacks import show_traceback

# Dead letters that are counted of a group.
MAX_DEAD = 1_000

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Period(NamedTuple):
    """
    A stretch of time up to now.

    Attributes:
        title: Of the choice in the filter, and of the picture.

        bar_ms: What one bar of the picture stands for.
    """

    title: str | Promise
    length_ms: int
    bar_ms: int

    @property
    def bars(self) -> int:
        """How many bars the picture has."""
        return self.length_ms // self.bar_ms


PERIODS = {
    "hour": Period(gettext_lazy("Last hour"), HOUR_MS, STRETCH_MS),
    "day": Period(gettext_lazy("Last day"), DAY_MS, HOUR_MS),
    "week": Period(gettext_lazy("Last week"), 7 * DAY_MS, 6 * HOUR_MS),
}

REQUEUE = Requeue()
DISCARD = Discard()


class PeriodFilter(admin.SimpleListFilter):
    """Groups that were seen in a period."""

    title = gettext_lazy("seen in")
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, period.title) for name, period in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        period = PERIODS.get(self.value() or "")
        if period is None:
            return queryset
        return queryset.filter(last_ms__gte=clock.now_ms() - period.length_ms)


def count_by_bar(groups: Sequence[ErrorGroup], period: Period) -> dict[str, list[int]]:
    """Return the bars of the picture of each group, with one query."""
    if not groups:
        return {}
    now = clock.now_ms()
    # The stretch that is not over yet belongs to the last bar.
    begin = now - now % STRETCH_MS + STRETCH_MS - period.length_ms
    rows = (
        ErrorCount.objects.using(settings.DATABASE)
        .filter(fingerprint__in=[group.pk for group in groups], start_ms__gte=begin)
        .annotate(bar_ms=F("start_ms") - (F("start_ms") - begin) % period.bar_ms)
        .values("fingerprint", "bar_ms")
        .annotate(total=Sum("count"))
    )
    bars = {group.pk: [0] * period.bars for group in groups}
    for row in rows:
        number = (row["bar_ms"] - begin) // period.bar_ms
        # The clock of another machine may be ahead.
        bars[row["fingerprint"]][min(number, period.bars - 1)] += row["total"]
    return bars


class GroupChangeList(ChangeList):
    """A page of groups, with what is counted for those on it."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        period = PERIODS.get(str(self.params.get(PeriodFilter.parameter_name)))
        groups: Any = list(self.result_list)
        dead = count_dead([group.pk for group in groups], settings.DATABASE, limit=MAX_DEAD)
        bars = count_by_bar(groups, period or PERIODS["day"])
        for group in groups:
            group.dead = dead[group.pk]
            group.bars = bars[group.pk]
            group.period = period
        self.result_list = groups


@admin.register(ErrorGroup)
class ErrorGroupAdmin(ReadOnlyAdmin):
    """What fails in the same way, the latest first."""

    list_display = (
        "shown_error",
        "shown_actor",
        "shown_picture",
        "shown_count",
        "shown_dead",
        "shown_seen",
    )
    list_filter = (PeriodFilter,)
    list_per_page = 50
    search_fields = ("actor_name", "error_class", "error", "frame")
    search_help_text = gettext_lazy("Actor, exception, error text or function")
    ordering = ("-last_ms", "pk")
    paginator = CappedPaginator
    show_full_result_count = False
    actions = None

    # ---- who may do what -------------------------------------------------------

    @property
    def dead_letters(self) -> Any:
        """The admin of dead letters: what it allows is allowed here."""
        return self.admin_site.get_model_admin(DeadLetter)

    # ---- rows ------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[ErrorGroup]:
        return super().get_queryset(request).using(settings.DATABASE)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return GroupChangeList

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        seen = ("shown_first", "shown_last", "count", "shown_dead_link")
        return [
            (None, {"fields": ("whole_class", "shown_actor", "shown_place", *seen)}),
            (_("Over time"), {"fields": ("shown_day", "shown_week")}),
            (_("The latest one"), {"fields": ("whole_error", "shown_traceback")}),
        ]

    # ---- columns ---------------------------------------------------------------

    @admin.display(description=gettext_lazy("error"), ordering="error_class")
    def shown_error(self, group: ErrorGroup) -> str:
        name = class_name(reason_text(group.error_class))
        return shorten(f"{name}: {group.error}" if group.error else name)

    @admin.display(description=gettext_lazy("actor"), ordering="actor_name", empty_value="-")
    def shown_actor(self, group: ErrorGroup) -> str:
        return shorten(group.actor_name)

    @admin.display(description=gettext_lazy("over time"))
    def shown_picture(self, group: Any) -> SafeString:
        period = group.period or PERIODS["day"]
        return _picture(group.bars, period)

    @admin.display(description=gettext_lazy("failures"), ordering="count")
    def shown_count(self, group: Any) -> int:
        return sum(group.bars) if group.period else group.count

    @admin.display(description=gettext_lazy("dead"))
    def shown_dead(self, group: Any) -> str:
        return _up_to_limit(group.dead)

    @admin.display(description=gettext_lazy("seen"), ordering="last_ms")
    def shown_seen(self, group: ErrorGroup) -> str:
        words = {"last": time_ago(group.last_ms), "first": time_ago(group.first_ms)}
        return _("%(last)s (first %(first)s)") % words

    # ---- fields of the page ----------------------------------------------------

    @admin.display(description=gettext_lazy("raised in"), empty_value="-")
    def shown_place(self, group: ErrorGroup) -> str:
        return shorten(group.frame)

    @admin.display(description=gettext_lazy("first seen"))
    def shown_first(self, group: ErrorGroup) -> str:
        return f"{format_time(group.first_ms)} ({time_ago(group.first_ms)})"

    @admin.display(description=gettext_lazy("last seen"))
    def shown_last(self, group: ErrorGroup) -> str:
        return f"{format_time(group.last_ms)} ({time_ago(group.last_ms)})"

    @admin.display(description=gettext_lazy("exception"))
    def whole_class(self, group: ErrorGroup) -> str:
        return make_visible(reason_text(group.error_class))

    @admin.display(description=gettext_lazy("still dead"))
    def shown_dead_link(self, group: ErrorGroup) -> SafeString:
        url = reverse("admin:django_actors_deadletter_changelist", current_app=self.admin_site.name)
        text = _up_to_limit(_count_dead(group))
        return format_html('<a href="{}?fingerprint={}">{}</a>', url, group.pk, text)

    @admin.display(description=gettext_lazy("last day"))
    def shown_day(self, group: ErrorGroup) -> SafeString:
        return _picture(count_by_bar([group], PERIODS["day"])[group.pk], PERIODS["day"])

    @admin.display(description=gettext_lazy("last week"))
    def shown_week(self, group: ErrorGroup) -> SafeString:
        return _picture(count_by_bar([group], PERIODS["week"])[group.pk], PERIODS["week"])

    @admin.display(description=gettext_lazy("error"))
    def whole_error(self, group: ErrorGroup) -> str:
        return block(group.error)

    @admin.display(description=gettext_lazy("traceback"))
    def shown_traceback(self, group: ErrorGroup) -> str:
        return show_traceback(group.traceback)

    # ---- pages -----------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                f"<path:object_id>/{operation.name}/",
                self.admin_site.admin_view(partial(self.operate_on_group, operation)),
                name=f"django_actors_errorgroup_{operation.name}",
            )
            for operation in (REQUEUE, DISCARD)
        ] + super().get_urls()

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        group = kwargs.get("obj")
        if group is not None:
            context["subtitle"] = make_visible(str(group))
            context["operation_links"] = self._links(request, group)
        return super().render_change_form(request, context, *args, **kwargs)

    def _links(self, request: HttpRequest, group: ErrorGroup) -> list[tuple[str, str]]:
        """Return titles and addresses of what the user may do to the dead letters of a group."""
        latest = _dead_of(group).only("pk").order_by("fingerprint", "kind", "pk").last()
        links: list[tuple[str, str]] = []
        if latest is None:
            return links
        admin_of_rows = self.dead_letters
        if admin_of_rows.is_allowed(request, REQUEUE.permission):
            one = admin_of_rows.url(request, "requeue_and_see", latest)
            links.append((_("Requeue one and see"), one))
            links.append((_("Requeue all"), self._url(REQUEUE.name, group)))
        if admin_of_rows.is_allowed(request, DISCARD.permission):
            links.append((_("Discard all"), self._url(DISCARD.name, group)))
        return links

    def _url(self, name: str, group: ErrorGroup) -> str:
        return reverse(
            f"admin:django_actors_errorgroup_{name}",
            args=(quote(group.pk),),
            current_app=self.admin_site.name,
        )

    def operate_on_group(
        self, operation: Operation, request: HttpRequest, object_id: str
    ) -> HttpResponse:
        """Ask about all dead letters of a group, and do it, in batches."""
        admin_of_rows = self.dead_letters
        if not admin_of_rows.is_allowed(request, operation.permission):
            raise PermissionDenied
        group = self.get_object(request, unquote(object_id))
        if group is None:
            raise Http404
        back = self._url("change", group)
        rows = _dead_of(group)
        return operate(
            admin_of_rows, request, rows, operation, back_url=back
        ) or HttpResponseRedirect(back)


def _dead_of(group: ErrorGroup) -> QuerySet[Any]:
    rows: QuerySet[Any] = DeadLetter.objects.using(settings.DATABASE)
    return rows.filter(fingerprint=group.pk)


def _count_dead(group: ErrorGroup) -> int:
    return count_dead([group.pk], settings.DATABASE, limit=MAX_DEAD)[group.pk]


def _up_to_limit(count: int) -> str:
    if count < MAX_DEAD:
        return str(count)
    return _("%(count)d or more") % {"count": MAX_DEAD}


def _picture(bars: Sequence[int], period: Period) -> SafeString:
    text = ngettext("%(count)d failure: %(period)s", "%(count)d failures: %(period)s", sum(bars))
    return sparkline(bars, text % {"count": sum(bars), "period": period.title})
