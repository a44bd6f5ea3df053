"""
Lists of rows that stay quick over a million of them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy

from django_actors.models import WaitingMessage

from .dates import date_links
from .texts import reason_text, shorten

# Read for the page of one row only: they may be large.
HEAVY_FIELDS = ("body", "traceback", "error")

# Rows that are counted for a list. A larger selection is counted when it is acted on.
MAX_COUNT = 100_000

# Rows that are looked at for the choices of the filters: the first ones of the list.
SAMPLE = 5_000


class WaitingChangeList(ChangeList):
    """A list that does not load what only the page of one row shows."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, *args, **kwargs)
        return rows.defer(*HEAVY_FIELDS)

    def date_links(self) -> dict[str, Any]:
        """Return the links to days, for the template."""
        return date_links(self)


if TYPE_CHECKING:
    _Paginator = Paginator[WaitingMessage]
else:
    _Paginator = Paginator


class CappedPaginator(_Paginator):
    """Pages of a list whose end nobody turns to: rows beyond ``MAX_COUNT`` do not count."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_COUNT].count())


class SampledFilter(admin.AllValuesFieldListFilter):
    """Choices are the values of the first rows, not of a scan of the whole table."""

    def __init__(
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,
        model_admin: Any,
        field_path: str,
    ) -> None:
        if "\0" in "".join(params.get(field_path, ())):
            raise IncorrectLookupParameters("There is no NUL in any value.")
        super().__init__(field, request, params, model, model_admin, field_path)
        self.lookup_choices: Any = _sample(request, model_admin)[field_path]

    def has_output(self) -> bool:
        return len(self.lookup_choices) > 1 or bool(self.used_parameters)

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            value, bracket, count = str(choice["display"]).rpartition(" (")
            if not changelist.add_facets or not bracket:
                value, bracket, count = str(choice["display"]), "", ""
            yield {**choice, "display": f"{self.describe(value)}{bracket}{count}"}

    def describe(self, value: str) -> str:
        return shorten(value) or "-"


class ReasonFilter(SampledFilter):
    """Reasons in the reader's language."""

    def describe(self, value: str) -> str:
        return reason_text(value)


_SAMPLED = ("queue_name", "actor_name", "reason", "error_class")


def _sample(request: HttpRequest, model_admin: Any) -> dict[str, list[str]]:
    """Return the values of each filter, for all filters of a request with one query."""
    sample: dict[str, list[str]] | None = vars(request).get("_actors_sample")
    if sample is None:
        rows = model_admin.get_queryset(request).order_by(*model_admin.ordering)
        found = set(rows.values_list(*_SAMPLED)[:SAMPLE])
        columns = zip(*found, strict=True) if found else [()] * len(_SAMPLED)
        sample = {name: sorted(set(values)) for name, values in zip(_SAMPLED, columns, strict=True)}
        vars(request)["_actors_sample"] = sample
    return sample


class AgeFilter(admin.SimpleListFilter):
    """Rows by the time since they were stored."""

    title = gettext_lazy("age")
    parameter_name = "age"

    # Names and titles, and the hours since which, or before which, a row was stored.
    _CHOICES: ClassVar = {
        "hour": (gettext_lazy("Last hour"), "gte", 1),
        "day": (gettext_lazy("Last day"), "gte", 24),
        "older": (gettext_lazy("Older than a day"), "lt", 24),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, title) for name, (title, _, _) in self._CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        choice = self._CHOICES.get(self.value() or "")
        if choice is None:
            return queryset
        _, lookup, hours = choice
        moment = timezone.now() - timedelta(hours=hours)
        return queryset.filter(**{f"stored_at__{lookup}": moment})


class GroupFilter(admin.SimpleListFilter):
    """The error group whose page led here; nobody chooses one in the list."""

    title = gettext_lazy("error group")
    parameter_name = "fingerprint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return []

    def has_output(self) -> bool:
        return self.value() is not None

    def choices(self, changelist: Any) -> Any:
        yield from super().choices(changelist)
        yield {
            "selected": True,
            "query_string": changelist.get_query_string({self.parameter_name: self.value()}),
            "display": shorten(self.value() or "", 12),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        fingerprint = self.value() or ""
        if not fingerprint:
            return queryset
        if "\0" in fingerprint:
            raise IncorrectLookupParameters("There is no NUL in any value.")
        return queryset.filter(fingerprint=fingerprint)
