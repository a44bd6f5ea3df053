"""
The floor: what the clients and the servers can do when there is no engine at all.

A process has one I/O thread, which fetches in batches and acknowledges in batches what is done,
and eight threads that decode a message and call the function. It is as durable as the engine: a
message is gone only after it ran. All else is left out: no retry, no limit, no claim that expires.

    python -m tests.benchmarks.speed.engines.with_floor
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from tests.benchmarks.speed.bodies import run as body

from . import _servers
from ._floors import FLOORS, Floor

# A connection of pika or of sqlite3 belongs to one thread.
SENDS_IN_THREADS = False
THREADS = int(os.environ.get("BENCHMARK_THREADS", "8"))
BATCH = 100
IDLE_S = 0.001

floor: Floor = FLOORS[_servers.URL.partition(":")[0]](_servers.URL)


def prepare() -> None:
    floor.prepare()


def send(kind: str, number: int) -> None:
    send_batch([(kind, number)])


def send_batch(calls: Sequence[tuple[str, int]]) -> None:
    floor.send([json.dumps({"name": "run", "args": call}).encode() for call in calls])


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready: SimpleQueue[tuple[Any, bytes]] = SimpleQueue()
    done: deque[Any] = deque()
    for _ in range(THREADS):
        threading.Thread(target=_call, args=(ready, done), daemon=True).start()
    held = 0
    while not stop.is_set():
        finished = [done.popleft() for _ in range(len(done))]
        if finished:
            floor.settle(finished)
            held -= len(finished)
        fetched = floor.fetch(BATCH) if held < BATCH else []
        held += len(fetched)
        for each in fetched:
            ready.put(each)
        if not finished and not fetched:
            time.sleep(IDLE_S)


def _call(ready: SimpleQueue[tuple[Any, bytes]], done: deque[Any]) -> None:
    while True:
        receipt, message = ready.get()
        body(*json.loads(message)["args"])
        done.append(receipt)


if __name__ == "__main__":
    main()
