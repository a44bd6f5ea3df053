"""
Every error of the engine, one class for each decision a caller can take.

Anybody may import these. An ``Interrupt`` derives from ``BaseException`` so
that ``except Exception`` in an actor does not swallow it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from . import clock

if TYPE_CHECKING:
    from .message import Message


def exception_text(error: BaseException) -> str:
    """Return the text of *error*, whose class may have any ``__str__``."""
    try:
        return str(error)
    except Exception:
        return "(its text could not be made)"


class ActorsError(Exception):
    """Base of every ordinary error of this package."""


class DecodeError(ActorsError):
    """Say that bytes received from a broker are no message of ours."""


class UntrustedMessage(ActorsError):
    """
    Say that the signature of a message is missing or wrong.

    Attributes:
        message: What the bytes say; nobody vouches for it.
    """

    def __init__(self, text: str, message: Message) -> None:
        super().__init__(text)
        self.message = message


class UnencodableArgument(ActorsError, TypeError):
    """Say that an argument given to ``send()`` has no JSON form."""


class MessageTooLarge(ActorsError, ValueError):
    """Say that an encoded message is over ``MAX_MESSAGE_SIZE``."""


class ActorNotFound(ActorsError, LookupError):
    """Say that no actor has the name that was asked for."""


class QueueNotFound(ActorsError, LookupError):
    """Say that no actor and no call declared the queue."""


class QueueJoinTimeout(ActorsError, TimeoutError):
    """Say that a queue was not empty when the time given to ``join()`` was over."""


class BrokerError(ActorsError):
    """Base of what goes wrong between this process and the broker."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """
    Say that the broker could not take or give messages now.

    ``send()`` raises it when the message is not durable anywhere, so a caller
    who catches it knows that nothing was sent.
    """


class ServerTooOld(BrokerUnavailable):
    """Say that the broker's server has a version the engine cannot use."""


class MiddlewareError(ActorsError):
    """Let a hook stop what the engine is doing; other errors of hooks are logged."""


class SkipMessage(MiddlewareError):
    """Raised in ``before_process_message``: acknowledge the message without running it."""


class Retry(ActorsError):
    """
    Raised in an actor that wants to run again later; not logged as an error.

    Args:
        message: Why, for the log.

        delay: Milliseconds or a ``timedelta`` until the next run; the actor's
            backoff decides when it is ``None``.

    Attributes:
        delay: Milliseconds, or ``None``.
    """

    def __init__(self, message: str = "", delay: int | timedelta | None = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else clock.duration_to_ms(delay, name="delay")


class Interrupt(BaseException):
    """Base of what the engine raises in a thread that runs an actor."""


class TimeLimitExceeded(Interrupt):
    """Raised in an actor that ran longer than its ``time_limit``."""


class Shutdown(Interrupt):
    """Raised in an actor with ``notify_shutdown`` when its worker stops."""
