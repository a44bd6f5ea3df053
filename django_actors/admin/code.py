"""
Messages as Python code that sends them again, in a shell or in a test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from django_actors.message import Message
from django_actors.models import WaitingMessage
from django_actors.registry import registry
from django_actors.waiting_room import RUN_OPTIONS

# Rows and characters that somebody may want to paste.
MAX_ROWS = 100
MAX_CODE = 256 * 1024


@dataclass
class Code:
    """
    Statements that send messages.

    Attributes:
        imports: Lines that stand in front of them.

        left_out: Messages there was no room for, and rows that hold none.
    """

    imports: set[str] = field(default_factory=set)
    statements: list[str] = field(default_factory=list)
    left_out: int = 0

    def __str__(self) -> str:
        return "\n".join([*sorted(self.imports), "", *self.statements])


def write_code(rows: Iterable[WaitingMessage]) -> Code:
    """Return code that sends the messages of *rows*, as far as there is room."""
    code = Code()
    room = MAX_CODE
    for row in rows:
        message = row.message
        needed = len(row.body)
        if message is None or needed > room or len(code.statements) == MAX_ROWS:
            code.left_out += 1
            continue
        room -= needed
        code.statements.append(_statement(message, code.imports))
    return code


def _statement(message: Message, imports: set[str]) -> str:
    place = _importable(message.actor_name)
    options = {k: v for k, v in message.options.items() if k not in RUN_OPTIONS}
    if place is None:
        imports.add("from django_actors import Message, get_broker")
        parts = (message.queue_name, message.actor_name, message.args, message.kwargs, options)
        return f"get_broker().enqueue(Message({', '.join(map(repr, parts))}))"
    module, name = place
    imports.add(f"from {module} import {name}")
    if not options:
        return f"{name}.send({_arguments(message)})"
    more = f", **{options!r}"
    return f"{name}.send_with_options(args={message.args!r}, kwargs={message.kwargs!r}{more})"


def _arguments(message: Message) -> str:
    shown = [repr(value) for value in message.args]
    if all(name.isidentifier() and not iskeyword(name) for name in message.kwargs):
        shown += [f"{name}={value!r}" for name, value in message.kwargs.items()]
    else:
        shown.append(f"**{message.kwargs!r}")
    return ", ".join(shown)


def _importable(actor_name: str) -> tuple[str, str] | None:
    """Return the module and the name by which code finds an actor, if there are any."""
    actor: Any = registry.actors().get(actor_name)
    function = getattr(actor, "fn", None)
    module = getattr(function, "__module__", "")
    name = getattr(function, "__name__", "")
    if actor is None or getattr(sys.modules.get(module), name, None) is not actor:
        return None
    return module, name
