"""
Messages that come once too often, until every death before they came is counted.

RabbitMQ delivers at once what a dead process held, perhaps before anybody could count that
death; a message that kills whoever runs it would get away with more deaths than it may cause.
So it waits for a roll call. Whoever lives writes so in the roster, and the row of a dead
process goes when its death is counted: when no row is older than the message, all is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_actors import roster
from django_actors.conf import settings
from django_actors.delivery import Delivery

from .rabbitmq_lane import Claim, Lane

# How often the roster is read while something waits.
LOOK_S = 0.05

# How often the roll is called while somebody is silent.
CALL_S = 0.25

# What a process writes in the moment it dies may be dated after its death by so much.
LAST_WORDS_MS = 100


@dataclass
class _Suspect:
    """A message that waits; dated by the clock of the database once that was asked."""

    delivery: Delivery
    came_ms: int | None = None

    @property
    def claim(self) -> Claim:
        claim: Claim = self.delivery.receipt
        return claim

    def is_free(self, heard_ms: int) -> bool:
        return self.came_ms is not None and self.came_ms + LAST_WORDS_MS < heard_ms


class Quarantine:
    """
    The suspects of one consumer.

    Args:
        call_roll: Asks all consumers of the project to write that they live.
    """

    def __init__(self, owner: str, alias: str, *, call_roll: Callable[[], object]) -> None:
        self._owner = owner
        self._alias = alias
        self._call_roll = call_roll
        self._suspects: list[_Suspect] = []
        self._look_at = self._call_at = 0.0

    def __len__(self) -> int:
        return len(self._suspects)

    def concerns(self, claim: Claim) -> bool:
        """Return whether a message may have killed so many processes that the next matters."""
        # So often it was delivered at most; 0 is what a server says that does not count. One
        # death less than the limit: then it runs alone, and nobody dies beside it.
        may_have_killed = claim.deliveries or settings.CRASH_LIMIT
        return claim.is_suspect and may_have_killed >= settings.CRASH_LIMIT - 1

    def add(self, delivery: Delivery) -> None:
        """Keep a message back."""
        self._suspects.append(_Suspect(delivery))

    def count(self, lane: Lane) -> int:
        """Return how many messages of a lane wait; from any thread."""
        return sum(each.claim.lane is lane for each in self._suspects)

    def take_out(self, lane: Lane) -> list[Delivery]:
        """Return what waits of a lane, and keep it no longer."""
        self._drop_lost()
        found = [each.delivery for each in self._suspects if each.claim.lane is lane]
        self._suspects = [each for each in self._suspects if each.claim.lane is not lane]
        return found

    def release(self, now: float) -> list[Delivery]:
        """Return what need not wait any more."""
        if not self._suspects or now < self._look_at:
            return []
        self._look_at = now + LOOK_S
        self._drop_lost()
        self._date()
        heard_ms = roster.heard_of_all_since_ms(self._alias, besides=self._owner)
        found = [each.delivery for each in self._suspects if each.is_free(heard_ms)]
        self._suspects = [each for each in self._suspects if not each.is_free(heard_ms)]
        if self._suspects and now >= self._call_at:
            self._call_at = now + CALL_S
            self._call_roll()
        return found

    def _drop_lost(self) -> None:
        """Forget what came on a channel that is gone; it comes again."""
        self._suspects = [each for each in self._suspects if each.claim.is_good]

    def _date(self) -> None:
        fresh = [each for each in self._suspects if each.came_ms is None]
        if fresh:
            now_ms = roster.now_ms(self._alias)
            for each in fresh:
                each.came_ms = now_ms
