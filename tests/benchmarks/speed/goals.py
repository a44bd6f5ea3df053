"""What the engine shall reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .contenders import BROKERS, FLOOR, OURS, QUORUM, Contender
from .results import Report
from .tables import TITLES, compare, format_ratio, kept
from .workloads import WORKLOADS


@dataclass(frozen=True)
class Goal:
    """
    Something to reach on a broker.

    Args:
        bound: How often the figure of *beside* it shall be, at least; without that, the figure
            itself: at least, or where less is better at most.

        beside: A contender; empty for none, and ``peers`` for the best of them.

        figure_beside: Another figure of it than ours.

        variant: That is compared with the first one of its workload.
    """

    broker: str
    workload: str
    figure: str
    bound: float
    beside: str = ""
    figure_beside: str = ""
    variant: str = ""


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    what: str
    asked: str
    measured: str
    reached: bool


def judge(report: Report) -> Iterator[Verdict]:
    """Look at each goal of which there are figures."""
    for goal in GOALS:
        judged = _judge_variant if goal.variant else _judge_ratio if goal.beside else _judge_figure
        if verdict := judged(report, goal):
            yield verdict


def _what(goal: Goal) -> str:
    workload = WORKLOADS[goal.workload]
    figure = workload.figures[goal.figure].title
    variant = f", {workload.variants[goal.variant]} others" if goal.variant else ""
    return f"{TITLES[goal.broker]}: {workload.title}{variant}: {figure}"


def _judge_figure(report: Report, goal: Goal) -> Verdict | None:
    value = report.median(goal.workload, goal.broker, OURS, goal.figure)
    if value is None:
        return None
    figure = WORKLOADS[goal.workload].figures[goal.figure]
    reached = value >= goal.bound if figure.more_is_better else value <= goal.bound
    sign = "at least" if figure.more_is_better else "at most"
    asked = f"{sign} {goal.bound:,.0f}"
    return Verdict(goal, _what(goal), asked, f"{value:,.{figure.digits}f}", reached)


def _judge_ratio(report: Report, goal: Goal) -> Verdict | None:
    if goal.beside == "peers":
        best = best_peer(report, goal.broker, goal.workload, goal.figure)
        if best is None:
            return None
        name, ratio = best
        asked = "ahead of every peer"
        measured = f"{format_ratio(ratio)} {name}"
        return Verdict(goal, _what(goal), asked, measured, ratio >= goal.bound)
    other = goal.figure_beside or goal.figure
    beside = _find(report, goal)
    if beside is None:
        return None
    ratio_beside = compare(
        WORKLOADS[goal.workload].figures[goal.figure],
        report.median(goal.workload, goal.broker, beside.counterpart, goal.figure),
        report.median(goal.workload, goal.broker, beside.name, other),
    )
    if ratio_beside is None:
        return None
    raw = "raw client" if goal.workload == "enqueue" else "bare loop"
    name = raw if goal.beside == FLOOR else goal.beside
    if goal.figure_beside:
        name += f", {WORKLOADS[goal.workload].figures[other].title.removesuffix(', a second')}"
    reached = ratio_beside >= goal.bound
    asked, measured = f"{goal.bound:g} × {name}", format_ratio(ratio_beside)
    return Verdict(goal, _what(goal), asked, measured, reached)


def _find(report: Report, goal: Goal) -> Contender | None:
    own = report.of(goal.workload, goal.broker)
    return next((each for each in own if each.name == goal.beside), None)


def _judge_variant(report: Report, goal: Goal) -> Verdict | None:
    first = next(iter(WORKLOADS[goal.workload].variants))
    own = report.of(goal.workload, goal.broker)
    runs = next((runs for each, runs in own.items() if each.name == OURS), None)
    ratio = kept(runs, goal.figure, goal.variant, first) if runs else None
    if ratio is None:
        return None
    label = WORKLOADS[goal.workload].variants[first]
    asked = f"{goal.bound:g} × with {label}"
    return Verdict(goal, _what(goal), asked, format_ratio(ratio), ratio >= goal.bound)


def best_peer(report: Report, broker: str, workload: str, figure: str) -> tuple[str, float] | None:
    """Return the peer that ours is least ahead of, and by how much ours is better."""
    found = compare_peers(report, broker, workload, figure)
    return min(found, key=lambda each: each[1]) if found else None


def compare_peers(
    report: Report, broker: str, workload: str, figure: str
) -> list[tuple[str, float]]:
    """Return each peer with such a figure, and by how much ours of its kind is better."""
    kind = WORKLOADS[workload].figures[figure]
    return [
        (each.name, ratio)
        for each, runs in report.of(workload, broker).items()
        if each.is_peer
        and (each.in_django or not kind.in_django)
        and (ours := report.median(workload, broker, each.counterpart, figure)) is not None
        and (ratio := compare(kind, ours, runs.median(figure))) is not None
    ]


GOALS = [
    Goal("redis", "drain", "rate", 5, "dramatiq"),
    Goal("redis", "drain", "rate", 0.5, FLOOR),
    Goal("rabbitmq", "drain", "rate", 2.5, f"dramatiq ({QUORUM} queue)"),
    Goal("rabbitmq", "drain", "rate", 2.5, "dramatiq"),
    Goal("rabbitmq", "drain", "rate", 0.7, FLOOR),
    Goal("postgresql", "drain", "rate", 10, "procrastinate"),
    Goal("postgresql", "drain", "rate", 10, "django-tasks-db"),
    Goal("postgresql", "drain", "rate", 5, "huey"),
    Goal("postgresql", "drain", "rate", 3, "django-ox"),
    Goal("postgresql", "drain", "rate", 0.5, FLOOR),
    Goal("sqlite", "drain", "rate", 3, "huey"),
    Goal("sqlite", "drain", "rate", 0.5, FLOOR),
    Goal("redis", "drain", "cpu_us", 120),
    Goal("rabbitmq", "drain", "cpu_us", 200),
    Goal("postgresql", "drain", "cpu_us", 250),
    Goal("redis", "enqueue", "one_by_one", 1.8, "dramatiq"),
    Goal("redis", "enqueue", "one_by_one", 0.8, FLOOR),
    Goal("rabbitmq", "enqueue", "one_by_one", 0.9, FLOOR),
    Goal("rabbitmq", "enqueue", "threads", 4, FLOOR, "one_by_one"),
    Goal("postgresql", "enqueue", "one_by_one", 2, "procrastinate"),
    Goal("sqlite", "enqueue", "one_by_one", 1.5, "huey"),
    Goal("redis", "enqueue", "batches", 0.6, FLOOR),
    Goal("rabbitmq", "enqueue", "batches", 0.6, FLOOR),
    Goal("postgresql", "enqueue", "batches", 2, "procrastinate"),
    *(Goal(broker, "latency", name, 1, "peers") for broker in BROKERS for name in ("p50", "p99")),
    *(Goal(broker, "waiting", "share", 97) for broker in BROKERS),
    *(Goal(broker, "delayed", "p99", 250) for broker in BROKERS),
    # Less than that is not told apart from nothing.
    *(Goal(broker, "far", "rate", 0.95, variant="far") for broker in BROKERS),
    *(
        Goal(broker, "backlog", name, 0.9, variant="1000000")
        for broker in BROKERS
        for name in ("one_by_one", "batches", "rate")
    ),
    *(
        Goal(broker, "idle", name, 1, "peers")
        for broker in BROKERS
        for name in ("boot_s", "memory_mb")
    ),
]
