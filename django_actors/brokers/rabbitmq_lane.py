"""
A lane as a consumer reads it: a channel, what came in on it, and how much may still come.

RabbitMQ pushes. How much it may push is granted: a *grant* is a subscription with a prefetch
of exactly what somebody asked for. What was pushed and acknowledged may be followed by more, so
a busy lane needs another grant only when more is asked for than before; a lane nobody asks for
loses all of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pika.exceptions import ChannelClosedByBroker

from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable

from .rabbitmq_topology import LaneKey, Topology, explain_refusal

if TYPE_CHECKING:
    from .rabbitmq_link import Link

PRECONDITION_FAILED = 406
DECLARE_PAUSE_S = 0.3

# RabbitMQ says that a quorum queue is there while another connection is still making it, and
# ends the connection (541) of who reads it then. One that has messages is made, and so is one
# that could be read once.
RIPEN_S = 1.0
PROBE_S = 0.05

# A busy lane comes to its size in a few steps. Each grant is a consumer to the server.
MOST_GRANTS = 4


class Grant:
    """
    A subscription of a lane.

    Attributes:
        size: How many messages of it may be unacknowledged.

        used: How many are.
    """

    __slots__ = ("size", "tag", "used")

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.tag = ""


class Claim:
    """
    The receipt of a message: what it takes to acknowledge it.

    Attributes:
        channel: Where it came in; an acknowledgement on any other would hit another message.

        number: Tells the copies of one message from others; empty if it is not ours.

        twin: A second copy that came while this one was held; ``None`` without.

        deliveries: How often RabbitMQ had delivered it before, if it says so.

        since: ``time.monotonic()`` when it was handed out.

        is_redelivered: Whether RabbitMQ says that it was delivered before.

        is_parked: Whether the message is a row of the waiting room now.

        is_suspect: Whether it was delivered before, and not only put back.
    """

    __slots__ = (
        "channel",
        "deliveries",
        "grant",
        "is_parked",
        "is_redelivered",
        "is_suspect",
        "lane",
        "number",
        "since",
        "tag",
        "twin",
    )

    def __init__(self, lane: Lane, grant: Grant, tag: int) -> None:
        self.lane = lane
        self.channel = lane.channel
        self.grant = grant
        self.tag = tag
        self.number = ""
        self.twin: Claim | None = None
        self.deliveries = 0
        self.since = 0.0
        self.is_redelivered = self.is_parked = self.is_suspect = False

    @property
    def is_good(self) -> bool:
        """Whether RabbitMQ still takes this message for ours."""
        return self.channel is self.lane.channel and self.tag in self.lane.outstanding

    def move_to(self, other: Claim) -> None:
        """Take the place of *other*, a later delivery of the same message."""
        self.lane, self.channel = other.lane, other.channel
        self.grant, self.tag = other.grant, other.tag
        self.lane.outstanding[self.tag] = self


Receive = Callable[[Claim, Any, bytes], object]


class Lane:
    """
    One physical queue.

    Args:
        receive: Called with the claim, the properties and the body of each message.

        note_round_trip: Called with the seconds that an answer took.

    Attributes:
        buffer: What came in and was not handed out.

        outstanding: What came in and was not acknowledged, by delivery tag.

        is_empty: Whether RabbitMQ has said that nothing is left.

        trouble: Why it cannot be read; ``None`` if it can.

        idle_since: Since when more was held or granted than anybody asked for.

        acked: How many messages were acknowledged since then.
    """

    def __init__(
        self,
        key: LaneKey,
        topology: Topology,
        receive: Receive,
        note_round_trip: Callable[[float], object],
    ) -> None:
        self.key = key
        self.name = topology.lane_name(key)
        self._topology = topology
        self._receive = receive
        self._note_round_trip = note_round_trip
        self._asked_at = 0.0
        self.channel: Any = None
        self.buffer: deque[Delivery] = deque()
        self.outstanding: dict[int, Claim] = {}
        self.grants: list[Grant] = []
        self.is_ready = self.is_empty = False
        self.asked = 0
        self._closing = 0
        self._returning: list[int] = []
        self.trouble: BrokerUnavailable | None = None
        self.lost: Exception | None = None
        self.open_at = self.ripe_at = self._probe_at = 0.0
        self.idle_since: float | None = None
        self.acked = 0

    # ---- the channel -----------------------------------------------------------

    def open(self, link: Link) -> None:
        """Open the channel and declare the queue; ``is_ready`` says when that is done."""
        self.channel = link.open_channel(self._on_close, self._on_open)

    def _on_open(self, channel: Any) -> None:
        channel.add_on_cancel_callback(self._on_cancel)
        topology = self._topology
        channel.queue_declare(**topology.declaration(self.name), callback=self._on_there)
        channel.queue_declare(
            **topology.declaration(topology.dead_name), callback=self._on_declared
        )

    def _on_there(self, frame: Any) -> None:
        self.ripe_at = time.monotonic() + RIPEN_S
        self._note_count(frame)

    def _on_declared(self, frame: Any) -> None:
        self.is_ready = True
        self.trouble = None

    def _on_cancel(self, frame: Any) -> None:
        """The queue was deleted under us: what we hold of it is gone, and it is declared again."""
        channel = self.channel
        self.forget()
        # Not at once: the other consumers of the old queue must have been told, too.
        self.open_at = time.monotonic() + DECLARE_PAUSE_S
        if channel is not None and channel.is_open:
            channel.close()

    def _on_close(self, channel: Any, error: Exception) -> None:
        if channel is not self.channel:
            return
        self.forget()
        if isinstance(error, ChannelClosedByBroker):
            self.lost = error
            if error.reply_code == PRECONDITION_FAILED and "inequivalent" in error.reply_text:
                self.trouble = explain_refusal(error)

    def forget(self) -> None:
        """Forget the channel, and with it all that was not acknowledged on it."""
        self.channel = None
        self.buffer.clear()
        self.outstanding = {}
        self.grants = []
        self.is_ready = self.is_empty = False
        self.asked = self._closing = 0
        self._returning = []
        self.idle_since = None

    # ---- grants ----------------------------------------------------------------

    @property
    def is_ripe(self) -> bool:
        """Whether the queue is surely there, and not just being made."""
        return time.monotonic() >= self.ripe_at

    @property
    def remaining(self) -> int:
        """How many messages RabbitMQ may still push."""
        return sum(grant.size - grant.used for grant in self.grants)

    def open_grant(self, size: int) -> None:
        """Have RabbitMQ push *size* messages more, and say what is left."""
        if len(self.grants) == MOST_GRANTS:
            smallest = min(self.grants, key=lambda grant: grant.size)
            self._close(smallest)
            # The room that its acknowledgements would have made is in the new one.
            size += smallest.size
        grant = Grant(min(size, 65_535))
        self.grants.append(grant)
        self.channel.basic_qos(prefetch_count=grant.size, callback=_ignore)
        grant.tag = self.channel.basic_consume(
            self.name,
            lambda channel, method, properties, body: self._on_message(
                grant, method, properties, body
            ),
            callback=self._on_granted,
        )
        self.is_empty = False
        self.ask()

    def _on_granted(self, frame: Any) -> None:
        self.ripe_at = 0.0

    def close_grants(self) -> None:
        """Have nothing more pushed; what is on its way goes back."""
        for grant in tuple(self.grants):
            self._close(grant)
        self.is_empty = False

    def _close(self, grant: Grant) -> None:
        channel = self.channel
        self._closing += 1
        self.grants.remove(grant)
        # With an answer: pika never forgets a subscription that was canceled without one.
        channel.basic_cancel(grant.tag, callback=lambda frame: self._on_grant_closed(channel))

    def _on_grant_closed(self, channel: Any) -> None:
        if channel is self.channel:
            self._closing -= 1
            self._give_back_now()

    def probe(self) -> None:
        """Ask whether a new queue has messages by now, but not too often."""
        now = time.monotonic()
        if not self.asked and now >= self._probe_at:
            self._probe_at = now + PROBE_S
            self.ask()

    def ask(self) -> None:
        """Ask RabbitMQ how many messages are left."""
        if not self.asked:
            self._asked_at = time.monotonic()
        self.asked += 1
        channel = self.channel
        channel.queue_declare(
            self.name, passive=True, callback=lambda frame: self._on_answer(channel, frame)
        )

    def _on_answer(self, channel: Any, frame: Any) -> None:
        if channel is self.channel:
            if self._asked_at:
                self._note_round_trip(time.monotonic() - self._asked_at)
                self._asked_at = 0.0
            self.asked -= 1
            self.is_empty = frame.method.message_count == 0 and self.remaining > 0
            self._note_count(frame)

    def _note_count(self, frame: Any) -> None:
        if frame.method.message_count:
            self.ripe_at = 0.0

    def _on_message(self, grant: Grant, method: Any, properties: Any, body: bytes) -> None:
        grant.used += 1
        self.is_empty = False
        claim = Claim(self, grant, method.delivery_tag)
        claim.is_redelivered = method.redelivered
        self.outstanding[claim.tag] = claim
        self._receive(claim, properties, body)

    # ---- settling --------------------------------------------------------------

    def ack(self, tags: Collection[int]) -> None:
        """Acknowledge; with one frame for all that came in before anything that is held."""
        self.acked += len(tags)
        last = 0
        for tag in self.outstanding:
            if tag not in tags:
                break
            last = tag
        if last:
            self.channel.basic_ack(last, multiple=True)
        for tag in sorted(tags):
            if tag > last:
                self.channel.basic_ack(tag)
            self._release(tag)

    def give_back(self, tags: Collection[int]) -> None:
        """Have messages delivered again, to whoever asks first."""
        # First, and until RabbitMQ has done so: with a grant they would come back to us.
        self.close_grants()
        self._returning += sorted(tags)
        self._give_back_now()

    def _give_back_now(self) -> None:
        if self._closing:
            return
        returning, self._returning = self._returning, []
        for tag in returning:
            self.channel.basic_nack(tag, requeue=True)
            self._release(tag)

    @property
    def is_settled(self) -> bool:
        """Whether everything that goes back is on its way."""
        return not self._returning

    def take_back(self, keep: int) -> list[Claim]:
        """Take out of the buffer all but the first *keep*."""
        surplus = [self.buffer.pop().receipt for _ in range(len(self.buffer) - keep)]
        return surplus[::-1]

    def _release(self, tag: int) -> None:
        claim = self.outstanding.pop(tag)
        claim.grant.used -= 1


def _ignore(*args: Any) -> None:
    """Be a callback."""
