"""
One connection to RabbitMQ, driven step by step by the thread that uses it.

pika is not thread-safe; a link belongs to one thread at a time, and only ``wake()`` is for
others. It sits on pika's asynchronous connection: that one lets several requests be on
their way at once, and a wait end by whatever comes first.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

from pika.adapters.select_connection import IOLoop
from pika.adapters.utils import connection_workflow as workflow
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ConnectionClosed,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from django_actors.cures import cure_of
from django_actors.errors import BrokerUnavailable, ServerTooOld

from .rabbitmq_connection import Confirmed, Connection
from .rabbitmq_frames import FRAME_EDGES, write_message
from .rabbitmq_options import Target

# How long a farewell may take.
CLOSE_S = 1.0

# A server that accepts connections and then says nothing.
OPEN_S = 5.0


INTERNAL_ERROR = 541

# The oldest version of the server that this was tried with.
OLDEST = (3, 10)

_NEVER = float("inf")

_WHERE = "DJANGO_ACTORS['BROKER']"


class Link:
    """
    An open connection.

    Args:
        target: Its servers are tried in order.

        deadline: ``time.monotonic()`` until which it must be open.

    Attributes:
        longest_step_s: How many seconds at most may lie between two steps, for the heartbeats.

    Raises:
        BrokerUnavailable: no server let us in; the error names places and the last reason.
    """

    def __init__(self, target: Target, *, deadline: float | None = None) -> None:
        self._target = target
        self._error: Exception | None = None
        self._woken = False
        self.is_blocked = False
        self._longest_silence_s = self.longest_step_s = self._rings_at = _NEVER
        self._received = 0
        self._heard_at = time.monotonic()
        self.connection: Any = None
        self._loop: Any = None
        self._open(time.monotonic() + OPEN_S if deadline is None else deadline)

    # ---- opening ---------------------------------------------------------------

    def _open(self, deadline: float) -> None:
        attempts = max(each.connection_attempts for each in self._target.parameters)
        reason: Exception | None = None
        for attempt in range(attempts):
            if attempt:
                time.sleep(min(self._target.parameters[0].retry_delay, _left(deadline)))
            for parameters in self._target.parameters:
                reason = self._try(parameters, deadline)
                if reason is None:
                    return
        raise self._unavailable(reason)

    def _try(self, parameters: Any, deadline: float) -> Exception | None:
        """Open a connection to one server; return why that was not possible."""
        self._error = None
        self._loop = IOLoop()
        self._rings_at = _NEVER
        self._loop.activate_poller()
        opened: list[Any] = []
        self.connection = Connection(
            _for_one_attempt(parameters),
            on_open_callback=opened.append,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=self._loop,
        )
        try:
            patience = min(parameters.stack_timeout or OPEN_S, OPEN_S, _left(deadline))
            if not self.run(lambda: bool(opened), patience):
                self._error = TimeoutError(f"no answer within {patience:.1f} s")
        except BrokerUnavailable:
            pass
        if self._error is None:
            self._error = too_old(self.connection.server_properties)
        if self._error is None:
            self.connection.add_on_connection_blocked_callback(self._on_blocked)
            self.connection.add_on_connection_unblocked_callback(self._on_unblocked)
            self._expect_heartbeats(self.connection.params.heartbeat)
            self.connection.receive_much()
            return None
        error = self._error
        self.drop()
        return error

    def _expect_heartbeats(self, heartbeat_s: Any) -> None:
        # What was agreed with the server; it may be no number where that was left to it.
        if isinstance(heartbeat_s, (int, float)) and heartbeat_s > 0:
            self._longest_silence_s = heartbeat_s * 1.75
            self.longest_step_s = heartbeat_s / 8
        self._heard_at = time.monotonic()

    def _on_end(self, connection: Any, error: Exception) -> None:
        self._error = self._error or error

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self.is_blocked = True

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self.is_blocked = False

    # ---- using -----------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether nothing is known of its end."""
        return self._error is None

    def step(self, timeout: float) -> None:
        """
        Read and write what is possible, waiting up to *timeout* seconds for anything.

        Raises:
            BrokerUnavailable: the connection has ended.
        """
        loop = self._loop
        if self._error is None:
            self._ring_within(max(0.0, min(timeout, self.longest_step_s)))
            self.connection.hand_over()
            loop.poll()
            loop.process_timeouts()
            self.connection.hand_over()
            self._woken = False
            self._check_life()
        if self._error is not None:
            raise self._unavailable(self._error)

    def _ring_within(self, seconds: float) -> None:
        """Have a poll end after so many seconds at the latest."""
        # A bell that is set already will do. Not one for each step: pika keeps those that are
        # taken back until their time has come, and each of them ends a poll.
        rings_at = time.monotonic() + seconds
        if rings_at < self._rings_at:
            self._rings_at = rings_at
            self._loop.call_later(seconds, self._on_ring)

    def _on_ring(self) -> None:
        self._rings_at = _NEVER

    def _check_life(self) -> None:
        """Give up a connection on which nothing comes in, not even heartbeats."""
        # pika does so, too, but only at the end of a whole interval after the silence began.
        now = time.monotonic()
        received = self.connection.bytes_received
        if received != self._received:
            self._received, self._heard_at = received, now
        elif now - self._heard_at > self._longest_silence_s and self._error is None:
            silence = now - self._heard_at
            self._error = TimeoutError(f"no sign of life for {silence:.1f} s")

    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Step until a state is reached; return whether it was within *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.step(left)
        return True

    def flush(self, timeout: float = CLOSE_S) -> None:
        """Hand what was written to the operating system."""
        if self._error is None:
            self.connection.hand_over()
        self.run(self._has_written, timeout)

    def _has_written(self) -> bool:
        return bool(self.connection.has_written)

    def wake(self) -> None:
        """End a step that waits; from any thread."""
        if not self._woken:
            self._woken = True
            self._loop.add_callback_threadsafe(_do_nothing)

    def open_channel(
        self,
        on_close: Callable[[Any, Exception], object],
        on_open: Callable[[Any], object] | None = None,
    ) -> Any:
        """Return a channel that is being opened; it takes requests when it is open."""
        channel = self.connection.channel(on_open_callback=on_open or _do_nothing_with)
        channel.add_on_close_callback(on_close)
        return channel

    def on_confirmation(self, channel: Any, confirmed: Confirmed) -> None:
        """Have *confirmed* called with each confirmation on *channel*, and pika not."""
        self.connection.confirmed[channel.channel_number] = confirmed

    def write_message(
        self, channel: Any, lane: tuple[str, str], properties: bytes, body: bytes, mandatory: bool
    ) -> None:
        """Send a message with the next step; what pika's channels do, but in one piece."""
        longest = self.connection.params.frame_max - FRAME_EDGES
        number = channel.channel_number
        data = write_message(number, lane, properties, body, mandatory=mandatory, longest=longest)
        self.connection.write(data)

    def call(self, channel: Any, method: str, timeout: float, **arguments: Any) -> Any:
        """
        Make a request on an open channel, and return the server's answer.

        Raises:
            BrokerUnavailable: there was none in time.

            pika.exceptions.ChannelClosed: the server refused.
        """
        answers: list[Any] = []
        refusals: list[Exception] = []
        channel.add_on_close_callback(lambda channel, error: refusals.append(error))
        getattr(channel, method)(callback=answers.append, **arguments)
        if not self.run(lambda: bool(answers or refusals), timeout):
            raise self._unavailable(TimeoutError(f"no answer within {timeout:.1f} s"))
        if refusals:
            raise refusals[0]
        return answers[0].method

    # ---- ending ----------------------------------------------------------------

    def close(self) -> None:
        """Say farewell and close; never raises."""
        if self._error is None:
            try:
                self.connection.close()
                self.run(lambda: False, CLOSE_S)
            except (BrokerUnavailable, AMQPError):
                pass
        self.drop()

    def drop(self) -> None:
        """Close without a word, as if the process had died; never raises."""
        self._error = self._error or ConnectionAbortedError("the connection was dropped")
        if self._loop is None:
            return
        loop, self._loop = self._loop, _ClosedLoop()
        connection = self.connection
        if not connection.is_closed:
            # What pika does itself when heartbeats fail; there is no public name for it.
            connection._terminate_stream(AMQPConnectionError("dropped"))
            for _ in range(10):
                if connection.is_closed:
                    break
                loop.call_later(0, _do_nothing)
                loop.poll()
                loop.process_timeouts()
        loop.close()

    def _unavailable(self, reason: Exception | None) -> BrokerUnavailable:
        place = self._target.place
        if isinstance(reason, ServerTooOld):
            return ServerTooOld(f"RabbitMQ at {place} {reason}")
        error = BrokerUnavailable(f"RabbitMQ at {place} does not answer: {describe(reason)}")
        error.__cause__ = reason
        return error


class _ClosedLoop:
    """Stands in for the loop of a closed link, which others may still wake."""

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _for_one_attempt(parameters: Any) -> Any:
    """Return *parameters* for pika, which would try again by itself, and sleep in between."""
    single = copy.copy(parameters)
    single.connection_attempts = 1
    return single


def describe(error: BaseException | None) -> str:
    """Return the reason in one line: the innermost of those that pika wraps."""
    if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
        return describe(error.exceptions[-1])
    if isinstance(error, workflow.AMQPConnectorException) and hasattr(error, "exception"):
        return describe(error.exception)
    if isinstance(error, ProbableAuthenticationError):
        return f"it refused the user name or the password. Correct them in {_WHERE}."
    if isinstance(error, ProbableAccessDeniedError):
        return (
            "there is no such virtual host, or the user has no access to it. Correct the end of "
            f"the URL in {_WHERE}, or let the user in with rabbitmqctl set_permissions."
        )
    if isinstance(error, ConnectionClosed):
        return f"it closed the connection ({error.reply_code} {error.reply_text})."
    if isinstance(error, AMQPConnectionError) and error.args:
        inner = error.args[0]
        return describe(inner) if isinstance(inner, BaseException) else f"{inner}."
    if error is None:
        return "no server was tried."
    return f"{str(error) or type(error).__name__}.{cure_of(error)}"


def too_old(properties: Mapping[str, Any] | None) -> ServerTooOld | None:
    """Return what is wrong with a server that says it has a version we cannot use."""
    facts = properties or {}
    version = _as_text(facts.get("version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if _as_text(facts.get("product", "")) != "RabbitMQ" or len(numbers) < 2 or numbers >= OLDEST:
        return None
    return ServerTooOld(
        f"has version {version}, and the broker needs 3.10 or newer. "
        "Upgrade it, or use another broker."
    )


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def is_stumble(error: BaseException | None) -> bool:
    """Return whether the server ended the connection for a fault of its own."""
    while error is not None:
        if isinstance(error, ConnectionClosed) and error.reply_code == INTERNAL_ERROR:
            return True
        error = error.__cause__
    return False


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _do_nothing() -> None:
    """Be a callback."""


def _do_nothing_with(*args: Any) -> None:
    """Be a callback with arguments."""
