"""
What the admin says about a row: safe to look at, bounded, in local time.

What came from outside is text here, and becomes HTML by ``format_html`` alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from django.conf import settings as django_settings
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_actors import clock
from django_actors.brokers import get_broker
from django_actors.conf import settings
from django_actors.delivery import Reason
from django_actors.message import Message
from django_actors.models import WaitingMessage
from django_actors.redaction import Redacted, redact
from django_actors.registry import RegisteredActor, registry
from django_actors.waiting_room import RUN_OPTIONS

MAX_LINE = 100
MAX_BLOCK = 65_536
MAX_BYTES = 16_384

REASONS: Mapping[str, str | Promise] = {
    Reason.DELAY: gettext_lazy("delay"),
    Reason.RETRY: gettext_lazy("retry"),
    Reason.OUTBOX: gettext_lazy("outbox"),
    Reason.REQUEUED: gettext_lazy("requeued"),
    Reason.MISSING_ACTOR: gettext_lazy("actor not deployed"),
    Reason.RUNNING: gettext_lazy("running for long"),
    Reason.RETRIES_EXHAUSTED: gettext_lazy("retries exhausted"),
    Reason.TOO_OLD: gettext_lazy("too old"),
    Reason.EXPECTED_EXCEPTION: gettext_lazy("expected exception"),
    Reason.REJECTED: gettext_lazy("rejected"),
    Reason.UNKNOWN_ACTOR: gettext_lazy("unknown actor"),
    Reason.UNDECODABLE: gettext_lazy("undecodable"),
    Reason.BAD_SIGNATURE: gettext_lazy("bad signature"),
    Reason.KILLED_WORKER: gettext_lazy("killed its worker"),
    Reason.TIME_LIMIT: gettext_lazy("time limit not honoured"),
    Reason.GIVEN_UP: gettext_lazy("given up by the broker"),
}

# Controls that do not show, and those that turn the direction of what stands beside them:
# with them a row could look like another one. The joiners stay: emoji are made with them.
_TREACHEROUS = [
    *(n for n in range(0x20) if chr(n) not in "\t\n"),
    *range(0x7F, 0xA0),
    0x061C,
    0x200B,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
]

# Options that are milliseconds.
_DURATIONS = ("max_age", "max_backoff", "min_backoff", "time_limit")

_VISIBLE = {number: f"\\u{number:04x}" for number in _TREACHEROUS}


def make_visible(text: str) -> str:
    """Return *text* with invisible and direction-changing characters as ``\\uXXXX``."""
    return text.translate(_VISIBLE)


def shorten(text: str, limit: int = MAX_LINE) -> str:
    """Return *text* for one line of a table."""
    line = make_visible(text[: limit + 1].replace("\n", " "))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def block(text: str, limit: int = MAX_BLOCK) -> SafeString | str:
    """Return *text* as it stands, in a block of its own; ``-`` if there is none."""
    if not text:
        return "-"
    return format_html(
        '<pre class="actors-block" tabindex="0">{}</pre>{}',
        make_visible(text[:limit]),
        _what_is_left(len(text) - limit),
    )


def _what_is_left(count: int) -> SafeString | str:
    if count <= 0:
        return ""
    text = ngettext("%(count)d more character", "%(count)d more characters", count)
    return format_html('<p class="help">… {}</p>', text % {"count": count})


def as_json(value: Any) -> SafeString | str:
    """Return arguments as JSON, in a block of their own."""
    return block(json.dumps(value, ensure_ascii=False, indent=2, default=repr))


def reason_text(reason: str) -> str:
    """Return a reason in the reader's language."""
    return str(REASONS.get(reason, reason))


def class_name(dotted: str) -> str:
    """Return the last part of the dotted name of a class."""
    return shorten(dotted.rpartition(".")[2])


def local_time(ms: int | None) -> datetime | None:
    """Return milliseconds since 1970 in the reader's time zone, ``None`` if no calendar has it."""
    if ms is None:
        return None
    try:
        moment = clock.from_ms(ms)
        if django_settings.USE_TZ:
            return timezone.localtime(moment)
        return timezone.make_naive(moment, timezone.get_default_timezone())
    except (ValueError, OverflowError, OSError):
        # Whoever sent it chose the time: it may lie in the year 30,000.
        return None


def format_time(ms: int | None) -> str:
    """Return a time of the reader's time zone as text; ``-`` if there is none."""
    moment = local_time(ms)
    return "-" if moment is None else date_format(moment, "DATETIME_FORMAT")


def format_moment(ms: int) -> str:
    """Return a time of the reader's time zone to the second; ``-`` if no calendar has it."""
    moment = local_time(ms)
    return "-" if moment is None else f"{date_format(moment, 'DATE_FORMAT')}, {moment:%H:%M:%S}"


def format_datetime(moment: datetime) -> str:
    """Return a stored time in the reader's time zone as text."""
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return date_format(local, "DATETIME_FORMAT")


def time_from_now(ms: int) -> str:
    """Return how far away a time is: ``in 3 hours``."""
    seconds = (ms - clock.now_ms()) // clock.MS_PER_S
    if seconds < 0:
        return _("due")
    if seconds < 60:
        return ngettext("in %(count)d second", "in %(count)d seconds", seconds) % {"count": seconds}
    if local_time(ms) is None:
        return _("never")
    far = timeuntil(clock.from_ms(ms), clock.from_ms(clock.now_ms()), depth=1)
    return _("in %(duration)s") % {"duration": far}


def time_ago(ms: int) -> str:
    """Return how long ago a time was: ``3 hours ago``."""
    if clock.now_ms() - ms < 60_000:
        return _("just now")
    past = timesince(clock.from_ms(ms), clock.from_ms(clock.now_ms()), depth=1)
    return _("%(duration)s ago") % {"duration": past}


def why_it_waits(row: WaitingMessage) -> str:
    """Return why a scheduled message waits: ``retry 4 of 20 after KeyError``."""
    if row.claimed_by:
        return _("is being handed to the broker")
    if row.reason != Reason.RETRY:
        return reason_text(row.reason)
    words = {
        "number": row.attempts,
        "most": row.max_retries,
        "exception": class_name(row.error_class),
    }
    if row.max_retries is None or row.attempts > row.max_retries:
        return _("retry %(number)d after %(exception)s") % words
    return _("retry %(number)d of %(most)d after %(exception)s") % words


def signature_of(actor: RegisteredActor) -> str:
    """Return an actor's name and parameters as they are declared."""
    try:
        return f"{actor.actor_name}{inspect.signature(cast(Any, actor))}"
    except (TypeError, ValueError):
        return actor.actor_name


class Shown:
    """
    A row as its page shows it, with what is sensitive hidden.

    Attributes:
        message: ``None`` if the bytes are none.

        actor: ``None`` if this process does not know it.
    """

    message: Message | None
    actor: RegisteredActor | None
    redacted: Redacted

    def __init__(self, row: WaitingMessage) -> None:
        self.row = row
        self.message = row.message
        self.actor = registry.actors().get(row.actor_name)
        self.redacted = redact(self.message)

    @classmethod
    def of(cls, row: WaitingMessage) -> Shown:
        """Return what is shown of *row*, whose body is decoded once."""
        shown: Shown | None = vars(row).get("_shown")
        if shown is None:
            shown = vars(row)["_shown"] = cls(row)
        return shown

    @property
    def has_secrets(self) -> bool:
        """Whether arguments are hidden."""
        if self.message is None:
            return False
        shown = (*self.redacted.args, *self.redacted.kwargs.values())
        given = (*self.message.args, *self.message.kwargs.values())
        return self.actor is None or any(a is not b for a, b in zip(shown, given, strict=True))

    def arguments(self, value: Any) -> SafeString | str:
        """Return positional or keyword arguments as JSON."""
        if self.actor is None:
            # Without its actor nobody knows which arguments are sensitive.
            return _("not shown: this process does not know the actor")
        return as_json(value)

    def options(self) -> SafeString | str:
        """Return the options in force, and who has set each."""
        if self.message is None:
            return "-"
        return format_html(
            '<table class="actors-table"><caption class="visually-hidden">{}</caption>'
            "<thead>{}</thead><tbody>{}</tbody></table>",
            _("Options in force"),
            format_html(
                '<tr><th scope="col">{}</th><th scope="col">{}</th><th scope="col">{}</th></tr>',
                _("Option"),
                _("Value"),
                _("Set by"),
            ),
            format_html_join(
                "",
                '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>',
                (
                    (shorten(name), shorten(self._hidden(name, value), 1_000), source)
                    for name, (value, source) in sorted(self._options(self.message).items())
                ),
            ),
        )

    def _hidden(self, name: str, value: Any) -> str:
        return self.redacted.hide(_option_text(name, value))

    def _options(self, message: Message) -> dict[str, tuple[Any, str]]:
        layers: list[tuple[Mapping[str, Any], str]] = [
            (_default_options(), _("default")),
            (settings.ACTOR_OPTIONS, _("project")),
            (_options_of(self.actor), _("actor")),
            (message.options, _("message")),
        ]
        found = {name: (value, source) for layer, source in layers for name, value in layer.items()}
        return {name: option for name, option in found.items() if name not in RUN_OPTIONS}

    def raw_bytes(self) -> SafeString | str:
        """Return the bytes that are no message, readable where they are text."""
        body = bytes(self.row.body)
        text = body[:MAX_BYTES].decode(errors="backslashreplace")
        size = ngettext("%(count)d byte", "%(count)d bytes", len(body)) % {"count": len(body)}
        return format_html('{}<p class="help">{}</p>', block(text), size)


def _default_options() -> dict[str, Any]:
    """Return the options of actors that have none of their own, as the middleware keeps them."""
    found = {
        name: getattr(each, name, None)
        for each in get_broker().middleware
        for name in each.actor_options
    }
    return {name: value for name, value in found.items() if value is not None}


def _options_of(actor: RegisteredActor | None) -> Mapping[str, Any]:
    return {} if actor is None else {"priority": actor.priority, **actor.options}


def _option_text(name: str, value: Any) -> str:
    if name in _DURATIONS and isinstance(value, int):
        return _("%(count)d ms") % {"count": value}
    return value if isinstance(value, str) else repr(value)
