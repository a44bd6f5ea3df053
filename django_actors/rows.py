"""
Build the rows of the waiting room: what is kept of a message, and of how it failed.
"""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from .delivery import Delivery, Fate, Reason
from .errors import Retry, UntrustedMessage, exception_text
from .fingerprints import NOWHERE, find_place, fingerprint
from .message import MAX_NAME_LENGTH, Message
from .models import FRAME_LENGTH, Kind, WaitingMessage
from .redaction import MAX_TEXT, redact, traceback_of
from .signing import seal

MAX_CALL = 1_000
MAX_CLASS = 255


def storable(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text* in a form that every database takes: no NUL, no half characters."""
    text = text[:limit].replace("\0", "\\x00")
    # Cut again: what was replaced has become longer.
    return text.encode("utf-8", "backslashreplace").decode()[:limit]


def spell_out(row: WaitingMessage) -> None:
    """Write the characters beyond ASCII in the texts about a message as escapes."""
    for name in ("call", "error", "traceback"):
        setattr(row, name, _in_ascii(getattr(row, name)))
    row.error_class = _in_ascii(row.error_class)[:MAX_CLASS]
    row.frame = _in_ascii(row.frame)[:FRAME_LENGTH]


def _in_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def build_row(
    message: Message,
    body: bytes,
    *,
    kind: Kind,
    reason: Reason,
    priority: int,
    due_ms: int | None,
) -> WaitingMessage:
    """Return an unsaved row for *message*, whose wire form is *body*."""
    return WaitingMessage(
        message_id=message.message_id,
        kind=kind,
        reason=reason,
        queue_name=message.queue_name,
        actor_name=message.actor_name,
        priority=priority,
        body=body,
        call=storable(redact(message).call, MAX_CALL),
        attempts=_attempts(message),
        due_ms=due_ms,
        stored_at=timezone.now(),
    )


def _attempts(message: Message) -> int:
    retries = message.options.get("retries", 0)
    return retries if isinstance(retries, int) and 0 <= retries < 2**31 else 0


def build_delivery_row(delivery: Delivery) -> WaitingMessage:
    """Return an unsaved row for a delivery that ended in a retry, a delay or a dead letter."""
    if delivery.message is not None:
        row = _build_decoded_row(delivery, delivery.message)
    elif isinstance(delivery.exception, UntrustedMessage):
        row = _build_untrusted_row(delivery, delivery.exception.message)
    else:
        row = _build_undecodable_row(delivery)
    if delivery.exception is not None:
        _describe_exception(row, delivery, delivery.exception)
    if delivery.fate is Fate.DEAD and not row.fingerprint:
        # What died without an exception has its reason in common.
        row.fingerprint = fingerprint(row.actor_name, row.reason, NOWHERE)
    return row


def _build_undecodable_row(delivery: Delivery) -> WaitingMessage:
    return WaitingMessage(
        kind=Kind.DEAD,
        reason=Reason.UNDECODABLE,
        queue_name=delivery.queue_name[:MAX_NAME_LENGTH],
        priority=delivery.priority,
        body=delivery.body,
        call=f"{len(delivery.body):,} bytes that are no message",
        stored_at=timezone.now(),
    )


def _build_untrusted_row(delivery: Delivery, message: Message) -> WaitingMessage:
    row = _build_undecodable_row(delivery)
    row.reason = Reason.BAD_SIGNATURE
    # Without its id: that may be the one of an honest message, whose place it would take.
    row.actor_name = message.actor_name
    row.call = storable(redact(message).call, MAX_CALL)
    return row


def _build_decoded_row(delivery: Delivery, message: Message) -> WaitingMessage:
    dead = delivery.fate is Fate.DEAD
    assert delivery.reason is not None
    row = build_row(
        message,
        _encode(message, delivery.body),
        kind=Kind.DEAD if dead else Kind.SCHEDULED,
        reason=delivery.reason,
        priority=delivery.priority,
        due_ms=None if dead else delivery.due_ms,
    )
    if dead and delivery.exception is not None:
        row.attempts += 1
    if delivery.fate is Fate.RETRY:
        row.max_retries = _storable_number(delivery.max_retries)
    return row


def _storable_number(number: Any) -> int | None:
    # An option that travelled may be anything, and larger than any column.
    return number if isinstance(number, int) and 0 <= number < 2**63 else None


def _encode(message: Message, body: bytes) -> bytes:
    try:
        return seal(message)
    except (TypeError, ValueError):
        # A middleware wrote an option that is no JSON; what came still is.
        return body


def _describe_exception(row: WaitingMessage, delivery: Delivery, error: BaseException) -> None:
    shown = redact(delivery.message)
    row.error_class = storable(exception_name(error), MAX_CLASS)
    row.error = storable(shown.hide(exception_text(error)))
    row.traceback = storable(traceback_of(delivery, error))
    place = find_place(error)
    row.frame = storable(str(place), FRAME_LENGTH)
    # Who asks for a retry has not failed.
    if delivery.fate is Fate.DEAD or not isinstance(error, Retry):
        row.fingerprint = fingerprint(row.actor_name, row.error_class, place)


def exception_name(error: BaseException) -> str:
    """Return the dotted name of the class of *error*, without ``builtins``."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
