"""
A worker's reader of RabbitMQ: a connection, the lanes of its queues, and what it holds.

RabbitMQ pushes into the lanes, the most urgent lane is asked first, and nothing is asked of
a lane while a more urgent one may have something. Used by one thread, but for ``wake()`` and
``sizes()``.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from pika.exceptions import AMQPError

from django_actors import moves, roster
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.message import Origin

from .base import QueueSize
from .consumer import Consumer
from .rabbitmq_claims import Claims, Tags
from .rabbitmq_control import Control
from .rabbitmq_lane import PROBE_S, Claim, Lane
from .rabbitmq_lanes import Lanes
from .rabbitmq_link import Link, describe, is_stumble
from .rabbitmq_parking import MARK, Parking
from .rabbitmq_publisher import APP_ID, TYPES
from .rabbitmq_quarantine import LOOK_S as QUARANTINE_LOOK_S
from .rabbitmq_quarantine import Quarantine
from .rabbitmq_topology import LaneKey

if TYPE_CHECKING:
    from .rabbitmq import RabbitmqBroker

logger = logging.getLogger(__name__)

# What nobody asks for any more is held so long before others get it: it costs less to
# wait for the next fetch than to give a message back. Who gets it has to find out whether it
# was with a process that has died. So what will be run soon stays: as many messages as were
# acknowledged in this time, so many times.
HOLD_S = 0.25
WORTH_KEEPING = 2

# A lane that holds so many times what is in hand and wanted was granted too much, for messages that
# took less time. It gets nothing more at once.
MOST_PUSHED = 4

# How long a server may take to open all lanes.
SETUP_S = 5.0

# How often a connection that holds no claim may end for reading a queue that is just being made.
MOST_STUMBLES = 5
STUMBLE_PAUSE_S = 0.1

# A message is parked when it has been held for this part of the server's limit.
PARK_PART = 1 / 3
LOOK_S = 1.0

_ORIGINS = {name: origin for origin, name in TYPES.items()}


class RabbitmqConsumer(Consumer):
    """A reader of some queues of a ``RabbitmqBroker``; its claims are its connection's."""

    def __init__(self, broker: RabbitmqBroker, queue_names: Collection[str], owner: str) -> None:
        self._broker = broker
        self._owner = owner
        self.place = broker.place
        self._parking = Parking(broker.waiting_room, owner)
        self._park_after_s = broker.target.consumer_timeout_s * PARK_PART
        self._lanes = Lanes(
            broker,
            queue_names,
            receive=self._receive,
            leave=self._leave,
            note_round_trip=self.note_round_trip,
        )
        self._claims = Claims()
        self._control = Control(
            broker.topology,
            {
                "lane": self._hear_of_lane,
                "census": self._answer_census,
                "roll": self._hear_roll_call,
            },
        )
        self._quarantine = Quarantine(
            owner, broker.waiting_room.alias, call_roll=lambda: self._control.say("roll")
        )
        self._roll_is_called = False
        self._moved: list[Delivery] = []
        self._link: Link | None = None
        self._look_at = 0.0
        self._woken = False

    # ---- for other threads -----------------------------------------------------

    def wake(self) -> None:
        self._woken = True
        link = self._link
        if link is not None:
            link.wake()

    def sizes(self) -> dict[str, QueueSize]:
        """Return for each queue how many messages came here and wait, and how many are claimed."""
        sizes: dict[str, QueueSize] = {}
        for lane in self._lanes.all():
            waiting = len(lane.buffer) + self._quarantine.count(lane)
            ready, claimed = sizes.get(lane.key.queue_name, QueueSize(0, 0))
            claimed += max(0, len(lane.outstanding) - waiting)
            sizes[lane.key.queue_name] = QueueSize(ready + waiting, claimed)
        return sizes

    @property
    def is_connected(self) -> bool:
        """Whether RabbitMQ counts it among the consumers."""
        return self._link is not None and self._control.is_open

    # ---- fetching --------------------------------------------------------------

    def set_queues(self, queue_names: Collection[str]) -> None:
        self._lanes.set_queues(queue_names)

    def fetch(
        self, limit: int, *, timeout: float, below_priority: int | None = None
    ) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        for attempt in itertools.count():
            try:
                link = self._connected()
                link.step(0)
                return self._fetch(link, limit, below_priority, deadline)
            except (BrokerUnavailable, AMQPError) as error:
                self._lose()
                if attempt == MOST_STUMBLES or not is_stumble(error):
                    raise self._as_unavailable(error) from error
                time.sleep(STUMBLE_PAUSE_S)
            finally:
                self._woken = False
        raise AssertionError

    def _fetch(self, link: Link, limit: int, below: int | None, deadline: float) -> list[Delivery]:
        while True:
            now = time.monotonic()
            self._tend(link, now)
            eligible = self._lanes.above(below)
            expects = self._ask(eligible, limit)
            ready = self._count(eligible, limit)
            over = self._woken or now >= deadline or (ready and not expects)
            if over or (ready and ready >= limit > 0):
                found = self._take(eligible, limit)
                self._let_go(eligible, limit - len(found), now)
                return found
            surplus = self._let_go(eligible, limit, now)
            link.step(min(deadline - now, self._longest_step_s(surplus)))

    def _longest_step_s(self, surplus: bool) -> float:
        if self._quarantine:
            return QUARANTINE_LOOK_S
        if not self._lanes.are_ripe:
            return PROBE_S
        return HOLD_S if surplus else math.inf

    def _ask(self, lanes: Sequence[Lane], limit: int) -> bool:
        """
        Ask the most urgent lane that may have something; return whether to wait for its answer.
        """
        for lane in lanes:
            if limit <= 0:
                return False
            if lane.channel is None:
                continue
            if not lane.is_ready:
                return True
            if not lane.is_ripe and self._lanes.hold_claims:
                # To read it now may cost the connection: only where nothing hangs on it.
                lane.probe()
                continue
            if lane.asked:
                return True
            if lane.buffer:
                limit -= len(lane.buffer)
                if not lane.is_empty:
                    return False
            elif lane.is_empty:
                continue
            elif 2 * lane.remaining < limit:
                lane.open_grant(limit - lane.remaining)
                return True
            elif lane is not lanes[-1]:
                lane.ask()
                return True
        return False

    def _count(self, lanes: Sequence[Lane], limit: int) -> int:
        return sum(len(lane.buffer) for lane in lanes) if limit > 0 else 0

    def _take(self, lanes: Sequence[Lane], limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        now = time.monotonic()
        taken_from: list[Lane] = []
        for lane in lanes:
            if lane.buffer and len(found) < limit:
                taken_from.append(lane)
                while lane.buffer and len(found) < limit:
                    delivery = lane.buffer.popleft()
                    if self._claims.hold(delivery, now):
                        found.append(delivery)
        for lane in taken_from:
            self._lanes.move_back(lane)
        return found

    def _let_go(self, eligible: Collection[Lane], wanted: int, now: float) -> bool:
        """Give back what nobody asked for in a while; return whether there is such."""
        surplus = False
        in_use = len(self._claims) + max(0, wanted)
        for lane in self._lanes:
            demand = max(0, wanted) if lane in eligible else 0
            if len(lane.buffer) > MOST_PUSHED * in_use > 0:
                lane.close_grants()
            if len(lane.buffer) <= demand and lane.remaining <= 2 * demand:
                lane.idle_since = None
                continue
            surplus = True
            if lane.idle_since is None:
                lane.idle_since, lane.acked = now, 0
            elif now - lane.idle_since >= HOLD_S:
                self._return(lane, keep=WORTH_KEEPING * lane.acked)
        return surplus

    def _return(self, lane: Lane, *, keep: int = 0) -> None:
        lane.idle_since = None
        if not lane.buffer:
            lane.close_grants()
        elif surplus := lane.take_back(keep):
            for claim in surplus:
                self._claims.note_returned(claim)
            lane.give_back([claim.tag for claim in surplus])

    def _leave(self, lane: Lane) -> None:
        """Give back all of a lane that is not read any more."""
        lane.buffer.extend(self._quarantine.take_out(lane))
        self._return(lane)

    # ---- what comes in ---------------------------------------------------------

    def _receive(self, claim: Claim, properties: Any, body: bytes) -> None:
        origin = Origin.SENDER
        if properties.app_id == APP_ID:
            claim.number = properties.correlation_id or ""
            origin = _ORIGINS.get(properties.type, origin)
        headers = properties.headers
        if headers:
            # From RabbitMQ 4.3 on the second one leaves out what was only put back.
            counts = headers.get("x-acquired-count"), headers.get("x-delivery-count")
            claim.deliveries = counts[0] or counts[1] or 0
        if self._claims.is_repeated(claim):
            return
        key = claim.lane.key
        claim.is_suspect = self._claims.is_suspect(claim) or MARK in body
        delivery = Delivery(
            body,
            queue_name=key.queue_name,
            priority=key.priority,
            receipt=claim,
            redelivered=claim.is_suspect,
            origin=origin,
        )
        if origin is Origin.ROW:
            self._moved.append(delivery)
        if self._quarantine.concerns(claim):
            self._quarantine.add(delivery)
        else:
            claim.lane.buffer.append(delivery)

    def _hear_of_lane(self, key: Sequence[Any], reply_to: str) -> None:
        self._lanes.note(LaneKey(*key))

    def _answer_census(self, asker: str, reply_to: str) -> None:
        if asker != self._broker.process:
            sizes = {"process": self._broker.process, "sizes": self.sizes()}
            self._broker.publisher.reply(reply_to, json.dumps(sizes).encode())

    def _hear_roll_call(self, said: object, reply_to: str) -> None:
        self._roll_is_called = True

    # ---- settling --------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if parked := [each for each in deliveries if each.receipt.is_parked]:
            self._parking.forget(parked)
        self._write(Lane.ack, self._claims.settle(deliveries))

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        if parked := [each for each in deliveries if each.receipt.is_parked]:
            self._parking.give_back(parked)
        self._write(Lane.give_back, self._claims.let_go(deliveries))

    def _write(self, write: Callable[[Lane, Collection[int]], None], tags: Tags) -> None:
        """Send frames; if the connection ends meanwhile, RabbitMQ delivers again by itself."""
        link = self._link
        if link is None or not tags:
            return
        try:
            for lane, each in tags.items():
                write(lane, each)
            link.run(lambda: all(lane.is_settled for lane in tags), SETUP_S)
            link.flush()
        except (BrokerUnavailable, AMQPError) as error:
            logger.debug("Could not settle on a lost connection: %s", error)
            self._lose()

    # ---- the connection --------------------------------------------------------

    def _connected(self) -> Link:
        if self._link is None:
            self._link = link = Link(self._broker.target)
            now = time.monotonic()
            self._control.tend(link, now)
            link.run(lambda: self._control.is_listening or not self._control.is_open, SETUP_S)
            self._lanes.tend(link, now)
            link.run(lambda: self._lanes.are_set_up, SETUP_S)
            if self._woken:
                link.wake()
        return self._link

    def _lose(self) -> None:
        link, self._link = self._link, None
        self._control.forget()
        self._lanes.forget()
        if link is not None:
            link.drop()

    def _as_unavailable(self, error: Exception) -> BrokerUnavailable:
        if isinstance(error, BrokerUnavailable):
            return error
        return BrokerUnavailable(
            f"RabbitMQ at {self._broker.target.place} does not answer: {describe(error)}"
        )

    def drop(self) -> None:
        """Lose the connection without a word, as if the process had died."""
        self._lose()

    def close(self) -> None:
        self._broker.forget_consumer(self)
        self._parking.close()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._lose()
        self._claims.clear()

    # ---- between two steps -----------------------------------------------------

    def _tend(self, link: Link, now: float) -> None:
        self._control.tend(link, now)
        self._lanes.tend(link, now)
        self._tell_database()
        for delivery in self._quarantine.release(now):
            delivery.receipt.lane.buffer.append(delivery)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._park(now)
            self._parking.renew()

    def _tell_database(self) -> None:
        """Write what came in: that could not be done in the middle of a frame."""
        alias = self._broker.waiting_room.alias
        if self._roll_is_called:
            self._roll_is_called = False
            roster.answer(self._owner, alias)
        if self._moved:
            # Not when they are handed out: a row that is still there then may have a second copy.
            moves.note_received(self._moved, alias)
            self._moved.clear()

    def _park(self, now: float) -> None:
        """Keep what runs for long where RabbitMQ does not take it away."""
        old = self._claims.held_since(now - self._park_after_s)
        if not old:
            return
        for delivery in self._parking.park(old):
            claim = delivery.receipt
            claim.is_parked = True
            claim.lane.ack([claim.tag])
            logger.info(
                "Message %s has run for %d s; it is kept in the waiting room while it runs",
                delivery.message_id,
                now - claim.since,
            )
