"""
Middleware: policies around the engine, as hooks it calls.

A middleware is handed what it needs and imports no broker. ``Hooks`` binds the
hooks that are really overridden, once, so that one that is not costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from django.utils.module_loading import import_string

from django_actors.conf import settings
from django_actors.delivery import Delivery
from django_actors.errors import MiddlewareError
from django_actors.message import Message
from django_actors.redaction import format_traceback, redact

logger = logging.getLogger(__name__)


class Middleware:
    """
    Base of every middleware: each hook does nothing.

    ``before_*`` hooks run in list order, ``after_*`` hooks in reverse. A hook
    that raises a ``MiddlewareError`` is heard by the engine; whatever else a
    hook raises is logged, and the engine goes on.

    Where a hook takes a ``message`` while it is processed, it gets the delivery: all
    attributes of the message, and ``fail()``, ``failed``, ``retry()``, ``option()``.
    """

    @property
    def actor_options(self) -> Collection[str]:
        """Names of the actor options this middleware understands."""
        return ()

    def clean_option(self, name: str, value: Any) -> Any:
        """
        Return the value of one of its options in the form it is kept in.

        Raises:
            TypeError, ValueError: *value* is none that the option can have.
        """
        return value

    def before_declare_actor(self, broker: Any, actor: Any) -> None: ...
    def after_declare_actor(self, broker: Any, actor: Any) -> None: ...
    def before_declare_queue(self, broker: Any, queue_name: str) -> None: ...
    def after_declare_queue(self, broker: Any, queue_name: str) -> None: ...

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None: ...
    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None: ...
    def before_delay_message(self, broker: Any, message: Any) -> None: ...
    def after_delay_message(self, broker: Any, message: Any) -> None: ...

    def before_process_message(self, broker: Any, message: Any) -> None: ...
    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None: ...
    def after_skip_message(self, broker: Any, message: Any) -> None: ...
    def before_ack(self, broker: Any, message: Any) -> None: ...
    def after_ack(self, broker: Any, message: Any) -> None: ...
    def before_nack(self, broker: Any, message: Any) -> None: ...
    def after_nack(self, broker: Any, message: Any) -> None: ...

    def after_process_boot(self, broker: Any) -> None: ...
    def before_worker_boot(self, broker: Any, worker: Any) -> None: ...
    def after_worker_boot(self, broker: Any, worker: Any) -> None: ...
    def before_worker_shutdown(self, broker: Any, worker: Any) -> None: ...
    def after_worker_shutdown(self, broker: Any, worker: Any) -> None: ...
    def before_consumer_thread_boot(self, broker: Any, thread: Any) -> None: ...
    def after_consumer_thread_boot(self, broker: Any, thread: Any) -> None: ...
    def before_consumer_thread_shutdown(self, broker: Any, thread: Any) -> None: ...
    def after_consumer_thread_shutdown(self, broker: Any, thread: Any) -> None: ...
    def before_worker_thread_boot(self, broker: Any, thread: Any) -> None: ...
    def after_worker_thread_boot(self, broker: Any, thread: Any) -> None: ...
    def before_worker_thread_shutdown(self, broker: Any, thread: Any) -> None: ...
    def after_worker_thread_shutdown(self, broker: Any, thread: Any) -> None: ...


HOOK_NAMES = tuple(name for name in vars(Middleware) if name.startswith(("before_", "after_")))

BoundHook = Callable[..., None]


class Hooks:
    """
    The overridden hooks of a list of middleware in the order they run.

    ``hooks.before_enqueue`` and so on are tuples of bound methods; an empty one
    means that there is nothing to call.
    """

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        for name in HOOK_NAMES:
            ordered = middleware if name.startswith("before_") else middleware[::-1]
            bound = tuple(getattr(m, name) for m in ordered if _overrides(m, name))
            setattr(self, name, bound)

    def __getattr__(self, name: str) -> tuple[BoundHook, ...]:
        raise AttributeError(f"There is no hook {name!r}.")


def _overrides(middleware: Middleware, name: str) -> bool:
    return getattr(type(middleware), name) is not getattr(Middleware, name)


def call_hooks(hooks: Sequence[BoundHook], *args: Any, **kwargs: Any) -> None:
    """
    Call *hooks* in order; log what fails.

    Raises:
        MiddlewareError: a hook wants to be heard; those after it are not called.
    """
    for hook in hooks:
        try:
            hook(*args, **kwargs)
        except MiddlewareError:
            raise
        except Exception as error:
            _log_failure(hook, args, error)


def _log_failure(hook: BoundHook, args: Sequence[Any], error: Exception) -> None:
    shown = redact(next(filter(None, map(_message_of, args)), None))
    name = getattr(hook, "__qualname__", hook)
    logger.error("Hook %s failed\n%s", name, format_traceback(error, shown).rstrip())


def _message_of(argument: Any) -> Message | None:
    if isinstance(argument, Delivery):
        return argument.message
    return argument if isinstance(argument, Message) else None


def build_middleware(entries: Sequence[Any] | None = None) -> list[Middleware]:
    """
    Return the middleware that the settings (or *entries*, in their form) name.

    Raises:
        ImportError: a dotted path leads nowhere.

        TypeError: a class does not take the arguments it is given, or is no middleware.
    """
    return [_build(entry) for entry in (settings.MIDDLEWARE if entries is None else entries)]


def _build(entry: Any) -> Middleware:
    path, arguments = (entry, {}) if isinstance(entry, str) else entry
    middleware = import_string(path)(**arguments)
    if not isinstance(middleware, Middleware):
        raise TypeError(f"{path} is no subclass of django_actors.Middleware.")
    return middleware
