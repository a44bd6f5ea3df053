"""
What one consumer has in hand of RabbitMQ, and what it remembers of what it let go.

RabbitMQ delivers again whatever was claimed on a connection that is gone, even if it still
runs here or has just been done here. Messages are told apart by the number they were
published under.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django_actors.delivery import Delivery

from .rabbitmq_lane import Claim, Lane

# How many messages are remembered that this process has settled, or has put back.
MOST_REMEMBERED = 10_000

Tags = Mapping[Lane, set[int]]


class Claims:
    """The messages a consumer has handed out, settled and put back."""

    def __init__(self) -> None:
        self._held: dict[str, Delivery] = {}
        self._foreign = itertools.count()
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._returned: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    # ---- what comes in ---------------------------------------------------------

    def is_repeated(self, claim: Claim) -> bool:
        """Deal with a copy of what this process runs or has run; return whether it is one."""
        if not claim.number:
            return False
        delivery = self._held.get(claim.number)
        if delivery is not None:
            self._deal_with_copy(delivery.receipt, claim)
            return True
        if claim.number in self._settled:
            claim.lane.ack([claim.tag])
            return True
        return False

    def _deal_with_copy(self, held: Claim, copy: Claim) -> None:
        if held.is_parked:
            copy.lane.ack([copy.tag])
        elif held.is_good:
            copy.twin, held.twin = held.twin, copy
        else:
            # The connection was lost while it ran; it is settled on this one.
            held.move_to(copy)

    def is_suspect(self, claim: Claim) -> bool:
        """Return whether it was delivered before, and not only put back by this process."""
        if not claim.is_redelivered:
            return False
        returned = self._returned.pop(claim.number, None)
        return returned is None or not 0 < claim.deliveries <= returned

    # ---- what is in hand -------------------------------------------------------

    def hold(self, delivery: Delivery, now: float) -> bool:
        """Note that a message is handed out; return False for a copy, which is not."""
        claim: Claim = delivery.receipt
        if self.is_repeated(claim):
            return False
        claim.since = now
        claim.number = claim.number or f"?{next(self._foreign)}"
        self._held[claim.number] = delivery
        return True

    def held_since(self, before: float) -> list[Delivery]:
        """Return what was handed out before a moment, and could still be acknowledged."""
        old = itertools.takewhile(lambda each: each.receipt.since <= before, self._held.values())
        return [each for each in old if not each.receipt.is_parked and each.receipt.is_good]

    def clear(self) -> None:
        """Forget what is in hand."""
        self._held.clear()

    # ---- what is let go --------------------------------------------------------

    def settle(self, deliveries: Sequence[Delivery]) -> Tags:
        """Forget messages that are done; return what to acknowledge of them."""
        tags = _good_tags(deliveries)
        for delivery in deliveries:
            number = delivery.receipt.number
            if self._held.pop(number, None) is not None:
                _remember(self._settled, number, None)
        return tags

    def let_go(self, deliveries: Sequence[Delivery]) -> Tags:
        """Forget messages that are put back; return what to give back of them."""
        for delivery in deliveries:
            self._held.pop(delivery.receipt.number, None)
        for claim in _with_twins(deliveries):
            if claim.is_good:
                self.note_returned(claim)
        return _good_tags(deliveries)

    def note_returned(self, claim: Claim) -> None:
        """Remember that this process puts a message back, so that it is no suspect for that."""
        # Who was a suspect stays one, also for the process that put it back.
        if claim.number and not claim.is_suspect:
            _remember(self._returned, claim.number, claim.deliveries + 1)


def _good_tags(deliveries: Sequence[Delivery]) -> Tags:
    tags: dict[Lane, set[int]] = defaultdict(set)
    for claim in _with_twins(deliveries):
        if claim.is_good:
            tags[claim.lane].add(claim.tag)
    return tags


def _with_twins(deliveries: Sequence[Delivery]) -> Iterator[Claim]:
    for delivery in deliveries:
        # What is parked was acknowledged when its row was written.
        claim: Claim | None = None if delivery.receipt.is_parked else delivery.receipt
        while claim is not None:
            yield claim
            claim = claim.twin


def _remember(memory: OrderedDict[str, Any], number: str, value: Any) -> None:
    memory[number] = value
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)
