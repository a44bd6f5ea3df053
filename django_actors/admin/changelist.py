"""
Lists of rows that stay quick over a million of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from django_actors.models import WaitingMessage

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
