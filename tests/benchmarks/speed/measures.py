"""
How it is measured: each function runs one contender once, and returns its figures by name.

A drain begins with a message in every slot that waits: all workers are there, and the queue is
full, when they are let go.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence

from . import trees
from .bodies import NAP_S, SPENT, count_marks
from .contest import Contest

# A drain of fewer says more about its ends than about its middle.
FEWEST = 200
LATENCY_PAUSE_S = 0.02
IDLE_S = 3.0
# What is due later becomes due over this time.
DUE_OVER_S = 5.0
FAR = 100_000
FAR_DELAY_S = 86_400.0
BACKLOGS = (1_000, 100_000, 1_000_000)
# The part of these that is there in a test of the benchmark itself.
PART = 1.0

Figures = dict[str, float]


def enqueue(contest: Contest, size: int) -> Figures:
    """Send without workers: one by one, from eight threads, and in batches of 100."""
    count = max(FEWEST, size // 20)
    figures = {"one_by_one": count / contest.ask("enqueue", count=count)}
    if (elapsed := contest.ask("enqueue", count=count, threads=8)) is not None:
        figures["threads"] = count / elapsed
    if (elapsed := contest.ask("enqueue_batches", count=size // 4)) is not None:
        figures["batches"] = size // 4 / elapsed
    return figures


def idle(contest: Contest, size: int) -> Figures:
    """Start workers with a message in the queue; then look at what they use when idle."""
    contest.ask("fill", count=1, kind="mark")
    began = time.monotonic()
    contest.start()
    boot_s = contest.marks(1)[0] - began
    contest.calm()
    before = trees.exact_cpu_s(contest.pids)
    time.sleep(IDLE_S)  # the measurement: what do they use in this time
    cpu = trees.exact_cpu_s(contest.pids) - before
    return {
        "boot_s": boot_s,
        "memory_mb": trees.memory_mb(contest.pids),
        "idle_percent": 100 * cpu / IDLE_S,
    }


def latency(contest: Contest, size: int) -> Figures:
    """Send one message after the other to idle workers."""
    count = max(50, size // 200)
    contest.calm()
    sent = contest.ask("trickle", count=count, pause_s=LATENCY_PAUSE_S)
    marks = contest.marks(count)
    waits = [1_000 * (marks[number] - moment) for number, moment in enumerate(sent)]
    return _percentiles(waits)


def drain(contest: Contest, size: int) -> Figures:
    """Run messages that do nothing; the workers are up and the queue is full at the start."""
    count = max(FEWEST, round(size * contest.contender.share))
    contest.hold()
    contest.ask("fill", count=count)
    return {**_run_all(contest, count), "count": count}


def _run_all(contest: Contest, count: int) -> Figures:
    before = trees.cpu_s(contest.pids)
    began = contest.open()
    ended = max(contest.marks(count_marks(count)).values())
    used = trees.cpu_s(contest.pids) - before
    return {"rate": count / (ended - began), "cpu_us": 1e6 * used / count}


def waiting(contest: Contest, size: int) -> Figures:
    """Run messages that wait 10 ms each: what is lost of the time that the slots could wait."""
    slots = contest.crew.slots
    count = max(10 * slots, round(size / 10 * _part(contest)))
    elapsed = _run_kind(contest, "nap", count)
    return {"share": 100 * (count / slots * NAP_S) / elapsed, "count": count}


def computing(contest: Contest, size: int) -> Figures:
    """Run messages that compute: what part of the cores' time is the function's own."""
    count = max(100, round(size / 40 * _part(contest)))
    elapsed = _run_kind(contest, "compute", count)
    spent_s = sum(map(float, contest.lines(SPENT)))
    cores = min(os.cpu_count() or 1, contest.crew.processes)
    return {"rate": count / elapsed, "share": 100 * spent_s / cores / elapsed, "count": count}


def _part(contest: Contest) -> float:
    # Where the function takes its time, a slow engine is not slow by as much.
    return min(1.0, 4 * contest.contender.share)


def _run_kind(contest: Contest, kind: str, count: int) -> float:
    contest.hold()
    contest.ask("fill", count=count, kind=kind)
    began = contest.open()
    return max(contest.marks(count).values()) - began


def delayed(contest: Contest, size: int) -> Figures:
    """Send messages that become due over five seconds; how late do they run."""
    share = contest.contender.share
    count = max(50, round(size / 2 if share >= 0.1 else size / 20))
    contest.calm()
    # Who has no batches for it needs a millisecond for each, or a little less.
    lead_s = max(0.5, count / 5_000 if share == 1 else count / 1_200)
    due = contest.ask("send_later", count=count, lead_s=lead_s, over_s=DUE_OVER_S)
    marks = contest.marks(count)
    late = [1_000 * (marks[number] - moment) for number, moment in enumerate(due)]
    return {**_percentiles(late), "early": sum(each < 0 for each in late), "count": count}


def far(contest: Contest, size: int) -> Figures:
    """Drain without and with many messages that are due tomorrow."""
    figures: Figures = {}
    for count in (0, round(FAR * PART)):
        contest.renew()
        if count:
            contest.ask("fill_later", count=count, delay_s=FAR_DELAY_S)
        # After it, so that the workers are equally old in both.
        contest.hold()
        contest.ask("fill", count=size)
        ran = _run_all(contest, size)
        label = "far" if count else "none"
        figures |= {f"{name}@{label}": value for name, value in ran.items()}
    return figures


def backlog(contest: Contest, size: int) -> Figures:
    """Send to a queue with many messages, and drain the first of them."""
    figures: Figures = {}
    for behind in BACKLOGS:
        contest.renew()
        contest.hold()
        contest.ask("fill", count=size)
        contest.ask("fill", count=round(behind * PART), kind="noop")
        singles, batched = max(FEWEST, size // 20), max(FEWEST, size // 2)
        figures[f"one_by_one@{behind}"] = singles / contest.ask("enqueue", count=singles)
        figures[f"batches@{behind}"] = batched / contest.ask("enqueue_batches", count=batched)
        figures[f"rate@{behind}"] = _run_all(contest, size)["rate"]
    return figures


def _percentiles(values_ms: Sequence[float]) -> Figures:
    ordered = sorted(values_ms)
    return {
        "p50": ordered[math.ceil(0.50 * len(ordered)) - 1],
        "p99": ordered[math.ceil(0.99 * len(ordered)) - 1],
    }
