"""
The claimed messages of a process that no thread has begun, the most urgent first.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Collection, Sequence
from queue import SimpleQueue

from .delivery import Delivery


class WorkHeap:
    """
    A priority queue from one I/O thread to many worker threads.

    A ``SimpleQueue`` counts what is there and wakes a thread, a heap knows the order;
    ``queue.PriorityQueue`` does the same at many times the price.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Delivery]] = []
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._closed = False

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """
        Add deliveries; those of one priority leave in the order they came.

        Returns:
            Those that came too late: the heap is closed.
        """
        with self._lock:
            if self._closed:
                return list(deliveries)
            for delivery in deliveries:
                heapq.heappush(self._heap, (delivery.priority, next(self._order), delivery))
        # A token that finds no delivery is passed over: somebody took it out meanwhile.
        for _ in deliveries:
            self._tokens.put(True)
        return []

    def pop(self) -> Delivery | None:
        """Wait for the most urgent delivery; ``None`` when the heap is closed."""
        while True:
            self._tokens.get()
            with self._lock:
                if self._heap:
                    return heapq.heappop(self._heap)[2]
                if self._closed:
                    # For the next thread that waits.
                    self._tokens.put(True)
                    return None

    def worst_priority(self) -> int | None:
        """Return the largest priority number in the heap, ``None`` if it is empty."""
        with self._lock:
            return max((entry[0] for entry in self._heap), default=None)

    def take_out(self, queue_names: Collection[str]) -> list[Delivery]:
        """Take out what came from these queues and was not begun."""
        with self._lock:
            taken = [entry[2] for entry in self._heap if entry[2].queue_name in queue_names]
            self._heap = [e for e in self._heap if e[2].queue_name not in queue_names]
            heapq.heapify(self._heap)
        return taken

    def close(self) -> list[Delivery]:
        """Let all threads go that wait or come, and return what was not begun."""
        return self._empty(close=True)

    def clear(self) -> list[Delivery]:
        """Take everything out that was not begun."""
        return self._empty(close=False)

    def _empty(self, *, close: bool) -> list[Delivery]:
        with self._lock:
            entries, self._heap = self._heap, []
            self._closed = self._closed or close
        if close:
            self._tokens.put(True)
        return [entry[2] for entry in sorted(entries, key=lambda entry: entry[:2])]
