"""
What is measured: each workload runs one contender once, and returns its figures by name.

A drain begins with a message in every slot that waits: all workers are there, and the queue is
full, when they are let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from . import trees
from .bodies import count_marks
from .contenders import SLOTS
from .contest import Contest

# A drain of fewer says more about its ends than about its middle.
FEWEST = 200
NAP_S = 0.01
LATENCY_PAUSE_S = 0.03
IDLE_S = 3.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A column of a table: what it is called there, its unit, and how it is printed."""

    title: str
    digits: int = 0
    more_is_better: bool = True


def drain(contest: Contest, size: int) -> Figures:
    """Run messages that do nothing; the workers are up and the queue is full at the start."""
    count = max(FEWEST, round(size * contest.contender.share))
    contest.start()
    contest.hold()
    contest.ask("fill", count=count)
    before = trees.cpu_s(contest.pids)
    began = contest.open()
    ended = max(contest.marks(count_marks(count)).values())
    used = trees.cpu_s(contest.pids) - before
    return {"rate": count / (ended - began), "cpu_us": 1e6 * used / count, "count": count}


def enqueue(contest: Contest, size: int) -> Figures:
    """Send without workers, one by one and in batches of 100."""
    count = max(FEWEST, round(size / 5))
    figures = {"one_by_one": count / contest.ask("enqueue", count=count)}
    elapsed = contest.ask("enqueue_batches", count=size)
    if elapsed is not None:
        figures["batches"] = size / elapsed
    return figures


def latency(contest: Contest, size: int) -> Figures:
    """Send one message after the other to idle workers."""
    count = max(50, size // 100)
    contest.start()
    contest.hold()
    contest.open()
    # The last of the gates has to be acknowledged, and the workers become idle.
    time.sleep(0.5)
    sent = contest.ask("trickle", count=count, pause_s=LATENCY_PAUSE_S)
    marks = contest.marks(count)
    waits = sorted(1_000 * (marks[number] - moment) for number, moment in enumerate(sent))
    return {"p50": waits[count // 2], "p99": waits[min(count - 1, count * 99 // 100)]}


def waiting(contest: Contest, size: int) -> Figures:
    """Run messages that wait 10 ms each: what is lost of the time that the slots could wait."""
    count = max(10 * SLOTS, size // 10)
    contest.start()
    contest.hold()
    contest.ask("fill", count=count, kind="nap")
    began = contest.open()
    ended = max(contest.marks(count).values())
    return {"share": 100 * (count / contest.contender.slots * NAP_S) / (ended - began)}


def idle(contest: Contest, size: int) -> Figures:
    """Start workers with a message in the queue; then look at what they use when idle."""
    contest.ask("fill", count=1, kind="mark")
    began = time.monotonic()
    contest.start()
    boot_s = contest.marks(1)[0] - began
    # The other processes of the tree come up, too.
    time.sleep(IDLE_S)
    before = trees.cpu_s(contest.pids)
    time.sleep(IDLE_S)
    cpu = trees.cpu_s(contest.pids) - before
    return {
        "boot_s": boot_s,
        "memory_mb": trees.memory_mb(contest.pids),
        "idle_percent": 100 * cpu / IDLE_S,
    }


@dataclass(frozen=True)
class Workload:
    title: str
    run: Callable[[Contest, int], Figures]
    figures: dict[str, Figure]
    has_floor: bool = True


WORKLOADS = {
    "drain": Workload(
        "Drain of no-op messages",
        drain,
        {
            "rate": Figure("messages a second"),
            "cpu_us": Figure("worker CPU, µs a message", more_is_better=False),
        },
    ),
    "enqueue": Workload(
        "Enqueue",
        enqueue,
        {
            "one_by_one": Figure("one by one, a second"),
            "batches": Figure("in batches of 100, a second"),
        },
    ),
    "latency": Workload(
        "Latency of an idle worker",
        latency,
        {
            "p50": Figure("p50, ms", digits=1, more_is_better=False),
            "p99": Figure("p99, ms", digits=1, more_is_better=False),
        },
        has_floor=False,
    ),
    "waiting": Workload(
        "Messages that wait 10 ms",
        waiting,
        {"share": Figure("% of the ideal", digits=1)},
    ),
    "idle": Workload(
        "Idle workers",
        idle,
        {
            "boot_s": Figure("boot to first message, s", digits=2, more_is_better=False),
            "memory_mb": Figure("memory of the tree, MB", more_is_better=False),
            "idle_percent": Figure("idle, % of a core", digits=1, more_is_better=False),
        },
        has_floor=False,
    ),
}
