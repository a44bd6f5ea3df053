"""
The delivery: one receipt of a message by a worker, and what became of it.

The executor fills it in step by step; hooks of middleware see it in the place
of the message, whose attributes it passes on. Nothing here knows a broker.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from . import clock
from .encoding import encode_checked
from .message import Envelope, Message, Origin

if TYPE_CHECKING:
    from .models import CrashRecord
    from .registry import RegisteredActor


class Fate(enum.Enum):
    """How a delivery ends. Every delivery ends in exactly one of these."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    SKIPPED = "skipped"
    POSTPONED = "postponed"
    PUT_BACK = "put back"


# Of these a row of the waiting room is left.
WAITING_FATES = (Fate.RETRY, Fate.DEAD, Fate.POSTPONED)


class Reason(enum.StrEnum):
    """Why a message is in the waiting room."""

    DELAY = "delay"
    RETRY = "retry"
    OUTBOX = "outbox"
    REQUEUED = "requeued"
    MISSING_ACTOR = "actor not deployed"
    RUNNING = "running for long"

    RETRIES_EXHAUSTED = "retries exhausted"
    TOO_OLD = "too old"
    EXPECTED_EXCEPTION = "expected exception"
    REJECTED = "rejected"
    UNKNOWN_ACTOR = "unknown actor"
    UNDECODABLE = "undecodable"
    BAD_SIGNATURE = "bad signature"
    KILLED_WORKER = "killed its worker"
    TIME_LIMIT = "time limit not honoured"
    GIVEN_UP = "given up by the broker"


class Past(NamedTuple):
    """
    What was known of a message that came again.

    Args:
        is_settled: Whether an earlier delivery of it has come to its end.

        crash: The deaths of processes that ran it; ``None`` without any.

        seen_at: ``time.monotonic()`` when that was found out.
    """

    is_settled: bool
    crash: CrashRecord | None
    seen_at: float


class Delivery:
    """
    One receipt of a message.

    Attributes:
        body: The bytes as they came.

        queue_name: The queue they came from.

        priority: The priority they were sent with; lower runs first.

        receipt: What the consumer needs to acknowledge it.

        redelivered: Whether it was delivered before and not settled.

        past: What is known of its earlier deliveries; ``None`` until somebody has looked.

        origin: Where this copy of the message came from, as far as the broker tells.

        row_is_gone: Whether the row it came out of is known to be deleted.

        message: The decoded message; ``None`` until that is done.

        actor: The actor it is for; ``None`` until that is found.

        defaults: The project's actor options, each in the form it is kept in.

        began: ``time.monotonic()`` when its actor was called; ``None`` until then.

        ended: ``time.monotonic()`` when its actor had returned or raised.

        deadline: ``time.monotonic()`` at which its time limit is over.

        notify_shutdown: Whether a stopping worker interrupts it.

        fate: How it ended; ``None`` while nothing is decided.

        reason: Why it waits or is dead.

        exception: What its run raised.

        traceback: An exception and the text of its traceback, once it was put together.

        began_ms: When the actor's own code began, milliseconds since 1970.

        due_ms: When it runs again, milliseconds since 1970.

        successors: Messages to send before it is acknowledged.
    """

    __slots__ = (
        "actor",
        "alone",
        "began",
        "began_ms",
        "body",
        "deadline",
        "defaults",
        "due_ms",
        "ended",
        "exception",
        "fate",
        "max_retries",
        "message",
        "notify_shutdown",
        "origin",
        "past",
        "priority",
        "queue_name",
        "reason",
        "receipt",
        "redelivered",
        "result",
        "row_is_gone",
        "successors",
        "traceback",
    )

    def __init__(
        self,
        body: bytes,
        *,
        queue_name: str,
        priority: int = 0,
        receipt: Any = None,
        redelivered: bool = False,
        origin: Origin = Origin.SENDER,
        message: Message | None = None,
    ) -> None:
        self.body = body
        self.queue_name = queue_name
        self.priority = priority
        self.receipt = receipt
        self.redelivered = redelivered
        self.origin = origin
        self.past: Past | None = None
        self.row_is_gone = False
        self.message = message
        self.actor: RegisteredActor | None = None
        self.defaults: Mapping[str, Any] = {}
        self.alone = False
        self.began: float | None = None
        self.ended: float | None = None
        self.deadline: float | None = None
        self.notify_shutdown = False
        self.fate: Fate | None = None
        self.reason: Reason | None = None
        self.result: Any = None
        self.exception: BaseException | None = None
        self.began_ms: int | None = None
        self.due_ms: int | None = None
        self.max_retries: int | None = None
        self.successors: Sequence[Message] = ()
        self.traceback: tuple[BaseException, str] | None = None

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is no slot: the message's own attributes.
        message = object.__getattribute__(self, "message")
        if message is None:
            raise AttributeError(f"A delivery that is not decoded has no {name!r}.")
        return getattr(message, name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Delivery):
            return self.message == other.message and self.body == other.body
        return self.message == other

    def __hash__(self) -> int:
        return hash(self.message)

    def __str__(self) -> str:
        return str(self.message)

    @property
    def failed(self) -> bool:
        """Whether it was decided that this message becomes a dead letter."""
        return self.fate is Fate.DEAD

    @property
    def run_ms(self) -> float:
        """For how many milliseconds its actor ran, or has run so far."""
        if self.began is None:
            return 0.0
        ended = time.monotonic() if self.ended is None else self.ended
        return (ended - self.began) * clock.MS_PER_S

    def fail(self, reason: Reason = Reason.REJECTED) -> None:
        """Decide that the message becomes a dead letter."""
        self.fate = Fate.DEAD
        self.reason = reason

    def retry(self, delay: int | timedelta) -> None:
        """Decide that the message runs again after *delay* (milliseconds or a timedelta)."""
        self.fate = Fate.RETRY
        self.reason = Reason.RETRY
        self.due_ms = clock.now_ms() + clock.duration_to_ms(delay, name="delay")

    def postpone(self, delay: int, reason: Reason) -> None:
        """Decide that the message is tried again in *delay* ms, and that it was no failure."""
        self.fate = Fate.POSTPONED
        self.reason = reason
        self.due_ms = clock.now_ms() + delay

    def send_after(self, message: Message) -> None:
        """
        Have *message* sent before this one is acknowledged.

        Raises:
            TypeError: an argument of it has no JSON form.

            MessageTooLarge: it is over ``MAX_MESSAGE_SIZE``.
        """
        # Now, not when it is sent: then it would keep this delivery from being settled.
        encode_checked(message)
        self.successors = (*self.successors, message)

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option: the message's, else the actor's, else the project's, else *default*."""
        assert self.message is not None
        options = self.message.options
        if name in options:
            return options[name]
        if self.actor is not None and name in self.actor.options:
            return self.actor.options[name]
        return self.defaults.get(name, default)

    def envelope(self) -> Envelope:
        """Return what a broker needs to carry the message as it is."""
        message_id = self.message.message_id if self.message else ""
        return Envelope(message_id, self.queue_name, self.priority, self.body)
