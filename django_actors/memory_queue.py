"""
One queue of the stub broker: what is ready in it, and what is claimed.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from .journal import Journal
from .message import Envelope

# Priority, number, whether it was delivered before, and the message.
Entry = tuple[int, int, bool, Envelope]


class MemoryQueue:
    """The ready messages of a queue, and those an owner has claimed."""

    def __init__(self, journal: Journal) -> None:
        self.ready: list[Entry] = []
        self.claimed: dict[int, tuple[str, Entry]] = {}
        self._journal = journal

    def __len__(self) -> int:
        return sum(map(self._is_visible, self.ready))

    def _is_visible(self, entry: Entry) -> bool:
        return self._journal.is_visible(entry[3].message_id)

    def first(self) -> Entry | None:
        """Return what runs next, of what the calling thread sees."""
        if not self.ready or self._is_visible(self.ready[0]):
            return self.ready[0] if self.ready else None
        return min(filter(self._is_visible, self.ready), default=None)

    def claim(self, entry: Entry, owner: str) -> None:
        """Take out what ``first()`` returned."""
        if entry is self.ready[0]:
            heapq.heappop(self.ready)
        else:
            self.ready.remove(entry)
            heapq.heapify(self.ready)
        self.claimed[entry[1]] = owner, entry

    def erase(self, number: int, owner: str) -> None:
        """Forget a message that *owner* has claimed, if it still holds it."""
        if self._holds(number, owner):
            del self.claimed[number]

    def give_back(self, number: int, owner: str, *, redelivered: bool = False) -> None:
        """Make a message ready again that *owner* has claimed, if it still holds it."""
        if self._holds(number, owner):
            _, (priority, _, before, envelope) = self.claimed.pop(number)
            heapq.heappush(self.ready, (priority, number, before or redelivered, envelope))

    def release(self, owner: str, done: Collection[int]) -> None:
        """Give back all that *owner* has claimed, but for what is *done*."""
        for number in [number for number in self.claimed if self._holds(number, owner)]:
            if number in done:
                del self.claimed[number]
            else:
                self.give_back(number, owner, redelivered=True)

    def _holds(self, number: int, owner: str) -> bool:
        return number in self.claimed and self.claimed[number][0] == owner
