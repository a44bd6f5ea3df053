"""
The process that sends for a contender: a command in JSON on each line in, its result out.

    python -m tests.benchmarks.speed.sender with_actors
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tests.benchmarks.speed.bodies import kind_of

BATCH = 100
# A queue is filled in larger ones where that is not measured.
FILL_BATCH = 1_000
TIMEOUT_S = 300
Call = tuple[str, int]
LateCall = tuple[str, int, float]
T = TypeVar("T")


class Sending:
    """The commands; each is a method."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._send: Callable[[str, int], None] = engine.send
        self._send_batch: Callable[[Sequence[Call]], None] | None = getattr(
            engine, "send_batch", None
        )

    def prepare(self) -> None:
        self._engine.prepare()

    def gates(self, count: int, number: int) -> None:
        for _ in range(count):
            self._send("gate", number)

    def fill(self, count: int, kind: str = "", first: int = 0) -> None:
        """Send all messages of a run, as fast as the engine can."""
        numbers = range(first, first + count)
        calls = [(kind or kind_of(number, count), number) for number in numbers]
        if self._send_batch is None or count == 1:
            for call in calls:
                self._send(*call)
        else:
            _in_batches(calls, self._send_batch, FILL_BATCH)

    def enqueue(self, count: int, threads: int = 1) -> float | None:
        """
        Send one by one, all threads together so many; return how many seconds it took.

        Returns:
            ``None`` if several threads cannot send with what the engine is.
        """
        if threads == 1:
            return _time(lambda: self._send_some(count))
        if not getattr(self._engine, "SENDS_IN_THREADS", True):
            return None
        with ThreadPoolExecutor(threads) as pool:
            # Each thread has its connection before the clock starts.
            barrier = threading.Barrier(threads)
            list(pool.map(lambda _: (self._send("noop", 0), barrier.wait()), range(threads)))
            shares = [count // threads] * threads
            return _time(lambda: list(pool.map(self._send_some, shares)))

    def _send_some(self, count: int) -> None:
        for number in range(count):
            self._send("noop", number)

    def enqueue_batches(self, count: int) -> float | None:
        """Send in batches of 100; ``None`` if the engine has no batches."""
        if self._send_batch is None:
            return None
        calls = [("noop", number) for number in range(count)]
        send_batch = self._send_batch
        return _time(lambda: _in_batches(calls, send_batch, BATCH))

    def trickle(self, count: int, pause_s: float) -> list[float]:
        """Send one message after the other with pauses; return when each was sent."""
        times = []
        for number in range(count):
            # A random length, so that no worker that polls is met at always the same moment.
            time.sleep(pause_s * (0.5 + random.random()))
            times.append(time.monotonic())
            self._send("mark", number)
        return times

    def send_later(self, count: int, lead_s: float, over_s: float) -> list[float]:
        """
        Send messages that become due one after the other over *over_s* seconds.

        Args:
            lead_s: How long from now the first one becomes due, so that all are sent by then.

        Returns:
            When each was due; when it was sent, if that was later.
        """
        clock, wall = time.monotonic(), time.time()
        delays = [lead_s + over_s * number / count for number in range(count)]
        calls = [("mark", number, wall + delay) for number, delay in enumerate(delays)]
        due: list[float] = []

        def send(some: Sequence[LateCall]) -> None:
            now = time.monotonic()
            due.extend(max(now, clock + delays[call[1]]) for call in some)
            self._engine.send_later(some)

        _in_batches(calls, send, BATCH if self._send_batch else 1)
        return due

    def fill_later(self, count: int, delay_s: float) -> None:
        """Send messages that are all due after a long time."""
        when = time.time() + delay_s
        calls = [("noop", number, when) for number in range(count)]
        _in_batches(calls, self._engine.send_later, FILL_BATCH)


def _in_batches(calls: Sequence[T], send: Callable[[Sequence[T]], None], size: int) -> None:
    for start in range(0, len(calls), size):
        send(calls[start : start + size])


def _time(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    # What a library prints must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name = sys.argv[1]
    sending = Sending(importlib.import_module(f"tests.benchmarks.speed.engines.{name}"))
    for line in sys.stdin:
        command, arguments = json.loads(line)
        # Whoever hangs ends, and is reported as one that did not run.
        signal.alarm(TIMEOUT_S)
        print(json.dumps(getattr(sending, command)(**arguments)), file=answers, flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
