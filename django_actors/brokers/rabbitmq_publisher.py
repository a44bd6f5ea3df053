"""
The publisher of a process: one connection that sends for all threads.

Threads that publish put their messages in its inbox and wait until RabbitMQ has confirmed them
all. One thread at a time is at the helm: it sends what all have put there, and hears the
confirmations. A sender that is alone takes the helm itself, which costs no switch between
threads. When there are several, a thread of the publisher's own, the *keeper*, has it: it also
connects, and answers heartbeats, so a web process that was idle for an hour sends as if it had
sent a second ago.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from pika.exceptions import AMQPError

from django_actors.errors import BrokerUnavailable
from django_actors.interrupts import is_interruptible
from django_actors.message import Envelope, Origin

from .rabbitmq_frames import write_properties
from .rabbitmq_options import Target
from .rabbitmq_outlet import Outlet
from .rabbitmq_parcels import Batch, Parcel
from .rabbitmq_topology import Topology

logger = logging.getLogger(__name__)

APP_ID = "django_actors"

# Of messages that do not come from their sender.
TYPES = {Origin.ROW: "row", Origin.DOUBTFUL_ROW: "doubtful_row"}

SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5

# How long whoever is at the helm waits before it looks around.
TURN_S = 0.1


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
        self._outlet = Outlet(target, topology)
        # Who has it uses the outlet. Whoever gives it back calls the keeper if work is left.
        self._helm = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._keeper_called = threading.Event()
        self._closing = False
        self._lock = threading.Lock()

    # ---- for all threads -------------------------------------------------------

    def send(self, messages: Sequence[tuple[str, Envelope]]) -> None:
        """
        Send messages, and return when RabbitMQ has confirmed all of them.

        Args:
            messages: The lane of each, and what goes there.

        Raises:
            BrokerUnavailable: some were not confirmed; those may be there or not.
        """
        batch = Batch(len(messages), self._target.send_timeout_s)
        self._put(self._pack(batch, lane, envelope) for lane, envelope in messages)
        if is_interruptible():
            self._call_keeper()
        elif self._keeper_called.is_set() or not self._helm.acquire(blocking=False):
            self._outlet.wake()
        else:
            self._steer(batch)
        if not batch.wait():
            raise batch.error or self._describe(batch)

    def reply(self, queue: str, body: bytes) -> None:
        """Send bytes to a queue that may be gone; nobody waits for them."""
        self._put([Parcel(None, ("", queue), body)])
        self._call_keeper()

    def announce(self, body: bytes) -> None:
        """Tell all consumers something, before whatever is sent from now on."""
        self._put([Parcel(None, (self._topology.control_name, ""), body)])
        self._call_keeper()

    def _pack(self, batch: Batch, lane: str, envelope: Envelope) -> Parcel:
        # The number tells the copies of one message, which a lost confirmation makes, from the
        # same message sent again on purpose: a retry has the id of the first run.
        number = f"{self._origin}.{next(self._numbers):x}"
        origin = TYPES.get(envelope.origin)
        properties = write_properties(envelope.message_id, number, origin, APP_ID)
        return Parcel(batch, ("", lane), envelope.body, properties, number)

    def _put(self, parcels: Iterable[Parcel]) -> None:
        self._outlet.inbox.extend(parcels)
        if self._keeper is None:
            self._start()

    def _call_keeper(self) -> None:
        self._keeper_called.set()
        # If another is at the helm: that one sends what is there, and need not wait first.
        self._outlet.wake()

    def _start(self) -> None:
        with self._lock:
            if self._keeper is None:
                self._closing = False
                self._keeper = threading.Thread(
                    target=self._keep, name="RabbitMQ publisher", daemon=True
                )
                self._keeper.start()

    def _describe(self, batch: Batch) -> BrokerUnavailable:
        reason = str(self._outlet.trouble or "no answer.")
        if self._outlet.is_blocked:
            reason = "it has blocked all publishers, because it is low on memory or disk space."
        return BrokerUnavailable(
            f"RabbitMQ at {self._target.place} did not confirm {batch.missing} of {batch.size} "
            f"messages within {self._target.send_timeout_s:g} s: {reason}"
        )

    def close(self) -> None:
        """End the keeper and the connection; both come back when they are needed."""
        keeper = self._keeper
        if keeper is None:
            return
        self._closing = True
        self._call_keeper()
        keeper.join(10)
        if self._outlet.inbox:
            # It was handed over while the thread ended.
            self._start()

    # ---- at the helm -----------------------------------------------------------

    def _steer(self, batch: Batch) -> None:
        """Be at the helm until *batch* has ended or its time is over."""
        try:
            # Without a connection the keeper makes one: that may take more time than is left.
            if self._outlet.is_open:
                self._turn_while(lambda: batch.left)
        finally:
            self._helm.release()
            self._call_if_busy()

    def _keep(self) -> None:
        try:
            while not self._closing:
                self._keeper_called.wait(self._outlet.patience)
                with self._helm:
                    self._keeper_called.clear()
                    self._serve()
                self._call_if_busy()
        finally:
            with self._helm:
                self._outlet.close(farewell=True)
            self._keeper = None

    def _call_if_busy(self) -> None:
        # Asked by all who have left the helm: who came meanwhile has seen that it was taken.
        if self._outlet.is_busy:
            self._keeper_called.set()

    def _serve(self) -> None:
        """Connect if there is a reason to, and send until nothing is left."""
        outlet = self._outlet
        outlet.forget_unwanted()
        if outlet.is_open or outlet.inbox:
            self._turn_while(lambda: TURN_S if outlet.is_busy else 0.0)

    def _turn_while(self, left: Callable[[], float]) -> None:
        """Use the connection for as long as some seconds are *left*; once at least."""
        outlet = self._outlet
        try:
            if not outlet.is_open:
                self._connect()
            timeout = left()
            outlet.turn(min(timeout, TURN_S))
            while not self._closing and (timeout := left()):
                outlet.turn(min(timeout, TURN_S))
        except (BrokerUnavailable, AMQPError) as error:
            outlet.give_up(error)
        except Exception as error:
            logger.exception("The publisher of RabbitMQ stumbled")
            outlet.give_up(error)
        except BaseException:
            # A signal may come at any moment: nobody knows how much of a message was written.
            outlet.close()
            raise

    def _connect(self) -> None:
        failures = self._outlet.failures
        if failures > 1:
            pause = min(SHORTEST_PAUSE_S * 2 ** min(failures - 1, 8), LONGEST_PAUSE_S)
            time.sleep(pause * random.uniform(0.5, 1.0))
        self._outlet.open()
