"""
Links to the days and months of a list, without a look at all its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from django.db.models import Max, Min
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _

# So many days have room beside each other.
MAX_DAYS = 40
MAX_MONTHS = 60

_PARTS = ("year", "month", "day")


def date_links(cl: Any) -> dict[str, Any]:
    """
    Return what ``admin/date_hierarchy.html`` shows above the list *cl*.

    Every day from the first row to the last one has a link, also one without rows: to leave
    it out, each row would have to be looked at.
    """
    field = cl.date_hierarchy
    names = [f"{field}__{part}" for part in _PARTS]
    bounds = cl.root_queryset.aggregate(first=Min(field), last=Max(field))
    chosen = [cl.params[name] for name in names if name in cl.params]
    back = {"link": cl.get_query_string({}, names), "title": _("All dates")}
    return {
        "show": bounds["first"] is not None,
        "back": back if chosen else None,
        "choices": [
            {
                "title": title,
                "link": cl.get_query_string(dict(zip(names, parts, strict=False)), names),
            }
            for title, parts in _choices(bounds, chosen)
        ],
        "field_name": capfirst(cl.opts.get_field(field).verbose_name),
    }


def _choices(bounds: dict[str, datetime | None], chosen: list[str]) -> Iterator[tuple[str, Any]]:
    first, last = bounds["first"], bounds["last"]
    if first is None or last is None or len(chosen) == len(_PARTS):
        return
    days = list(_days(_local(first), _local(last)))
    wanted = [day for day in days if _matches(day, chosen)]
    if len(wanted) <= MAX_DAYS:
        for day in wanted:
            yield date_format(day, "MONTH_DAY_FORMAT"), (day.year, day.month, day.day)
        return
    months = sorted({(day.year, day.month) for day in wanted})
    for year, month in months[-MAX_MONTHS:]:
        yield date_format(date(year, month, 1), "YEAR_MONTH_FORMAT"), (year, month)


def _local(moment: datetime) -> date:
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()


def _days(first: date, last: date) -> Iterator[date]:
    # A clock that went wrong makes no endless list.
    first = max(first, last - timedelta(days=31 * MAX_MONTHS))
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


def _matches(day: date, chosen: list[str]) -> bool:
    parts = [str(day.year), str(day.month), str(day.day)]
    return parts[: len(chosen)] == chosen
