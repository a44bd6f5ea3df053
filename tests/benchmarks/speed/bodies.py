"""
What the contenders run: the same few functions for all of them.

They tell of themselves in files of the directory BENCHMARK_DIRECTORY, a line for each call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

DIRECTORY = Path(os.environ.get("BENCHMARK_DIRECTORY", "."))

HELD, OPEN, MARKS, SPENT = "held", "open", "marks", "spent"

# Of the messages of a drain, each hundredth tells when it ran, and the last ones do.
MARK_EACH = 100
LAST = 40

NAP_S = 0.01
# Some milliseconds of a core.
TURNS = 60_000


def run(kind: str, number: int) -> None:
    """Run the message *number*; this is the function that each contender makes its task."""
    if kind != "noop":
        _BODIES[kind](number)


def kind_of(number: int, count: int) -> str:
    """Return what the message *number* of a drain of *count* messages is."""
    marked = number % MARK_EACH == 0 or number >= count - LAST
    return "mark" if marked else "noop"


def count_marks(count: int) -> int:
    return sum(kind_of(number, count) == "mark" for number in range(count))


def _mark(number: int) -> None:
    # The monotonic clock is one for all processes of the machine.
    _note(MARKS, f"{number} {time.monotonic()} {os.getpid()}")


def _gate(number: int) -> None:
    """Keep a thread of the worker until the gates of that number are opened."""
    _note(f"{HELD}{number}", str(os.getpid()))
    # A named pipe: the kernel wakes all who wait when somebody opens its other end.
    os.close(os.open(DIRECTORY / f"{OPEN}{number}", os.O_RDONLY))


def _nap(number: int) -> None:
    time.sleep(NAP_S)
    _mark(number)


def _compute(number: int) -> None:
    began = time.thread_time()
    total = 0
    for turn in range(TURNS):
        total += turn * turn % 7
    _note(SPENT, str(time.thread_time() - began))
    _mark(number)


def _note(name: str, line: str) -> None:
    file = os.open(DIRECTORY / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


_BODIES: dict[str, Callable[[int], None]] = {
    "mark": _mark,
    "gate": _gate,
    "nap": _nap,
    "compute": _compute,
}
