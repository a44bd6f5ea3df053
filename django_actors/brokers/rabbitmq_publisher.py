"""
The publisher of a process: a thread that sends for all others, and watches the confirmations.

Threads that publish hand their messages over and wait until RabbitMQ has confirmed them all.
Many are on their way at once, whoever sent them. The thread also answers heartbeats, so a web
process that was idle for an hour sends as if it had sent a second ago.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from django_actors.errors import BrokerUnavailable

from .rabbitmq_link import Link, describe
from .rabbitmq_options import Target
from .rabbitmq_topology import Topology, explain_refusal

logger = logging.getLogger(__name__)

APP_ID = "django_actors"

# How much may be on its way without a confirmation.
MOST_IN_FLIGHT = 1_000
MOST_BYTES_IN_FLIGHT = 16_000_000

# A connection that owes confirmations and says nothing is given up after this part of the
# deadline, so that there is time to send again on another one.
SILENT_PART = 0.5

SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5

# RabbitMQ 3.10 confuses a quorum queue that is declared the moment it was deleted with the old
# one: its consumers must have been told first.
DECLARE_PAUSE_S = 0.3

IDLE_S = 5.0
BUSY_S = 0.1


class Parcel:
    """
    A message on its way.

    Attributes:
        batch: What its sender waits for; ``None`` if nobody does.

        lane: The physical queue; an exchange and a routing key where nobody waits.

        returned: Whether RabbitMQ had no such queue.
    """

    __slots__ = ("batch", "body", "lane", "properties", "returned")

    def __init__(self, batch: Batch | None, lane: Any, body: bytes, properties: Any) -> None:
        self.batch = batch
        self.lane = lane
        self.body = body
        self.properties = properties
        self.returned = False

    @property
    def is_unwanted(self) -> bool:
        """Whether its sender has given up."""
        return self.batch is not None and self.batch.abandoned


class Batch:
    """The messages of one ``publish()``, and how many of them are not confirmed."""

    __slots__ = ("_ended", "abandoned", "error", "missing", "progress_at", "size")

    def __init__(self, size: int) -> None:
        self.size = self.missing = size
        self.abandoned = False
        self.error: BrokerUnavailable | None = None
        self.progress_at = time.monotonic()
        self._ended = threading.Event()

    def confirm(self) -> None:
        """Note that RabbitMQ has one of them."""
        self.missing -= 1
        self.progress_at = time.monotonic()
        if self.missing == 0:
            self._ended.set()

    def fail(self, error: BrokerUnavailable) -> None:
        """Give up: trying again would not help."""
        self.error = error
        self.abandoned = True
        self._ended.set()

    def wait(self, patience: float) -> bool:
        """Wait for the end; return whether all were confirmed, each within *patience* seconds."""
        while not self._ended.wait(max(0.0, self.progress_at + patience - time.monotonic())):
            if time.monotonic() >= self.progress_at + patience:
                self.abandoned = True
                break
        return self.missing == 0


class Publisher:
    """
    Sends for all threads of this process.

    Args:
        target: Where to, and how long a sender waits.

        topology: Names and arguments of the queues.
    """

    def __init__(self, target: Target, topology: Topology) -> None:
        self._target = target
        self._topology = topology
        self._origin = f"{os.getpid():x}.{os.urandom(6).hex()}"
        self._numbers = itertools.count(1)
        self._inbox: deque[Parcel] = deque()
        self._unconfirmed: dict[int, Parcel] = {}
        self._stranded: list[Parcel] = []
        self._declare_at = 0.0
        self._bytes = 0
        self._heard_at = 0.0
        self._declared: set[str] = set()
        self._declaring: dict[str, Any] = {}
        self._link: Link | None = None
        self._channel: Any = None
        self._trouble: BrokerUnavailable | None = None
        self._refused = False
        self._failures = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # ---- for all threads -------------------------------------------------------

    def send(self, messages: Sequence[tuple[str, str, bytes]]) -> None:
        """
        Send messages, and return when RabbitMQ has confirmed all of them.

        Args:
            messages: Lane, message id and body of each.

        Raises:
            BrokerUnavailable: some were not confirmed; those may be there or not.
        """
        batch = Batch(len(messages))
        self._post(
            Parcel(batch, lane, body, self._properties(message_id))
            for lane, message_id, body in messages
        )
        if not batch.wait(self._target.send_timeout_s):
            raise batch.error or self._describe(batch)

    def reply(self, queue: str, body: bytes) -> None:
        """Send bytes to a queue that may be gone; nobody waits for them."""
        self._post([Parcel(None, ("", queue), body, pika.BasicProperties())])

    def announce(self, body: bytes) -> None:
        """Tell all consumers something, before whatever is sent from now on."""
        control = (self._topology.control_name, "")
        self._post([Parcel(None, control, body, pika.BasicProperties())])

    def _properties(self, message_id: str) -> Any:
        # The number tells the copies of one message, which a lost confirmation makes, from the
        # same message sent again on purpose: a retry has the id of the first run.
        return pika.BasicProperties(
            delivery_mode=2,
            message_id=message_id,
            correlation_id=f"{self._origin}.{next(self._numbers):x}",
            app_id=APP_ID,
            content_type="application/json",
        )

    def _post(self, parcels: Iterable[Parcel]) -> None:
        self._inbox.extend(parcels)
        if self._thread is None:
            self._start()
        self._wanted.set()
        link = self._link
        if link is not None:
            link.wake()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(
                    target=self._run, name="RabbitMQ publisher", daemon=True
                )
                self._thread.start()

    def _describe(self, batch: Batch) -> BrokerUnavailable:
        reason = str(self._trouble or "no answer.")
        link = self._link
        if link is not None and link.is_blocked:
            reason = "it has blocked all publishers, because it is low on memory or disk space."
        return BrokerUnavailable(
            f"RabbitMQ at {self._target.place} did not confirm {batch.missing} of {batch.size} "
            f"messages within {self._target.send_timeout_s:g} s: {reason}"
        )

    def close(self) -> None:
        """End the thread and its connection; both come back when they are needed."""
        thread = self._thread
        if thread is None:
            return
        self._closing = True
        self._wanted.set()
        link = self._link
        if link is not None:
            link.wake()
        thread.join(10)
        if self._inbox:
            # It was handed over while the thread ended.
            self._start()

    # ---- the thread ------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._serve()
        finally:
            self._disconnect(farewell=True)
            self._thread = None

    def _serve(self) -> None:
        """Wait for work, connect, send until the connection ends."""
        self._wanted.wait()
        self._forget_unwanted()
        if not self._inbox:
            self._wanted.clear()
            # It may have come in between.
            if not self._inbox:
                return
        try:
            self._connect()
            while not self._closing:
                self._turn()
        except (BrokerUnavailable, AMQPError) as error:
            self._note(error)
        except Exception as error:
            logger.exception("The publisher of RabbitMQ stumbled")
            self._note(error)

    def _note(self, error: Exception) -> None:
        if isinstance(error, BrokerUnavailable):
            self._trouble = error
        else:
            self._trouble = BrokerUnavailable(describe(error))
        self._disconnect()
        self._forget_unattended()
        if self._failures:
            pause = min(SHORTEST_PAUSE_S * 2 ** min(self._failures, 8), LONGEST_PAUSE_S)
            time.sleep(pause * random.uniform(0.5, 1.0))
        self._failures += 1

    def _connect(self) -> None:
        deadline = time.monotonic() + self._target.send_timeout_s * SILENT_PART
        link = Link(self._target, deadline=deadline)
        self._link = link
        self._channel = channel = link.open_channel(self._on_channel_closed)
        if not link.run(lambda: channel.is_open, max(0.1, deadline - time.monotonic())):
            raise BrokerUnavailable("RabbitMQ opens no channel.")
        channel.exchange_declare(**self._topology.control_declaration(), callback=_ignore)
        selected: list[Any] = []
        channel.confirm_delivery(self._on_confirmation, callback=selected.append)
        channel.add_on_return_callback(self._on_return)
        # What is sent before that is never confirmed.
        if not link.run(lambda: bool(selected), max(0.1, deadline - time.monotonic())):
            raise BrokerUnavailable("RabbitMQ confirms nothing.")
        self._heard_at = time.monotonic()

    def _turn(self) -> None:
        link = self._link
        assert link is not None
        self._take_up_stranded()
        if self._refused and not self._unconfirmed:
            # In RabbitMQ 3.10 a channel whose queue lost its leader refuses for ever.
            raise BrokerUnavailable("RabbitMQ refused a message.")
        if self._inbox and not link.is_blocked and not self._refused:
            self._pump()
        busy = self._unconfirmed or self._inbox or self._stranded
        link.step(BUSY_S if busy else IDLE_S)
        if self._channel.is_closed:
            raise BrokerUnavailable("RabbitMQ closed the channel.")
        self._check_silence(link)

    def _take_up_stranded(self) -> None:
        if self._stranded and time.monotonic() >= self._declare_at:
            self._inbox.extendleft(reversed(self._stranded))
            self._stranded.clear()

    def _check_silence(self, link: Link) -> None:
        now = time.monotonic()
        if link.is_blocked or not (self._unconfirmed or self._declaring):
            self._heard_at = now
            self._forget_unwanted()
        elif now - self._heard_at > self._target.send_timeout_s * SILENT_PART:
            raise BrokerUnavailable("RabbitMQ sent no confirmation.")

    def _forget_unwanted(self) -> None:
        if any(parcel.is_unwanted for parcel in tuple(self._inbox)):
            # Others append at the same time: what is there is taken out, and put in again.
            for _ in range(len(self._inbox)):
                parcel = self._inbox.popleft()
                if not parcel.is_unwanted:
                    self._inbox.append(parcel)

    def _forget_unattended(self) -> None:
        """Drop what nobody waits for: it is of no use later, and no reason to connect again."""
        for _ in range(len(self._inbox)):
            parcel = self._inbox.popleft()
            if parcel.batch is not None:
                self._inbox.append(parcel)

    # ---- sending ---------------------------------------------------------------

    def _pump(self) -> None:
        """Send what is in the inbox, as far as its lanes are declared."""
        inbox, channel, declared = self._inbox, self._channel, self._declared
        kept: list[Parcel] = []
        while inbox and len(self._unconfirmed) < MOST_IN_FLIGHT:
            if self._bytes >= MOST_BYTES_IN_FLIGHT:
                break
            parcel = inbox.popleft()
            if parcel.is_unwanted:
                continue
            if parcel.batch is None:
                channel.basic_publish(*parcel.lane, parcel.body, parcel.properties)
                self._expect(parcel)
            elif parcel.lane in declared:
                channel.basic_publish("", parcel.lane, parcel.body, parcel.properties, True)
                self._expect(parcel)
            else:
                self._declare(parcel.lane)
                kept.append(parcel)
        inbox.extendleft(reversed(kept))

    def _expect(self, parcel: Parcel) -> None:
        self._sent += 1
        self._unconfirmed[self._sent] = parcel
        self._bytes += len(parcel.body)

    def _declare(self, lane: str) -> None:
        if lane in self._declaring:
            return
        link = self._link
        assert link is not None
        # A channel of its own: a refusal closes it.
        self._declaring[lane] = link.open_channel(
            lambda channel, error: self._on_refused(lane, error),
            lambda channel: self._ask_for(channel, lane),
        )

    def _ask_for(self, channel: Any, lane: str) -> None:
        topology = self._topology
        channel.queue_declare(**topology.declaration(lane), callback=_ignore)
        channel.queue_declare(
            **topology.declaration(topology.dead_name),
            callback=lambda frame: self._on_declared(lane),
        )

    def _on_declared(self, lane: str) -> None:
        self._declared.add(lane)
        channel = self._declaring.pop(lane)
        channel.close()
        self._heard_at = time.monotonic()

    def _on_refused(self, lane: str, error: Exception) -> None:
        if self._declaring.pop(lane, None) is None:
            return
        if not isinstance(error, ChannelClosedByBroker):
            return
        refusal = explain_refusal(error)
        for parcel in tuple(self._inbox):
            if parcel.lane == lane and parcel.batch is not None:
                parcel.batch.fail(refusal)

    # ---- what comes back -------------------------------------------------------

    def _on_confirmation(self, frame: Any) -> None:
        method = frame.method
        self._heard_at = time.monotonic()
        tag = method.delivery_tag
        tags = [tag]
        if method.multiple:
            # In the order they were sent, so the oldest come first.
            tags = list(itertools.takewhile(lambda each: each <= tag, self._unconfirmed))
        taken = method.NAME == "Basic.Ack"
        if taken:
            self._failures = 0
            self._trouble = None
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
            self._inbox.append(parcel)

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        for parcel in self._unconfirmed.values():
            if parcel.properties.correlation_id == properties.correlation_id:
                parcel.returned = True
                return

    def _on_channel_closed(self, channel: Any, error: Exception) -> None:
        self._trouble = BrokerUnavailable(f"RabbitMQ closed the channel: {describe(error)}")

    # ---- the end of a connection -----------------------------------------------

    def _disconnect(self, *, farewell: bool = False) -> None:
        link, self._link = self._link, None
        self._inbox.extendleft(reversed(self._stranded))
        self._stranded.clear()
        # In front, and in order: what was sent first is sent first again.
        self._inbox.extendleft(
            parcel for parcel in reversed(self._unconfirmed.values()) if parcel.batch is not None
        )
        self._unconfirmed.clear()
        self._declaring.clear()
        self._sent = self._bytes = 0
        self._refused = False
        if link is not None:
            link.close() if farewell else link.drop()

    _sent = 0


def _ignore(*args: Any) -> None:
    """Be a callback."""
