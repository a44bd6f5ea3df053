"""
The actor: a function that can be sent to.

An actor knows no broker until something is sent: the decorator fills the
registry, and ``get_broker()`` is asked at ``send()``. So ``@actor`` may stand in
a module that is imported before Django is ready.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import update_wrapper
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps

from . import clock
from .brokers import get_broker
from .message import MAX_NAME_LENGTH, Message, generate_message_id
from .options import build_message_options, check_actor_options, check_priority
from .parameters import Parameters
from .registry import registry

if TYPE_CHECKING:
    from .brokers.base import Broker

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUE = "default"

_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")


class Actor(Generic[P, R]):
    """
    A function that can be sent to.

    Calling it runs the function here and now. Use the ``actor`` decorator to make one.

    Attributes:
        fn: The function.

        queue_name: The queue its messages travel through.

        priority: Lower numbers run first.

        options: What ``@actor`` was given besides, durations in milliseconds.

        logger: A logger with the name of its module and its own.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        actor_name: str | None = None,
        queue_name: str = DEFAULT_QUEUE,
        priority: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        _check_queue_name(queue_name)
        check_priority(priority)
        update_wrapper(self, fn)
        self.fn = fn
        self.queue_name = queue_name
        self.priority = priority
        self.options: dict[str, Any] = dict(options or {})
        self._name = _check_actor_name(actor_name)
        self._parameters = Parameters(fn)
        self.logger = logging.getLogger(f"{fn.__module__}.{fn.__name__}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.fn(*args, **kwargs)

    def __str__(self) -> str:
        return f"Actor({self._name or self.fn.__name__})"

    def __repr__(self) -> str:
        return f"<{self} at {self.place}>"

    @property
    def actor_name(self) -> str:
        """``app_label.function`` in an installed app, ``function`` outside one, or as given."""
        if self._name is None:
            self._name = _check_actor_name(_default_name(self.fn))
        return cast(str, self._name)

    @property
    def broker(self) -> Broker:
        """Today's broker; it changes with the settings."""
        return get_broker()

    @property
    def place(self) -> str:
        """Where the function is, as ``file:line``."""
        named: str | None = getattr(self.fn, "__actor_place__", None)
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        if named or code is None:
            return named or f"{self.fn.__module__}.{self.fn.__qualname__}"
        return f"{code.co_filename}:{code.co_firstlineno}"

    def check(self) -> None:
        """
        Check and convert the options, which takes the installed middleware.

        Raises:
            ValueError: no installed middleware knows an option, or a value is wrong.

            TypeError: a value has a wrong type.
        """
        self.options = check_actor_options(
            self.options, self.fn.__qualname__, self._parameters.names
        )

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function as a worker does: a coroutine to its end."""
        result: Any = self.fn(*args, **kwargs)
        # The result tells, not the function: a decorator may hide that it is a coroutine's.
        return _finish(result) if isinstance(result, CoroutineType) else result

    def parameter_names(self, count: int) -> list[str]:
        """Return the names of the parameters that take the first *count* positional arguments."""
        return self._parameters.of_positional(count)

    def keyword_parameter(self, keyword: str) -> str:
        """Return the name of the parameter that takes a keyword argument: often its own."""
        return self._parameters.of_keyword(keyword)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """
        Build a message without sending it.

        Raises:
            TypeError: the arguments do not fit the function's signature.
        """
        return self.message_with_options(args=args, kwargs=kwargs)

    def message_with_options(
        self,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        delay: int | timedelta | None = None,
        eta: datetime | int | None = None,
        **options: Any,
    ) -> Message:
        """
        Build a message with options of its own, without sending it.

        Args:
            args: Positional arguments.

            kwargs: Keyword arguments.

            delay: Milliseconds or a ``timedelta`` from now before which it does not run.

            eta: An aware time (or milliseconds since 1970) before which it does not run.

            options: Override the actor's; others travel along.

        Raises:
            TypeError: the arguments do not fit the signature, or an option's type is wrong.

            ValueError: *delay* and *eta* are both given, *eta* is naive, or an option's value
                is wrong.
        """
        args, kwargs = self._as_tuple(args), dict(kwargs or {})
        self._check_call(args, kwargs)
        # Asked once: a delay is told from the difference of both.
        now_ms = clock.now_ms()
        return Message.of(
            {
                "queue_name": self.queue_name,
                "actor_name": self.actor_name,
                "args": args,
                "kwargs": kwargs,
                "options": build_message_options(
                    options, self.actor_name, delay=delay, eta=eta, now_ms=now_ms
                ),
                "message_id": generate_message_id(),
                "message_timestamp": now_ms,
            }
        )

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """
        Have the function run by a worker.

        Inside ``transaction.atomic()`` the message becomes part of the transaction.

        Returns:
            The message; it is durable.

        Raises:
            TypeError: the arguments do not fit the signature, or have no JSON form.

            MessageTooLarge: it is over ``MAX_MESSAGE_SIZE``.

            BrokerUnavailable: the broker could not take it; nothing was sent.
        """
        return get_broker().enqueue(self.message_with_options(args=args, kwargs=kwargs))

    def send_with_options(
        self,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        delay: int | timedelta | None = None,
        eta: datetime | int | None = None,
        **options: Any,
    ) -> Message:
        """Send with options of the message; see ``message_with_options()`` and ``send()``."""
        message = self.message_with_options(
            args=args, kwargs=kwargs, delay=delay, eta=eta, **options
        )
        return get_broker().enqueue(message)

    def send_many(self, calls: Iterable[Sequence[Any] | Message]) -> list[Message]:
        """
        Send many messages in one round trip to the broker.

        Args:
            calls: For each message a tuple of positional arguments, or a built message.

        Returns:
            The messages in the order of *calls*; all of them are durable.
        """
        return get_broker().enqueue_many([self._as_message(call) for call in calls])

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """Send from a coroutine; see ``send()``."""
        return await sync_to_async(self.send)(*args, **kwargs)

    async def asend_with_options(
        self,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        delay: int | timedelta | None = None,
        eta: datetime | int | None = None,
        **options: Any,
    ) -> Message:
        """Send from a coroutine; see ``send_with_options()``."""
        return await sync_to_async(self.send_with_options)(
            args=args, kwargs=kwargs, delay=delay, eta=eta, **options
        )

    async def asend_many(self, calls: Iterable[Sequence[Any] | Message]) -> list[Message]:
        """Send from a coroutine; see ``send_many()``."""
        return await sync_to_async(self.send_many)(calls)

    def _as_tuple(self, args: Sequence[Any]) -> tuple[Any, ...]:
        # Nearly always; to ask whether something is a sequence costs more than all else here.
        if isinstance(args, tuple):
            return tuple(args)
        if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
            raise TypeError(
                f"{self.actor_name}: args= is a tuple of arguments, not a {type(args).__name__}. "
                "A single argument is written (argument,)."
            )
        return tuple(args)

    def _as_message(self, call: Sequence[Any] | Message) -> Message:
        if isinstance(call, Message):
            return call
        if not isinstance(call, (tuple, list)):
            raise TypeError(
                f"{self.actor_name}.send_many() takes tuples of arguments or messages, not "
                f"a {type(call).__name__}. A single argument is written (argument,)."
            )
        return self.message_with_options(args=call)

    def _check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._parameters.check(args, kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.actor_name}{self._parameters} was sent wrongly: {error}"
            ) from None


def _check_function(function: Any) -> None:
    if isinstance(function, Actor):
        raise TypeError(f"@actor stands twice on {function.fn.__qualname__}. Write it once.")
    if not callable(function):
        cure = (
            'Options are given by name, such as @actor(queue_name="mail").'
            if isinstance(function, str)
            else "In a class write it below @staticmethod."
        )
        raise TypeError(f"@actor stands on a function, not on {function!r}. {cure}")
    if not all(hasattr(function, name) for name in ("__name__", "__qualname__", "__module__")):
        raise TypeError(
            f"@actor stands on a function, and {function!r} has no name of its own to be found "
            "by. Write a function that calls it."
        )


@async_to_sync
async def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


def _default_name(fn: Callable[..., Any]) -> str:
    config = apps.get_containing_app_config(fn.__module__)
    return f"{config.label}.{fn.__name__}" if config else fn.__name__


def _check_actor_name(name: Any) -> str | None:
    if name is not None and (
        not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable()
    ):
        raise ValueError(
            f"An actor's name is 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}."
        )
    return name


def _check_queue_name(name: Any) -> None:
    if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"{name!r} is no name for a queue: it starts with a letter or '_' and goes on "
            f"with letters, digits, '.', '_' and '-', {MAX_NAME_LENGTH} characters at most."
        )


@overload
def actor(fn: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(
    *,
    actor_class: type[Actor[Any, Any]] = ...,
    actor_name: str | None = ...,
    queue_name: str = ...,
    priority: int = ...,
    **options: Any,
) -> Callable[[Callable[P, R]], Actor[P, R]]: ...


@overload
def actor(
    fn: Callable[P, R],
    /,
    *,
    actor_class: type[Actor[Any, Any]] = ...,
    actor_name: str | None = ...,
    queue_name: str = ...,
    priority: int = ...,
    **options: Any,
) -> Actor[P, R]: ...


def actor(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    actor_class: type[Actor[Any, Any]] = Actor,
    actor_name: str | None = None,
    queue_name: str = DEFAULT_QUEUE,
    priority: int = 0,
    **options: Any,
) -> Any:
    """
    Make a function an actor: something that can be sent to.

    Args:
        actor_class: The class of the actor; for projects with a subclass of ``Actor``.

        actor_name: ``app_label.function`` in an installed app, ``function`` outside one,
            where it is ``None``.

        queue_name: Letters, digits, ``.``, ``_`` and ``-``.

        priority: Lower numbers run first.

        options: See the reference, "Actor options". Durations are milliseconds or ``timedelta``.

    Raises:
        ValueError: a name is taken or malformed, or no installed middleware knows an option.

        TypeError: an option has a value of a wrong type.
    """

    def declare(function: Callable[..., Any]) -> Actor[..., Any]:
        _check_function(function)
        declared = actor_class(
            function,
            actor_name=actor_name,
            queue_name=queue_name,
            priority=priority,
            options=options,
        )
        registry.add(declared)
        return declared

    return declare if fn is None else declare(fn)
