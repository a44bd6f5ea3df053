"""
What the unit tests share: a clock that stands still, a stub broker whose messages run in the
test's own thread, and tests on many examples.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import TestCase

from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import HypothesisDeprecationWarning

from django_actors import clock
from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Fate
from django_actors.dispatcher import Dispatcher
from django_actors.executor import Executor
from django_actors.message import Message
from django_actors.middleware import Middleware
from django_actors.models import Kind
from django_actors.registry import registry

from .engine import ActorsMixin

START_MS = 1_500_000_000_000

# What no message survives in one piece: the wire form refuses each of these.
LONE_SURROGATE = "\ud800"


class StandingClock:
    """The engine's clock of a test: it moves when the test says so."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int = 0, **duration: float) -> None:
        self.now_ms += ms + clock.duration_to_ms(timedelta(**duration))


def stop_clock(test: TestCase) -> StandingClock:
    """Put a clock that stands still in the place of the wall clock until the test ends."""
    standing = StandingClock()
    clock.set_source(standing)
    test.addCleanup(clock.set_source, None)
    return standing


class LogLines(logging.Handler):
    """The log lines of the engine, kept instead of shown."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self, level: int = logging.DEBUG) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]

    def text(self) -> str:
        """All that would be shown, tracebacks included."""
        formatter = logging.Formatter("[%(name)s] [%(levelname)s] %(message)s")
        return "\n".join(map(formatter.format, self.records))


def keep_log(test: TestCase) -> LogLines:
    """Keep the engine's log lines to the test, from the lowest level on."""
    logger, handler = logging.getLogger("django_actors"), LogLines()
    before = (logger.level, logger.propagate)

    def restore() -> None:
        logger.removeHandler(handler)
        logger.propagate = before[1]
        logger.setLevel(before[0])

    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    test.addCleanup(restore)
    return handler


def actors_settings(**changes: Any) -> override_settings:
    """Override keys of ``DJANGO_ACTORS``; all others have their defaults."""
    return override_settings(DJANGO_ACTORS=changes)


class StubCase(ActorsMixin):
    """
    A test with a stub broker of its own and a clock that stands still.

    Nothing runs by itself: ``run_ready()`` runs what is ready, ``run_all()`` also what
    waits for its time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = stop_clock(self)
        self.log = keep_log(self)
        self.broker: StubBroker = self.use(StubBroker())

    def replace(self, function: Callable[..., Any], actor_name: str, **options: Any) -> Any:
        """Declare an actor in the place of one that this test has declared before."""
        registry.remove(actor_name)
        return self.declare(function, actor_name=actor_name, **options)

    def use_middleware(self, *middleware: Middleware) -> None:
        """Have a broker with exactly this middleware."""
        self.broker = self.use(StubBroker(middleware=middleware))

    def run_ready(self) -> list[Any]:
        """Run what is ready, one after the other, in this thread; return the deliveries."""
        consumer = self.broker.consume(self.broker.get_declared_queues(), owner="test")
        executor = Executor(self.broker)
        ended: list[Any] = []
        while batch := consumer.fetch(1, timeout=0):
            executor.run(batch[0])
            # What is put back is ready again at once, and would be run for ever.
            if batch[0].fate is not Fate.PUT_BACK:
                self.broker.settle(consumer, batch)
            ended += batch
        self.broker.settle(consumer, [each for each in ended if each.fate is Fate.PUT_BACK])
        consumer.close()
        return ended

    def run_due(self) -> list[Any]:
        """Run what is ready, and what has become due."""
        Dispatcher(self.broker).run_once(self.clock.now_ms)
        return self.run_ready()

    def run_all(self, limit: int = 100) -> list[Any]:
        """Run everything; the clock goes from one due time to the next."""
        ended = self.run_ready()
        while (wait := self.broker.waiting_room.wait_ms()) is not None:
            if len(ended) >= limit:
                raise AssertionError(f"More than {limit} messages ran.")
            self.clock.advance(wait)
            ended += self.run_due()
        return ended

    def run_one(self, message: Message) -> Any:
        """Send a message, run what is ready, and return what became of it."""
        self.broker.enqueue(message)
        return next(each for each in self.run_ready() if each.message_id == message.message_id)

    def sent(self) -> list[Message]:
        """Return the messages that are ready, the most urgent first."""
        return [Message.decode(envelope.body) for envelope in self.broker.ready_envelopes()]

    def rows(self, *kinds: Kind) -> list[Any]:
        """Return the rows of the waiting room."""
        return [row for row in self.broker.room.rows.values() if not kinds or row.kind in kinds]


class Failing:
    """A function that raises what it is given, call after call; then it returns."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[Any, ...]] = []

    def as_function(self) -> Callable[..., Any]:
        def failing(*args: Any, **kwargs: Any) -> str:
            self.calls.append(args)
            error = self.errors.pop(0) if self.errors else None
            if error is not None:
                raise error
            return "done"

        return failing


def property_test(*strategies: Any) -> Any:
    """Run a test on 100 examples, which are the same in every run."""

    def decorate(test: Any) -> Any:
        limits = hypothesis_settings(
            max_examples=100, deadline=None, derandomize=True, database=None
        )
        tested = limits(given(*strategies)(test))

        @functools.wraps(test)
        def quietly(self: Any) -> None:
            # A thread that an earlier test has left to reconnect draws its jitter meanwhile,
            # and hypothesis takes that for a strategy that is not repeatable.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HypothesisDeprecationWarning)
                tested(self)

        # The parameters are hypothesis' to give.
        del quietly.__wrapped__
        return quietly

    return decorate
