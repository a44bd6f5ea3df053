"""
Look at what a test has sent.

A failure shows what was sent, each message as the line that would have passed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django_actors.journal import Record, current_connection
from django_actors.message import Message, decode_json, describe_call, encode_json
from django_actors.outbox import HandOver
from django_actors.registry import registry

from .stub import stub_broker

# An actor, or the name of one.
AnyActor = Any


def sent(actor: AnyActor = None) -> list[Message]:
    """
    Return the messages that were sent in this test, in order, run or not.

    What a rollback has taken back is not there.

    Args:
        actor: Only messages to this one; an actor or a name.

    Returns:
        The messages as their actors get them, after encoding and decoding.
    """
    name = None if actor is None else _name_of(actor)
    journal = stub_broker().journal
    found = []
    for record in journal.records():
        if name in (None, record.message.actor_name):
            record.seen = True
            found.append(Message.decode(record.message.encode()))
    return found


@contextmanager
def capture_messages() -> Iterator[list[Message]]:
    """
    Collect the messages that are sent in a block.

    Yields:
        A list that grows; what was rolled back is taken out at the end of the block.
    """
    journal = stub_broker().journal
    captured: list[Message] = []
    release = journal.capture(captured)
    try:
        yield captured
    finally:
        release()
        for message in captured:
            journal.see(message.message_id)


def assert_sent(actor: AnyActor, *args: Any, **kwargs: Any) -> Message:
    """
    Fail unless *actor* was sent to with exactly these arguments.

    Without arguments, any call of the actor will do. It does not matter whether an argument
    was given by position or by name, and ``unittest.mock.ANY`` equals everything.

    Returns:
        The first message that fits.
    """
    return check_sent(actor, args, kwargs, "assert_sent")


def assert_not_sent(actor: AnyActor, *args: Any, **kwargs: Any) -> None:
    """Fail if *actor* was sent to with exactly these arguments; without any, if at all."""
    check_not_sent(actor, args, kwargs, "assert_sent")


def check_sent(
    actor: AnyActor, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: str
) -> Message:
    """Do what ``assert_sent()`` does; a failure shows calls of *written*."""
    matching = _matching(actor, args, kwargs)
    if matching:
        return matching[0]
    raise AssertionError(_explain_missing(_describe(actor, args, kwargs), written))


def check_not_sent(
    actor: AnyActor, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: str
) -> None:
    """Do what ``assert_not_sent()`` does; a failure shows calls of *written*."""
    matching = _matching(actor, args, kwargs)
    if matching:
        raise AssertionError(
            f"{_describe(actor, args, kwargs)} was sent:\n{listing(matching, written)}"
        )


# ---- matching ------------------------------------------------------------------


def _name_of(actor: AnyActor) -> str:
    name = actor if isinstance(actor, str) else getattr(actor, "actor_name", None)
    if not isinstance(name, str):
        raise TypeError(f"{actor!r} is neither an actor nor the name of one.")
    # A name that nobody has would make assert_not_sent() pass for ever.
    return registry.get(name).actor_name


def _matching(actor: AnyActor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Message]:
    messages = sent(actor)
    if not args and not kwargs:
        return messages
    name = _name_of(actor)
    wanted = _bind(name, tuple(map(_plain, args)), {k: _plain(v) for k, v in kwargs.items()})
    return [each for each in messages if wanted == _bind(name, each.args, each.kwargs)]


def _bind(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by their names, however they were given."""
    function: Any = registry.get(name)
    bound = inspect.signature(function.fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _plain(value: Any) -> Any:
    """Return a value as it arrives: a tuple becomes a list."""
    try:
        return decode_json(encode_json(value))
    except (TypeError, ValueError):
        # Such as mock.ANY.
        return value


# ---- explaining ----------------------------------------------------------------


def _describe(actor: AnyActor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    name = _name_of(actor)
    return describe_call(name, args, kwargs) if args or kwargs else name


def _explain_missing(wanted: str, written: str) -> str:
    parts = [f"{wanted} was not sent."]
    journal = stub_broker().journal
    messages = [record.message for record in journal.records()]
    if messages:
        parts.append(f"What was sent:\n{listing(messages, written)}")
    else:
        parts.append("Nothing was sent.")
    if lost := journal.rolled_back():
        parts.append(f"Sent, and rolled back with its transaction:\n{listing(lost, written)}")
    if waiting := _foreign_hooks():
        parts.append(
            f"{waiting} functions wait in transaction.on_commit(), and a TestCase never commits. "
            "If one of them sends, wrap the code under test in: "
            "with self.captureOnCommitCallbacks(execute=True):"
        )
    return "\n".join(parts)


def _foreign_hooks() -> int:
    hooks = [hook for _, hook, *_ in current_connection().run_on_commit]
    return sum(not isinstance(hook, (Record, HandOver)) for hook in hooks)


def listing(messages: list[Message], written: str) -> str:
    """Return a line for each message: the call of *written* that looks for it."""
    return "\n".join(f"    {_as_call(message, written)}" for message in messages)


def _as_call(message: Message, written: str) -> str:
    """Return the line of Python that looks for *message*."""
    message = Message.decode(message.encode())
    parts = [_python_name(message.actor_name), *map(repr, message.args)]
    parts += [f"{name}={value!r}" for name, value in message.kwargs.items()]
    return f"{written}({', '.join(parts)}){_delay_of(message)}"


def _python_name(actor_name: str) -> str:
    function: Any = registry.find(actor_name)
    name = getattr(getattr(function, "fn", None), "__name__", "")
    return name if name.isidentifier() else repr(actor_name)


def _delay_of(message: Message) -> str:
    eta = message.options.get("eta")
    if not isinstance(eta, int) or eta <= message.message_timestamp:
        return ""
    return f"  # delay: {timedelta(milliseconds=eta - message.message_timestamp)}"
