"""
The lanes a consumer reads: which there are, in which order, and opened again when lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from django_actors.registry import registry

from .rabbitmq_lane import Lane, Receive
from .rabbitmq_link import describe
from .rabbitmq_topology import LaneKey

if TYPE_CHECKING:
    from .rabbitmq import RabbitmqBroker
    from .rabbitmq_link import Link

logger = logging.getLogger(__name__)

# Other processes tell of new lanes; this is for what they could not tell.
REFRESH_S = 10.0

# How soon a lane is opened again that was lost.
REOPEN_S = 0.25
REOPEN_TROUBLED_S = 5.0

TIMEOUT_HINT = (
    "The server's consumer_timeout is shorter than this broker was told: name it in the URL "
    "(?consumer_timeout=..., in milliseconds), so that long messages are parked in time."
)


class Lanes:
    """
    The lanes of some queues, the most urgent first.

    Args:
        receive: Called with what comes in; see ``Lane``.

        leave: Called with a lane that is not read any more.

        note_round_trip: Called with the seconds that an answer took.
    """

    def __init__(
        self,
        broker: RabbitmqBroker,
        queue_names: Collection[str],
        *,
        receive: Receive,
        leave: Callable[[Lane], object],
        note_round_trip: Callable[[float], object],
    ) -> None:
        self._book = broker.lanes
        self._topology = broker.topology
        self._queues = set(queue_names)
        self._receive = receive
        self._leave = leave
        self._note_round_trip = note_round_trip
        self._all: dict[LaneKey, Lane] = {}
        self._order: list[Lane] = []
        self._news: set[LaneKey] = set()
        self._refresh_at = 0.0

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._order)

    def all(self) -> tuple[Lane, ...]:
        """Return all lanes that were ever read; from any thread."""
        return tuple(self._all.values())

    def above(self, priority: int | None) -> list[Lane]:
        """Return the lanes that are more urgent than *priority*; all where it is ``None``."""
        if priority is None:
            return self._order
        return [lane for lane in self._order if lane.key.priority < priority]

    @property
    def are_set_up(self) -> bool:
        """Whether nothing more is known that is being opened."""
        return all(lane.is_ready or lane.channel is None for lane in self._order)

    @property
    def are_ripe(self) -> bool:
        """Whether none is just being made."""
        return all(lane.is_ripe for lane in self._order)

    @property
    def hold_claims(self) -> bool:
        """Whether anything would be delivered again if the connection ended."""
        return any(lane.outstanding for lane in self._all.values())

    # ---- which there are -------------------------------------------------------

    def set_queues(self, queue_names: Collection[str]) -> None:
        """Read these queues from now on."""
        self._queues = set(queue_names)
        self._refresh_at = 0.0

    def note(self, key: LaneKey) -> None:
        """Hear of a lane; it is opened with the next ``tend()``."""
        if key.queue_name in self._queues:
            self._news.add(key)

    def tend(self, link: Link, now: float) -> None:
        """Open what is new and what was lost, leave what is not to be read."""
        if now >= self._refresh_at or self._news:
            self._refresh(now)
        for lane in self._order:
            if lane.channel is None and now >= lane.open_at:
                self._open(link, lane, now)

    def forget(self) -> None:
        """Forget all channels, because the connection is gone."""
        self._refresh_at = 0.0
        for lane in self._all.values():
            lane.forget()
            lane.open_at = 0.0

    def _refresh(self, now: float) -> None:
        news, self._news = self._news, set()
        if now >= self._refresh_at:
            news |= self._find()
            self._refresh_at = now + REFRESH_S
        for key in news - self._all.keys():
            self._all[key] = Lane(key, self._topology, self._receive, self._note_round_trip)
        read = [lane for lane in self._all.values() if lane.key.queue_name in self._queues]
        for lane in self._order:
            if lane not in read and lane.channel is not None and lane.is_ready:
                self._leave(lane)
        kept = [lane for lane in self._order if lane in read]
        self._order = kept + [lane for lane in read if lane not in kept]
        self._order.sort(key=_by_priority)

    def _find(self) -> set[LaneKey]:
        mine = {
            LaneKey(actor.priority, actor.queue_name)
            for actor in registry.actors().values()
            if actor.queue_name in self._queues
        }
        self._book.add(mine)
        return mine | self._book.find(self._queues)

    # ---- in which order --------------------------------------------------------

    def move_back(self, lane: Lane) -> None:
        """Let queues of one priority take turns."""
        if len(self._order) > 1:
            self._order.remove(lane)
            self._order.append(lane)
            self._order.sort(key=_by_priority)

    # ---- opening ---------------------------------------------------------------

    def _open(self, link: Link, lane: Lane, now: float) -> None:
        if lane.lost is not None:
            self._tell_loss(lane)
            if lane.trouble and all(each.trouble for each in self._order):
                raise lane.trouble
        lane.open_at = now + (REOPEN_TROUBLED_S if lane.trouble else REOPEN_S)
        lane.open(link)

    def _tell_loss(self, lane: Lane) -> None:
        level = logging.ERROR if lane.trouble else logging.WARNING
        reason = lane.trouble or describe(lane.lost)
        if "acknowledgement" in str(reason):
            reason = f"{reason} {TIMEOUT_HINT}"
        logger.log(level, "Lost queue %r: %s", lane.name, reason)
        lane.lost = None


def _by_priority(lane: Lane) -> int:
    return lane.key.priority
