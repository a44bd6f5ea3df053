"""
Run failed messages again, later and later, and give up at the right moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from django_actors import clock
from django_actors.backoff import compute_backoff
from django_actors.delivery import Reason
from django_actors.errors import Retry, Shutdown

from .base import Middleware
from .callbacks import clean_target, send_after

RetryWhen = Callable[[int, BaseException], bool]

DEFAULT_MAX_RETRIES = 20
DEFAULT_MIN_BACKOFF = timedelta(seconds=15)
DEFAULT_MAX_BACKOFF = timedelta(days=7)


class Retries(Middleware):
    """
    Retry failed messages with exponential backoff and jitter.

    Args:
        max_retries: Runs after the first one; ``None`` is forever.

        min_backoff: Milliseconds or a ``timedelta``; the first wait is not shorter.

        max_backoff: Milliseconds or a ``timedelta`` up to 7 days; no wait is longer.

        retry_when: Called with the number of retries so far and the exception;
            decides in the place of *max_retries*.
    """

    def __init__(
        self,
        *,
        max_retries: int | None = DEFAULT_MAX_RETRIES,
        min_backoff: int | timedelta = DEFAULT_MIN_BACKOFF,
        max_backoff: int | timedelta = DEFAULT_MAX_BACKOFF,
        retry_when: RetryWhen | None = None,
    ) -> None:
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self.max_retries = _clean_max_retries("max_retries", max_retries)
        self.min_backoff = _clean_backoff("min_backoff", min_backoff)
        self.max_backoff = _clean_max_backoff("max_backoff", max_backoff)
        self.retry_when = _clean_retry_when("retry_when", retry_when)

    @property
    def actor_options(self) -> Collection[str]:
        return tuple(_CLEAN)

    def clean_option(self, name: str, value: Any) -> Any:
        return _CLEAN[name](name, value)

    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None or message.failed or isinstance(exception, Shutdown):
            return
        if isinstance(exception, message.option("throws") or ()):
            message.fail(Reason.EXPECTED_EXCEPTION)
        elif self._gives_up(message, exception):
            self._exhaust(message)
        else:
            self._retry(message, exception)

    def _gives_up(self, message: Any, exception: BaseException) -> bool:
        retries = count_retries(message)
        retry_when = message.option("retry_when", self.retry_when)
        if retry_when is not None:
            return not retry_when(retries, exception)
        max_retries = message.option("max_retries", self.max_retries)
        return max_retries is not None and retries >= max_retries

    def _exhaust(self, message: Any) -> None:
        message.fail(Reason.RETRIES_EXHAUSTED)
        self.logger.warning("Retries exhausted for message %r.", message.message_id)
        target = message.option("on_retry_exhausted")
        if target is not None:
            counts = {
                "retries": count_retries(message),
                "max_retries": message.option("max_retries", self.max_retries),
            }
            send_after(message, target, counts)

    def _retry(self, message: Any, exception: BaseException) -> None:
        delay = self._delay(message, exception)
        self.logger.info("Retrying message %r in %d milliseconds.", message.message_id, delay)
        message.retry(delay)
        if message.option("retry_when", self.retry_when) is None:
            message.max_retries = message.option("max_retries", self.max_retries)

    def _delay(self, message: Any, exception: BaseException) -> int:
        if isinstance(exception, Retry) and exception.delay is not None:
            return exception.delay
        return compute_backoff(
            count_retries(message),
            min_backoff=message.option("min_backoff", self.min_backoff),
            max_backoff=message.option("max_backoff", self.max_backoff),
        )


def count_retries(message: Any) -> int:
    """Return how often *message* was retried; what travelled may be anything."""
    retries = message.options.get("retries", 0)
    return retries if isinstance(retries, int) and retries >= 0 else 0


def _clean_max_retries(name: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise TypeError(f"{name} must be an integer from 0, or None for no limit, not {value!r}.")
    return value


def _clean_backoff(name: str, value: Any) -> int:
    return clock.duration_to_ms(value, name=name)


def _clean_max_backoff(name: str, value: Any) -> int:
    backoff = clock.duration_to_ms(value, name=name)
    if backoff > clock.duration_to_ms(DEFAULT_MAX_BACKOFF):
        raise ValueError(f"{name} must be 7 days at most, not {backoff} ms.")
    return backoff


def _clean_retry_when(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function of (retries, exception), not {value!r}.")
    return value


def _clean_throws(name: str, value: Any) -> Any:
    kinds = value if isinstance(value, tuple) else (value,)
    if value is not None and not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        raise TypeError(f"{name} must be an exception class or a tuple of them, not {value!r}.")
    return value


_CLEAN: dict[str, Callable[[str, Any], Any]] = {
    "max_retries": _clean_max_retries,
    "min_backoff": _clean_backoff,
    "max_backoff": _clean_max_backoff,
    "retry_when": _clean_retry_when,
    "throws": _clean_throws,
    "on_retry_exhausted": clean_target,
}
