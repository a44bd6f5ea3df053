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
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks.speed.bodies import kind_of

BATCH = 100
TIMEOUT_S = 120
Call = tuple[str, int]


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

    def gates(self, count: int) -> None:
        for number in range(count):
            self._send("gate", number)

    def fill(self, count: int, kind: str = "") -> None:
        """Send all messages of a run, as fast as the engine can."""
        calls = [(kind or kind_of(number, count), number) for number in range(count)]
        if self._send_batch is None:
            for call in calls:
                self._send(*call)
        else:
            self._in_batches(calls, self._send_batch)

    def enqueue(self, count: int) -> float:
        """Send one by one; return how many seconds it took."""
        began = time.perf_counter()
        for number in range(count):
            self._send("noop", number)
        return time.perf_counter() - began

    def enqueue_batches(self, count: int) -> float | None:
        """Send in batches of 100; ``None`` if the engine has no batches."""
        if self._send_batch is None:
            return None
        calls = [("noop", number) for number in range(count)]
        began = time.perf_counter()
        self._in_batches(calls, self._send_batch)
        return time.perf_counter() - began

    def trickle(self, count: int, pause_s: float) -> list[float]:
        """Send one message after the other with pauses; return when each was sent."""
        times = []
        for number in range(count):
            # A random length, so that no worker that polls is met at always the same moment.
            time.sleep(pause_s * (0.5 + random.random()))
            times.append(time.monotonic())
            self._send("mark", number)
        return times

    @staticmethod
    def _in_batches(calls: Sequence[Call], send_batch: Callable[[Sequence[Call]], None]) -> None:
        for start in range(0, len(calls), BATCH):
            send_batch(calls[start : start + BATCH])


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
