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
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pika.exceptions import AMQPError

from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable
from django_actors.registry import registry

from .base import Consumer, QueueSize
from .rabbitmq_lane import Claim, Lane
from .rabbitmq_link import Link, describe, is_stumble
from .rabbitmq_parking import MARK, Parking
from .rabbitmq_publisher import APP_ID
from .rabbitmq_topology import LaneKey

if TYPE_CHECKING:
    from .rabbitmq import RabbitmqBroker

logger = logging.getLogger(__name__)

# What nobody asks for any more is held so long before others get it: it costs less to
# wait for the next fetch than to give a message back.
HOLD_S = 0.25

# How long a server may take to open all lanes.
SETUP_S = 5.0

# Other processes tell of new lanes; this is for what they could not tell.
REFRESH_S = 10.0

# How soon a lane is opened again that was lost.
REOPEN_S = 0.25
REOPEN_TROUBLED_S = 5.0

# RabbitMQ ends a connection that reads a quorum queue somebody else is just declaring.
MOST_STUMBLES = 5
STUMBLE_PAUSE_S = 0.1

TIMEOUT_HINT = (
    "The server's consumer_timeout is shorter than this broker was told: name it in the URL "
    "(?consumer_timeout=..., in milliseconds), so that long messages are parked in time."
)

# Messages this process has settled: their copies are not run again.
MOST_REMEMBERED = 10_000

# A message is parked when it has been held for this part of the server's limit.
PARK_PART = 1 / 3
LOOK_S = 1.0


class RabbitmqConsumer(Consumer):
    """A reader of some queues of a ``RabbitmqBroker``; its claims are its connection's."""

    def __init__(self, broker: RabbitmqBroker, queue_names: Collection[str], owner: str) -> None:
        self._broker = broker
        self.place = broker.place
        self._queues = set(queue_names)
        self._parking = Parking(broker.waiting_room, owner)
        self._park_after_s = broker.target.consumer_timeout_s * PARK_PART
        self._lanes: dict[LaneKey, Lane] = {}
        self._order: list[Lane] = []
        self._link: Link | None = None
        self._control: Any = None
        self._held: dict[str, Claim] = {}
        self._handed: dict[str, Delivery] = {}
        self._foreign = itertools.count()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._returned: OrderedDict[str, int] = OrderedDict()
        self._news: set[LaneKey] = set()
        self._refresh_at = self._look_at = 0.0
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
        for lane in tuple(self._lanes.values()):
            waiting = len(lane.buffer)
            ready, claimed = sizes.get(lane.key.queue_name, QueueSize(0, 0))
            claimed += max(0, len(lane.outstanding) - waiting)
            sizes[lane.key.queue_name] = QueueSize(ready + waiting, claimed)
        return sizes

    @property
    def is_connected(self) -> bool:
        """Whether RabbitMQ counts it among the consumers."""
        return self._link is not None and self._control is not None

    # ---- fetching --------------------------------------------------------------

    def set_queues(self, queue_names: Collection[str]) -> None:
        self._queues = set(queue_names)
        self._refresh_at = 0.0

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
            eligible = self._eligible(below)
            expects = self._ask(eligible, limit)
            ready = self._count(eligible, limit)
            over = self._woken or now >= deadline or (ready and not expects)
            if over or (ready and ready >= limit > 0):
                found = self._take(eligible, limit)
                self._let_go(eligible, limit - len(found), now)
                return found
            surplus = self._let_go(eligible, limit, now)
            link.step(min(deadline - now, HOLD_S if surplus else deadline - now))

    def _eligible(self, below: int | None) -> list[Lane]:
        if below is None:
            return self._order
        return [lane for lane in self._order if lane.key.priority < below]

    def _ask(self, lanes: Sequence[Lane], limit: int) -> bool:
        """
        Ask the most urgent lane that may have something; return whether to wait for its answer.
        """
        for lane in lanes:
            if limit <= 0:
                return False
            if lane.channel is None:
                continue
            if not lane.is_ready or lane.asked:
                return True
            if lane.buffer:
                limit -= len(lane.buffer)
                if not lane.is_empty:
                    return False
            elif lane.remaining <= 0:
                lane.open_grant(limit)
                return True
            elif not lane.is_empty and lane is not lanes[-1]:
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
                    if self._hand_out(delivery, now):
                        found.append(delivery)
        for lane in taken_from:
            self._move_back(lane)
        return found

    def _hand_out(self, delivery: Delivery, now: float) -> bool:
        claim: Claim = delivery.receipt
        if self._is_repeated(claim):
            return False
        claim.since = now
        claim.number = claim.number or f"?{next(self._foreign)}"
        self._held[claim.number] = claim
        self._handed[claim.number] = delivery
        return True

    def _move_back(self, lane: Lane) -> None:
        """Let queues of one priority take turns."""
        if len(self._order) > 1:
            self._order.remove(lane)
            self._order.append(lane)
            self._order.sort(key=_by_priority)

    def _let_go(self, eligible: Collection[Lane], wanted: int, now: float) -> bool:
        """Give back what nobody asked for in a while; return whether there is such."""
        surplus = False
        for lane in self._order:
            demand = max(0, wanted) if lane in eligible else 0
            if not lane.buffer and lane.remaining <= 2 * demand:
                lane.idle_since = None
                continue
            surplus = True
            if lane.idle_since is None:
                lane.idle_since = now
            elif now - lane.idle_since >= HOLD_S:
                self._return(lane)
        return surplus

    def _return(self, lane: Lane) -> None:
        lane.idle_since = None
        for delivery in lane.buffer:
            self._note_returned(delivery.receipt)
        if lane.buffer:
            lane.give_back_buffer()
        else:
            lane.close_grant()

    # ---- what comes in ---------------------------------------------------------

    def _receive(self, claim: Claim, method: Any, properties: Any, body: bytes) -> None:
        if properties.app_id == APP_ID:
            claim.number = properties.correlation_id or ""
        headers = properties.headers
        if headers:
            claim.deliveries = headers.get("x-delivery-count") or 0
        if self._is_repeated(claim):
            return
        key = claim.lane.key
        claim.is_suspect = self._is_suspect(claim, method) or MARK in body
        claim.lane.buffer.append(
            Delivery(
                body,
                queue_name=key.queue_name,
                priority=key.priority,
                receipt=claim,
                redelivered=claim.is_suspect,
            )
        )

    def _is_repeated(self, claim: Claim) -> bool:
        """Deal with a copy of what this process runs or has run."""
        if not claim.number:
            return False
        held = self._held.get(claim.number)
        if held is None:
            if claim.number in self._done:
                claim.lane.ack([claim.tag])
                return True
            return False
        if held.is_parked:
            claim.lane.ack([claim.tag])
        elif held.is_good:
            claim.twin, held.twin = held.twin, claim
        else:
            # The connection was lost while it ran; it is settled on this one.
            held.move_to(claim)
        return True

    def _is_suspect(self, claim: Claim, method: Any) -> bool:
        """Whether it was delivered before, and not only put back by this process."""
        if not method.redelivered:
            return False
        returned = self._returned.pop(claim.number, None)
        return returned is None or not 0 < claim.deliveries <= returned

    def _note_returned(self, claim: Claim) -> None:
        # Who was a suspect stays one, also for the process that put it back.
        if claim.number and not claim.is_suspect:
            _remember(self._returned, claim.number, claim.deliveries + 1)

    # ---- settling --------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        parked, unparked = self._part(deliveries)
        if parked:
            self._parking.forget(parked)
        tags: dict[Lane, set[int]] = defaultdict(set)
        for claim in _with_twins(each.receipt for each in unparked):
            if claim.is_good:
                tags[claim.lane].add(claim.tag)
        for delivery in deliveries:
            claim = delivery.receipt
            if self._held.pop(claim.number, None) is not None:
                self._handed.pop(claim.number, None)
                _remember(self._done, claim.number, None)
        if tags:
            self._write(Lane.ack, tags)

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        parked, unparked = self._part(deliveries)
        if parked:
            self._parking.give_back(parked)
        tags: dict[Lane, set[int]] = defaultdict(set)
        for delivery in deliveries:
            self._held.pop(delivery.receipt.number, None)
            self._handed.pop(delivery.receipt.number, None)
        for claim in _with_twins(each.receipt for each in unparked):
            if claim.is_good:
                self._note_returned(claim)
                tags[claim.lane].add(claim.tag)
        if tags:
            self._write(Lane.give_back, tags)

    def _part(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        parked = [each for each in deliveries if each.receipt.is_parked]
        return parked, [each for each in deliveries if not each.receipt.is_parked]

    def _write(
        self, write: Callable[[Lane, Collection[int]], None], tags: Mapping[Lane, Collection[int]]
    ) -> None:
        """Send frames; if the connection ends meanwhile, RabbitMQ delivers again by itself."""
        link = self._link
        if link is None:
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
            self._link = Link(self._broker.target)
            self._refresh_at = 0.0
            self._control = self._link.open_channel(self._on_control_closed, self._on_control)
            self._link.run(lambda: self._control is None or self._is_listening, SETUP_S)
            self._refresh(self._link, time.monotonic())
            self._link.run(self._is_set_up, SETUP_S)
            if self._woken:
                self._link.wake()
        return self._link

    _is_listening = False

    def _on_control(self, channel: Any) -> None:
        topology = self._broker.topology

        def on_queue(frame: Any) -> None:
            name = frame.method.queue
            channel.queue_bind(name, topology.control_name, callback=_ignore)
            channel.basic_consume(
                name, self._on_news, auto_ack=True, callback=lambda frame: self._listen()
            )

        channel.exchange_declare(**topology.control_declaration(), callback=_ignore)
        channel.queue_declare(**topology.declaration(topology.roll_name), callback=_ignore)
        channel.basic_consume(topology.roll_name, _ignore, callback=_ignore)
        channel.queue_declare("", exclusive=True, callback=on_queue)

    def _listen(self) -> None:
        self._is_listening = True

    def _on_control_closed(self, channel: Any, error: Exception) -> None:
        if channel is self._control:
            self._control = None
            self._is_listening = False

    def _is_set_up(self) -> bool:
        return all(lane.is_ready or lane.channel is None for lane in self._order)

    def _lose(self) -> None:
        link, self._link = self._link, None
        self._control = None
        self._is_listening = False
        for lane in self._lanes.values():
            lane.forget()
            lane.open_at = 0.0
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
        self._held.clear()
        self._handed.clear()

    # ---- lanes -----------------------------------------------------------------

    def _tend(self, link: Link, now: float) -> None:
        if now >= self._refresh_at or self._news:
            self._refresh(link, now)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._park(now)
            self._parking.renew()
        for lane in self._order:
            if lane.channel is None and now >= lane.open_at:
                self._reopen(link, lane, now)

    def _refresh(self, link: Link, now: float) -> None:
        """Find out which lanes there are, and open those that are new."""
        news, self._news = self._news, set()
        if now >= self._refresh_at:
            news |= self._find_lanes()
            self._refresh_at = now + REFRESH_S
            self._control_again(link)
        for key in news:
            if key not in self._lanes:
                self._lanes[key] = Lane(key, self._broker.topology, self._receive)
        read = [lane for lane in self._lanes.values() if lane.key.queue_name in self._queues]
        for lane in self._order:
            if lane not in read and lane.channel is not None and lane.is_ready:
                self._return(lane)
        kept = [lane for lane in self._order if lane in read]
        self._order = kept + [lane for lane in read if lane not in kept]
        self._order.sort(key=_by_priority)
        for lane in self._order:
            if lane.channel is None and now >= lane.open_at:
                self._reopen(link, lane, now)

    def _control_again(self, link: Link) -> None:
        if self._control is None:
            self._control = link.open_channel(self._on_control_closed, self._on_control)

    def _find_lanes(self) -> set[LaneKey]:
        mine = {
            LaneKey(actor.priority, actor.queue_name)
            for actor in registry.actors().values()
            if actor.queue_name in self._queues
        }
        book = self._broker.lanes
        book.add(mine)
        return mine | book.find(self._queues)

    def _reopen(self, link: Link, lane: Lane, now: float) -> None:
        if lane.lost is not None:
            level = logging.ERROR if lane.trouble else logging.WARNING
            reason = lane.trouble or describe(lane.lost)
            if "acknowledgement" in str(reason):
                reason = f"{reason} {TIMEOUT_HINT}"
            logger.log(level, "Lost queue %r: %s", lane.name, reason)
            lane.lost = None
            if lane.trouble and all(each.trouble for each in self._order):
                raise lane.trouble
        lane.open_at = now + (REOPEN_TROUBLED_S if lane.trouble else REOPEN_S)
        lane.open(link)

    def _on_news(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        try:
            news = json.loads(body)
            if news.get("lane"):
                key = LaneKey(*news["lane"])
                if key.queue_name in self._queues:
                    self._news.add(key)
            elif news.get("census") and news["census"] != self._broker.process:
                sizes = {"process": self._broker.process, "sizes": self.sizes()}
                self._broker.publisher.reply(properties.reply_to, json.dumps(sizes).encode())
        except (ValueError, TypeError, AttributeError):
            logger.warning("Heard something on %r that is no news", channel)

    # ---- what runs for long ----------------------------------------------------

    def _park(self, now: float) -> None:
        before = now - self._park_after_s
        old = []
        for number, claim in self._held.items():
            if claim.since > before:
                break
            if not claim.is_parked and claim.is_good:
                old.append(self._handed[number])
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


def _with_twins(claims: Iterable[Claim]) -> Iterator[Claim]:
    for claim in claims:
        each: Claim | None = claim
        while each is not None:
            yield each
            each = each.twin


def _remember(memory: OrderedDict[str, Any], number: str, value: Any) -> None:
    memory[number] = value
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)


def _by_priority(lane: Lane) -> int:
    return lane.key.priority


def _ignore(*args: Any) -> None:
    """Be a callback."""
