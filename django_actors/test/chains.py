"""
Which message sent which, for the error that ends an endless chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django_actors.delivery import Delivery
from django_actors.errors import DecodeError
from django_actors.journal import Journal
from django_actors.message import Message

# What is shown of a long chain: its beginning and its end.
_FIRST, _LAST = 2, 8


class Chains:
    """The parents of messages that were sent while another one ran."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._parents: dict[str, Message] = {}

    @contextmanager
    def caused_by(self, delivery: Delivery) -> Iterator[None]:
        """Note whatever is sent in the block as sent by *delivery*."""
        before = self._journal.count
        yield
        if delivery.message is None:
            return
        for record in self._journal.since(before):
            self._parents.setdefault(record.message.message_id, delivery.message)

    def describe(self, body: bytes) -> str:
        """Return the chain that led to a message, a line for each, the first one on top."""
        try:
            message: Message | None = Message.decode(body)
        except DecodeError:
            return "  (bytes that are no message)"
        lines: list[str] = []
        known: set[str] = set()
        while message is not None and message.message_id not in known:
            known.add(message.message_id)
            lines.append(f"  {_describe(message)}")
            message = self._parents.get(message.message_id)
        return "\n".join(_shorten(lines[::-1]))


def _describe(message: Message) -> str:
    retries = message.options.get("retries", 0)
    return f"{message} (retry {retries})" if retries else str(message)


def _shorten(lines: list[str]) -> list[str]:
    hidden = len(lines) - _FIRST - _LAST
    if hidden <= 1:
        return lines
    return [*lines[:_FIRST], f"  ... {hidden:,} more ...", *lines[-_LAST:]]
