"""
Durations in words, in the reader's language.
"""

from __future__ import annotations

from django.utils.translation import ngettext

from django_actors import clock


def duration_text(ms: int | None) -> str:
    """Return a duration in its largest unit, ``-`` if there is none."""
    if ms is None:
        return "-"
    seconds = ms // clock.MS_PER_S
    if seconds < 60:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    minutes = seconds // 60
    if minutes < 60:
        return ngettext("%(count)d minute", "%(count)d minutes", minutes) % {"count": minutes}
    hours = minutes // 60
    if hours < 48:
        return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}
    days = hours // 24
    return ngettext("%(count)d day", "%(count)d days", days) % {"count": days}
