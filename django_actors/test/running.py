"""
Run what was sent, in the test's own thread, connection and transaction.

The same executor, middleware and settlement as in a worker; no thread, and nobody sleeps.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_actors import clock
from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.dispatcher import Dispatcher
from django_actors.errors import ActorNotFound, BrokerUnavailable, Retry
from django_actors.executor import Executor
from django_actors.journal import current_connection
from django_actors.message import Message

from .chains import Chains
from .stub import stub_broker
from .virtual_clock import VirtualClock, actor_clock


class Outcome(enum.StrEnum):
    """What became of one run; equal to its text."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    SKIPPED = "skipped"
    POSTPONED = "postponed"
    PUT_BACK = "put back"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Result:
    """
    One run of one message.

    Attributes:
        message: As the actor got it.

        outcome: ``done``, ``retry``, ``dead``, ``skipped``, ``postponed`` (its actor is not
            there), ``put back`` (it raised ``Shutdown``) or ``crashed``.

        exception: What the actor raised.

        value: What the actor returned.

        reason: Why it is a dead letter, or waits.
    """

    message: Message
    outcome: Outcome
    exception: BaseException | None = None
    value: Any = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.message}: {self.outcome}"


class EndlessChain(AssertionError):
    """Say that ``run_actors()`` came to its limit, and which message sent which."""


def run_actors(
    *,
    queues: Collection[str] | None = None,
    max_messages: int = 1_000,
    until_idle: bool = False,
    raise_errors: bool = True,
) -> list[Result]:
    """
    Run what is pending, and what that sends in turn, in this thread and transaction.

    Time limits are not enforced here: nothing interrupts the test's own thread.

    Args:
        queues: Only messages of these queues; of all where it is ``None``.

        max_messages: How many to run before the chain is taken for endless.

        until_idle: Also run what is delayed or to be retried, whenever it is due: the clock
            goes from one time to the next. Nobody waits.

        raise_errors: Whether the error of an actor is raised when everything has run. A
            message that failed and was retried with success has none.

    Returns:
        What happened, in order; a message that ran twice is there twice.

    Raises:
        Exception: what the first actor raised whose message has failed.

        ActorNotFound: a message is for an actor that this process does not have.

        EndlessChain: *max_messages* have run, and there are more.
    """
    _refuse_event_loop()
    broker = stub_broker()
    _refuse_foreign_thread(broker)
    with actor_clock() if until_idle else nullcontext() as moving, _quiet():
        run = Run(broker, queues, max_messages, moving)
        run.go()
    if raise_errors:
        run.raise_first_error()
    return run.results


async def arun_actors(
    *,
    queues: Collection[str] | None = None,
    max_messages: int = 1_000,
    until_idle: bool = False,
    raise_errors: bool = True,
) -> list[Result]:
    """Run what is pending, from a coroutine; see ``run_actors()``."""
    return await sync_to_async(run_actors)(
        queues=queues,
        max_messages=max_messages,
        until_idle=until_idle,
        raise_errors=raise_errors,
    )


class Run:
    """One call of ``run_actors()``."""

    def __init__(
        self,
        broker: StubBroker,
        queues: Collection[str] | None,
        max_messages: int,
        moving: VirtualClock | None,
    ) -> None:
        self.results: list[Result] = []
        self._broker = broker
        self._queues = None if queues is None else _checked(broker, queues)
        self._max_messages = max_messages
        self._moving = moving
        self._executor = Executor(broker)
        self._dispatcher = Dispatcher(broker, owner="run_actors")
        self._chains = Chains(broker.journal)
        self._put_back: list[Delivery] = []
        self._failures: dict[str, Result] = {}

    def go(self) -> None:
        """Run until nothing is left."""
        self._consumer = self._broker.consume(self._names(), owner="run_actors")
        try:
            while (delivery := self._next()) is not None:
                self._check_limit(delivery)
                self._process(delivery)
        finally:
            # Only now: it is ready again at once, and would run for ever.
            self._consumer.put_back(self._put_back)
            self._consumer.close()

    def _names(self) -> Collection[str]:
        declared = self._broker.get_declared_queues()
        return declared if self._queues is None else self._queues

    def _next(self) -> Delivery | None:
        while True:
            self._dispatcher.run_once(clock.now_ms())
            self._consumer.set_queues(self._names())
            if batch := self._consumer.fetch(1, timeout=0):
                return batch[0]
            due_ms = self._broker.room.next_due_ms(self._names())
            if self._moving is None or due_ms is None:
                return None
            self._moving.advance_to_ms(due_ms)

    def _check_limit(self, delivery: Delivery) -> None:
        if len(self.results) < self._max_messages:
            return
        self._consumer.put_back([delivery])
        raise EndlessChain(
            f"run_actors() has run {self._max_messages:,} messages, and there are more. This one "
            f"is next, and so it came to be:\n{self._chains.describe(delivery.body)}\n"
            "If that is no endless chain, give max_messages a larger number."
        )

    def _process(self, delivery: Delivery) -> None:
        with self._chains.caused_by(delivery):
            self._executor.run(delivery)
            if isinstance(delivery.exception, KeyboardInterrupt):
                self._consumer.put_back([delivery])
                raise delivery.exception
            self._settle(delivery)

    def _settle(self, delivery: Delivery) -> None:
        if self._broker.crashes:
            self._broker.crashes -= 1
            self._consumer.lose(delivery)
            self._note(delivery, Outcome.CRASHED)
            return
        if delivery.fate is Fate.PUT_BACK:
            self._put_back.append(delivery)
        else:
            self._settle_like_a_worker(delivery)
        assert delivery.fate is not None
        self._note(delivery, Outcome(delivery.fate.value))

    def _settle_like_a_worker(self, delivery: Delivery) -> None:
        # A worker tries again when the broker is out of reach; here that ends by itself.
        while True:
            try:
                self._broker.settle(self._consumer, [delivery])
                return
            except BrokerUnavailable:
                if not self._broker.refusals:
                    self._broker.settle(self._consumer, [delivery])
                    return

    def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        message = delivery.message or _stand_in(delivery)
        result = Result(
            message, outcome, delivery.exception, delivery.result, delivery.reason or ""
        )
        self.results.append(result)
        key = message.message_id
        self._broker.journal.see(key)
        if _is_failure(result):
            self._failures[key] = result
        elif outcome is not Outcome.CRASHED:
            # A later success makes up for what came before.
            self._failures.pop(key, None)

    def raise_first_error(self) -> None:
        """Raise what the first message has failed with, if one has."""
        failures = list(self._failures.values())
        if not failures:
            return
        error = _error_of(failures[0])
        error.add_note(_describe_failure(failures))
        raise error


def _stand_in(delivery: Delivery) -> Message:
    """Return something to show in the place of bytes that are no message."""
    return Message(delivery.queue_name, f"{len(delivery.body)}_bytes", (), {}, {})


def _is_failure(result: Result) -> bool:
    if result.outcome is Outcome.POSTPONED:
        return result.reason == Reason.MISSING_ACTOR
    if result.outcome is Outcome.RETRY and isinstance(result.exception, Retry):
        # It has asked for it.
        return False
    failed = result.exception is not None and result.outcome is not Outcome.CRASHED
    return failed or result.outcome is Outcome.DEAD


def _error_of(result: Result) -> BaseException:
    if result.exception is not None:
        return result.exception
    if result.reason == Reason.MISSING_ACTOR:
        return ActorNotFound(
            f"There is no actor {result.message.actor_name!r} in this process. Declare it in a "
            "tasks.py, or import its module in the test."
        )
    return AssertionError(f"{result.message} became a dead letter: {result.reason}.")


def _describe_failure(failures: list[Result]) -> str:
    first, *others = failures
    lines = [
        f"Raised by {first}. run_actors(raise_errors=False) returns it instead of raising it.",
        *(f"Failed as well: {other} after {other.exception!r}" for other in others),
    ]
    if type(first.exception).__name__ == "DatabaseOperationForbidden":
        lines.append(
            "A SimpleTestCase has no database: send and look at messages there, and run actors "
            "that ask the database in a TestCase."
        )
    return "\n".join(lines)


def _checked(broker: StubBroker, queues: Collection[str]) -> frozenset[str]:
    if isinstance(queues, str):
        raise TypeError(f"queues is a list of names, so write queues=[{queues!r}].")
    for name in queues:
        broker.check_queue(name)
    return frozenset(queues)


def _refuse_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation("In a coroutine, write: await arun_actors().")


def _refuse_foreign_thread(broker: StubBroker) -> None:
    """Refuse to run a test's messages where its rows cannot be seen."""
    mine = current_connection()
    for record in broker.journal.since(0):
        if record.connection not in (None, mine) and record.is_public:
            raise RuntimeError(
                f"{record.message} was sent in a transaction of another thread, whose rows this "
                "thread does not see. Call run_actors() in the test's own thread; in a "
                "coroutine, write: await arun_actors()."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of failures from the terminal where nobody has set up logging."""
    logger = logging.getLogger("django_actors")
    if logger.hasHandlers():
        yield
        return
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
