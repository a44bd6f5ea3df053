"""
The connection that messages leave by: sends them, and watches the confirmations.

It knows no threads: whoever uses it is the only one, and ``rabbitmq_publisher.py`` sees to
that. Many messages are on their way at once, whoever sent them.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from django_actors.errors import BrokerUnavailable

from .rabbitmq_link import Link, describe
from .rabbitmq_options import Target
from .rabbitmq_parcels import Parcel
from .rabbitmq_topology import Topology, explain_refusal

# How much may be on its way without a confirmation.
MOST_IN_FLIGHT = 1_000
MOST_BYTES_IN_FLIGHT = 16_000_000

# A connection that owes confirmations and says nothing is given up after this part of the
# deadline, so that there is time to send again on another one.
SILENT_PART = 0.5

# RabbitMQ 3.10 confuses a quorum queue that is declared the moment it was deleted with the old
# one: its consumers must have been told first.
DECLARE_PAUSE_S = 0.3

# How long an idle connection may be left alone: heartbeats have to be answered.
IDLE_S = 5.0


class Outlet:
    """
    A connection to RabbitMQ for publishing.

    Args:
        target: Where to, and how long a sender waits.

        topology: Names and arguments of the queues.

    Attributes:
        inbox: What is to be sent; from any thread.

        trouble: Why nothing is confirmed, as far as that is known.

        failures: How many connections have ended since the last confirmation.
    """

    def __init__(self, target: Target, topology: Topology) -> None:
        self._target = target
        self._topology = topology
        self.inbox: deque[Parcel] = deque()
        self.trouble: BrokerUnavailable | None = None
        self.failures = 0
        self._unconfirmed: dict[int, Parcel] = {}
        self._stranded: list[Parcel] = []
        self._declare_at = 0.0
        self._sent = self._bytes = 0
        self._heard_at = 0.0
        self._declared: set[tuple[str, str]] = set()
        self._declaring: dict[tuple[str, str], Any] = {}
        self._link: Link | None = None
        self._channel: Any = None
        self._refused = False

    # ---- for all threads -------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def is_busy(self) -> bool:
        """Whether something is to be sent, or to be confirmed."""
        return bool(self._unconfirmed or self.inbox or self._stranded)

    @property
    def is_blocked(self) -> bool:
        """Whether RabbitMQ takes no messages from anybody."""
        link = self._link
        return link is not None and link.is_blocked

    @property
    def patience(self) -> float | None:
        """How many seconds it may be left alone; ``None``: for ever."""
        link = self._link
        return None if link is None else min(IDLE_S, link.longest_step_s)

    def wake(self) -> None:
        """End a ``turn()`` that waits."""
        link = self._link
        if link is not None:
            link.wake()

    # ---- the connection --------------------------------------------------------

    def open(self) -> None:
        """
        Connect.

        Raises:
            BrokerUnavailable: that was not possible within a part of a sender's time.
        """
        deadline = time.monotonic() + self._target.send_timeout_s * SILENT_PART
        link = Link(self._target, deadline=deadline)
        self._link = link
        self._channel = channel = link.open_channel(self._on_channel_closed)
        if not link.run(lambda: channel.is_open, max(0.1, deadline - time.monotonic())):
            raise BrokerUnavailable("RabbitMQ opens no channel.")
        channel.exchange_declare(**self._topology.control_declaration(), callback=_ignore)
        selected: list[Any] = []
        link.on_confirmation(channel, self._on_answer)
        channel.confirm_delivery(self._on_refusal, callback=selected.append)
        channel.add_on_return_callback(self._on_return)
        # What is sent before that is never confirmed.
        if not link.run(lambda: bool(selected), max(0.1, deadline - time.monotonic())):
            raise BrokerUnavailable("RabbitMQ confirms nothing.")
        self._heard_at = time.monotonic()

    def turn(self, timeout: float) -> None:
        """
        Send what is there, and hear what comes in; wait for that up to *timeout* seconds.

        Raises:
            BrokerUnavailable, AMQPError: the connection has ended, or is as good as dead.
        """
        link = self._link
        assert link is not None
        if not self._is_owed:
            # It may have been left alone for long.
            self._heard_at = time.monotonic()
        self._take_up_stranded()
        if self._refused and not self._unconfirmed:
            # In RabbitMQ 3.10 a channel whose queue lost its leader refuses for ever.
            raise BrokerUnavailable("RabbitMQ refused a message.")
        if self.inbox and not link.is_blocked and not self._refused:
            self._pump()
        link.step(timeout)
        if self._channel.is_closed:
            # The channel has said why.
            raise self.trouble or BrokerUnavailable("RabbitMQ closed the channel.")
        self._check_silence(link)

    @property
    def _is_owed(self) -> bool:
        """Whether RabbitMQ has something to answer."""
        return bool(self._unconfirmed or self._declaring)

    def _take_up_stranded(self) -> None:
        if self._stranded and time.monotonic() >= self._declare_at:
            self.inbox.extendleft(reversed(self._stranded))
            self._stranded.clear()

    def _check_silence(self, link: Link) -> None:
        if link.is_blocked or not self._is_owed:
            self._heard_at = time.monotonic()
            self.forget_unwanted()
        elif time.monotonic() - self._heard_at > self._target.send_timeout_s * SILENT_PART:
            raise BrokerUnavailable("RabbitMQ sent no confirmation.")

    def forget_unwanted(self) -> None:
        """Drop what nobody waits for any more."""
        if any(parcel.is_unwanted for parcel in tuple(self.inbox)):
            # Others append at the same time: what is there is taken out, and put in again.
            for _ in range(len(self.inbox)):
                parcel = self.inbox.popleft()
                if not parcel.is_unwanted:
                    self.inbox.append(parcel)

    def _forget_unattended(self) -> None:
        """Drop what nobody waits for: it is of no use later, and no reason to connect again."""
        for _ in range(len(self.inbox)):
            parcel = self.inbox.popleft()
            if parcel.batch is not None:
                self.inbox.append(parcel)

    # ---- sending ---------------------------------------------------------------

    def _pump(self) -> None:
        """Send what is in the inbox, as far as its lanes are declared."""
        inbox, declared = self.inbox, self._declared
        kept: list[Parcel] = []
        while inbox and len(self._unconfirmed) < MOST_IN_FLIGHT:
            if self._bytes >= MOST_BYTES_IN_FLIGHT:
                break
            parcel = inbox.popleft()
            if parcel.is_unwanted:
                continue
            if parcel.batch is None or parcel.lane in declared:
                self._write(parcel)
            else:
                self._declare(parcel.lane)
                kept.append(parcel)
        inbox.extendleft(reversed(kept))

    def _write(self, parcel: Parcel) -> None:
        link = self._link
        assert link is not None
        # Expected first: what fails on the way is sent again with the rest.
        self._sent += 1
        self._unconfirmed[self._sent] = parcel
        self._bytes += len(parcel.body)
        mandatory = parcel.batch is not None
        link.write_message(self._channel, parcel.lane, parcel.properties, parcel.body, mandatory)

    def _declare(self, lane: tuple[str, str]) -> None:
        if lane in self._declaring:
            return
        link = self._link
        assert link is not None
        # A channel of its own: a refusal closes it.
        self._declaring[lane] = link.open_channel(
            lambda channel, error: self._on_refused(lane, error),
            lambda channel: self._ask_for(channel, lane),
        )

    def _ask_for(self, channel: Any, lane: tuple[str, str]) -> None:
        topology = self._topology
        channel.queue_declare(**topology.declaration(lane[1]), callback=_ignore)
        channel.queue_declare(
            **topology.declaration(topology.dead_name),
            callback=lambda frame: self._on_declared(lane),
        )

    def _on_declared(self, lane: tuple[str, str]) -> None:
        self._declared.add(lane)
        channel = self._declaring.pop(lane)
        channel.close()
        self._heard_at = time.monotonic()

    def _on_refused(self, lane: tuple[str, str], error: Exception) -> None:
        if self._declaring.pop(lane, None) is None:
            return
        if not isinstance(error, ChannelClosedByBroker):
            return
        refusal = explain_refusal(error)
        for parcel in tuple(self.inbox):
            if parcel.lane == lane and parcel.batch is not None:
                parcel.batch.fail(refusal)

    # ---- what comes back -------------------------------------------------------

    def _on_refusal(self, frame: Any) -> None:
        self._on_answer(frame.method.delivery_tag, frame.method.multiple, taken=False)

    def _on_answer(self, tag: int, multiple: bool, taken: bool = True) -> None:
        self._heard_at = time.monotonic()
        tags = [tag]
        if multiple:
            # In the order they were sent, so the oldest come first.
            tags = list(itertools.takewhile(lambda each: each <= tag, self._unconfirmed))
        if taken:
            self.failures = 0
            self.trouble = None
        for each in tags:
            parcel = self._unconfirmed.pop(each, None)
            if parcel is not None:
                self._bytes -= len(parcel.body)
                self._conclude(parcel, taken)

    def _conclude(self, parcel: Parcel, taken: bool) -> None:
        if parcel.batch is None:
            return
        if parcel.returned:
            # The queue was deleted: it is declared again, and the message sent again.
            parcel.returned = False
            self._declared.discard(parcel.lane)
            self._stranded.append(parcel)
            self._declare_at = time.monotonic() + DECLARE_PAUSE_S
        elif taken:
            parcel.batch.confirm()
        else:
            self._refused = True
            self.inbox.append(parcel)

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        for parcel in self._unconfirmed.values():
            if parcel.number == properties.correlation_id:
                parcel.returned = True
                return

    def _on_channel_closed(self, channel: Any, error: Exception) -> None:
        self.trouble = BrokerUnavailable(f"RabbitMQ closed the channel: {describe(error)}")

    # ---- the end ---------------------------------------------------------------

    def give_up(self, error: Exception) -> None:
        """Note why the connection has ended, and be ready for another one."""
        self.failures += 1
        self.close()
        self._forget_unattended()
        # Last: the channel that ends with the connection says only that it has ended.
        if not isinstance(error, BrokerUnavailable):
            error = BrokerUnavailable(describe(error))
        self.trouble = error

    def close(self, *, farewell: bool = False) -> None:
        """Let go of the connection; what was not confirmed is sent again on the next one."""
        link, self._link = self._link, None
        self.inbox.extendleft(reversed(self._stranded))
        self._stranded.clear()
        # In front, and in order: what was sent first is sent first again.
        self.inbox.extendleft(
            parcel for parcel in reversed(self._unconfirmed.values()) if parcel.batch is not None
        )
        self._unconfirmed.clear()
        self._declaring.clear()
        self._sent = self._bytes = 0
        self._refused = False
        if link is not None:
            link.close() if farewell else link.drop()


def _ignore(*args: Any) -> None:
    """Be a callback."""
